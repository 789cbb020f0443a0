/* The external term format, both ways: the fuzzer's input, and what the library asks of the VM. */
#include "enif.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    ETF_VERSION = 131,
    ETF_NEW_FLOAT = 70,
    ETF_BIT_BINARY = 77,
    ETF_NEW_PID = 88,
    ETF_NEW_PORT = 89,
    ETF_NEWER_REFERENCE = 90,
    ETF_SMALL_INTEGER = 97,
    ETF_INTEGER = 98,
    ETF_ATOM = 100,
    ETF_PORT = 102,
    ETF_PID = 103,
    ETF_SMALL_TUPLE = 104,
    ETF_LARGE_TUPLE = 105,
    ETF_NIL = 106,
    ETF_STRING = 107,
    ETF_LIST = 108,
    ETF_BINARY = 109,
    ETF_SMALL_BIG = 110,
    ETF_LARGE_BIG = 111,
    ETF_EXPORT = 113,
    ETF_NEW_REFERENCE = 114,
    ETF_SMALL_ATOM = 115,
    ETF_MAP = 116,
    ETF_ATOM_UTF8 = 118,
    ETF_SMALL_ATOM_UTF8 = 119,
    ETF_V4_PORT = 120
};

/* Decoding recurses. */
enum { DEPTH_MAX = 3000 };

/* ---- decoding: 0 is no term ---- */

typedef struct {
    ErlNifEnv *env;
    const unsigned char *at, *end;
    int depth;
    bool existing; /* make no atoms */
    bool failed;
} reader_t;

static ERL_NIF_TERM read_term(reader_t *reader);

static const unsigned char *take(reader_t *reader, size_t size)
{
    static const unsigned char nothing[8];
    const unsigned char *at = reader->at;

    if (reader->failed || (size_t)(reader->end - at) < size) {
        reader->failed = true;
        return nothing;
    }
    reader->at += size;
    return at;
}

/* Big endian, of at most 4 bytes. */
static uint32_t read_number(reader_t *reader, size_t size)
{
    const unsigned char *bytes = take(reader, size);
    uint32_t number = 0;

    for (size_t i = 0; i < size; i++)
        number = number << 8 | bytes[i];
    return number;
}

/* What `size` stands for follows; false, and failed: the input is shorter. */
static bool has(reader_t *reader, size_t size)
{
    if ((size_t)(reader->end - reader->at) < size)
        reader->failed = true;
    return !reader->failed;
}

