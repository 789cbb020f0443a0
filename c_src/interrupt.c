#include "interrupt.h"

#include "atoms.h"
#include "callback.h"
#include "context.h"
#include "deferred.h"
#include "dispatch.h"
#include "owner.h"
#include "pycompat.h"
#include "timer.h"

#include <stdlib.h>

/* An errand that interrupts a running request. */
typedef struct {
    job_t job; /* first */
    uint64_t token;
} interrupt_job_t;

#define NESTED_DELAY_NS 50000000

static _Atomic int64_t grace_ns = 1000000000;
static _Atomic int64_t patience_ns;

void interrupt_set_grace(int64_t ns)
{
    atomic_store(&grace_ns, ns);
}

/* Sets the exception on the thread that serves the token's request, if it still does; cancels the
 * task of a deferred one. */
void interrupt_deliver(pyworker_t *self, job_t *job)
{
    uint64_t token = ((interrupt_job_t *)job)->token;
    request_t *request = request_find(token);
    pyworker_t *victim;
    unsigned long thread_id = 0;
    int64_t nobody = 0;
    bool is_deferred;

    if (!request_is_alive(request, token))
        return; /* it need not even attach */
    atomic_compare_exchange_strong(&self->executor->knocks_since, &nobody, clock_now());
    pyworker_attach(self);
    atomic_store(&self->executor->knocks_since, 0);
    pthread_mutex_lock(&self->executor->seat.lock);
    victim = (pyworker_t *)seat_find(&self->executor->seat, &request->job.node);
    is_deferred = request_is_deferred(request);
    if (!is_deferred && victim != NULL && victim->thread != NULL &&
        request_is_alive(request, token) && victim->waits == NULL) {
        compat_set_async_exc(victim->thread, self->interp->module->interrupt);
        victim->was_interrupted = true;
        thread_id = victim->thread_id;
    }
    pthread_mutex_unlock(&self->executor->seat.lock);
    if (thread_id != 0)
        deferred_wake(self->interp->module, thread_id);
    if (is_deferred && request_is_alive(request, token))
        deferred_cancel(self->interp->module, token);
}

static bool is_pending(uint64_t token)
{
    return request_is_alive(request_find(token), token);
}

static void on_grace(uint64_t token);

void interrupt_request(uint64_t token)
{
    request_t *request = request_find(token);
    executor_t *executor = request != NULL ? atomic_load(&request->executor) : NULL;
    interrupt_job_t *job = NULL;
    pyworker_t *victim;
    bool is_running = false;

    if (executor == NULL)
        return;
    pthread_mutex_lock(&executor->seat.lock);
    victim = (pyworker_t *)seat_find(&executor->seat, &request->job.node);
    if ((victim != NULL || request_is_deferred(request)) && request_is_alive(request, token)) {
        is_running = true;
        if (victim != NULL) /* else it may end meanwhile, and another one have its place */
            request->interrupted = true;
        if (victim != NULL && victim->waits != NULL)
            callback_interrupt(victim->waits);
        else
            job = malloc(sizeof(*job));
    }
    pthread_mutex_unlock(&executor->seat.lock);
    if (job != NULL) {
        job->job.kind = JOB_INTERRUPT;
        job->token = token;
        if (!seat_push_errand(&executor->seat, &job->job.node)) {
            free(job);
            is_running = false; /* its interpreter has ended */
        }
    }
    if (is_running)
        timer_arm(clock_now() + atomic_load(&grace_ns), on_grace, is_pending, token);
}

static void answer_held(request_t *request, ERL_NIF_TERM (*reason)(ErlNifEnv *, request_t *))
{
    if ((request->flags & FLAG_INLINE) == 0) { /* else its caller finds that it was answered */
        ErlNifEnv *env = enif_alloc_env();

        request_send(request, env, dispatch_error(env, reason(env, request)));
        enif_free_env(env);
    }
    request_unhold(request);
}

/* Answers in place of the request's server. */
static bool answer_for(uint64_t token, ERL_NIF_TERM (*reason)(ErlNifEnv *, request_t *),
                       request_phase_t *phase)
{
    request_t *request = request_find(token);

    if (!request_hold(request, token, phase))
        return false;
    answer_held(request, reason);
    return true;
}

static ERL_NIF_TERM reason_down(ErlNifEnv *env, request_t *request)
{
    return context_down(request->context, env);
}

