#include "owner.h"

#include "dispatch.h"
#include "executor.h"
#include "interrupt.h"

static ErlNifResourceType *type;

static void on_down(ErlNifEnv *env, void *object, ErlNifPid *pid, ErlNifMonitor *monitor)
{
    owner_t *owner = object;
    int slots;

    (void)pid;
    (void)monitor;
    request_enter_scheduler(env);
    atomic_store(&owner->is_dead, true);
    slots = atomic_exchange(&owner->slots, 0);
    for (int i = 0; i < slots; i++)
        dispatch_free_slot();
    if (atomic_load(&owner->requests) > 0)
        interrupt_owner(owner);
    request_leave_scheduler();
}

bool owner_setup(ErlNifEnv *env, ErlNifResourceFlags flags)
{
    ErlNifResourceTypeInit init = {.down = on_down};

    type = enif_open_resource_type_x(env, "py_owner", &init, flags, NULL);
    return type != NULL;
}

ERL_NIF_TERM owner_make(ErlNifEnv *env, const ErlNifPid *pid)
{
    owner_t *owner = enif_alloc_resource(type, sizeof(*owner));
    ErlNifMonitor monitor;
    ErlNifPid self;
    ERL_NIF_TERM term;

    enif_self(env, &self);
    owner->pid = pid != NULL ? *pid : self;
    atomic_init(&owner->is_dead, false);
    atomic_init(&owner->requests, 0);
    atomic_init(&owner->slots, 0);
    atomic_init(&owner->next_recent, 0);
    for (int i = 0; i < OWNER_RECENT; i++)
        atomic_init(&owner->recent[i], 0);
    enif_monitor_process(env, owner, &self, &monitor);
    term = enif_make_resource(env, owner);
    enif_release_resource(owner);
    return term;
}

owner_t *owner_get(ErlNifEnv *env, ERL_NIF_TERM term)
{
    void *owner;

    return enif_get_resource(env, term, type, &owner) ? owner : NULL;
}

owner_t *owner_acquire(owner_t *owner)
{
    enif_keep_resource(owner);
    atomic_fetch_add(&owner->requests, 1);
    return owner;
}

void owner_note(owner_t *owner, uint64_t token)
{
    unsigned at = atomic_fetch_add_explicit(&owner->next_recent, 1, memory_order_relaxed);

    atomic_store(&owner->recent[at % OWNER_RECENT], token);
}

int owner_last(owner_t *owner)
{
    unsigned count = atomic_load(&owner->next_recent);

    return count > OWNER_RECENT ? OWNER_RECENT + 1 : (int)count;
}

void owner_release(owner_t *owner)
{
    if (owner == NULL)
        return;
    atomic_fetch_sub(&owner->requests, 1);
    enif_release_resource(owner);
}
