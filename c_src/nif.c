/* nif - the table of functions, and what the VM calls when it loads the library. */

#include "atoms.h"
#include "callback.h"
#include "context.h"
#include "deferred.h"
#include "dispatch.h"
#include "executor.h"
#include "guard.h"
#include "handle_nif.h"
#include "inline.h"
#include "interrupt.h"
#include "namespace.h"
#include "owner.h"
#include "sink.h"
#include "ticket.h"
#include "timer.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NIF(name) static ERL_NIF_TERM name(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])

/* ---- start ---- */

/* setup({MaxConcurrent, StackBytes, MaxThreads, GraceMs, MaxDepth, Guard :: 0 | 1, PatienceMs},
 *       EventPid) -> ok; PatienceMs: overload_wait */
NIF(nif_setup)
{
    const ERL_NIF_TERM *parts;
    int arity;
    ErlNifSInt64 values[7];
    ErlNifPid pid;

    (void)argc;
    if (!enif_get_tuple(env, argv[0], &arity, &parts) || arity != 7 ||
        !enif_get_local_pid(env, argv[1], &pid))
        return enif_make_badarg(env);
    for (int i = 0; i < 7; i++)
        if (!enif_get_int64(env, parts[i], &values[i]))
            return enif_make_badarg(env);
    request_enter_scheduler(env);
    slots_set_max(dispatch_slots(), values[0]);
    request_leave_scheduler();
    thread_setup((size_t)values[1], (int)values[2]);
    interrupt_set_grace(values[3] * 1000000);
    callback_set_max_depth((uint32_t)values[4]);
    guard_set(values[5] != 0);
    interrupt_set_patience(values[6] * 1000000);
    executor_set_event_process(&pid);
    return timer_setup() ? atom_ok : enif_make_tuple2(env, atom_error, atom_system_limit);
}

/* loop_setup(MaxTasks, Kind) -> ok: what event loops are made with; Kind: auto, asyncio, uvloop */
NIF(nif_loop_setup)
{
    ErlNifSInt64 max_tasks;
    char kind[16];

    (void)argc;
    if (!enif_get_int64(env, argv[0], &max_tasks) ||
        enif_get_atom(env, argv[1], kind, sizeof(kind), ERL_NIF_LATIN1) == 0)
        return enif_make_badarg(env);
    deferred_configure(max_tasks, kind);
    return atom_ok;
}

typedef struct {
    ErlNifPid pid;
    ErlNifEnv *env;
    ERL_NIF_TERM tag;
    char package_dir[4096];
    char virtual_env[4096];
} main_start_t;

static void main_start_body(void *argument)
{
    main_start_t *start = argument;
    interp_config_t config = {start->package_dir,
                              start->virtual_env[0] != 0 ? start->virtual_env : NULL};
    char error[1024] = "";
    ERL_NIF_TERM result = atom_ok;
    ERL_NIF_TERM text;

    if (!interp_main_start(&config, error, sizeof(error))) {
        memcpy(enif_make_new_binary(start->env, strlen(error), &text), error, strlen(error));
        result = enif_make_tuple2(start->env, atom_error, text);
    }
    enif_send(NULL, &start->pid, start->env,
              enif_make_tuple3(start->env, atom_py_main, start->tag, result));
    enif_free_env(start->env);
    free(start);
}

static bool get_path(ErlNifEnv *env, ERL_NIF_TERM term, char *path, size_t size)
{
    ErlNifBinary binary;

    if (!enif_inspect_iolist_as_binary(env, term, &binary) || binary.size >= size)
        return false;
    memcpy(path, binary.data, binary.size);
    path[binary.size] = 0;
    return true;
}

