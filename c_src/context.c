#include "context.h"

#include "atoms.h"
#include "deferred.h"
#include "interrupt.h"

#include <stdio.h>

enum { OPEN, CLOSING, CLOSED };

static ErlNifResourceType *type;
static _Atomic uint64_t serials;

static void on_down(ErlNifEnv *env, void *object, ErlNifPid *pid, ErlNifMonitor *monitor)
{
    (void)pid;
    (void)monitor;
    context_close(object, env, atom_crashed);
}

static void destroy(ErlNifEnv *env, void *object)
{
    context_t *context = object;

    (void)env;
    if (context->executor != NULL && context->is_exclusive) {
        executor_close(context->executor);
        executor_release(context->executor);
    }
    if (context->env != NULL)
        enif_free_env(context->env);
}

bool context_setup(ErlNifEnv *env, ErlNifResourceFlags flags)
{
    ErlNifResourceTypeInit init = {.dtor = destroy, .down = on_down};

    type = enif_open_resource_type_x(env, "py_context", &init, flags, NULL);
    return type != NULL;
}

static bool open_executor(context_t *context, ErlNifEnv *env, interp_kind_t kind, ERL_NIF_TERM tag)
{
    char name[16];
    ErlNifPid self;

    if (!context->is_exclusive) {
        context->executor = executor_pool_next();
        if (context->executor == NULL)
            return false;
        enif_self(env, &self);
        return enif_send(env, &self, NULL, enif_make_tuple3(env, atom_py_opened, tag, atom_ok));
    }
    snprintf(name, sizeof(name), "py:ctx%d", (int)(context->number % 100000));
    context->executor = executor_open(env, kind, name, tag);
    return context->executor != NULL;
}

ERL_NIF_TERM context_open(ErlNifEnv *env, ERL_NIF_TERM mode, interp_kind_t kind, bool exclusive,
                          int64_t number, ERL_NIF_TERM tag)
{
    context_t *context = enif_alloc_resource(type, sizeof(*context));
    ErlNifMonitor monitor;
    ERL_NIF_TERM term = 0;

    context->executor = NULL;
    context->is_exclusive = exclusive;
    context->number = number;
    context->serial = atomic_fetch_add(&serials, 1) + 1;
    atomic_init(&context->has_loop, false);
    context->mode = mode;
    context->env = enif_alloc_env();
    context->reason = atom_undefined;
    atomic_init(&context->namespaces, 0);
    atomic_init(&context->closed, OPEN);
    enif_self(env, &context->process);
    if (context->env != NULL && open_executor(context, env, kind, tag)) {
        enif_monitor_process(env, context, &context->process, &monitor);
        term = enif_make_resource(env, context);
    }
    enif_release_resource(context);
    return term;
}

context_t *context_get(ErlNifEnv *env, ERL_NIF_TERM term)
{
    void *context;

    return enif_get_resource(env, term, type, &context) ? context : NULL;
}

context_t *context_acquire(context_t *context)
{
    enif_keep_resource(context);
    return context;
}

void context_release(context_t *context)
{
    if (context != NULL)
        enif_release_resource(context);
}

bool context_is_open(const context_t *context)
{
    return atomic_load_explicit(&context->closed, memory_order_relaxed) == OPEN;
}

void context_close(context_t *context, ErlNifEnv *env, ERL_NIF_TERM reason)
{
    int open = OPEN;

    if (!atomic_compare_exchange_strong(&context->closed, &open, CLOSING))
        return;
    context->reason = enif_make_copy(context->env, reason);
    atomic_store(&context->closed, CLOSED);
    request_enter_scheduler(env);
    interrupt_closed_context(context);
    request_leave_scheduler();
    deferred_close_loop(context);
    if (context->is_exclusive)
        executor_close(context->executor);
}

ERL_NIF_TERM context_down(const context_t *context, ErlNifEnv *env)
{
    ERL_NIF_TERM reason = atom_stopping;

    if (atomic_load(&context->closed) == CLOSED)
        reason = enif_make_copy(env, context->reason);
    return enif_make_tuple2(env, atom_context_down, reason);
}
