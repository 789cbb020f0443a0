#include "executor.h"

#include "atoms.h"
#include "callable.h"
#include "dispatch.h"
#include "giveway.h"
#include "serve.h"
#include "timer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UNUSED (-1) /* references of an executor that may be taken again */

static _Atomic(executor_t *) executors; /* all that ever were */
static pthread_mutex_t pool_lock = PTHREAD_MUTEX_INITIALIZER;
static executor_t *_Atomic pool[EXECUTOR_POOL_MAX];
static atomic_int pool_size;
static atomic_uint pool_turn;
static ErlNifPid event_process;
static atomic_bool has_event_process;
static _Thread_local pyworker_t *worker_of_thread;

executor_t *executor_first(void)
{
    return atomic_load(&executors);
}

void executor_set_event_process(const ErlNifPid *pid)
{
    event_process = *pid;
    atomic_store(&has_event_process, true);
}

static ERL_NIF_TERM text_to_term(ErlNifEnv *env, const char *text)
{
    ERL_NIF_TERM term;

    memcpy(enif_make_new_binary(env, strlen(text), &term), text, strlen(text));
    return term;
}

void executor_send_event(ERL_NIF_TERM what, const char *name)
{
    ErlNifEnv *env;

    if (!atomic_load(&has_event_process))
        return;
    env = enif_alloc_env();
    enif_send(
        request_scheduler_env(), &event_process, env,
        enif_make_tuple2(env, atom_py_event, enif_make_tuple2(env, what, text_to_term(env, name))));
    enif_free_env(env);
}

pyworker_t *pyworker_self(void)
{
    return worker_of_thread;
}

void pyworker_set_self(pyworker_t *self)
{
    worker_of_thread = self;
}

void pyworker_attach(pyworker_t *self)
{
    if (self->is_attached)
        return;
    giveway_watch();
    interp_enter_gil(self->interp);
    PyEval_RestoreThread(self->thread);
    self->is_attached = true;
    self->now = clock_now();
}

void pyworker_detach(pyworker_t *self)
{
    if (!self->is_attached)
        return;
    PyEval_SaveThread();
    interp_leave_gil(self->interp);
    self->is_attached = false;
}

/* ---- threads ---- */

static void take_part(pyworker_t *self)
{
    worker_of_thread = self;
    self->thread_id = PyThread_get_thread_ident();
}

static void release_worker(pyworker_t *self)
{
    worker_of_thread = NULL;
    parker_finish(&self->reply_parker);
    enif_free_env(self->env);
    free(self);
}

static void delete_thread(pyworker_t *self)
{
    pyworker_attach(self);
    callable_forget_all(self);
    interp_thread_delete(self->interp, self->thread);
    interp_leave_gil(self->interp);
    self->is_attached = false;
}

static pyworker_t *new_worker(executor_t *executor, bool is_home)
{
    pyworker_t *self = calloc(1, sizeof(*self));

    if (self == NULL)
        return NULL;
    self->executor = executor;
    self->is_home = is_home;
    self->env = enif_alloc_env();
    parker_init(&self->reply_parker);
    spin_init(&self->reply_spin);
    atomic_fetch_add(&executor->references, 1);
    return self;
}

static void discard_worker(pyworker_t *self)
{
    executor_t *executor = self->executor;

    release_worker(self);
    executor_release(executor);
}

static void set_interp(pyworker_t *self, interp_t *interp)
{
    pthread_mutex_lock(&self->executor->seat.lock);
    self->interp = interp;
    pthread_mutex_unlock(&self->executor->seat.lock);
}

/* Whether a thread that was given up is in the interpreter; those of one that was replaced do not
 * count. */
static bool has_lost(seat_t *seat, const interp_t *interp)
{
    worker_t *lost;

    pthread_mutex_lock(&seat->lock);
    lost = seat->given_up;
    while (lost != NULL && ((pyworker_t *)lost)->interp != interp)
        lost = lost->sibling;
    pthread_mutex_unlock(&seat->lock);
    return lost != NULL;
}

/* What the guest knows, unless it is of an interpreter that was replaced. */
static void forget_guest(executor_t *executor, const interp_t *interp)
{
    if (executor->guest.interp == interp)
        callable_forget_all(&executor->guest);
}