static ERL_NIF_TERM reason_interrupted(ErlNifEnv *env, request_t *request)
{
    (void)env;
    (void)request;
    return atom_interrupted;
}

static ERL_NIF_TERM reason_replaced(ErlNifEnv *env, request_t *request)
{
    (void)request;
    return enif_make_tuple2(env, atom_context_down, atom_replaced);
}

/* A request whose thread was given up is done with: its caller hears so, its slot is free. */
static void write_off(uint64_t token, ERL_NIF_TERM (*reason)(ErlNifEnv *, request_t *))
{
    request_phase_t phase;

    answer_for(token, reason, &phase);
    dispatch_drop_slot(request_find(token), token);
}

/* ---- stuck ---- */

/* Whether the request's thread was told, or is not to be waited for: one that was lost with an
 * interpreter must not take the next one with it. */
static bool was_delivered(executor_t *executor, request_t *request)
{
    pyworker_t *victim;
    bool answer;

    pthread_mutex_lock(&executor->seat.lock);
    victim = (pyworker_t *)seat_find(&executor->seat, &request->job.node);
    answer = victim == NULL || victim->worker.is_lost || victim->was_interrupted ||
             victim->waits != NULL;
    pthread_mutex_unlock(&executor->seat.lock);
    return answer;
}

static void write_off_running(request_t *request, uint64_t token, void *executor)
{
    if (atomic_load(&request->executor) == executor && request_phase(request) == PHASE_RUNNING)
        write_off(token, reason_replaced);
}

/* Nobody could attach for the whole grace period: C code holds the interpreter's own GIL. On a busy
 * machine the one who is to attach may not have had its turn: the period starts with its knock. */
static void replace_interpreter(executor_t *executor, uint64_t token)
{
    int64_t since = atomic_load(&executor->knocks_since);
    int64_t grace = atomic_load(&grace_ns);

    if (since == 0) {
        interrupt_request(token);
        return;
    }
    if (clock_now() - since < grace) {
        timer_arm(since + grace, on_grace, is_pending, token);
        return;
    }
    request_each(write_off_running, executor);
    executor_replace(executor);
}

/* Past the grace period: the thread is given up, and told again and again to stop. */
static void on_grace(uint64_t token)
{
    request_t *request = request_find(token);
    executor_t *executor = atomic_load(&request->executor);

    if (executor == NULL || !request_is_alive(request, token))
        return;
    if ((request->flags & FLAG_INLINE) != 0) { /* a scheduler cannot be given up */
        interrupt_request(token);
        return;
    }
    if (executor->kind == INTERP_OWN_GIL && !was_delivered(executor, request)) {
        replace_interpreter(executor, token);
        return;
    }
    if (seat_abandon(&executor->seat, &request->job.node)) {
        write_off(token, reason_interrupted);
        executor_send_event(atom_thread_given_up, executor->name);
    }
    interrupt_request(token);
}

/* Takes a request out wherever it is; nobody waits for its answer any more. */
static void withdraw(uint64_t token, request_phase_t phase)
{
    if (phase == PHASE_RUNNING || phase == PHASE_QUEUED)
        interrupt_request(token); /* a queued one may have started meanwhile */
    if (phase == PHASE_QUEUED)
        dispatch_drop_slot(request_find(token), token);
    if (phase == PHASE_WAITING)
        slots_forget(dispatch_slots());
}

/* ---- deadlines ---- */

/*
 * The timer looks at a place of the slab, not at a request: at the first deadline that stood there,
 * then at that of whatever request has the place by now. So as calls with the same time-out follow
 * each other, hardly any of them touches the timer. An entry is its time in ms above the index; it
 * is of use as long as `armed` has that time.
 */

void interrupt_set_patience(int64_t ns)
{
    atomic_store(&patience_ns, ns);
}

void interrupt_set_deadline(request_t *request, int64_t deadline)
{
    int64_t patience = atomic_load_explicit(&patience_ns, memory_order_relaxed);
    int64_t until = deadline;

    if (patience != 0 && request->op != OP_ACQUIRE && patience < deadline - clock_now())
        until = clock_now() + patience;
    atomic_store_explicit(&request->deadline, deadline, memory_order_relaxed);
    atomic_store_explicit(&request->patience, until, memory_order_relaxed);
}

