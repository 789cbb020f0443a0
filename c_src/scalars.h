/*
 * scalars - numbers, text and atoms, each way, one at a time.
 *
 * The leaves of a conversion; convert_in and convert_out walk the containers and
 * keep the commonest of these cases inline.
 *
 * GIL: held. No user code runs here.
 */
#ifndef EP_SCALARS_H
#define EP_SCALARS_H

#include "module.h"

#include <erl_nif.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/*
 * Where terms are built. In an env of no process (OTP 25 to 29), enif_make_new_binary takes
 * a heap fragment of its own when the current one is full, five times the price of the
 * binary, and so does the next one. Other terms start a fragment with room for hundreds
 * of words. So when a small binary does not follow the one before, a float of two words is
 * made and dropped: the next hundred binaries are packed behind it. `next` is only
 * compared, never followed: a wrong guess costs time, nothing else.
 */
typedef struct {
    ErlNifEnv *env;
    const unsigned char *next; /* where the next small binary is expected; NULL at first */
} scalars_sink_t;

enum { SCALARS_SMALL_BINARY = 64 }; /* larger ones live outside the heap */

/* Memory of a new binary of at most SCALARS_SMALL_BINARY bytes. */
static inline unsigned char *scalars_small_binary(scalars_sink_t *sink, size_t size,
                                                  ERL_NIF_TERM *out)
{
    enum { WORD = sizeof(ERL_NIF_TERM), HEADER = 2 * WORD };
    unsigned char *bytes = enif_make_new_binary(sink->env, size, out);

    if (bytes != sink->next && sink->next != NULL)
        (void)enif_make_double(sink->env, 0.0);
    sink->next = bytes + (size + WORD - 1) / WORD * WORD + HEADER;
    return bytes;
}

/* Erlang to Python: a new reference, or NULL with an exception set. */

PyObject *scalars_int_from_term(ErlNifEnv *env, ERL_NIF_TERM integer);

/* An interned str, or True, False, None. */
PyObject *scalars_atom_from_term(module_state_t *state, ErlNifEnv *env, ERL_NIF_TERM atom);

/* A str if it is UTF-8 as Python's strict decoder accepts it (shortest forms, no
 * surrogates), else bytes. */
PyObject *scalars_str_or_bytes(const unsigned char *bytes, size_t size);

bool scalars_is_utf8(const unsigned char *bytes, size_t size);

/* Python to Erlang. False, nothing set, when the VM has no such term (an integer of too
 * many digits) or memory is short. */

bool scalars_int_to_term(ErlNifEnv *env, PyObject *number, ERL_NIF_TERM *out);

/*
 * Text as UTF-8. A str with lone surrogates is not text, and Erlang gets bytes that lose
 * nothing: the original ones when they came from undecodable bytes (surrogateescape,
 * U+DC80 to U+DCFF only, as in file names), else UTF-8 with the surrogates written like
 * any code point (surrogatepass), which comes back as `bytes`.
 */
bool scalars_str_to_term(scalars_sink_t *sink, PyObject *text, ERL_NIF_TERM *out);

bool scalars_bytes_to_term(scalars_sink_t *sink, const void *bytes, size_t size, ERL_NIF_TERM *out);

/* A list of the `size` numbers of a range, without making ints of them. False, nothing
 * set, when they do not fit 64 bits. */
bool scalars_range_to_term(ErlNifEnv *env, PyObject *range, Py_ssize_t size, ERL_NIF_TERM *out);

/* Whether a buffer's items are bytes. */
bool scalars_are_bytes(const Py_buffer *buffer);

/* Whether a buffer is nothing but bytes in a row. */
bool scalars_is_bytes(const Py_buffer *buffer);

/* nan and the infinities, which Erlang's floats lack, become atoms. */
ERL_NIF_TERM scalars_float_to_term(ErlNifEnv *env, double number);

/* Atoms seen by an interpreter, as str. */
struct atom_cache *scalars_atom_cache_create(void); /* NULL when memory is short */
void scalars_atom_cache_destroy(struct atom_cache *cache);

/* Whether all bytes are ASCII, a word at a time. */
static inline bool scalars_is_ascii(const unsigned char *bytes, size_t size)
{
    const uint64_t high = UINT64_C(0x8080808080808080);
    uint64_t words[4], seen = 0;
    unsigned char last = 0;

    for (; size >= sizeof words; bytes += sizeof words, size -= sizeof words) {
        memcpy(words, bytes, sizeof words);
        if ((words[0] | words[1] | words[2] | words[3]) & high)
            return false;
    }
    for (; size >= sizeof words[0]; bytes += sizeof words[0], size -= sizeof words[0]) {
        memcpy(words, bytes, sizeof words[0]);
        seen |= words[0];
    }
    for (; size > 0; size--)
        last |= *bytes++;
    return (seen & high) == 0 && last < 0x80;
}

#endif
