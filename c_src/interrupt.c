#include "interrupt.h"

#include "atoms.h"
#include "callback.h"
#include "context.h"
#include "dispatch.h"
#include "owner.h"
#include "timer.h"

#include <stdlib.h>

/* An errand that interrupts a running request. */
typedef struct {
    job_t job; /* first */
    uint64_t token;
} interrupt_job_t;

static _Atomic int64_t grace_ns = 1000000000;

void interrupt_set_grace(int64_t ns)
{
    atomic_store(&grace_ns, ns);
}

/* Sets the exception on the thread that serves the token's request, if it still does. */
void interrupt_deliver(pyworker_t *self, job_t *job)
{
    uint64_t token = ((interrupt_job_t *)job)->token;
    request_t *request = request_find(token);
    pyworker_t *victim;

    pyworker_attach(self);
    pthread_mutex_lock(&self->executor->seat.lock);
    victim = (pyworker_t *)seat_find(&self->executor->seat, &request->job.node);
    if (victim != NULL && request_is_alive(request, token) && victim->waits == NULL) {
        PyThreadState_SetAsyncExc(victim->thread_id, self->interp->module->interrupt);
        victim->was_interrupted = true;
    }
    pthread_mutex_unlock(&self->executor->seat.lock);
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
    if (victim != NULL && request_is_alive(request, token)) {
        is_running = true;
        request->interrupted = true;
        if (victim->waits != NULL)
            callback_interrupt(victim->waits);
        else
            job = malloc(sizeof(*job));
    }
    pthread_mutex_unlock(&executor->seat.lock);
    if (job != NULL) {
        job->job.kind = JOB_INTERRUPT;
        job->token = token;
        if (!seat_push_errand(&executor->seat, &job->job.node))
            free(job);
    }
    if (is_running)
        timer_arm(clock_now() + atomic_load(&grace_ns), on_grace, is_pending, token);
}

typedef struct {
    const struct owner *owner;     /* or NULL */
    const struct context *context; /* or NULL */
    bool is_down;                  /* their context is gone: that is the answer */
} whose_t;

static bool is_theirs(const request_t *request, whose_t whose)
{
    if (whose.owner != NULL)
        return request->owner == whose.owner;
    return whose.context == NULL || request->context == whose.context;
}

/* Answers in place of the request's server. */
static bool answer_for(uint64_t token, ERL_NIF_TERM (*reason)(ErlNifEnv *, request_t *),
                       request_phase_t *phase)
{
    request_t *request = request_find(token);
    ErlNifEnv *env;

    if (!request_hold(request, token, phase))
        return false;
    env = enif_alloc_env();
    request_send(request, env, dispatch_error(env, reason(env, request)));
    enif_free_env(env);
    request_unhold(request);
    return true;
}

static ERL_NIF_TERM reason_down(ErlNifEnv *env, request_t *request)
{
    return context_down(request->context, env);
}

/* The tokens of running requests of one seat that nobody interrupted yet, at most size. */
static int collect(seat_t *seat, whose_t whose, uint64_t *tokens, int size)
{
    int found = 0;

    pthread_mutex_lock(&seat->lock);
    for (worker_t *worker = seat->all; worker != NULL && found < size; worker = worker->sibling) {
        request_t *request = (request_t *)worker->current;

        if (request == NULL || request->job.kind != JOB_REQUEST || request->interrupted ||
            request_phase(request) != PHASE_RUNNING || !is_theirs(request, whose))
            continue;
        tokens[found++] = request_token(request);
    }
    pthread_mutex_unlock(&seat->lock);
    return found;
}

static bool was_delivered(executor_t *executor, request_t *request)
{
    pyworker_t *victim;
    bool answer;

    pthread_mutex_lock(&executor->seat.lock);
    victim = (pyworker_t *)seat_find(&executor->seat, &request->job.node);
    answer = victim == NULL || victim->was_interrupted || victim->waits != NULL;
    pthread_mutex_unlock(&executor->seat.lock);
    return answer;
}

static ERL_NIF_TERM reason_replaced(ErlNifEnv *env, request_t *request)
{
    (void)request;
    return enif_make_tuple2(env, atom_context_down, atom_replaced);
}

/* Nobody could attach for the whole grace period: C code holds the interpreter's own GIL. */
static void replace_interpreter(executor_t *executor)
{
    uint64_t tokens[64];
    request_phase_t phase;
    int found;

    found = collect(&executor->seat, (whose_t){NULL, NULL, false}, tokens, 64);
    for (int i = 0; i < found; i++)
        answer_for(tokens[i], reason_replaced, &phase);
    executor_replace(executor);
}

/* Past the grace period: the thread is given up, and told again and again to stop. */
static void on_grace(uint64_t token)
{
    request_t *request = request_find(token);
    executor_t *executor = atomic_load(&request->executor);

    if (executor == NULL || !request_is_alive(request, token))
        return;
    if (executor->kind == INTERP_OWN_GIL && !was_delivered(executor, request)) {
        replace_interpreter(executor);
        return;
    }
    if (seat_abandon(&executor->seat, &request->job.node))
        executor_send_event(atom_thread_given_up, executor->name);
    interrupt_request(token);
}

/* Each round marks what it interrupts, so the rounds come to an end. */
static int interrupt_all(whose_t whose)
{
    uint64_t tokens[64];
    int all = 0;
    int found;

    for (executor_t *at = executor_first(); at != NULL; at = at->next) {
        do {
            found = collect(&at->seat, whose, tokens, 64);
            for (int i = 0; i < found; i++) {
                request_phase_t phase;

                if (whose.is_down)
                    answer_for(tokens[i], reason_down, &phase);
                interrupt_request(tokens[i]);
            }
            all += found;
        } while (found == 64);
    }
    return all;
}

/* ---- deadlines nobody waits for ---- */

static ERL_NIF_TERM reason_late(ErlNifEnv *env, request_t *request)
{
    (void)env;
    (void)request;
    return atom_timeout;
}

static void on_deadline(uint64_t token)
{
    request_phase_t phase;

    if (answer_for(token, reason_late, &phase) && phase != PHASE_WAITING)
        interrupt_request(token);
}

void interrupt_at_deadline(request_t *request)
{
    if (request->deadline != CLOCK_NEVER)
        timer_arm(request->deadline, on_deadline, is_pending, request_token(request));
}

void interrupt_owner(struct owner *owner)
{
    interrupt_all((whose_t){owner, NULL, false});
}

void interrupt_closed_context(struct context *context)
{
    interrupt_all((whose_t){NULL, context, true});
}

bool interrupt_running(struct context *context)
{
    return interrupt_all((whose_t){NULL, context, false}) > 0;
}