/* The last worker of a closed executor ends what is its own. */
static void end_interpreter(pyworker_t *self)
{
    executor_t *executor = self->executor;
    interp_t *interp = self->interp;

    interp_unset_seat(interp, &executor->seat);
    if (executor->kind == INTERP_MAIN) {
        pyworker_attach(self);
        forget_guest(executor, interp);
        interp_release_drops(&executor->drops);
        executor_adopt_drops();
        delete_thread(self);
        return;
    }
    if (has_lost(&executor->seat, interp)) {
        /* A thread that was given up may hold the GIL for ever: do not even attach. */
        pyworker_detach(self);
        interp_leave_behind(interp);
        executor_send_event(atom_left_behind, executor->name);
        return;
    }
    pyworker_attach(self);
    callable_forget_all(self);
    forget_guest(executor, interp);
    if (!interp_end(interp, self->thread))
        executor_send_event(atom_left_behind, executor->name);
    interp_leave_gil(interp);
    self->is_attached = false;
}

static void end_worker(pyworker_t *self, bool is_lost)
{
    executor_t *executor = self->executor;

    if (!is_lost && executor->seat.home == &self->worker)
        end_interpreter(self);
    else
        delete_thread(self);
    worker_leave(&self->worker);
    discard_worker(self);
}

static void spare_body(void *argument)
{
    pyworker_t *self = argument;

    take_part(self);
    self->thread = interp_thread_new(self->interp);
    end_worker(self, serve_all(self));
}

/* Gives a spare that has entered its interpreter. After entering: executor_replace takes the old one
 * away before it evicts, so who is not evicted sees that it is gone. False: there is none just now. */
static bool choose_interp(pyworker_t *self)
{
    executor_t *executor = self->executor;

    pthread_mutex_lock(&executor->seat.lock);
    if (!self->worker.is_lost)
        self->interp = atomic_load(&executor->interp);
    pthread_mutex_unlock(&executor->seat.lock);
    return self->interp != NULL;
}

/* Enters a spare and starts its thread. */
static bool spawn(seat_t *seat)
{
    executor_t *executor = (executor_t *)seat;
    pyworker_t *self = new_worker(executor, false);

    if (self == NULL)
        return false;
    if (!worker_enter(&self->worker, seat, false)) {
        discard_worker(self);
        return true; /* the seat has ended: nothing is left to be served */
    }
    if (!choose_interp(self) || !thread_start(executor->name, spare_body, self)) {
        worker_leave(&self->worker);
        discard_worker(self);
        return false;
    }
    return true;
}

static void spawn_now(uint64_t token)
{
    seat_t *seat = (seat_t *)(uintptr_t)token; /* never freed */

    if (!spawn(seat))
        timer_arm(clock_now() + 10000000, spawn_now, NULL, token);
}

static void spawn_later(seat_t *seat)
{
    timer_arm(0, spawn_now, NULL, (uint64_t)(uintptr_t)seat);
}

/* Tells the opener, and lets go of what was kept for that. */
static void report_opened(executor_t *executor, const char *error)
{
    ErlNifEnv *env = executor->report_env;
    ERL_NIF_TERM result = error == NULL ? atom_ok : dispatch_error(env, text_to_term(env, error));

    enif_send(NULL, &executor->report_to, env,
              enif_make_tuple3(env, atom_py_opened, executor->report_tag, result));
    enif_free_env(env);
    executor->report_env = NULL;
}

/* Tells the context's process that it has a fresh interpreter to prepare. */
static void report_replaced(executor_t *executor)
{
    ErlNifEnv *env = enif_alloc_env();

    enif_send(NULL, &executor->report_to, env, atom_py_replaced);
    enif_free_env(env);
}

static bool open_interpreter(pyworker_t *self, char *error, size_t size)
{
    executor_t *executor = self->executor;

    interp_t *interp = interp_main();

    if (executor->kind == INTERP_MAIN && interp == NULL)
        snprintf(error, size,
                 "Python was not started: the application erlang_python is not running");
    else if (executor->kind == INTERP_MAIN)
        self->thread = interp_thread_new(interp);
    else
        interp = interp_create(executor->kind, &self->thread, error, size);
    set_interp(self, interp);
    atomic_store(&executor->interp, interp);
    return interp != NULL;
}

/* Without an interpreter: whatever is or comes in line is refused. */
static void refuse_all(pyworker_t *self)
{
    queue_node_t *node;
    bool ends;

    seat_close(&self->executor->seat);
    while ((node = worker_wait(&self->worker)) != NULL) {
        worker_next(&self->worker, NULL, &ends);
        if (((job_t *)node)->kind == JOB_REQUEST) {
            dispatch_refuse((request_t *)node);
            slots_advance(dispatch_slots());
        }
    }
    worker_leave(&self->worker);
    discard_worker(self);
}