/* main_start(PackageDir, VirtualEnv, Tag) -> ok; then {py_main, Tag, ok | {error, Binary}} */
NIF(nif_main_start)
{
    main_start_t *start = calloc(1, sizeof(*start));

    (void)argc;
    if (start == NULL || !get_path(env, argv[0], start->package_dir, sizeof(start->package_dir)) ||
        !get_path(env, argv[1], start->virtual_env, sizeof(start->virtual_env))) {
        free(start);
        return enif_make_badarg(env);
    }
    enif_self(env, &start->pid);
    start->env = enif_alloc_env();
    start->tag = enif_make_copy(start->env, argv[2]);
    if (thread_start("py:start", main_start_body, start))
        return atom_ok;
    enif_free_env(start->env);
    free(start);
    return enif_make_tuple2(env, atom_error, atom_system_limit);
}

/* features() -> {Version :: string(), Subinterpreters :: boolean(), FreeThreaded :: boolean()} */
NIF(nif_features)
{
    (void)argc;
    (void)argv;
    return enif_make_tuple3(env, enif_make_string(env, PY_VERSION, ERL_NIF_LATIN1),
                            interp_supports_subinterpreters() ? atom_true : atom_false,
                            interp_is_free_threaded() ? atom_true : atom_false);
}

/* ---- contexts ---- */

typedef struct {
    const ERL_NIF_TERM *mode;
    interp_kind_t kind;
    bool is_exclusive;
} mode_t_;

static bool find_mode(ERL_NIF_TERM mode, interp_kind_t *kind, bool *is_exclusive)
{
    const mode_t_ modes[] = {
        {&atom_free_threaded, INTERP_MAIN, true},   {&atom_worker, INTERP_MAIN, true},
        {&atom_multi_executor, INTERP_MAIN, false}, {&atom_subinterp, INTERP_SHARED_GIL, true},
        {&atom_owngil, INTERP_OWN_GIL, true},
    };

    for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
        if (enif_is_identical(mode, *modes[i].mode)) {
            *kind = modes[i].kind;
            *is_exclusive = modes[i].is_exclusive;
            return true;
        }
    }
    return false;
}

/* context_open(Mode, Number, Tag) -> Context | {error, system_limit}; then
 * {py_opened, Tag, ok | {error, Binary}} */
NIF(nif_context_open)
{
    interp_kind_t kind;
    bool is_exclusive;
    ErlNifSInt64 number;
    ERL_NIF_TERM context;

    (void)argc;
    if (!find_mode(argv[0], &kind, &is_exclusive) || !enif_get_int64(env, argv[1], &number))
        return enif_make_badarg(env);
    context = context_open(env, argv[0], kind, is_exclusive, number, argv[2]);
    return context != 0 ? context : enif_make_tuple2(env, atom_error, atom_system_limit);
}

/* context_close(Context, Reason) -> ok */
NIF(nif_context_close)
{
    context_t *context = context_get(env, argv[0]);

    (void)argc;
    if (context == NULL)
        return enif_make_badarg(env);
    context_close(context, env, argv[1]);
    return atom_ok;
}

/* context_info(Context) -> {Mode, InterpreterId | undefined, Calls, Errors, BusyNs, Threads, Lost,
 * {RunningToken, Ns} | undefined, Parked, Queued, GilCulprit | undefined, Inlined, Namespaces} */
NIF(nif_context_info)
{
    context_t *context = context_get(env, argv[0]);
    ERL_NIF_TERM parts[13];

    (void)argc;
    if (context == NULL)
        return enif_make_badarg(env);
    parts[0] = context->mode;
    executor_info(context->executor, env, parts + 1);
    parts[12] = enif_make_int64(env, atomic_load(&context->namespaces));
    return enif_make_tuple_from_array(env, parts, 13);
}

/* main_context(Context) -> ok: where requests go that only the main interpreter can run */
NIF(nif_main_context)
{
    context_t *context = context_get(env, argv[0]);

    (void)argc;
    if (context == NULL)
        return enif_make_badarg(env);
    dispatch_set_main(context);
    return atom_ok;
}

/* context_prepared(Context) -> ok: after {py_replaced} */
NIF(nif_context_prepared)
{
    context_t *context = context_get(env, argv[0]);

    (void)argc;
    if (context == NULL)
        return enif_make_badarg(env);
    executor_prepared(context->executor);
    return atom_ok;
}

