#include "inline.h"

#include "atoms.h"
#include "dispatch.h"
#include "interrupt.h"
#include "pycompat.h"
#include "run.h"
#include "stack.h"

#include <limits.h>
#include <string.h>
#include <sys/resource.h>

#define SHORT_NS 1000000 /* who takes longer does not belong on a scheduler */
#define ENTRIES  1024    /* a power of two */

/* ---- the C stack ---- */

#if PY_VERSION_HEX >= 0x030C0000 && (PY_VERSION_HEX < 0x030E0000 || PY_VERSION_HEX >= 0x030E0200)
static bool has_stack(void)
{
    return stack_prepare(thread_stack());
}
#else
static bool has_stack(void)
{
    return false; /* 3.14.0 and 3.14.1 take another stack for an overflow of the thread's own */
}
#endif

/* Tells CPython, if it wants to know, that a new thread state will use the second stack. */
static void tell_stack(PyThreadState *thread)
{
#if PY_VERSION_HEX >= 0x030E0200
    size_t size;
    void *lowest = stack_lowest(&size);

    PyUnstable_ThreadState_SetStackProtection(thread, lowest, size);
#else
    (void)thread;
#endif
}

/* ---- thread states ---- */

#if PY_VERSION_HEX >= 0x030C0000
/* A fresh state maps memory for its first Python frame, which takes longer than a short call: it gets
 * what the last one of this thread left. */
static _Thread_local struct {
    _PyStackChunk *chunk;
    PyObject **top;
    PyObject **limit;
} kept_frames;

static void give_frames(PyThreadState *thread)
{
    if (kept_frames.chunk == NULL || thread->datastack_chunk != NULL)
        return;
    thread->datastack_chunk = kept_frames.chunk;
    thread->datastack_top = kept_frames.top;
    thread->datastack_limit = kept_frames.limit;
    kept_frames.chunk = NULL;
}

static void keep_frames(PyThreadState *thread)
{
    if (kept_frames.chunk != NULL || thread->datastack_chunk == NULL ||
        thread->datastack_chunk->previous != NULL)
        return;
    kept_frames.chunk = thread->datastack_chunk;
    kept_frames.top = thread->datastack_top;
    kept_frames.limit = thread->datastack_limit;
    thread->datastack_chunk = NULL;
    thread->datastack_top = NULL;
    thread->datastack_limit = NULL;
}
#else
static void give_frames(PyThreadState *thread)
{
    (void)thread;
}

static void keep_frames(PyThreadState *thread)
{
    (void)thread;
}
#endif

static _Thread_local PyThreadState *state_in_main; /* lasts as long as the scheduler */

/* The calling thread's state in the interpreter; NULL when memory is short. */
static PyThreadState *enter(interp_t *interp)
{
    PyThreadState *thread = interp->kind == INTERP_MAIN ? state_in_main : NULL;

    if (thread != NULL)
        return thread;
    thread = interp_thread_new(interp);
    if (thread == NULL)
        return NULL;
    tell_stack(thread);
    if (interp->kind == INTERP_MAIN)
        state_in_main = thread;
    else
        give_frames(thread);
    return thread;
}

/* What was for one call ends, which may run code: still in the seat. */
static void wind_up(interp_t *interp, PyThreadState *thread)
{
    if (interp->kind == INTERP_MAIN)
        return;
    atomic_fetch_sub_explicit(&interp->threads, 1, memory_order_relaxed);
    PyThreadState_Clear(thread);
    keep_frames(thread);
}

/* Detaches. */
static void leave(interp_t *interp)
{
    if (interp->kind == INTERP_MAIN)
        PyEval_SaveThread();
    else
        PyThreadState_DeleteCurrent();
}

/* ---- functions that took too long ---- */

/*
 * A call that took too long may just have lost its core, or waited for somebody who had. So its function
 * is watched from then on, which costs a look at the thread's resource usage before and after each call.
 * An overrun with the core in its hands, or asleep, counts STRIKE, any other call takes one off. At
 * STRIKES_MAX, so when more than one call in STRIKE is too long, the function is demoted.
 */
#define STRIKE      10
#define STRIKES_MAX 30
#define DEMOTED     INT_MAX

typedef struct {
    _Atomic uint64_t key; /* 0: free */
    atomic_int strikes;   /* 0: not watched */
} entry_t;

static entry_t entries[ENTRIES]; /* open addressing */
static atomic_int entry_count;

/* Two atoms as one number: what differs between atoms is their index. */
static uint64_t key_of(const inline_call_t *call)
{
    return (uint64_t)(call->target >> 6) << 32 | (uint64_t)(call->function >> 6);
}