static void home_body(void *argument)
{
    pyworker_t *self = argument;
    executor_t *executor = self->executor;
    char error[1024] = "";
    bool ok;

    take_part(self);
    ok = open_interpreter(self, error, sizeof(error));
    if (ok) {
        executor->drain.kind = JOB_DRAIN;
        interp_set_seat(self->interp, &executor->seat, &executor->drain.node, &executor->report_to);
    }
    if (executor->report_env != NULL)
        report_opened(executor, ok ? NULL : error);
    else
        report_replaced(executor);
    if (ok)
        end_worker(self, serve_all(self));
    else
        refuse_all(self);
}

static bool start_home(executor_t *executor)
{
    pyworker_t *home = new_worker(executor, true);

    if (home == NULL)
        return false;
    if (!worker_enter(&home->worker, &executor->seat, true)) {
        discard_worker(home);
        return false;
    }
    if (thread_start(executor->name, home_body, home))
        return true;
    worker_leave(&home->worker);
    discard_worker(home);
    return false;
}

/* ---- a new interpreter for a stuck one ---- */

static bool has_begun(queue_node_t *node)
{
    request_t *request = (request_t *)node;

    return request->job.kind != JOB_REQUEST || request_phase(request) == PHASE_RUNNING;
}

static void start_home_later(uint64_t token)
{
    executor_t *executor = (executor_t *)(uintptr_t)token; /* never freed */

    if (!start_home(executor))
        timer_arm(clock_now() + 10000000, start_home_later, NULL, token);
}

void executor_replace(executor_t *executor)
{
    interp_t *interp = atomic_exchange(&executor->interp, NULL);

    if (interp == NULL)
        return; /* somebody else is at it */
    interp_unset_seat(interp, &executor->seat);
    interp_leave_behind(interp); /* its struct stays: stuck threads look at it */
    seat_evict(&executor->seat, has_begun);
    atomic_store(&executor->knocks_since, 0); /* those were at the old one's door */
    executor_send_event(atom_left_behind, executor->name);
    start_home_later((uint64_t)(uintptr_t)executor);
}

void executor_prepared(executor_t *executor)
{
    seat_admit_all(&executor->seat);
}

/* An executor nobody uses, or a new one in the list of all. */
static executor_t *take_executor(void)
{
    executor_t *executor;

    for (executor = atomic_load(&executors); executor != NULL; executor = executor->next) {
        int unused = UNUSED;

        if (atomic_compare_exchange_strong(&executor->references, &unused, 1)) {
            seat_open(&executor->seat);
            return executor;
        }
    }
    executor = calloc(1, sizeof(*executor));
    if (executor == NULL)
        return NULL;
    atomic_init(&executor->references, 1);
    seat_init(&executor->seat, spawn, spawn_later);
    executor->next = atomic_load(&executors);
    while (!atomic_compare_exchange_weak(&executors, &executor->next, executor))
        continue;
    return executor;
}

executor_t *executor_open(ErlNifEnv *env, interp_kind_t kind, const char *name, ERL_NIF_TERM tag)
{
    executor_t *executor = take_executor();

    if (executor == NULL)
        return NULL;
    executor->kind = kind;
    atomic_store(&executor->interp, NULL);
    atomic_store(&executor->knocks_since, 0);
    atomic_store(&executor->calls, 0);
    atomic_store(&executor->errors, 0);
    atomic_store(&executor->busy_ns, 0);
    atomic_store(&executor->inlined, 0);
    memset(&executor->guest, 0, sizeof(executor->guest));
    queue_init(&executor->drops);
    executor->drop.kind = JOB_DROP;
    atomic_store(&executor->is_drop_queued, false);
    snprintf(executor->name, sizeof(executor->name), "%s", name);
    enif_self(env, &executor->report_to);
    executor->report_env = enif_alloc_env();
    executor->report_tag = enif_make_copy(executor->report_env, tag);
    if (start_home(executor))
        return executor;
    enif_free_env(executor->report_env);
    executor->report_env = NULL;
    executor_release(executor);
    return NULL;
}

void executor_close(executor_t *executor)
{
    seat_close(&executor->seat);
}

executor_t *executor_acquire(executor_t *executor)
{
    atomic_fetch_add(&executor->references, 1);
    return executor;
}