/* context_interrupt(Context) -> ok | not_running */
NIF(nif_context_interrupt)
{
    context_t *context = context_get(env, argv[0]);

    (void)argc;
    if (context == NULL)
        return enif_make_badarg(env);
    return interrupt_running(context) ? atom_ok : atom_not_running;
}

/* pool_open(Size, Tag) -> ok | {error, system_limit}; then Size times {py_opened, Tag, ok | {error,
 * Binary}} */
NIF(nif_pool_open)
{
    unsigned size;
    char name[20];

    (void)argc;
    if (!enif_get_uint(env, argv[0], &size) || size == 0 || size > EXECUTOR_POOL_MAX)
        return enif_make_badarg(env);
    executor_pool_close(); /* of an owner that died without a word */
    for (unsigned i = 0; i < size; i++) {
        executor_t *executor;

        snprintf(name, sizeof(name), "py:exec%u", i + 1);
        executor = executor_open(env, INTERP_MAIN, name, argv[1]);
        if (executor == NULL)
            return enif_make_tuple2(env, atom_error, atom_system_limit);
        executor_pool_add(executor);
    }
    return atom_ok;
}

/* pool_close() -> ok */
NIF(nif_pool_close)
{
    (void)env;
    (void)argc;
    (void)argv;
    executor_pool_close();
    return atom_ok;
}

/* ---- requests ---- */

static int64_t deadline_from(ErlNifEnv *env, ERL_NIF_TERM timeout, int64_t now)
{
    ErlNifSInt64 ms;

    if (!enif_get_int64(env, timeout, &ms) || ms > INT64_MAX / 2000000)
        return CLOCK_NEVER; /* infinity */
    return now + ms * 1000000;
}

/* Whether a term takes no more than a few words on the heap. */
static bool is_small(ErlNifEnv *env, ERL_NIF_TERM term)
{
    ErlNifBinary binary;
    ErlNifSInt64 integer;
    ErlNifUInt64 natural;
    double number;

    if (enif_is_atom(env, term) || enif_is_empty_list(env, term) ||
        enif_get_int64(env, term, &integer) || enif_get_uint64(env, term, &natural) ||
        enif_get_double(env, term, &number))
        return true;
    return enif_inspect_binary(env, term, &binary) && binary.size <= 64;
}

static bool is_small_list(ErlNifEnv *env, ERL_NIF_TERM term)
{
    ERL_NIF_TERM head;
    int length = 0;

    while (enif_get_list_cell(env, term, &head, &term))
        if (++length > 8 || !is_small(env, head))
            return false;
    return enif_is_empty_list(env, term);
}

/* Copies a term into the request. A light request's reply is sent from the request's own
 * environment: its memory came from a scheduler and goes to one, which spares the VM the
 * way of memory between threads; heavy terms must not hang on to a reply, though. */
static ERL_NIF_TERM keep(ErlNifEnv *env, request_t *request, ERL_NIF_TERM term)
{
    if (request->is_light)
        request->is_light = is_small(env, term) || is_small_list(env, term);
    return enif_make_copy(request->env, term);
}

/* Admits the request, or puts it in line, and hands it over. */
static ERL_NIF_TERM admit(ErlNifEnv *env, request_t *request)
{
    ERL_NIF_TERM token = enif_make_uint64(env, request_token(request));
    slots_t *slots = dispatch_slots();
    bool is_admitted = true;

    request_publish(request);
    /* A thread that serves no request waits for an errand, and may be waited for by one
     * that holds a slot: it must not stand in line behind that. */
    if ((request->flags & FLAG_ERRAND) != 0) {
        slots_retake(slots);
    } else if ((request->flags & FLAG_OVERLOAD_FAIL) != 0) {
        is_admitted = slots_try(slots);
        if (!is_admitted) {
            request_end(request);
            return dispatch_error(env, dispatch_overloaded(env));
        }
    } else {
        is_admitted = dispatch_admit(request);
    }
    if (is_admitted)
        dispatch_request(request);
    /* Only now: who expires in line hears of that, who was never in it must not. It may have ended
     * meanwhile; then the timer looks for nothing, once. */
    interrupt_at_deadline(request);
    slots_advance(slots);
    return token;
}

