/*
 * enif - what the converters use of erl_nif.h, without a VM.
 *
 * Every boxed term is a block of its own, freed with its env: AddressSanitizer then sees a
 * byte too far, a term whose env is gone, a resource that nobody released. What the VM takes
 * badly ends the program: a term of another env inside a new one, a float that is none, a map
 * of more than 128 pairs from arrays (see maps.h). There are no locks, so that nothing is
 * hidden from ThreadSanitizer: an env belongs to one thread at a time, as in the VM.
 *
 * All envs are of no process. Integers of 60 bits, atoms, local pids and ports are immediate.
 * Not here: the sharing of large binaries, NEW_FUN_EXT, compressed terms.
 */
#ifndef EP_TEST_ENIF_H
#define EP_TEST_ENIF_H

#include <erl_nif.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Asked where the VM may be short of memory and says so; NULL: never short. */
extern bool (*enif_is_short)(void);

/* Envs, binaries and resources that are still there. */
long enif_count_live(void);

/* From enif_keep_atoms on new atoms are temporary: enif_forget_atoms frees them. One thread. */
void enif_keep_atoms(void);
void enif_forget_atoms(void);
unsigned enif_count_temporary_atoms(void);

/* ---- what etf.c makes terms with ---- */

/* 0: not at most 255 characters, or no such atom and `existing`. */
ERL_NIF_TERM enif_utf8_atom(const unsigned char *text, size_t size, bool existing);
ERL_NIF_TERM enif_latin1_atom(const char *text, size_t length, bool existing);

/* Sign and magnitude, least significant byte first. */
ERL_NIF_TERM enif_make_integer(ErlNifEnv *env, const unsigned char *digits, size_t size,
                               bool negative);
ERL_NIF_TERM enif_make_bits(ErlNifEnv *env, const unsigned char *bytes, size_t bits);

/* A pid, reference, port or fun that is told from others by its external format. */
ERL_NIF_TERM enif_make_external(ErlNifEnv *env, ErlNifTermType type, const unsigned char *etf,
                                size_t size);
/* A pid or port of this node. */
ERL_NIF_TERM enif_make_local(ErlNifTermType type, uint32_t number);
bool enif_get_local(ERL_NIF_TERM term, uint32_t *number);

/* The text of an atom, digits of a big integer (*flag: negative), bits of a bitstring, external
 * format of a reference (*flag: it is a resource instead) and so on; borrowed, NULL: none. */
const unsigned char *enif_inspect(ERL_NIF_TERM term, size_t *size, bool *flag);

#endif
