#include "ticket.h"

#include <stdatomic.h>

typedef struct {
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

    atomic_init(&ticket->token, 0);
    term = enif_make_resource(env, ticket);
    enif_release_resource(ticket);
    return term;
}

_Atomic uint64_t *ticket_token(ErlNifEnv *env, ERL_NIF_TERM term)
{
    void *found;

    return enif_get_resource(env, term, type, &found) ? &((ticket_t *)found)->token : NULL;
}