/* submit(Context, Owner | none, Namespace | none, ReplyTo, Ref, Op, Target, Function, Arguments,
 *        Keywords, Timeout, Flags, Depth) -> Token | {error, Reason} | {context_down, Reason}
 * Op: 0 call, 1 eval, 2 exec. The reply is {Ref, Result}. */
NIF(nif_submit)
{
    context_t *context = context_get(env, argv[0]);
    owner_t *owner = owner_get(env, argv[1]);
    namespace_t *namespace = namespace_get(env, argv[2]);
    unsigned op;
    unsigned flags;
    unsigned depth;
    request_t *request;
    ErlNifPid reply_to;
    ERL_NIF_TERM token;

    (void)argc;
    if (context == NULL || (namespace == NULL && !enif_is_identical(argv[2], atom_none)) ||
        !enif_get_local_pid(env, argv[3], &reply_to) || !enif_get_uint(env, argv[5], &op) ||
        op > OP_EXEC || !enif_get_uint(env, argv[11], &flags) ||
        !enif_get_uint(env, argv[12], &depth))
        return enif_make_badarg(env);
    if (!context_is_open(context))
        return context_down(context, env);
    request = request_new();
    if (request == NULL)
        return enif_make_tuple2(env, atom_error, atom_system_limit);
    request->op = (request_op_t)op;
    request->flags = flags;
    request->depth = depth;
    request->reply_to = reply_to;
    interrupt_set_deadline(request, deadline_from(env, argv[10], clock_now()));
    request->context = context_acquire(context);
    if (owner != NULL) {
        request->owner = owner_acquire(owner);
        owner_note(owner, request_token(request));
    }
    if (namespace != NULL)
        request->namespace = namespace_acquire(namespace);
    request->target = keep(env, request, argv[6]);
    request->function = keep(env, request, argv[7]);
    request->arguments = keep(env, request, argv[8]);
    request->keywords = keep(env, request, argv[9]);
    request->reference = enif_make_copy(request->env, argv[4]);
    if ((flags & FLAG_RESPONSE) != 0)
        ticket_set_token(env, argv[4], request_token(request));
    request_enter_scheduler(env);
    token = admit(env, request);
    request_leave_scheduler();
    return token;
}

/* call_inline(Context, Owner | none, Namespace | none, Module, Function, Arguments, Keywords, Timeout,
 *             Flags) -> {ok, Value} | {error, Reason} | normal: nothing was run, submit is to be called */
NIF(nif_call_inline)
{
    unsigned flags;
    int64_t now = clock_now();
    inline_call_t call = {
        .context = context_get(env, argv[0]),
        .owner = owner_get(env, argv[1]),
        .namespace = namespace_get(env, argv[2]),
        .target = argv[3],
        .function = argv[4],
        .arguments = argv[5],
        .keywords = argv[6],
        .started = now,
        .deadline = deadline_from(env, argv[7], now),
    };
    ERL_NIF_TERM result = 0;

    (void)argc;
    if (call.context == NULL || !enif_get_uint(env, argv[8], &flags) ||
        (call.namespace == NULL && !enif_is_identical(argv[2], atom_none)))
        return enif_make_badarg(env);
    call.flags = flags;
    if (enif_thread_type() == ERL_NIF_THR_NORMAL_SCHEDULER)
        result = inline_run(env, &call);
    return result != 0 ? result : atom_normal;
}

static ERL_NIF_TERM phase_atom(request_phase_t phase)
{
    switch (phase) {
    case PHASE_WAITING:
        return atom_waiting;
    case PHASE_QUEUED:
        return atom_queued;
    case PHASE_RUNNING:
        return atom_running;
    case PHASE_FREE:
        break;
    }
    return atom_replied;
}