void executor_release(executor_t *executor)
{
    interp_t *interp = executor->interp;

    if (atomic_fetch_sub(&executor->references, 1) != 1)
        return;
    atomic_store(&executor->interp, NULL);
    if (executor->kind != INTERP_MAIN)
        interp_release(interp);
    atomic_store(&executor->references, UNUSED);
}

void executor_drop(executor_t *executor, drop_t *drop)
{
    list_t left;
    queue_node_t *node;

    queue_push(&executor->drops, &drop->node);
    if (atomic_exchange(&executor->is_drop_queued, true) ||
        seat_push(&executor->seat, &executor->drop.node, false))
        return;
    /* Its threads are gone: any thread of the interpreter will do. */
    list_init(&left);
    queue_take(&executor->drops, &left);
    while ((node = list_pop(&left)) != NULL)
        interp_drop(interp_main(), (drop_t *)node);
    atomic_store(&executor->is_drop_queued, false);
}

static void *maker_here(ErlNifPid *process)
{
    executor_t *executor = worker_of_thread != NULL ? worker_of_thread->executor : NULL;

    if (executor != NULL)
        *process = executor->report_to;
    return executor;
}

static void *maker_acquire(void *maker)
{
    return executor_acquire(maker);
}

static void maker_release(void *maker)
{
    executor_release(maker);
}

static void maker_drop(void *maker, drop_t *drop)
{
    executor_drop(maker, drop);
}

const handle_makers_t executor_makers = {maker_here, maker_acquire, maker_release, maker_drop};

/* One that goes on among the main interpreter's executors takes its drops over. */
void executor_adopt_drops(void)
{
    for (executor_t *at = executor_first(); at != NULL; at = at->next)
        if (atomic_load(&at->references) > 0 && at->kind == INTERP_MAIN &&
            atomic_load(&at->interp) != NULL && !at->seat.is_closed)
            interp_set_seat(interp_main(), &at->seat, &at->drain.node, &at->report_to);
}

/* ---- the pool ---- */

void executor_pool_add(executor_t *executor)
{
    pthread_mutex_lock(&pool_lock);
    pool[atomic_load(&pool_size)] = executor;
    atomic_fetch_add(&pool_size, 1);
    pthread_mutex_unlock(&pool_lock);
}

void executor_pool_close(void)
{
    int size;

    pthread_mutex_lock(&pool_lock);
    size = atomic_exchange(&pool_size, 0);
    for (int i = 0; i < size; i++) {
        executor_close(pool[i]);
        executor_release(pool[i]);
    }
    pthread_mutex_unlock(&pool_lock);
}

executor_t *executor_pool_next(void)
{
    int size = atomic_load(&pool_size);

    return size == 0 ? NULL : pool[atomic_fetch_add(&pool_turn, 1) % (unsigned)size];
}

/* ---- information ---- */

void executor_info(executor_t *executor, ErlNifEnv *env, ERL_NIF_TERM *parts)
{
    ERL_NIF_TERM running = atom_undefined;
    interp_t *interp = atomic_load(&executor->interp);
    const char *culprit;
    int parked = 0;

    pthread_mutex_lock(&executor->seat.lock);
    for (worker_t *worker = executor->seat.all; worker != NULL; worker = worker->sibling) {
        request_t *request = (request_t *)worker->current;

        if (worker->is_parked)
            parked++;
        else if (request != NULL && request->job.kind == JOB_REQUEST)
            running = enif_make_tuple2(env, enif_make_uint64(env, request_token(request)),
                                       enif_make_int64(env, clock_now() - request->started));
    }
    parts[8] = enif_make_uint64(env, seat_waiting(&executor->seat));
    parts[4] = enif_make_int(env, executor->seat.workers);
    parts[5] = enif_make_int(env, executor->seat.lost);
    pthread_mutex_unlock(&executor->seat.lock);
    culprit = interp != NULL ? interp_gil_culprit(interp) : NULL;
    parts[0] = interp != NULL ? enif_make_int64(env, interp->id) : atom_undefined;
    parts[1] =
        enif_make_int64(env, atomic_load(&executor->calls) + atomic_load(&executor->inlined));
    parts[2] = enif_make_int64(env, atomic_load(&executor->errors));
    parts[3] = enif_make_int64(env, atomic_load(&executor->busy_ns));
    parts[6] = running;
    parts[7] = enif_make_int(env, parked);
    parts[10] = enif_make_int64(env, atomic_load(&executor->inlined));
    parts[9] = culprit != NULL ? text_to_term(env, culprit) : atom_undefined;
}
