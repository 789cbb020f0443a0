#include "executor.h"

#include "atoms.h"
#include "callback.h"
#include "context.h"
#include "owner.h"
#include "run.h"
#include "timer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH 64 /* requests in one GIL hold */

/* An errand that interrupts a running request. */
typedef struct {
    job_t job;
    uint64_t token;
} interrupt_job_t;

static slots_t slots;
static _Atomic(executor_t *) executors; /* all that ever were */
static pthread_mutex_t pool_lock = PTHREAD_MUTEX_INITIALIZER;
static executor_t *_Atomic pool[256];
static atomic_int pool_size;
static atomic_uint pool_turn;
static _Atomic int64_t grace_ns = 1000000000;
static ErlNifPid event_process;
static atomic_bool has_event_process;
static _Thread_local pyworker_t *worker_of_thread;

slots_t *executor_slots(void)
{
    return &slots;
}

void executor_slot_free(void)
{
    slots_release(&slots);
    slots_advance(&slots);
}

void executor_set_grace(int64_t ns)
{
    atomic_store(&grace_ns, ns);
}

void executor_set_event_process(const ErlNifPid *pid)
{
    event_process = *pid;
    atomic_store(&has_event_process, true);
}

/* Sends {py_event, {What, Name}}; from our own threads only. */
static void send_event(ERL_NIF_TERM what, const char *name)
{
    ErlNifEnv *env;

    if (!atomic_load(&has_event_process))
        return;
    env = enif_alloc_env();
    enif_send(NULL, &event_process, env,
              enif_make_tuple2(env, atom_py_event,
                               enif_make_tuple2(env, what,
                                                enif_make_string(env, name, ERL_NIF_LATIN1))));
    enif_free_env(env);
}

pyworker_t *pyworker_self(void)
{
    return worker_of_thread;
}

void pyworker_attach(pyworker_t *self)
{
    if (self->is_attached)
        return;
    PyEval_RestoreThread(self->thread);
    self->is_attached = true;
}

void pyworker_detach(pyworker_t *self)
{
    if (!self->is_attached)
        return;
    PyEval_SaveThread();
    self->is_attached = false;
}

/* ---- answering ---- */

static ERL_NIF_TERM error_term(ErlNifEnv *env, ERL_NIF_TERM reason)
{
    return enif_make_tuple2(env, atom_error, reason);
}

/* Sends result, which lives in env, if nobody answered yet. */
static void answer(request_t *request, ErlNifEnv *env, ERL_NIF_TERM result)
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

/* Answers a request that was not run, and ends it. The caller advances the slots. */
static void refuse(request_t *request)
{
    slots_release(&slots);
    answer(request, request->env,
           error_term(request->env, context_down(request->context, request->env)));
    request_end(request);
}

/* ---- the semaphore's line ---- */

static bool is_wanted(queue_node_t *node)
{
    request_t *request = (request_t *)node;

    return !request_is_answered(request) &&
           (request->owner == NULL || !atomic_load(&request->owner->is_dead));
}

static void start_admitted(queue_node_t *node)
{
    executor_dispatch((request_t *)node);
}

static void drop_cancelled(queue_node_t *node)
{
    request_end((request_t *)node);
}

bool executor_setup(int64_t max_concurrent)
{
    slots_init(&slots, max_concurrent, is_wanted, start_admitted, drop_cancelled);
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
        if (atomic_load(&owner->is_dead) && atomic_exchange(&owner->slots, 0) > 0)
            slots_release(&slots);
    } else {
        slots_release(&slots);
    }
    request_end(request);
}

void executor_dispatch(request_t *request)
{
    executor_t *executor;
    bool ok;

    if (request->op == OP_ACQUIRE) {
        grant(request);
        return;
    }
    executor = request->context->executor;
    if ((request->flags & FLAG_ANY_EXECUTOR) != 0 && !request->context->is_exclusive)
        executor = executor_pool_next();
    atomic_store(&request->executor, executor);
    request_set_phase(request, PHASE_QUEUED);
    if ((request->flags & FLAG_ERRAND) != 0)
        ok = seat_push_errand(&executor->seat, &request->job.node);
    else
        ok = seat_push(&executor->seat, &request->job.node, request->depth > 0);
    if (!ok)
        refuse(request);
}

/* ---- serving ---- */

/* Whether the request still has to run; if not, it is answered (when somebody waits). */
static bool should_run(request_t *request, int64_t now)
{
    if (!is_wanted(&request->job.node))
        return false;
    if (!context_is_open(request->context)) {
        answer(request, request->env, error_term(request->env, context_down(request->context, request->env)));
        return false;
    }
    if (now >= request->deadline) {
        answer(request, request->env, error_term(request->env, atom_timeout));
        return false;
    }
    return true;
}

static void run_and_answer(pyworker_t *self, request_t *request)
{
    executor_t *executor = self->executor;
    ErlNifEnv *env = request->is_light ? request->env : self->env;
    ERL_NIF_TERM result;

    result = run_request(self, request, env);
    atomic_fetch_add_explicit(&executor->calls, 1, memory_order_relaxed);
    if (!run_is_success(env, result))
        atomic_fetch_add_explicit(&executor->errors, 1, memory_order_relaxed);
    /* The slot is free before the caller knows, the next in line starts after. */
    slots_release(&slots);
    answer(request, env, result);
    slots_advance(&slots);
}