/* cancel(Token) -> waiting | queued | running | replied | ended: what it was found as; replied: its
 * answer is certain to come; ended: it was sent. A running one is interrupted. */
NIF(nif_cancel)
{
    ErlNifUInt64 token;
    request_t *request;
    request_phase_t phase;

    (void)argc;
    if (!enif_get_uint64(env, argv[0], &token) || (request = request_find(token)) == NULL)
        return enif_make_badarg(env);
    if (!request_answer(request, token, &phase))
        return request_is_alive(request, token) ? atom_replied : atom_ended;
    if (phase == PHASE_RUNNING || phase == PHASE_QUEUED)
        interrupt_request(token); /* a queued one may have started meanwhile */
    if (phase == PHASE_QUEUED) {
        request_enter_scheduler(env);
        dispatch_drop_slot(request, token); /* it will not run: others may */
        request_leave_scheduler();
    }
    if (phase == PHASE_WAITING)
        slots_forget(dispatch_slots());
    return phase_atom(phase);
}

/* interrupt(Token) -> ok: of a running one, which still sends its reply */
NIF(nif_interrupt)
{
    ErlNifUInt64 token;

    (void)argc;
    if (!enif_get_uint64(env, argv[0], &token))
        return enif_make_badarg(env);
    interrupt_request(token);
    return atom_ok;
}

/* cancel_waiting(Token) -> true | false: whether it stood in line and was taken out */
NIF(nif_cancel_waiting)
{
    ErlNifUInt64 token;
    request_t *request;

    (void)argc;
    if (!enif_get_uint64(env, argv[0], &token) || (request = request_find(token)) == NULL)
        return enif_make_badarg(env);
    if (!request_hold_waiting(request, token))
        return atom_false;
    request_unhold(request);
    slots_forget(dispatch_slots());
    return atom_true;
}

/* ticket() -> Ref, to be passed to submit */
NIF(nif_ticket)
{
    (void)argc;
    (void)argv;
    return ticket_make(env);
}

/* ticket_token(Ref) -> Token of the calling process's ticket | foreign, of another one's */
NIF(nif_ticket_token)
{
    uint64_t token;
    bool is_own;

    (void)argc;
    if (!ticket_token(env, argv[0], &token, &is_own))
        return enif_make_badarg(env);
    return is_own ? enif_make_uint64(env, token) : atom_foreign;
}

/* owner_for(Pid) -> Owner, watching the calling process; erlang.self() is Pid */
NIF(nif_owner_for)
{
    ErlNifPid pid;

    (void)argc;
    return enif_get_local_pid(env, argv[0], &pid) ? owner_make(env, &pid) : enif_make_badarg(env);
}

/* owner() -> Owner, watching the calling process */
NIF(nif_owner)
{
    (void)argc;
    (void)argv;
    return owner_make(env, NULL);
}

/* namespace(Context) -> Namespace */
NIF(nif_namespace)
{
    context_t *context = context_get(env, argv[0]);

    (void)argc;
    return context != NULL ? namespace_make(env, context) : enif_make_badarg(env);
}

/* ---- the semaphore ---- */

/* slots() -> {Current, Max, Waiting} */
NIF(nif_slots)
{
    slots_t *slots = dispatch_slots();

    (void)argc;
    (void)argv;
    return enif_make_tuple3(env, enif_make_int64(env, atomic_load(&slots->count)),
                            enif_make_int64(env, atomic_load(&slots->max)),
                            enif_make_int64(env, atomic_load(&slots->waiting)));
}

/* slots_set_max(Max) -> ok */
NIF(nif_slots_set_max)
{
    ErlNifSInt64 max;

    (void)argc;
    if (!enif_get_int64(env, argv[0], &max) || max < 1)
        return enif_make_badarg(env);
    request_enter_scheduler(env);
    slots_set_max(dispatch_slots(), max);
    request_leave_scheduler();
    return atom_ok;
}

