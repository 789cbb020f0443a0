/*
 * deferred - a request that goes on when its thread has let go of it: a coroutine.
 *
 * run.c calls the request's function like any other. If that gives an awaitable and the request
 * asked for it (FLAG_ASYNC), the awaitable goes to the context's event loop (erlang/_loop.py)
 * together with a Deferred, which stands for the right to answer. Seat and slot are given back;
 * owner, deadline, cancel and the closing of the context reach the request as before, and end in
 * Task.cancel.
 *
 *   running --deferred_start--> deferred --answer, fail, or the object's end--> settled
 *
 * A deferred request has two parts, its server's and the Deferred's; it ends with the second
 * request_end. The reply is sent by who wins request_answer, as always.
 */
#ifndef EP_DEFERRED_H
#define EP_DEFERRED_H

#include "module.h"
#include "request.h"

#include <stdbool.h>
#include <stdint.h>

/* Creates the type `_erlang.Deferred`. */
bool deferred_init(PyObject *module, module_state_t *state);

/* Whether an event loop can wait for it. GIL: held. */
bool deferred_is_awaitable(PyObject *object);

/* Hands the awaitable, which the request's function gave, to the context's loop. True: its server
 * must neither answer nor read the request any more, only request_end. False with an exception
 * set: nothing happened. GIL: held, on the thread that serves the request. */
bool deferred_start(module_state_t *state, request_t *request, PyObject *awaitable);

/* Cancels the task of a deferred request. GIL: held. */
void deferred_cancel(module_state_t *state, uint64_t token);

/* Stops the loop of a context that was closed; its tasks are cancelled. Does not wait. No GIL. */
void deferred_close_loop(struct context *context);

/* Does that (JOB_CLOSE_LOOP); the job is freed by its server afterwards. GIL: held. */
void deferred_close(module_state_t *state, job_t *job);

/* Wakes a thread that waits in erlang.run. GIL: held. */
void deferred_wake(module_state_t *state, unsigned long thread_id);

/* _erlang.interrupt_thread(ident) */
PyObject *deferred_interrupt_thread(PyObject *module, PyObject *ident);

/* What new loops are made with: most tasks at a time, and which kind (auto, asyncio, uvloop). */
void deferred_configure(int64_t max_tasks, const char *kind);

/* _erlang.loop_settings() -> (max_tasks, kind) */
PyObject *deferred_settings(PyObject *module, PyObject *unused);

#endif