/* The clock is read once per request: the end of one is the start of the next. */
static void serve_request(pyworker_t *self, request_t *request)
{
    int64_t started;

    if (!self->is_attached) {
        pyworker_attach(self); /* whatever happens: an interrupt may have to be cleared */
        self->now = clock_now();
    }
    started = self->now;
    self->request = request;
    request->started = started;
    request_set_phase(request, PHASE_RUNNING);
    if (should_run(request, started)) {
        run_and_answer(self, request);
        self->now = clock_now();
        atomic_fetch_add_explicit(&self->executor->busy_ns, self->now - started,
                                  memory_order_relaxed);
    } else {
        slots_release(&slots);
        slots_advance(&slots);
    }
    self->request = NULL;
}

/* Sets the exception on the thread that serves the token's request, if it still does. */
static void deliver_interrupt(pyworker_t *self, uint64_t token)
{
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

static void serve(pyworker_t *self, queue_node_t *node)
{
    job_t *job = (job_t *)node;

    switch (job->kind) {
    case JOB_REQUEST:
        serve_request(self, (request_t *)job);
        break;
    case JOB_INTERRUPT:
        deliver_interrupt(self, ((interrupt_job_t *)job)->token);
        break;
    case JOB_DRAIN:
        atomic_store(&self->interp->is_drain_queued, false);
        pyworker_attach(self); /* the loop drains */
        break;
    case JOB_COMPLETION:
        pyworker_attach(self);
        callback_complete(self->interp->module, job);
        break;
    }
}

/* What a node needs when its worker has let go of it. */
static void finish(queue_node_t *node)
{
    job_t *job = (job_t *)node;

    if (job->kind == JOB_REQUEST)
        request_end((request_t *)job);
    else if (job->kind == JOB_INTERRUPT)
        free(job);
}

/* Under the seat's lock, before the request is let go: no later interrupt can hit. */
static void clear_interrupt(worker_t *worker)
{
    pyworker_t *self = (pyworker_t *)worker;

    if (self->was_interrupted)
        PyThreadState_SetAsyncExc(self->thread_id, NULL);
    self->was_interrupted = false;
}

/* Serves until the thread is to end; attached or not afterwards. True: it was lost. */
static bool serve_all(pyworker_t *self)
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
        serve(self, node);
        before = node;
    }
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
    run_forget(self);
    interp_thread_delete(self->thread);
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

static bool has_lost(seat_t *seat)
{
    bool answer;

    pthread_mutex_lock(&seat->lock);
    answer = seat->lost > 0;
    pthread_mutex_unlock(&seat->lock);
    return answer;
}

/* The last worker of a closed executor ends what is its own. */
static void end_interpreter(pyworker_t *self)
{
    executor_t *executor = self->executor;
    interp_t *interp = self->interp;

    interp_unset_seat(interp, &executor->seat);
    if (executor->kind == INTERP_MAIN) {
        delete_thread(self);
        return;
    }
    if (has_lost(&executor->seat)) {
        /* A thread that was given up may hold the GIL for ever: do not even attach. */
        pyworker_detach(self);
        interp_leave_behind(interp);
        send_event(atom_left_behind, executor->name);
        return;
    }
    pyworker_attach(self);
    run_forget(self);
    if (!interp_end(interp, self->thread))
        send_event(atom_left_behind, executor->name);
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
    self->interp = self->executor->interp;
    self->thread = interp_thread_new(self->interp);
    end_worker(self, serve_all(self));
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
        return false;
    }
    if (!thread_start(executor->name, spare_body, self)) {
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
    ERL_NIF_TERM result = atom_ok;
    ERL_NIF_TERM text;

    if (error != NULL) {
        memcpy(enif_make_new_binary(env, strlen(error), &text), error, strlen(error));
        result = error_term(env, text);
    }
    enif_send(NULL, &executor->report_to, env,
              enif_make_tuple3(env, atom_py_opened, executor->report_tag, result));
    enif_free_env(env);
    executor->report_env = NULL;
}

static bool open_interpreter(pyworker_t *self, char *error, size_t size)
{
    executor_t *executor = self->executor;

    if (executor->kind == INTERP_MAIN) {
        self->interp = interp_main();
        self->thread = interp_thread_new(self->interp);
    } else {
        self->interp = interp_create(executor->kind, &self->thread, error, size);
    }
    executor->interp = self->interp;
    return self->interp != NULL;
}

static void home_body(void *argument)
{
    pyworker_t *self = argument;
    executor_t *executor = self->executor;
    char error[1024] = "";

    take_part(self);
    if (!open_interpreter(self, error, sizeof(error))) {
        seat_close(&executor->seat);
        report_opened(executor, error);
        worker_wait(&self->worker); /* refuses what was pushed meanwhile: there is none */
        worker_leave(&self->worker);
        discard_worker(self);
        return;
    }
    executor->drain.kind = JOB_DRAIN;
    interp_set_seat(self->interp, &executor->seat, &executor->drain.node, executor);
    report_opened(executor, NULL);
    end_worker(self, serve_all(self));
}