/* slot_acquire(Owner, ReplyTo, Ref, Timeout) -> Token; then {Ref, ok} */
NIF(nif_slot_acquire)
{
    owner_t *owner = owner_get(env, argv[0]);
    ErlNifPid reply_to;
    request_t *request;
    ERL_NIF_TERM token;

    (void)argc;
    if (owner == NULL || !enif_get_local_pid(env, argv[1], &reply_to))
        return enif_make_badarg(env);
    request = request_new();
    if (request == NULL)
        return enif_make_tuple2(env, atom_error, atom_system_limit);
    request->op = OP_ACQUIRE;
    request->flags = 0;
    request->depth = 0;
    request->reply_to = reply_to;
    interrupt_set_deadline(request, deadline_from(env, argv[3], clock_now()));
    request->owner = owner_acquire(owner);
    owner_note(owner, request_token(request));
    request->reference = enif_make_copy(request->env, argv[2]);
    request_enter_scheduler(env);
    token = admit(env, request);
    request_leave_scheduler();
    return token;
}

/* slot_release(Owner) -> ok; badarg without a slot */
NIF(nif_slot_release)
{
    owner_t *owner = owner_get(env, argv[0]);
    int slots = owner != NULL ? atomic_load(&owner->slots) : 0;

    (void)argc;
    while (slots > 0 && !atomic_compare_exchange_weak(&owner->slots, &slots, slots - 1))
        continue;
    if (slots <= 0)
        return enif_make_badarg(env);
    request_enter_scheduler(env);
    dispatch_free_slot();
    request_leave_scheduler();
    return atom_ok;
}

/* ---- callbacks, handles, counters ---- */

/* callback_reply(Callback, Answer) -> true | false: whether somebody still waited */
NIF(nif_callback_reply)
{
    (void)argc;
    return callback_reply(env, argv[0], argv[1]) ? atom_true : atom_false;
}

/* is_handle(Term) -> boolean() */
NIF(nif_is_handle)
{
    (void)argc;
    return handle_is(env, argv[0]) ? atom_true : atom_false;
}

/* handle_place(Handle) -> main | {main, Pid} | Pid | closed */
NIF(nif_handle_place)
{
    handle_place_t place;
    ErlNifPid pid;

    (void)argc;
    if (!handle_process(env, argv[0], &place, &pid))
        return enif_make_badarg(env);
    switch (place) {
    case HANDLE_PLACE_MAIN:
        return atom_main;
    case HANDLE_PLACE_MAIN_CONTEXT:
        return enif_make_tuple2(env, atom_main, enif_make_pid(env, &pid));
    case HANDLE_PLACE_CONTEXT:
        return enif_make_pid(env, &pid);
    case HANDLE_PLACE_GONE:
        break;
    }
    return atom_closed;
}

/* counters() -> {Namespaces, Threads, MaxThreads} */
NIF(nif_counters)
{
    (void)argc;
    (void)argv;
    return enif_make_tuple3(env, enif_make_int64(env, namespace_count()),
                            enif_make_int(env, thread_count()), enif_make_int(env, thread_max()));
}

/* ---- what Python reports ---- */

/* sink_open(Bound) -> ok: the calling process takes the reports */
NIF(nif_sink_open)
{
    ErlNifPid pid;
    int bound;

    (void)argc;
    if (!enif_get_int(env, argv[0], &bound) || enif_self(env, &pid) == NULL)
        return enif_make_badarg(env);
    sink_open(&pid, bound);
    return atom_ok;
}

/* sink_taken(Units) -> ok */
NIF(nif_sink_taken)
{
    int units;

    (void)argc;
    if (!enif_get_int(env, argv[0], &units))
        return enif_make_badarg(env);
    sink_taken(units);
    return atom_ok;
}

/* sink_dropped() -> {Records, Spans} */
NIF(nif_sink_dropped)
{
    (void)argc;
    (void)argv;
    return enif_make_tuple2(env, enif_make_int64(env, sink_dropped(REPORT_LOG)),
                            enif_make_int64(env, sink_dropped(REPORT_SPAN)));
}

