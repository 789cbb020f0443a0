/*
 * arrays - objects with the buffer protocol (numpy's arrays, array.array, ctypes', memoryviews) and
 * their Erlang form {ndarray, Type, Shape, Binary}: a type of numpy's array interface ("<f8"), the
 * lengths of the dimensions, the items in C order.
 *
 * GIL: held.
 */
#ifndef EP_ARRAYS_H
#define EP_ARRAYS_H

#include "module.h"

#include <erl_nif.h>
#include <stdbool.h>

/* Builds the form of object's buffer in env. False without an exception: it has none (no such
 * buffer, no numbers, no dimension, nothing but bytes). */
bool arrays_to_term(ErlNifEnv *env, PyObject *object, ERL_NIF_TERM *out);

/* What {ndarray, Type, Shape, Binary} stands for: a numpy array where numpy is loaded, else a
 * memoryview, either way over the binary's own bytes. NULL, with *why set unless an exception is:
 * atom_bad_ndarray (its parts do not fit), atom_needs_numpy (a memoryview cannot say that). */
PyObject *arrays_from_term(module_state_t *state, ErlNifEnv *env, const ERL_NIF_TERM items[4],
                           ERL_NIF_TERM *why);

#endif
