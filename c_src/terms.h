/*
 * terms - Python types for Erlang terms that Python has nothing like: Pid, Ref,
 * Port, Fun (opaque, hashable, comparable, round-trip), Buffer (a binary whose
 * bytes are read where they are) and Atom (a str that converts back to an atom).
 *
 * All are immutable. A Pid, Ref or Port can be pickled; a Fun or Buffer cannot. An Atom is
 * only text until it is converted, so making one costs no place in the VM's table.
 */
#ifndef EP_TERMS_H
#define EP_TERMS_H

#include "module.h"

#include <erl_nif.h>
#include <stdbool.h>
#include <stddef.h>

/* Creates the heap types, the exception classes (but CallbackError) and the atom cache in
 * `state` and adds the first two to `module` under their public names. False with an
 * exception set. GIL: held. */
bool terms_init(PyObject *module, module_state_t *state);

/* Frees the atom cache; the types and classes are the module's to clear. GIL: held. */
void terms_finish(module_state_t *state);

/* A new Pid, Ref, Port or Fun for a pid, reference, port or fun term; NULL with an
 * exception set (TypeError for any other term). GIL: held. */
PyObject *terms_from_term(module_state_t *state, ErlNifEnv *env, ERL_NIF_TERM term);

/* A new Buffer on the bytes of a binary term, which stay where they are and live as long as it.
 * NULL with an exception set. GIL: held. */
PyObject *terms_buffer(module_state_t *state, ERL_NIF_TERM binary);

/* Whether `object` is one of the six types; if so *out is its term in `env`.
 * An Atom whose text is no atom yet is made within the bounded table
 * (terms_atom); false, nothing set, when it does not fit. GIL: held. */
bool terms_to_term(module_state_t *state, ErlNifEnv *env, PyObject *object, ERL_NIF_TERM *out);

/* erlang.atom(text): a new Atom whose atom exists or was made within the bounded table.
 * NULL with TypeError (no str), ValueError (no atom can have that text) or erlang.Error
 * (the table is full) set. GIL: held. */
PyObject *terms_make_atom(module_state_t *state, PyObject *text);

/* The atom that has this UTF-8 text (length in bytes). False, nothing set: there is none. Any
 * thread, no GIL needed. */
bool terms_existing_atom(ErlNifEnv *env, const char *text, size_t length, ERL_NIF_TERM *out);

/* Atom for UTF-8 text (length in bytes): an existing one, or a new one while the
 * bounded table (16 384 for the VM) has room and the text fits an atom (255
 * characters). False, nothing set, otherwise. Any thread, no GIL needed. */
bool terms_atom(ErlNifEnv *env, const char *text, size_t length, ERL_NIF_TERM *out);

#endif