/* sink_set(Level, Tracing :: 0 | 1) -> ok */
NIF(nif_sink_set)
{
    int level;
    int tracing;

    (void)argc;
    if (!enif_get_int(env, argv[0], &level) || !enif_get_int(env, argv[1], &tracing))
        return enif_make_badarg(env);
    sink_set_level(level);
    sink_set_tracing(tracing != 0);
    return atom_ok;
}

/* ---- loading ---- */

static bool open_types(ErlNifEnv *env, ErlNifResourceFlags flags)
{
    return owner_setup(env, flags) && namespace_setup(env, flags) && context_setup(env, flags) &&
           handle_setup(env, flags) && callback_setup(env, flags) && ticket_setup(env, flags);
}

static char build_id[] = EP_BUILD_ID;

/* Our threads may be inside until the VM ends, and ERTS hides dying children from
 * Python's subprocess unless SIGCHLD has its default meaning (py_nif.erl sees to that). */
static int load(ErlNifEnv *env, void **priv_data, ERL_NIF_TERM info)
{
    (void)info;
    atoms_init(env);
    handle_set_makers(&executor_makers);
    *priv_data = build_id;
    return open_types(env, ERL_NIF_RT_CREATE) && request_setup() && dispatch_setup(1) ? 0 : 1;
}

/* The same library takes over: the state is in it, and it stays where it is. Another build, and a copy of
 * the file too, is another library with nothing in it. */
static int upgrade(ErlNifEnv *env, void **priv_data, void **old_priv_data, ERL_NIF_TERM info)
{
    (void)info;
    if (*old_priv_data != build_id)
        return 1;
    *priv_data = *old_priv_data;
    atoms_init(env);
    return open_types(env, ERL_NIF_RT_TAKEOVER) ? 0 : 1;
}

static void unload(ErlNifEnv *env, void *priv_data)
{
    (void)env;
    (void)priv_data;
}

static ErlNifFunc functions[] = {
    {"setup", 2, nif_setup, 0},
    {"loop_setup", 2, nif_loop_setup, 0},
    {"main_start", 3, nif_main_start, 0},
    {"features", 0, nif_features, 0},
    {"context_open", 3, nif_context_open, 0},
    {"context_close", 2, nif_context_close, 0},
    {"context_info", 1, nif_context_info, 0},
    {"main_context", 1, nif_main_context, 0},
    {"context_prepared", 1, nif_context_prepared, 0},
    {"context_interrupt", 1, nif_context_interrupt, 0},
    {"pool_open", 2, nif_pool_open, 0},
    {"pool_close", 0, nif_pool_close, 0},
    {"submit", 13, nif_submit, 0},
    {"call_inline", 9, nif_call_inline, 0},
    {"cancel", 1, nif_cancel, 0},
    {"cancel_waiting", 1, nif_cancel_waiting, 0},
    {"interrupt", 1, nif_interrupt, 0},
    {"ticket", 0, nif_ticket, 0},
    {"ticket_token", 1, nif_ticket_token, 0},
    {"owner", 0, nif_owner, 0},
    {"owner_for", 1, nif_owner_for, 0},
    {"namespace", 1, nif_namespace, 0},
    {"slots", 0, nif_slots, 0},
    {"slots_set_max", 1, nif_slots_set_max, 0},
    {"slot_acquire", 4, nif_slot_acquire, 0},
    {"slot_release", 1, nif_slot_release, 0},
    {"callback_reply", 2, nif_callback_reply, 0},
    {"is_handle", 1, nif_is_handle, 0},
    {"handle_place", 1, nif_handle_place, 0},
    {"counters", 0, nif_counters, 0},
    {"sink_open", 1, nif_sink_open, 0},
    {"sink_taken", 1, nif_sink_taken, 0},
    {"sink_dropped", 0, nif_sink_dropped, 0},
    {"sink_set", 2, nif_sink_set, 0},
};

ERL_NIF_INIT(py_nif, functions, load, NULL, upgrade, unload)
