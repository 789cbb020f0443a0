/*
 * handle - a Python object seen from Erlang: an opaque reference, or a binary of the bytes it holds;
 * freed by garbage collection.
 *
 * The resource holds a node that was allocated with it; the destructor, which
 * may run on any thread, only links that node into the interpreter's drop list.
 */
#ifndef EP_HANDLE_H
#define EP_HANDLE_H

#include "interp.h"

#include <erl_nif.h>
#include <stdbool.h>

typedef enum { HANDLE_NONE, HANDLE_HERE, HANDLE_ELSEWHERE } handle_found_t;

/* Executors, as far as handles know them. */
typedef struct {
    void *(*here)(ErlNifPid *process); /* that of this thread, its context's process; or NULL */
    void *(*acquire)(void *maker);
    void (*release)(void *maker);
    void (*drop)(void *maker, drop_t *drop); /* lets one of its threads release an object */
} handle_makers_t;

/* To be called before the first handle is made, as the library is loaded. */
void handle_set_makers(const handle_makers_t *functions);

/* Makes the handle term for `object` (borrowed; a reference is kept) in `env`.
 * False, nothing set, when memory is short. GIL: held. */
bool handle_to_term(module_state_t *state, ErlNifEnv *env, PyObject *object, ERL_NIF_TERM *out);

/* The same for a binary of `size` bytes that the object keeps where they are, unchanged for life, in
 * its own block of memory: shared, not copied. */
bool handle_to_binary(module_state_t *state, ErlNifEnv *env, PyObject *object, const void *bytes,
                      size_t size, ERL_NIF_TERM *out);

/* Whether `term` is a handle: HANDLE_NONE (it is not), HANDLE_HERE (*object is
 * a new reference), HANDLE_ELSEWHERE (an object of another interpreter).
 * GIL: held. */
handle_found_t handle_from_term(module_state_t *state, ErlNifEnv *env, ERL_NIF_TERM term,
                                PyObject **object);

#endif
