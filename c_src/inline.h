/*
 * inline - calls known to be short, run on their caller's scheduler.
 *
 * py:call(M, F, A, Kw, #{inline => true}) lends the seat of an idle context to the scheduler thread,
 * which is the context's server for one call: same code, same deadline, no other thread. Only where
 * nobody has to be waited for (seat, slot, GIL), as far as can be known; else the call takes the normal way.
 *
 *   normal way <- not idle, not known to be short, not imported yet, no safe stack
 *   lent seat -> attached -> run -> seat given back -> result
 *
 * A scheduler has a lasting thread state in the main interpreter, which never ends, and one for the
 * call in a sub-interpreter: nobody else could delete it, CPython's thread-local pointer to it would dangle.
 *
 * The call runs on a second C stack, as large as our threads' (stack.h). Versions before 3.12, and 3.14.0 and
 * 3.14.1, which do not let us say so, take the normal way.
 */
#ifndef EP_INLINE_H
#define EP_INLINE_H

#include "context.h"

/* What is called for whom; all borrowed. */
typedef struct {
    context_t *context;
    struct owner *owner;         /* or NULL */
    struct namespace *namespace; /* or NULL */
    ERL_NIF_TERM target;
    ERL_NIF_TERM function;
    ERL_NIF_TERM arguments;
    ERL_NIF_TERM keywords;
    int64_t started; /* clock_now() */
    int64_t deadline;
    uint32_t flags;
} inline_call_t;

/* `{ok, Value}` or `{error, Reason}` in env, that of the NIF that calls; 0: nothing was run, the call
 * takes the normal way. On a normal scheduler's thread only. */
ERL_NIF_TERM inline_run(ErlNifEnv *env, const inline_call_t *call);

#endif