/* Its entry, or a free one. */
static entry_t *find_entry(uint64_t key)
{
    uint64_t at = key * UINT64_C(0x9E3779B97F4A7C15) >> 32;
    uint64_t found;

    while ((found = atomic_load(&entries[at & (ENTRIES - 1)].key)) != 0 && found != key)
        at++;
    return &entries[at & (ENTRIES - 1)];
}

/* When half of the table is taken, nothing is known to be short any more. */
static int strikes_of(const inline_call_t *call)
{
    int count = atomic_load_explicit(&entry_count, memory_order_relaxed);

    if (count == 0)
        return 0;
    return count >= ENTRIES / 2 ? DEMOTED : atomic_load(&find_entry(key_of(call))->strikes);
}

static entry_t *enter_entry(uint64_t key)
{
    entry_t *entry = find_entry(key);
    uint64_t nobody = 0;

    while (!atomic_compare_exchange_strong(&entry->key, &nobody, key)) {
        if (nobody == key)
            return entry;
        entry = find_entry(key);
        nobody = 0;
    }
    atomic_fetch_add(&entry_count, 1);
    return entry;
}

/* After a call of a function that is watched, or is to be. */
static void judge(const inline_call_t *call, bool is_overrun)
{
    entry_t *entry = enter_entry(key_of(call));
    int before = atomic_load(&entry->strikes);
    int after;
    char text[512];

    do {
        if (before == DEMOTED)
            return;
        after = is_overrun ? before + STRIKE : before - 1;
        if (after >= STRIKES_MAX)
            after = DEMOTED;
        else if (after < 0)
            after = 0;
    } while (!atomic_compare_exchange_weak(&entry->strikes, &before, after));
    if (after == DEMOTED) {
        enif_snprintf(text, sizeof(text), "%T:%T", call->target, call->function);
        executor_send_event(atom_inline_overrun, text);
    }
}

#ifdef RUSAGE_THREAD
/* How often the thread lost its core to another. */
static long times_preempted(void)
{
    struct rusage usage;

    return getrusage(RUSAGE_THREAD, &usage) == 0 ? usage.ru_nivcsw : 0;
}
#else
static long times_preempted(void)
{
    return 0;
}
#endif

/* ---- one call ---- */

/* One call and where it runs. */
typedef struct {
    ErlNifEnv *env;
    request_t *request;
    executor_t *executor;
    interp_t *interp;    /* known when the seat was lent, which keeps it from ending */
    ERL_NIF_TERM result; /* 0: nothing was run */
} stand_in_t;

/* The guest is the calling thread's from now on; its request is published. */
static bool began(worker_t *worker, void *argument)
{
    pyworker_t *self = (pyworker_t *)worker;
    stand_in_t *who = argument;

    who->interp = atomic_load(&who->executor->interp);
    if (who->interp == NULL)
        return false;
    if (self->interp != who->interp) /* what it knows is of one that was replaced */
        memset(self->known, 0, sizeof(self->known));
    self->executor = who->executor;
    self->interp = who->interp;
    self->thread = NULL;
    self->thread_id = PyThread_get_thread_ident();
    self->was_interrupted = false;
    request_set_phase(who->request, PHASE_RUNNING);
    return true;
}

/* From now on an interrupt finds the thread, which will attach. False: one came before. */
static bool set_thread(pyworker_t *self, const request_t *request, PyThreadState *thread)
{
    bool ok;

    pthread_mutex_lock(&self->executor->seat.lock);
    ok = !request->interrupted;
    self->thread = thread;
    pthread_mutex_unlock(&self->executor->seat.lock);
    return ok;
}

/* Before the seat is given back: no later interrupt can hit. */
static void ended(worker_t *worker)
{
    pyworker_t *self = (pyworker_t *)worker;

    if (self->was_interrupted)
        compat_set_async_exc(self->thread, NULL);
    self->was_interrupted = false;
    self->thread = NULL;
}

/* Attached, has the seat. */
static void serve(stand_in_t *who, pyworker_t *self)
{
    request_t *request = who->request;
    ErlNifEnv *own = request->env;

    self->request = request;
    self->is_attached = true;
    pyworker_set_self(self);
    interrupt_at_deadline(request);
    request->env = who->env; /* what it holds is the caller's; nobody else reads it */
    who->result = run_request(self, request, &who->env);
    wind_up(who->interp, self->thread);
    request->env = own;
    pyworker_set_self(NULL);
    self->is_attached = false;
    self->request = NULL;
}

