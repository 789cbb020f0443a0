/*
 * namespace - the globals in which an Erlang process's code runs in a context.
 *
 * Made on a scheduler as an empty shell; the dict is created by the context's
 * thread at first use and dropped by it when the last reference (the process's
 * dictionary, a request, a callback's process) is gone.
 */
#ifndef EP_NAMESPACE_H
#define EP_NAMESPACE_H

#include "interp.h"

#include <erl_nif.h>

struct context;

typedef struct namespace
{
    struct context *context; /* kept */
    interp_t *interp;        /* kept; set with the dict */
    drop_t *drop;            /* drop->object is the dict; NULL before first use */
    atomic_bool is_made;
}
namespace_t;

bool namespace_setup(ErlNifEnv *env, ErlNifResourceFlags flags);

/* A new term; the context is kept. */
ERL_NIF_TERM namespace_make(ErlNifEnv *env, struct context *context);

/* Borrowed; NULL if the term is something else. */
namespace_t *namespace_get(ErlNifEnv *env, ERL_NIF_TERM term);
ERL_NIF_TERM namespace_term(ErlNifEnv *env, namespace_t *self);

namespace_t *namespace_acquire(namespace_t *self);
void namespace_release(namespace_t *self); /* takes NULL */

/* How many dicts there are in the VM. */
int64_t namespace_count(void);

/* Its dict, made if need be; borrowed. NULL with an exception set, or without one when
 * the namespace belongs to an interpreter that was replaced. GIL: held. */
PyObject *namespace_dict(namespace_t *self, module_state_t *state);

#endif
