#include "handle.h"

#include "handle_nif.h"
#include "interp.h"

#include <stdlib.h>

typedef struct {
    interp_t *interp; /* kept */
    drop_t *drop;
    void *maker; /* kept, on free-threaded builds; else NULL */
    bool has_home;
    ErlNifPid home; /* the context's process where it was made: its thread knows the object best */
} handle_t;

static ErlNifResourceType *type;
static ErlNifResourceType *bytes_type; /* so that no binary passes for a handle */
static const handle_makers_t *makers;

static void destroy(ErlNifEnv *env, void *object)
{
    handle_t *handle = object;

    (void)env;
    if (handle->maker != NULL) {
        makers->drop(handle->maker, handle->drop);
        makers->release(handle->maker);
    } else {
        interp_drop(handle->interp, handle->drop);
    }
    interp_release(handle->interp);
}

bool handle_setup(ErlNifEnv *env, ErlNifResourceFlags flags)
{
    ErlNifResourceTypeInit init = {.dtor = destroy};

    type = enif_open_resource_type_x(env, "py_handle", &init, flags, NULL);
    bytes_type = enif_open_resource_type_x(env, "py_bytes", &init, flags, NULL);
    return type != NULL && bytes_type != NULL;
}

void handle_set_makers(const handle_makers_t *functions)
{
    makers = functions;
}

/* A resource that keeps the object; NULL when memory is short. */
static handle_t *keep(ErlNifResourceType *of, module_state_t *state, PyObject *object)
{
    ErlNifPid process;
    void *maker = makers->here(&process);
    drop_t *drop = malloc(sizeof(*drop));
    handle_t *handle = drop != NULL ? enif_alloc_resource(of, sizeof(*handle)) : NULL;

    if (handle == NULL) {
        free(drop);
        return NULL;
    }
    Py_INCREF(object);
    drop->object = object;
    drop->is_block = of == bytes_type;
    handle->interp = interp_acquire(state->interp);
    handle->drop = drop;
    handle->maker = NULL;
    handle->has_home = maker != NULL;
    if (maker != NULL)
        handle->home = process;
#ifdef Py_GIL_DISABLED
    if (maker != NULL && state->interp->kind == INTERP_MAIN)
        handle->maker = makers->acquire(maker);
#endif
    return handle;
}

bool handle_to_term(module_state_t *state, ErlNifEnv *env, PyObject *object, ERL_NIF_TERM *out)
{
    handle_t *handle = keep(type, state, object);

    if (handle == NULL)
        return false;
    *out = enif_make_resource(env, handle);
    enif_release_resource(handle);
    return true;
}

bool handle_to_binary(module_state_t *state, ErlNifEnv *env, PyObject *object, const void *bytes,
                      size_t size, ERL_NIF_TERM *out)
{
    handle_t *handle = keep(bytes_type, state, object);

    if (handle == NULL)
        return false;
    *out = enif_make_resource_binary(env, handle, bytes, size);
    enif_release_resource(handle);
    return true;
}

handle_found_t handle_from_term(module_state_t *state, ErlNifEnv *env, ERL_NIF_TERM term,
                                PyObject **object)
{
    handle_t *handle;
    void *found;

    if (!enif_get_resource(env, term, type, &found))
        return HANDLE_NONE;
    handle = found;
    if (handle->interp != state->interp)
        return HANDLE_ELSEWHERE;
    *object = handle->drop->object;
    Py_INCREF(*object);
    return HANDLE_HERE;
}

bool handle_is(ErlNifEnv *env, ERL_NIF_TERM term)
{
    void *found;

    return enif_get_resource(env, term, type, &found);
}

bool handle_process(ErlNifEnv *env, ERL_NIF_TERM term, handle_place_t *place, ErlNifPid *pid)
{
    void *found;
    handle_t *handle;
    interp_t *interp;

    if (!enif_get_resource(env, term, type, &found))
        return false;
    handle = found;
    interp = handle->interp;
    *place = HANDLE_PLACE_GONE;
    if (handle->has_home)
        *pid = handle->home;
    pthread_mutex_lock(&interp->lock);
    if (interp->kind == INTERP_MAIN) {
        *place = handle->has_home ? HANDLE_PLACE_MAIN_CONTEXT : HANDLE_PLACE_MAIN;
    } else if (interp->user != NULL) {
        *place = HANDLE_PLACE_CONTEXT;
        *pid = *(const ErlNifPid *)interp->user;
    }
    pthread_mutex_unlock(&interp->lock);
    return true;
}
