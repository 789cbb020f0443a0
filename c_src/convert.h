/*
 * convert - Erlang terms to Python objects and back; the only converters.
 *
 * Both directions walk with an explicit stack, so neither depth nor width
 * touches the C stack. Either the whole value converts or nothing is left:
 * no partial value, no pending exception.
 *
 * GIL:      held, attached to `state`'s interpreter.
 * Failure:  false (or NULL) with `failure` filled in; no exception is set.
 * User code may run inside convert_out (properties, iterators, __str__), so it
 * trusts no size or borrowed reference across such a step. Inside convert_in only
 * __hash__ and __eq__ of objects whose handles are keys of a map may run, and numpy's code.
 */
#ifndef EP_CONVERT_H
#define EP_CONVERT_H

#include "module.h"

#include <erl_nif.h>
#include <stdbool.h>

/* Deeper values are refused, either way: at a million levels the containers alone take
 * a few hundred megabytes, and only a program that went wrong makes them. */
enum { CONVERT_DEPTH_MAX = 1000000 };

typedef enum { BINARY_AUTO, BINARY_BYTES, BINARY_STR } binary_policy_t;
typedef enum { UNKNOWN_HANDLE, UNKNOWN_REPR, UNKNOWN_ERROR } unknown_policy_t;

/*
 * Why a conversion failed: `{error, {badarg, Path, Why}}` (in) or
 * `{error, {unconvertible, Path, Type}}` (out), already built in `env`.
 *
 * Path is a list from the outside in: the 1-based position for lists and
 * tuples, the key itself for maps ([] is the value itself); of a value nested deeper
 * than 1 000 levels only the outermost 1 000 steps. Inside a key that fails on its way
 * out, it ends at the map: the key has no term yet.
 *
 * Why is an atom: `improper_list`, `bitstring`, `invalid_utf8`, `unhashable_key`,
 * `duplicate_key` (equal in Python: `a` and `<<"a">>`, 1 and 1.0), `other_interpreter`,
 * `too_deep`, `unsupported_term`, `bad_ndarray`, `needs_numpy`; `bad_name` from convert_name. Type is a binary, the
 * name of the Python type that has no term: an object without an image when the
 * policy is UNKNOWN_ERROR, a container that contains itself, a map (the path ends in
 * the key) two of whose keys become the same term, an integer beyond the VM's limit.
 *
 * An exception raised by user code, or for want of memory, becomes the exception's own
 * error term (failure_in_conversion); an erlang.Interrupt the atom `interrupted`.
 */
typedef struct {
    ErlNifEnv *env;      /* where `reason` is to be built; set by the caller */
    ERL_NIF_TERM reason; /* what stands in {error, reason} */
    ERL_NIF_TERM prefix; /* in only: reversed outer path in `env`, e.g. [3] for the third
                            argument; set by the caller, 0 or an empty list if none */
} convert_failure_t;

/* Erlang to Python. Returns a new reference, or NULL with failure->reason set. */
PyObject *convert_in(module_state_t *state, ErlNifEnv *env, ERL_NIF_TERM term,
                     binary_policy_t binaries, convert_failure_t *failure);

/* A module, attribute or key name given as atom, binary or string (list of code
 * points): a new interned str, or NULL with failure->reason set. */
PyObject *convert_name(module_state_t *state, ErlNifEnv *env, ERL_NIF_TERM term,
                       convert_failure_t *failure);

typedef struct {
    unknown_policy_t unknown;
    bool as_arrays; /* buffers of numbers become {ndarray, Type, Shape, Binary} */
    bool as_handle; /* the top-level object becomes a handle, convertible or not
                       (`return => handle`) */
} convert_out_options_t;

/* Python to Erlang, built in `env`, which may belong to no process: big maps are
 * built in a way that is safe there (a chain of puts, see facts). */
bool convert_out(module_state_t *state, ErlNifEnv *env, PyObject *object,
                 convert_out_options_t options, ERL_NIF_TERM *out, convert_failure_t *failure);

#endif
