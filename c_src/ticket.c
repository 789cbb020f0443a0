#include "ticket.h"

#include <stdatomic.h>

typedef struct {
    ErlNifPid holder;
    _Atomic uint64_t token;
} ticket_t;

static ErlNifResourceType *type;

bool ticket_setup(ErlNifEnv *env, ErlNifResourceFlags flags)
{
    ErlNifResourceTypeInit init = {.dtor = NULL};

    type = enif_open_resource_type_x(env, "py_ticket", &init, flags, NULL);
    return type != NULL;
}

ERL_NIF_TERM ticket_make(ErlNifEnv *env)
{
    ticket_t *ticket = enif_alloc_resource(type, sizeof(*ticket));
    ERL_NIF_TERM term;

    enif_self(env, &ticket->holder);
    atomic_init(&ticket->token, 0);
    term = enif_make_resource(env, ticket);
    enif_release_resource(ticket);
    return term;
}

static ticket_t *get(ErlNifEnv *env, ERL_NIF_TERM term)
{
    void *found;

    return enif_get_resource(env, term, type, &found) ? found : NULL;
}

void ticket_set_token(ErlNifEnv *env, ERL_NIF_TERM term, uint64_t token)
{
    ticket_t *ticket = get(env, term);

    if (ticket != NULL)
        atomic_store(&ticket->token, token);
}

bool ticket_token(ErlNifEnv *env, ERL_NIF_TERM term, uint64_t *token, bool *is_own)
{
    ticket_t *ticket = get(env, term);
    ErlNifPid self;

    if (ticket == NULL)
        return false;
    *token = atomic_load(&ticket->token);
    *is_own = enif_self(env, &self) != NULL && enif_compare_pids(&self, &ticket->holder) == 0;
    return true;
}