/* An executor nobody uses, or a new one in the list of all. */
static executor_t *take_executor(void)
{
    executor_t *executor;

    for (executor = atomic_load(&executors); executor != NULL; executor = executor->next) {
        int unused = 0;

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
    pyworker_t *home;

    if (executor == NULL)
        return NULL;
    executor->kind = kind;
    executor->interp = NULL;
    atomic_store(&executor->calls, 0);
    atomic_store(&executor->errors, 0);
    atomic_store(&executor->busy_ns, 0);
    snprintf(executor->name, sizeof(executor->name), "%s", name);
    enif_self(env, &executor->report_to);
    executor->report_env = enif_alloc_env();
    executor->report_tag = enif_make_copy(executor->report_env, tag);
    home = new_worker(executor, true);
    if (home != NULL && worker_enter(&home->worker, &executor->seat, true)) {
        if (thread_start(executor->name, home_body, home))
            return executor;
        worker_leave(&home->worker);
        discard_worker(home);
    }
    enif_free_env(executor->report_env);
    executor_release(executor);
    return NULL;
}

void executor_close(executor_t *executor)
{
    seat_close(&executor->seat);
}

void executor_release(executor_t *executor)
{
    interp_t *interp = executor->interp;

    if (atomic_load(&executor->references) == 1 && executor->kind != INTERP_MAIN && interp != NULL) {
        executor->interp = NULL;
        interp_release(interp);
    }
    atomic_fetch_sub(&executor->references, 1);
}

/* ---- the pool ---- */

int executor_pool_size(void)
{
    return atomic_load(&pool_size);
}

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

/* ---- interrupts ---- */

static bool is_pending(uint64_t token)
{
    return request_is_alive(request_find(token), token);
}

/* Past the grace period: the thread is given up, and told again and again to stop. */
static void on_grace(uint64_t token)
{
    request_t *request = request_find(token);
    executor_t *executor = atomic_load(&request->executor);

    if (executor == NULL || !request_is_alive(request, token))
        return;
    if (seat_abandon(&executor->seat, &request->job.node))
        send_event(atom_thread_given_up, executor->name);
    executor_interrupt(token);
}

void executor_interrupt(uint64_t token)
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
    return whose.owner != NULL ? request->owner == whose.owner : request->context == whose.context;
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
    request_send(request, env, error_term(env, reason(env, request)));
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
            !is_theirs(request, whose))
            continue;
        tokens[found++] = request_token(request);
    }
    pthread_mutex_unlock(&seat->lock);
    return found;
}

/* Each round marks what it interrupts, so the rounds come to an end. */
static int interrupt_all(whose_t whose)
{
    uint64_t tokens[64];
    int all = 0;
    int found;

    for (executor_t *at = atomic_load(&executors); at != NULL; at = at->next) {
        do {
            found = collect(&at->seat, whose, tokens, 64);
            for (int i = 0; i < found; i++) {
                request_phase_t phase;

                if (whose.is_down)
                    answer_for(tokens[i], reason_down, &phase);
                executor_interrupt(tokens[i]);
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
        executor_interrupt(token);
}

void executor_watch_deadline(request_t *request)
{
    if (request->deadline != CLOCK_NEVER)
        timer_arm(request->deadline, on_deadline, is_pending, request_token(request));
}

void executor_interrupt_owner(struct owner *owner)
{
    interrupt_all((whose_t){owner, NULL, false});
}

void executor_interrupt_context(struct context *context)
{
    interrupt_all((whose_t){NULL, context, true});
}

bool executor_interrupt_running(struct context *context)
{
    return interrupt_all((whose_t){NULL, context, false}) > 0;
}

/* ---- information ---- */

void executor_info(executor_t *executor, ErlNifEnv *env, ERL_NIF_TERM *parts)
{
    ERL_NIF_TERM running = atom_undefined;
    int parked = 0;

    pthread_mutex_lock(&executor->seat.lock);
    for (worker_t *worker = executor->seat.all; worker != NULL; worker = worker->sibling) {
        request_t *request = (request_t *)worker->current;

        if (worker->is_parked)
            parked++;
        else if (request != NULL && request->job.kind == JOB_REQUEST)
            running = enif_make_int64(env, clock_now() - request->started);
    }
    parts[8] = enif_make_uint64(env, seat_waiting(&executor->seat));
    parts[4] = enif_make_int(env, executor->seat.workers);
    parts[5] = enif_make_int(env, executor->seat.lost);
    pthread_mutex_unlock(&executor->seat.lock);
    parts[0] = executor->interp != NULL ? enif_make_int64(env, executor->interp->id) : atom_undefined;
    parts[1] = enif_make_int64(env, atomic_load(&executor->calls));
    parts[2] = enif_make_int64(env, atomic_load(&executor->errors));
    parts[3] = enif_make_int64(env, atomic_load(&executor->busy_ns));
    parts[6] = running;
    parts[7] = enif_make_int(env, parked);
}