/* Has the seat and has claimed the GIL; gives the seat back. */
static void stand_in(void *argument)
{
    stand_in_t *who = argument;
    pyworker_t *guest = &who->executor->guest;
    PyThreadState *thread = enter(who->interp);

    if (thread != NULL) {
        bool is_wanted = set_thread(guest, who->request, thread);

        PyEval_RestoreThread(thread);
        if (is_wanted) {
            serve(who, guest);
        } else {
            who->result = dispatch_error(who->env, atom_interrupted);
            wind_up(who->interp, thread);
        }
    }
    seat_take_back(&guest->worker, ended); /* from here on it may be another's */
    if (thread != NULL)
        leave(who->interp);
}

/* Runs it if nobody has to be waited for, as far as can be known. 0: nothing was run. */
static ERL_NIF_TERM serve_at_once(ErlNifEnv *env, executor_t *executor, request_t *request)
{
    stand_in_t who = {.env = env, .request = request, .executor = executor};
    worker_t *guest = &executor->guest.worker;

    if (!seat_lend(&executor->seat, guest, &request->job.node, began, &who))
        return 0;
    /* Who closes it from now on finds the request. */
    if (!context_is_open(request->context) || !interp_claim_gil(who.interp)) {
        seat_take_back(guest, ended);
        return 0;
    }
    stack_call(stand_in, &who);
    interp_leave_gil(who.interp);
    return who.result == 0 || run_is_elsewhere(env, who.result) ? 0 : who.result;
}

/* What the caller gets instead of a result, when somebody answered for it. */
static ERL_NIF_TERM answered(ErlNifEnv *env, request_t *request)
{
    if (!context_is_open(request->context))
        return context_down(request->context, env);
    return clock_now() >= request->deadline ? atom_timeout : atom_interrupted;
}

/* What is counted of a call that took so many ns. */
static void count(ErlNifEnv *env, executor_t *executor, ERL_NIF_TERM result, int64_t taken)
{
    atomic_fetch_add_explicit(&executor->inlined, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&executor->busy_ns, taken, memory_order_relaxed);
    if (!run_is_success(env, result))
        atomic_fetch_add_explicit(&executor->errors, 1, memory_order_relaxed);
    enif_consume_timeslice(env, taken >= SHORT_NS ? 100 : 1 + (int)(taken * 100 / SHORT_NS));
}

/* Has a slot. 0: nothing was run. */
static ERL_NIF_TERM run_admitted(ErlNifEnv *env, const inline_call_t *call, executor_t *executor,
                                 request_t *request)
{
    bool is_watched = strikes_of(call) > 0;
    long preempted = is_watched ? times_preempted() : 0;
    ERL_NIF_TERM result = serve_at_once(env, executor, request);
    request_phase_t phase;
    bool is_ours = request_answer(request, request_token(request), &phase);
    int64_t taken;

    if (result == 0)
        return 0;
    taken = clock_now() - call->started;
    count(env, executor, result, taken);
    if (is_watched || taken > SHORT_NS)
        judge(call, taken > SHORT_NS && (!is_watched || times_preempted() == preempted));
    return is_ours ? result : dispatch_error(env, answered(env, request));
}

/* What the NIF's arguments keep alive, the request need not; see request_end_borrowed. */
static void fill(request_t *request, const inline_call_t *call, executor_t *executor)
{
    request->op = OP_CALL;
    request->flags = call->flags | FLAG_INLINE;
    request->depth = 0;
    request->started = call->started;
    atomic_store_explicit(&request->deadline, call->deadline, memory_order_relaxed);
    request->context = call->context;
    request->owner = call->owner;
    request->namespace = call->namespace;
    request->target = call->target;
    request->function = call->function;
    request->arguments = call->arguments;
    request->keywords = call->keywords;
    atomic_store_explicit(&request->executor, executor, memory_order_relaxed);
}

ERL_NIF_TERM inline_run(ErlNifEnv *env, const inline_call_t *call)
{
    executor_t *executor = call->context->executor;
    slots_t *slots = dispatch_slots();
    request_t *request;
    ERL_NIF_TERM result;

    if (!has_stack() || (call->flags & FLAG_ASYNC) != 0 || !enif_is_atom(env, call->target) ||
        !enif_is_atom(env, call->function) || strikes_of(call) == DEMOTED ||
        !context_is_open(call->context) || call->started >= call->deadline)
        return 0;
    if ((call->flags & FLAG_ANY_EXECUTOR) != 0 && !call->context->is_exclusive)
        executor = executor_pool_next();
    if (executor == NULL || !slots_try(slots))
        return 0;
    request = request_new();
    result = 0;
    request_enter_scheduler(env);
    if (request != NULL) {
        fill(request, call, executor);
        result = run_admitted(env, call, executor, request);
        request_end_borrowed(request);
    }
    slots_release(slots);
    slots_advance(slots);
    request_leave_scheduler();
    return result;
}
