#include "dispatch.h"

#include "atoms.h"
#include "context.h"
#include "executor.h"
#include "owner.h"
#include "run.h"
#include "timer.h"

#include <pthread.h>

#define PATIENCE_NS 10000000 /* how long nested requests wait while nothing is started */

static slots_t slots;
static pthread_mutex_t main_lock = PTHREAD_MUTEX_INITIALIZER; /* leaf */
static context_t *main_context;                               /* kept; guarded by main_lock */

slots_t *dispatch_slots(void)
{
    return &slots;
}

void dispatch_free_slot(void)
{
    slots_release(&slots);
    slots_advance(&slots);
}

ERL_NIF_TERM dispatch_overloaded(ErlNifEnv *env)
{
    return enif_make_tuple3(env, atom_overloaded, enif_make_int64(env, atomic_load(&slots.count)),
                            enif_make_int64(env, atomic_load(&slots.max)));
}

ERL_NIF_TERM dispatch_error(ErlNifEnv *env, ERL_NIF_TERM reason)
{
    return enif_make_tuple2(env, atom_error, reason);
}

void dispatch_answer(request_t *request, ErlNifEnv *env, ERL_NIF_TERM result)
{
    request_phase_t phase;

    if (request_answer(request, request_token(request), &phase)) {
        if ((request->flags & FLAG_ERRORS_ONLY) == 0 || !run_is_success(env, result)) {
            request_send(request, env, result);
            return;
        }
    }
    if (env != request->env)
        enif_clear_env(env);
}

/* Without starting the next: for those who are about to. */
static void give_slot_back(request_t *request, uint64_t token)
{
    if (request_clear_slot(request, token))
        slots_release(&slots);
}

void dispatch_drop_slot(request_t *request, uint64_t token)
{
    give_slot_back(request, token);
    slots_advance(&slots);
}

static void on_seat_patience(uint64_t token)
{
    if (seat_hurry((seat_t *)(uintptr_t)token)) /* never freed */
        timer_arm(clock_now() + PATIENCE_NS, on_seat_patience, NULL, token);
}

static void on_slots_patience(uint64_t unused)
{
    if (slots_hurry(&slots))
        timer_arm(clock_now() + PATIENCE_NS, on_slots_patience, NULL, unused);
}

bool dispatch_admit(request_t *request)
{
    bool is_nested = request->depth > 0;

    if (slots_admit(&slots, &request->job.node, is_nested))
        return true;
    if (is_nested && slots_watch(&slots))
        timer_arm(clock_now() + PATIENCE_NS, on_slots_patience, NULL, 0);
    return false;
}

/* False: the seat is closed. */
static bool push(seat_t *seat, request_t *request)
{
    bool is_nested = request->depth > 0;

    if ((request->flags & FLAG_ERRAND) != 0)
        return seat_push_errand(seat, &request->job.node);
    if (!seat_push(seat, &request->job.node, is_nested))
        return false;
    if (is_nested && seat_watch(seat))
        timer_arm(clock_now() + PATIENCE_NS, on_seat_patience, NULL, (uint64_t)(uintptr_t)seat);
    return true;
}

void dispatch_set_main(struct context *context)
{
    context_t *before;

    pthread_mutex_lock(&main_lock);
    before = main_context;
    main_context = context_acquire(context);
    pthread_mutex_unlock(&main_lock);
    context_release(before);
}

bool dispatch_forward(request_t *request)
{
    context_t *context;
    bool ok = false;

    pthread_mutex_lock(&main_lock);
    context = main_context != NULL ? context_acquire(main_context) : NULL;
    pthread_mutex_unlock(&main_lock);
    if (context == NULL)
        return false;
    if (context_is_open(context)) {
        request->flags &= ~(uint32_t)FLAG_IMPLICIT; /* once is enough */
        atomic_store(&request->executor, context->executor);
        request_set_phase(request, PHASE_QUEUED);
        ok = push(&context->executor->seat, request);
        if (!ok)
            request_set_phase(request, PHASE_RUNNING);
    }
    context_release(context);
    return ok;
}

void dispatch_refuse(request_t *request)
{
    give_slot_back(request, request_token(request));
    dispatch_answer(request, request->env,
                    dispatch_error(request->env, context_down(request->context, request->env)));
    request_end(request);
}

bool dispatch_is_wanted(queue_node_t *node)
{
    request_t *request = (request_t *)node;

    return !request_is_answered(request) &&
           (request->owner == NULL || !atomic_load(&request->owner->is_dead));
}

static void start_admitted(queue_node_t *node)
{
    dispatch_request((request_t *)node);
}

static void drop_cancelled(queue_node_t *node)
{
    request_end((request_t *)node);
}

bool dispatch_setup(int64_t max_concurrent)
{
    slots_init(&slots, max_concurrent, dispatch_is_wanted, start_admitted, drop_cancelled);
    return true;
}

/* py_semaphore:acquire/1 got its slot: it belongs to the process from now on. */
static void grant(request_t *request)
{
    owner_t *owner = request->owner;
    request_phase_t phase;

    if (request_answer(request, request_token(request), &phase)) {
        atomic_fetch_add(&owner->slots, 1);
        request_send(request, request->env, atom_ok);
        if (atomic_load(&owner->is_dead))
            for (int held = atomic_exchange(&owner->slots, 0); held > 0; held--)
                slots_release(&slots);
    } else {
        slots_release(&slots);
    }
    request_end(request);
}

void dispatch_request(request_t *request)
{
    executor_t *executor;

    if (request->op == OP_ACQUIRE) {
        grant(request);
        return;
    }
    request_set_slot(request);
    executor = request->context->executor;
    if ((request->flags & FLAG_ANY_EXECUTOR) != 0 && !request->context->is_exclusive)
        executor = executor_pool_next();
    if (executor == NULL || !context_is_open(request->context)) {
        dispatch_refuse(request);
        return;
    }
    atomic_store(&request->executor, executor);
    request_set_phase(request, PHASE_QUEUED);
    if (!push(&executor->seat, request))
        dispatch_refuse(request);
}
