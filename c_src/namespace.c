#include "namespace.h"

#include "context.h"

#include <stdlib.h>

static ErlNifResourceType *type;
static atomic_llong count;

static void destroy(ErlNifEnv *env, void *object)
{
    namespace_t *self = object;

    (void)env;
    if (self->drop != NULL) {
        interp_drop(self->interp, self->drop);
        interp_release(self->interp);
        atomic_fetch_sub(&count, 1);
        atomic_fetch_sub(&self->context->namespaces, 1);
    }
    context_release(self->context);
}

bool namespace_setup(ErlNifEnv *env, ErlNifResourceFlags flags)
{
    ErlNifResourceTypeInit init = {.dtor = destroy};

    type = enif_open_resource_type_x(env, "py_namespace", &init, flags, NULL);
    return type != NULL;
}

ERL_NIF_TERM namespace_make(ErlNifEnv *env, struct context *context)
{
    namespace_t *self = enif_alloc_resource(type, sizeof(*self));
    ERL_NIF_TERM term;

    self->context = context_acquire(context);
    self->interp = NULL;
    self->drop = NULL;
    atomic_init(&self->is_made, false);
    term = enif_make_resource(env, self);
    enif_release_resource(self);
    return term;
}

namespace_t *namespace_get(ErlNifEnv *env, ERL_NIF_TERM term)
{
    void *self;

    return enif_get_resource(env, term, type, &self) ? self : NULL;
}

ERL_NIF_TERM namespace_term(ErlNifEnv *env, namespace_t *self)
{
    return enif_make_resource(env, self);
}

namespace_t *namespace_acquire(namespace_t *self)
{
    enif_keep_resource(self);
    return self;
}

void namespace_release(namespace_t *self)
{
    if (self != NULL)
        enif_release_resource(self);
}

int64_t namespace_count(void)
{
    return atomic_load(&count);
}

/* A dict with what __main__ of the interpreter holds (preload code ran there). */
static PyObject *new_globals(module_state_t *state)
{
    PyObject *globals = PyDict_Copy(state->main_ns);

    if (globals != NULL && PyDict_SetItem(globals, state->str_name, state->str_main) != 0)
        Py_CLEAR(globals);
    return globals;
}

PyObject *namespace_dict(namespace_t *self, module_state_t *state)
{
    drop_t *drop;
    interp_t *interp = state->interp;

    if (atomic_load(&self->is_made))
        return self->interp == interp ? self->drop->object : NULL;
    drop = malloc(sizeof(*drop));
    if (drop == NULL)
        return PyErr_NoMemory();
    drop->is_block = false;
    drop->object = new_globals(state);
    if (drop->object == NULL) {
        free(drop);
        return NULL;
    }
    /* A dict copy can run no Python code, but in a free-threaded build another request
     * of the same namespace may be here too. */
    pthread_mutex_lock(&interp->lock);
    if (self->drop == NULL) {
        self->interp = interp_acquire(interp);
        self->drop = drop;
        atomic_fetch_add(&count, 1);
        atomic_fetch_add(&self->context->namespaces, 1);
        atomic_store(&self->is_made, true);
        drop = NULL;
    }
    pthread_mutex_unlock(&interp->lock);
    if (drop != NULL) {
        Py_DECREF(drop->object);
        free(drop);
    }
    return self->drop->object;
}
