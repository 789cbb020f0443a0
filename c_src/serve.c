#include "serve.h"

#include "atoms.h"
#include "callback.h"
#include "context.h"
#include "deferred.h"
#include "dispatch.h"
#include "interrupt.h"
#include "pycompat.h"
#include "run.h"

#include <stdlib.h>

#define BATCH 64 /* requests in one GIL hold */

/* Whether the request still has to run; if not, it is answered (when somebody waits). */
static bool should_run(request_t *request, int64_t now)
{
    if (!dispatch_is_wanted(&request->job.node))
        return false;
    if (!context_is_open(request->context)) {
        dispatch_answer(request, request->env,
                        dispatch_error(request->env, context_down(request->context, request->env)));
        return false;
    }
    if (now >= request->deadline) {
        dispatch_answer(request, request->env, dispatch_error(request->env, atom_timeout));
        return false;
    }
    return true;
}

/* It goes on as a task, and may even have ended: only what is ours is given back. */
static void let_go_on(pyworker_t *self, request_t *request)
{
    atomic_fetch_add_explicit(&self->executor->calls, 1, memory_order_relaxed);
    dispatch_drop_slot(request, request_token(request));
}

/* False: it was passed on, unrun, and is not ours any more. */
static bool run_and_answer(pyworker_t *self, request_t *request)
{
    executor_t *executor = self->executor;
    ErlNifEnv *own = request->is_light ? request->env : self->env;
    ErlNifEnv *env = own;
    ERL_NIF_TERM result;

    result = run_request(self, request, &env);
    if (result == RUN_DEFERRED) {
        let_go_on(self, request);
        return true;
    }
    if (run_is_elsewhere(env, result) && dispatch_forward(request)) {
        enif_clear_env(self->env);
        return false;
    }
    atomic_fetch_add_explicit(&executor->calls, 1, memory_order_relaxed);
    if (!run_is_success(env, result))
        atomic_fetch_add_explicit(&executor->errors, 1, memory_order_relaxed);
    /* The slot is free before the caller knows, the next in line starts after. */
    if (request_clear_slot(request, request_token(request)))
        slots_release(dispatch_slots());
    dispatch_answer(request, env, result);
    slots_advance(dispatch_slots());
    if (env != own)
        enif_free_env(env);
    return true;
}

/* The clock is read once per request: the end of one is the start of the next. */
static bool serve_request(pyworker_t *self, request_t *request)
{
    int64_t started;
    bool may_inline = (request->flags & FLAG_MAY_INLINE) != 0;
    bool is_ours = true;

    if (!self->is_attached) {
        pyworker_attach(self); /* whatever happens: an interrupt may have to be cleared */
        if (!worker_has(&self->worker, &request->job.node))
            return false; /* that took so long that the interpreter was replaced */
    }
    self->parked_ns = 0;
    started = self->now;
    self->request = request;
    request->started = started;
    request_set_phase(request, PHASE_RUNNING);
    if (should_run(request, started)) {
        is_ours = run_and_answer(self, request);
        if (may_inline)
            interp_look_for_threads(self->interp);
        self->now = clock_now();
        atomic_fetch_add_explicit(&self->executor->busy_ns, self->now - started - self->parked_ns,
                                  memory_order_relaxed);
    } else {
        dispatch_drop_slot(request, request_token(request));
    }
    self->request = NULL;
    return is_ours;
}

/* Does what a node asks for. False: it is not ours any more. */
static bool serve(pyworker_t *self, queue_node_t *node)
{
    job_t *job = (job_t *)node;

    switch (job->kind) {
    case JOB_REQUEST:
        return serve_request(self, (request_t *)job);
    case JOB_INTERRUPT:
        interrupt_deliver(self, job);
        break;
    case JOB_DRAIN:
        atomic_store(&self->interp->is_drain_queued, false);
        pyworker_attach(self); /* the loop drains */
        break;
    case JOB_DROP:
        atomic_store(&self->executor->is_drop_queued, false);
        pyworker_attach(self);
        interp_release_drops(&self->executor->drops);
        break;
    case JOB_COMPLETION:
        pyworker_attach(self);
        callback_complete(self->interp->module, job);
        break;
    case JOB_CLOSE_LOOP:
        pyworker_attach(self);
        deferred_close(self->interp->module, job);
        break;
    }
    return true;
}

/* What a node needs when its worker has let go of it. */
static void finish(queue_node_t *node)
{
    job_t *job = (job_t *)node;

    if (job->kind == JOB_REQUEST)
        request_end((request_t *)job);
    else if (job->kind != JOB_DRAIN && job->kind != JOB_DROP) /* those are the executor's own */
        free(job);
}

/* Under the seat's lock, before the request is let go: no later interrupt can hit. */
static void clear_interrupt(worker_t *worker)
{
    pyworker_t *self = (pyworker_t *)worker;

    if (self->was_interrupted)
        compat_set_async_exc(self->thread, NULL);
    self->was_interrupted = false;
}

bool serve_all(pyworker_t *self)
{
    queue_node_t *before = NULL;
    queue_node_t *node;
    bool is_lost;
    int batch = 0;

    for (;;) {
        node = worker_next(&self->worker, clear_interrupt, &is_lost);
        if (before != NULL)
            finish(before);
        if (is_lost)
            return true;
        if (self->is_attached)
            interp_drain(self->interp);
        if (node == NULL || ++batch >= BATCH) {
            pyworker_detach(self);
            batch = 0;
        }
        if (node == NULL)
            node = worker_wait(&self->worker);
        if (node == NULL)
            return false;
        before = serve(self, node) ? node : NULL;
    }
}