/* Length of the UTF-8 sequence at `at`; 0: there is none. */
static size_t utf8_length(const unsigned char *at, const unsigned char *end)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const size_t length = *at < 0x80 ? 1 : *at < 0xc0 ? 0 : *at < 0xe0 ? 2 : *at < 0xf0 ? 3 : 4;
    uint32_t c = length < 2 ? *at : *at & (0x7fU >> length);

    if (*at >= 0xf8 || (size_t)(end - at) < length)
        return 0;
    for (size_t i = 1; i < length; i++) {
        if ((at[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (at[i] & 0x3fU);
    }
    return c < least[length] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : length;
}

static ERL_NIF_TERM read_atom(reader_t *reader, size_t width, bool is_utf8)
{
    const size_t size = read_number(reader, width);
    const unsigned char *text = has(reader, size) ? take(reader, size) : NULL;
    size_t length = 1;

    if (text == NULL)
        return 0;
    if (!is_utf8)
        return enif_latin1_atom((const char *)text, size, reader->existing);
    for (size_t i = 0; i < size && length > 0; i += length)
        length = utf8_length(text + i, text + size);
    return length == 0 ? 0 : enif_utf8_atom(text, size, reader->existing);
}

static ERL_NIF_TERM read_big(reader_t *reader, size_t width)
{
    const size_t size = read_number(reader, width);
    const bool negative = read_number(reader, 1) != 0;

    return has(reader, size) ? enif_make_integer(reader->env, take(reader, size), size, negative)
                             : 0;
}

static ERL_NIF_TERM read_float(reader_t *reader)
{
    uint64_t bits = (uint64_t)read_number(reader, 4) << 32;
    double number = 0;

    bits |= read_number(reader, 4);
    memcpy(&number, &bits, sizeof number);
    return isfinite(number) ? enif_make_double(reader->env, number) : 0;
}

static ERL_NIF_TERM read_bits(reader_t *reader, bool is_whole)
{
    const size_t size = read_number(reader, 4), last = is_whole ? 8 : read_number(reader, 1);

    if (!has(reader, size) || (size == 0 && !is_whole) || last < 1 || last > 8)
        return 0;
    return enif_make_bits(reader->env, take(reader, size), size == 0 ? 0 : size * 8 - 8 + last);
}

/* An array of terms, NULL on failure; to be freed. */
static ERL_NIF_TERM *read_terms(reader_t *reader, size_t size)
{
    ERL_NIF_TERM *terms = has(reader, size) ? calloc(size + 1, sizeof *terms) : NULL;

    for (size_t i = 0; terms != NULL && i < size && !reader->failed; i++)
        terms[i] = read_term(reader);
    if (!reader->failed)
        return terms;
    free(terms);
    return NULL;
}

static ERL_NIF_TERM read_tuple(reader_t *reader, size_t size)
{
    ERL_NIF_TERM *terms = read_terms(reader, size);
    ERL_NIF_TERM tuple =
        terms != NULL ? enif_make_tuple_from_array(reader->env, terms, (unsigned)size) : 0;

    free(terms);
    return tuple;
}

static ERL_NIF_TERM read_list(reader_t *reader)
{
    size_t size = read_number(reader, 4);
    ERL_NIF_TERM *terms = read_terms(reader, size);
    ERL_NIF_TERM list = terms != NULL ? read_term(reader) : 0;

    while (list != 0 && size > 0)
        list = enif_make_list_cell(reader->env, terms[--size], list);
    free(terms);
    return list;
}

static ERL_NIF_TERM read_string(reader_t *reader)
{
    size_t size = read_number(reader, 2);
    const unsigned char *text = has(reader, size) ? take(reader, size) : NULL;
    ERL_NIF_TERM list = enif_make_list(reader->env, 0);

    while (text != NULL && size > 0) {
        size--;
        list = enif_make_list_cell(reader->env, enif_make_uint(reader->env, text[size]), list);
    }
    return list;
}

static ERL_NIF_TERM read_map(reader_t *reader)
{
    const size_t pairs = read_number(reader, 4);
    ERL_NIF_TERM map = enif_make_new_map(reader->env), *terms = read_terms(reader, 2 * pairs);
    size_t size = 0;

    for (size_t i = 0; terms != NULL && i < pairs; i++)
        (void)enif_make_map_put(reader->env, map, terms[2 * i], terms[2 * i + 1], &map);
    free(terms);
    return terms != NULL && enif_get_map_size(reader->env, map, &size) && size == pairs ? map : 0;
}

/* What is between is kept as it is; a pid or port of this node becomes a local one. */
static ERL_NIF_TERM read_external(reader_t *reader, ErlNifTermType type, size_t words)
{
    const unsigned char *start = reader->at - 1;
    ERL_NIF_TERM node = 0;
    uint32_t number = 0;

    if (*start == ETF_NEWER_REFERENCE || *start == ETF_NEW_REFERENCE)
        words += read_number(reader, 2) * 4;
    node = read_term(reader);
    if (reader->failed || !enif_is_atom(reader->env, node))
        return 0;
    if (type == ERL_NIF_TERM_TYPE_FUN) {
        ERL_NIF_TERM function = read_term(reader), arity = read_term(reader);

        if (reader->failed || !enif_is_atom(reader->env, function) ||
            !enif_get_uint(reader->env, arity, &number) || number > 255)
            return 0;
    } else if (has(reader, words)) {
        number = words >= 4 ? read_number(reader, 4) : 0;
        take(reader, words - 4);
    }
    if ((type == ERL_NIF_TERM_TYPE_PID || type == ERL_NIF_TERM_TYPE_PORT) && !reader->failed &&
        node == enif_make_atom(reader->env, "nonode@nohost"))
        return enif_make_local(type, number & 0xfffffff);
    return reader->failed
               ? 0
               : enif_make_external(reader->env, type, start, (size_t)(reader->at - start));
}

static ERL_NIF_TERM read_tag(reader_t *reader)
{
    const uint32_t tag = read_number(reader, 1);

    switch (tag) {
    case ETF_SMALL_INTEGER:
        return enif_make_uint(reader->env, read_number(reader, 1));
    case ETF_INTEGER:
        return enif_make_int64(reader->env, (int32_t)read_number(reader, 4));
    case ETF_SMALL_BIG:
    case ETF_LARGE_BIG:
        return read_big(reader, tag == ETF_SMALL_BIG ? 1 : 4);
    case ETF_NEW_FLOAT:
        return read_float(reader);
    case ETF_ATOM:
    case ETF_SMALL_ATOM:
        return read_atom(reader, tag == ETF_SMALL_ATOM ? 1 : 2, false);
    case ETF_ATOM_UTF8:
    case ETF_SMALL_ATOM_UTF8:
        return read_atom(reader, tag == ETF_SMALL_ATOM_UTF8 ? 1 : 2, true);
    case ETF_BINARY:
    case ETF_BIT_BINARY:
        return read_bits(reader, tag == ETF_BINARY);
    case ETF_NIL:
        return enif_make_list(reader->env, 0);
    case ETF_STRING:
        return read_string(reader);
    case ETF_LIST:
        return read_list(reader);
    case ETF_SMALL_TUPLE:
    case ETF_LARGE_TUPLE:
        return read_tuple(reader, read_number(reader, tag == ETF_SMALL_TUPLE ? 1 : 4));
    case ETF_MAP:
        return read_map(reader);
    case ETF_PID:
    case ETF_NEW_PID:
        return read_external(reader, ERL_NIF_TERM_TYPE_PID, tag == ETF_PID ? 9 : 12);
    case ETF_PORT:
    case ETF_NEW_PORT:
    case ETF_V4_PORT:
        return read_external(reader, ERL_NIF_TERM_TYPE_PORT,
                             tag == ETF_PORT       ? 5
                             : tag == ETF_NEW_PORT ? 8
                                                   : 12);
    case ETF_NEW_REFERENCE:
    case ETF_NEWER_REFERENCE:
        return read_external(reader, ERL_NIF_TERM_TYPE_REFERENCE, tag == ETF_NEW_REFERENCE ? 1 : 4);
    case ETF_EXPORT:
        return read_external(reader, ERL_NIF_TERM_TYPE_FUN, 0);
    default:
        return 0;
    }
}

static ERL_NIF_TERM read_term(reader_t *reader)
{
    ERL_NIF_TERM term = 0;

    if (++reader->depth <= DEPTH_MAX && !reader->failed)
        term = read_tag(reader);
    reader->depth--;
    if (reader->failed || term == 0)
        reader->failed = true;
    return reader->failed ? 0 : term;
}

size_t enif_binary_to_term(ErlNifEnv *env, const unsigned char *etf, size_t size,
                           ERL_NIF_TERM *term, unsigned options)
{
    reader_t reader = {.env = env,
                       .at = etf,
                       .end = etf + size,
                       .existing = (options & (unsigned)ERL_NIF_BIN2TERM_SAFE) != 0};

    if ((enif_is_short != NULL && enif_is_short()) || read_number(&reader, 1) != ETF_VERSION)
        return 0;
    *term = read_term(&reader);
    return *term == 0 ? 0 : (size_t)(reader.at - etf);
}

/* ---- encoding: what has no terms inside, as nothing else is asked for ---- */

static unsigned char *write_number(unsigned char *at, uint32_t number, int size)
{
    while (size-- > 0)
        *at++ = (unsigned char)(number >> 8 * size);
    return at;
}

static unsigned char *write_local(unsigned char *at, ErlNifTermType type, uint32_t number)
{
    static const unsigned char node[] = {
        ETF_SMALL_ATOM_UTF8, 13, 'n', 'o', 'n', 'o', 'd', 'e', '@', 'n', 'o', 'h', 'o', 's', 't'};

    *at++ = type == ERL_NIF_TERM_TYPE_PID ? ETF_NEW_PID : ETF_NEW_PORT;
    memcpy(at, node, sizeof node);
    at = write_number(at + sizeof node, number, 4);
    memset(at, 0, 8);
    return at + (type == ERL_NIF_TERM_TYPE_PID ? 8 : 4);
}

static unsigned char *write_integer(ErlNifEnv *env, unsigned char *at, ERL_NIF_TERM term)
{
    bool negative = false;
    size_t size = 0;
    ErlNifSInt64 number = 0;
    const unsigned char *digits = enif_inspect(term, &size, &negative);
    const bool is_large = size > 255;

    if (digits == NULL) { /* small ones are not asked for beyond 32 bits */
        (void)enif_get_int64(env, term, &number);
        *at++ = ETF_INTEGER;
        return write_number(at, (uint32_t)number, 4);
    }
    *at++ = is_large ? ETF_LARGE_BIG : ETF_SMALL_BIG;
    at = write_number(at, (uint32_t)size, is_large ? 4 : 1);
    *at++ = negative;
    memcpy(at, digits, size);
    return at + size;
}

int enif_term_to_binary(ErlNifEnv *env, ERL_NIF_TERM term, ErlNifBinary *binary)
{
    const ErlNifTermType type = enif_term_type(env, term);
    bool flag = false;
    size_t size = 0;
    uint32_t number = 0;
    const unsigned char *bytes = enif_inspect(term, &size, &flag);
    unsigned char *at = NULL;

    if (!enif_alloc_binary(size + 64, binary))
        return 0;
    at = binary->data;
    *at++ = ETF_VERSION;
    if (type == ERL_NIF_TERM_TYPE_INTEGER) {
        at = write_integer(env, at, term);
    } else if (enif_get_local(term, &number)) {
        at = write_local(at, type, number);
    } else {
        if (type == ERL_NIF_TERM_TYPE_ATOM) {
            *at++ = size > 255 ? ETF_ATOM_UTF8 : ETF_SMALL_ATOM_UTF8;
            at = write_number(at, (uint32_t)size, size > 255 ? 2 : 1);
        }
        memcpy(at, bytes, size);
        at += size;
    }
    binary->size = (size_t)(at - binary->data);
    return 1;
}
