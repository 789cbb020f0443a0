/*
 * callback - Python calls Erlang and waits, holding nothing but its thread.
 *
 *   pending --callback_reply--> answered
 *          \--callback_interrupt--> interrupted
 *
 * The message goes to the context's process, which runs the function in a fresh
 * process (py_callback.erl). The waiting thread has given back seat, slot and GIL;
 * when the answer is there it goes on right after the call, on its own stack.
 */
#ifndef EP_CALLBACK_H
#define EP_CALLBACK_H

#include "executor.h"

#include <erl_nif.h>
#include <stdbool.h>

typedef struct callback callback_t;

bool callback_setup(ErlNifEnv *env, ErlNifResourceFlags flags);
void callback_set_max_depth(uint32_t depth);

/* Calls Erlang: `kind` is an atom the context's process knows (call, state, ...), name and
 * arguments are converted. A new reference, or NULL with an exception set. GIL: held, and let
 * go of while waiting. */
PyObject *callback_call(module_state_t *state, ERL_NIF_TERM kind, PyObject *name,
                        PyObject *arguments, PyObject *keywords);

/* The same without waiting: done(value, None) or done(None, exception) is called later, on another
 * thread of the interpreter. A Ref for callback_abandon, or NULL with an exception set. GIL: held. */
PyObject *callback_start(module_state_t *state, PyObject *name, PyObject *arguments,
                         PyObject *keywords, PyObject *done);

/* Nobody wants the answer of callback_start any more: its process is killed, unless it has answered.
 * None. GIL: held. */
PyObject *callback_abandon(module_state_t *state, PyObject *name);

/* Calls `done` of a callback that was settled (JOB_COMPLETION). The job is freed by its
 * server afterwards. GIL: held. */
void callback_complete(module_state_t *state, job_t *job);

/* Sends object, as a term, to a Pid of this node; True, False if that process is gone. NULL with an exception
 * set. GIL: held. */
PyObject *callback_send(module_state_t *state, PyObject *pid, PyObject *object);

/* The Pid registered under a name (str), None if there is none. GIL: held. */
PyObject *callback_whereis(module_state_t *state, PyObject *name);

/* The answer, `{ok, Value}` or `{error, {Class, Reason, Stacktrace}}`, copied. False: nobody waits
 * any more, or term is no callback. */
bool callback_reply(ErlNifEnv *env, ERL_NIF_TERM callback, ERL_NIF_TERM answer);

/* Wakes the waiting thread; its call raises erlang.Interrupt. The seat's lock may be held, but not for
 * one of callback_start. */
void callback_interrupt(callback_t *callback);

#endif