static int64_t next_time(request_t *request)
{
    return atomic_load(request_phase(request) == PHASE_WAITING ? &request->patience
                                                               : &request->deadline);
}

static ERL_NIF_TERM reason_late(ErlNifEnv *env, request_t *request)
{
    return request_phase(request) == PHASE_WAITING ? dispatch_overloaded(env) : atom_timeout;
}

static void expire(request_t *request, uint64_t token)
{
    request_phase_t phase;

    if (clock_now() < atomic_load(&request->deadline)) { /* it stood in line for long enough */
        if (request_hold_waiting(request, token)) {
            answer_held(request, reason_late);
            withdraw(token, PHASE_WAITING);
        } else {
            interrupt_at_deadline(request);
        }
    } else if (answer_for(token, reason_late, &phase)) {
        withdraw(token, phase);
    }
}

static bool is_armed(uint64_t entry)
{
    return atomic_load(&request_find(entry)->armed) == (int64_t)(entry >> REQUEST_INDEX_BITS);
}

static void on_time(uint64_t entry)
{
    request_t *request = request_find(entry);
    int64_t armed = (int64_t)(entry >> REQUEST_INDEX_BITS);
    uint64_t token;
    int64_t due;

    if (!atomic_compare_exchange_strong(&request->armed, &armed, INT64_MAX))
        return;
    token = request_token(request);
    if (!request_is_alive(request, token))
        return;
    due = next_time(request);
    if (request_token(request) != token)
        return; /* the next one was published after the exchange: it arms the timer itself */
    if (due <= clock_now())
        expire(request, token);
    else
        interrupt_at_deadline(request);
}

void interrupt_at_deadline(request_t *request)
{
    int64_t due = next_time(request);
    int64_t ms = due / 1000000 + 1;
    int64_t armed = atomic_load(&request->armed);

    if (due == CLOCK_NEVER)
        return;
    do {
        if (armed <= ms)
            return;
    } while (!atomic_compare_exchange_weak(&request->armed, &armed, ms));
    if (!timer_arm(ms * 1000000, on_time, is_armed,
                   (uint64_t)ms << REQUEST_INDEX_BITS | request->index))
        atomic_store(&request->armed, INT64_MAX);
}

/* ---- owners and contexts that are gone ---- */

static void withdraw_of_owner(request_t *request, uint64_t token, void *owner)
{
    bool is_nested = request->depth > 0;
    request_phase_t phase;

    if (request->owner != owner || !request_answer(request, token, &phase))
        return;
    /* Its callback was killed, as a rule because the outer request was told to stop. That one goes
     * first: it may hold the lock for which this one waits, and who is interrupted as it gets a
     * lock may keep it (`with lock` on 3.14). */
    if (is_nested && phase == PHASE_RUNNING)
        timer_arm(clock_now() + NESTED_DELAY_NS, interrupt_request, is_pending, token);
    else
        withdraw(token, phase);
}

void interrupt_owner(struct owner *owner)
{
    int last = owner_last(owner);

    /* Most have one or a few under way, and those are remembered. */
    for (int i = 0; i < OWNER_RECENT && i < last; i++) {
        uint64_t token = atomic_load(&owner->recent[i]);
        request_t *request = request_find(token);

        if (request != NULL)
            withdraw_of_owner(request, token, owner);
    }
    if (atomic_load(&owner->requests) > 0 && last > OWNER_RECENT)
        request_each(withdraw_of_owner, owner);
}

static void withdraw_of_context(request_t *request, uint64_t token, void *context)
{
    request_phase_t phase = request_phase(request);

    if (request->context != context)
        return;
    answer_for(token, reason_down, &phase);
    withdraw(token, phase);
}

void interrupt_closed_context(struct context *context)
{
    request_each(withdraw_of_context, context);
}

typedef struct {
    struct context *context;
    bool found;
} running_t;

static void interrupt_if_running(request_t *request, uint64_t token, void *argument)
{
    running_t *running = argument;

    if (request->context == running->context && request_phase(request) == PHASE_RUNNING &&
        !request_is_answered(request) && !request_is_deferred(request)) {
        running->found = true;
        interrupt_request(token);
    }
}

bool interrupt_running(struct context *context)
{
    running_t running = {context, false};

    request_each(interrupt_if_running, &running);
    return running.found;
}
