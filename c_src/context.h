/*
 * context - what users hold: an executor plus the right to use it.
 *
 * The resource behind a context's process. Calls on this node reach it directly;
 * the process owns it and answers for it (start, stop, crash, other nodes).
 *
 *   context_open -> open -(context_close; its process died)-> closed
 *
 * After it closed every request of it is answered `{error, {context_down, Reason}}`.
 */
#ifndef EP_CONTEXT_H
#define EP_CONTEXT_H

#include "executor.h"
#include "request.h"

#include <erl_nif.h>

typedef struct context {
    executor_t *executor; /* an own one (kept), or one of the pool */
    bool is_exclusive;
    ErlNifPid process;
    int64_t number;             /* Id for thread names and logs */
    uint64_t serial;            /* no other context of the VM has or had it */
    atomic_bool has_loop;       /* it was given a coroutine */
    _Atomic int64_t namespaces; /* dicts that processes have in it */
    _Atomic int closed;         /* 0 open, 1 closing: reason not yet set, 2 closed */
    ErlNifEnv *env;             /* holds reason */
    ERL_NIF_TERM reason;
    ERL_NIF_TERM mode;
} context_t;

bool context_setup(ErlNifEnv *env, ErlNifResourceFlags flags);

/* Opens a context for the calling process, which gets `{py_opened, Tag, ok | {error,
 * Binary}}`. The term of the context, or 0 when memory is short. */
ERL_NIF_TERM context_open(ErlNifEnv *env, ERL_NIF_TERM mode, interp_kind_t kind, bool exclusive,
                          int64_t number, ERL_NIF_TERM tag);

context_t *context_get(ErlNifEnv *env, ERL_NIF_TERM term);
context_t *context_acquire(context_t *context);
void context_release(context_t *context); /* takes NULL */

/* Closes it: running requests are answered and interrupted, queued ones answered. */
void context_close(context_t *context, ErlNifEnv *env, ERL_NIF_TERM reason);

bool context_is_open(const context_t *context);

/* {context_down, Reason} in env. */
ERL_NIF_TERM context_down(const context_t *context, ErlNifEnv *env);

#endif
