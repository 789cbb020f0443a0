#include "scalars.h"

#include "atoms.h"
#include "pycompat.h"

#include <stdatomic.h>
#include <stdlib.h>

/* The external term format, for what erl_nif has no function for: big integers, and
 * atoms outside Latin-1 before NIF 2.17. */
enum {
    ETF_VERSION = 131,
    ETF_SMALL_BIG = 110,
    ETF_LARGE_BIG = 111,
    ETF_ATOM_UTF8 = 118,
    ETF_SMALL_ATOM_UTF8 = 119
};

enum { ATOM_TEXT_MAX = 256 };

/* ---- integers ---- */

static uint32_t read_uint32(const unsigned char *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 |
           (uint32_t)bytes[3];
}

static PyObject *big_from_etf(const unsigned char *etf, size_t size)
{
    const size_t header = size > 1 && etf[1] == ETF_LARGE_BIG ? 7 : 4;
    size_t digits = 0;
    PyObject *magnitude = NULL, *number = NULL;

    if (size > header)
        digits = header == 7 ? read_uint32(etf + 2) : etf[2];
    if (digits == 0 || digits > size - header) {
        PyErr_SetString(PyExc_SystemError, "an integer in an unknown external format");
        goto done;
    }
    magnitude = compat_long_from_bytes(etf + header, digits);
    if (magnitude != NULL)
        number = etf[header - 1] == 0 ? Py_NewRef(magnitude) : PyNumber_Negative(magnitude);
done:
    Py_XDECREF(magnitude);
    return number;
}

PyObject *scalars_int_from_term(ErlNifEnv *env, ERL_NIF_TERM integer)
{
    ErlNifSInt64 small = 0;
    ErlNifUInt64 word = 0;
    ErlNifBinary etf;
    PyObject *number = NULL;

    if (enif_get_int64(env, integer, &small))
        return PyLong_FromLongLong(small);
    if (enif_get_uint64(env, integer, &word))
        return PyLong_FromUnsignedLongLong(word);
    if (!enif_term_to_binary(env, integer, &etf))
        return PyErr_NoMemory();
    number = big_from_etf(etf.data, etf.size);
    enif_release_binary(&etf);
    return number;
}

/* From two's complement to sign and magnitude, in place. */
static bool negate_if_negative(unsigned char *bytes, size_t size)
{
    const bool is_negative = (bytes[size - 1] & 0x80) != 0;
    unsigned carry = 1;

    for (size_t i = 0; is_negative && i < size; i++) {
        carry += (unsigned char)~bytes[i];
        bytes[i] = (unsigned char)carry;
        carry >>= 8;
    }
    return is_negative;
}

/* Writes the header of `size` digits before `digits`; returns where it begins. */
static unsigned char *write_big_header(unsigned char *digits, size_t size, bool is_negative)
{
    unsigned char *at = digits;

    *--at = is_negative;
    if (size < 256) {
        *--at = (unsigned char)size;
        *--at = ETF_SMALL_BIG;
    } else {
        for (int shift = 0; shift < 32; shift += 8)
            *--at = (unsigned char)(size >> shift);
        *--at = ETF_LARGE_BIG;
    }
    *--at = ETF_VERSION;
    return at;
}

static bool big_to_term(ErlNifEnv *env, PyObject *number, ERL_NIF_TERM *out)
{
    enum { HEADER_MAX = 7 };
    bool ok = false, is_negative = false;
    Py_ssize_t size = compat_long_size(number);
    unsigned char *etf = NULL, *digits = NULL, *start = NULL;

    if (size <= 0 || (uint64_t)size > UINT32_MAX)
        goto done;
    etf = malloc(HEADER_MAX + (size_t)size);
    if (etf == NULL)
        goto done;
    digits = etf + HEADER_MAX;
    if (!compat_long_to_bytes(number, digits, (size_t)size))
        goto done;
    is_negative = negate_if_negative(digits, (size_t)size);
    while (size > 1 && digits[size - 1] == 0)
        size--;
    start = write_big_header(digits, (size_t)size, is_negative);
    ok = enif_binary_to_term(env, start, (size_t)(digits - start) + (size_t)size, out, 0) != 0;
done:
    free(etf);
    PyErr_Clear();
    return ok;
}

bool scalars_int_to_term(ErlNifEnv *env, PyObject *number, ERL_NIF_TERM *out)
{
    int overflow = 0;
    long long small = PyLong_AsLongLongAndOverflow(number, &overflow);

    if (overflow != 0)
        return big_to_term(env, number, out);
    *out = enif_make_int64(env, small);
    return true;
}

static bool get_int64(PyObject *object, const char *name, long long *out)
{
    PyObject *number = PyObject_GetAttrString(object, name);
    int overflow = 0;

    if (number != NULL)
        *out = PyLong_AsLongLongAndOverflow(number, &overflow);
    Py_XDECREF(number);
    PyErr_Clear();
    return number != NULL && overflow == 0;
}

bool scalars_range_to_term(ErlNifEnv *env, PyObject *range, Py_ssize_t size, ERL_NIF_TERM *out)
{
    long long number = 0, step = 0, span = 0;

    if (!get_int64(range, "start", &number) || !get_int64(range, "step", &step) ||
        __builtin_mul_overflow(step, size, &span) || __builtin_add_overflow(number, span, &number))
        return false;
    *out = enif_make_list(env, 0);
    for (; size > 0; size--) { /* backwards, as lists are built */
        number -= step;
        *out = enif_make_list_cell(env, enif_make_int64(env, number), *out);
    }
    return true;
}

/* ---- floats ---- */

ERL_NIF_TERM scalars_float_to_term(ErlNifEnv *env, double number)
{
    const uint64_t exponent = UINT64_C(0x7ff0000000000000), sign = UINT64_C(1) << 63;
    uint64_t bits = 0;

    /* By its bits: isnan and isinf are compiled away under -ffast-math. */
    memcpy(&bits, &number, sizeof bits);
    if ((bits & exponent) != exponent)
        return enif_make_double(env, number);
    if ((bits & ~sign) != exponent)
        return atom_nan;
    return bits & sign ? atom_neg_infinity : atom_infinity;
}

/* ---- binaries and text ---- */

bool scalars_bytes_to_term(scalars_sink_t *sink, const void *bytes, size_t size, ERL_NIF_TERM *out)
{
    ErlNifBinary binary;

    if (size <= SCALARS_SMALL_BINARY) {
        memcpy(scalars_small_binary(sink, size, out), bytes, size);
        return true;
    }
    if (!enif_alloc_binary(size, &binary))
        return false;
    memcpy(binary.data, bytes, size);
    *out = enif_make_binary(sink->env, &binary);
    return true;
}

bool scalars_are_bytes(const Py_buffer *buffer)
{
    return buffer->format == NULL || strcmp(buffer->format, "B") == 0 ||
           strcmp(buffer->format, "c") == 0;
}

bool scalars_is_bytes(const Py_buffer *buffer)
{
    return buffer->ndim == 1 && PyBuffer_IsContiguous(buffer, 'C') && scalars_are_bytes(buffer);
}

/* Length of the UTF-8 sequence at `at`, which has `left` bytes; 0 if there is none. */
static size_t sequence_length(const unsigned char *at, size_t left)
{
    const unsigned char lead = at[0];
    const size_t length = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    unsigned char low = 0x80, high = 0xbf;

    if (length == 1)
        return 1;
    if (lead < 0xc2 || lead > 0xf4 || left < length)
        return 0;
    if (lead == 0xe0)
        low = 0xa0; /* shorter forms exist */
    else if (lead == 0xed)
        high = 0x9f; /* surrogates */
    else if (lead == 0xf0)
        low = 0x90;
    else if (lead == 0xf4)
        high = 0x8f; /* beyond U+10FFFF */
    if (at[1] < low || at[1] > high)
        return 0;
    for (size_t i = 2; i < length; i++)
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    return length;
}

/* What a str for some UTF-8 has to hold. */
typedef struct {
    size_t length; /* code points */
    Py_UCS4 max;   /* ASCII, Latin-1, BMP or all of Unicode: the largest code point of that */
} extent_t;

/* False unless it is UTF-8 as Python's strict decoder accepts it. */
static bool measure(const unsigned char *bytes, size_t size, extent_t *extent)
{
    unsigned char highest = 0; /* lead byte */
    size_t length = 0;

    extent->length = 0;
    for (; size > 0; bytes += length, size -= length, extent->length++) {
        length = sequence_length(bytes, size);
        if (length == 0)
            return false;
        if (*bytes > highest)
            highest = *bytes;
    }
    extent->max = highest < 0x80   ? 0x7f
                  : highest < 0xc4 ? 0xff
                  : highest < 0xf0 ? 0xffff
                                   : 0x10ffff;
    return true;
}

bool scalars_is_utf8(const unsigned char *bytes, size_t size)
{
    extent_t extent;

    return scalars_is_ascii(bytes, size) || measure(bytes, size, &extent);
}

static const unsigned char *read_utf8(const unsigned char *at, Py_UCS4 *out)
{
    const unsigned char lead = *at++;
    Py_UCS4 c = lead;
    int more = 0;

    if (lead >= 0x80) {
        more = lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : 3;
        c &= 0x3fU >> more;
    }
    for (; more > 0; more--)
        c = c << 6 | (*at++ & 0x3f);
    *out = c;
    return at;
}

static PyObject *decode_utf8(const unsigned char *utf8, extent_t extent)
{
    PyObject *text = PyUnicode_New((Py_ssize_t)extent.length, extent.max);
    Py_UCS4 c = 0;

    if (text == NULL)
        return NULL;
    const int kind = PyUnicode_KIND(text);
    void *data = PyUnicode_DATA(text);
    for (size_t i = 0; i < extent.length; i++) {
        utf8 = read_utf8(utf8, &c);
        PyUnicode_WRITE(kind, data, (Py_ssize_t)i, c);
    }
    return text;
}

/* Checked and copied a piece at a time, so that the second look finds it in the cache. NULL
 * without an exception: there are other characters. */
static PyObject *ascii_str(const unsigned char *bytes, size_t size)
{
    enum { PIECE = 8192 };
    PyObject *text = NULL;

    if (!scalars_is_ascii(bytes, size < PIECE ? size : PIECE))
        return NULL;
    text = PyUnicode_New((Py_ssize_t)size, 0x7f);
    if (text == NULL)
        return NULL;
    for (size_t at = 0; at < size; at += PIECE) {
        const size_t piece = size - at < PIECE ? size - at : PIECE;

        if (at > 0 && !scalars_is_ascii(bytes + at, piece)) {
            Py_DECREF(text);
            return NULL;
        }
        memcpy((unsigned char *)PyUnicode_DATA(text) + at, bytes + at, piece);
    }
    return text;
}

PyObject *scalars_str_or_bytes(const unsigned char *bytes, size_t size)
{
    extent_t extent;
    PyObject *text = NULL;

    /* One character and none: CPython keeps those strings itself. */
    if (size < 2)
        return size == 0 || *bytes < 0x80
                   ? PyUnicode_DecodeLatin1((const char *)bytes, (Py_ssize_t)size, NULL)
                   : PyBytes_FromStringAndSize((const char *)bytes, 1);
    text = ascii_str(bytes, size);
    if (text != NULL || PyErr_Occurred())
        return text;
    return measure(bytes, size, &extent)
               ? decode_utf8(bytes, extent)
               : PyBytes_FromStringAndSize((const char *)bytes, (Py_ssize_t)size);
}

/* Bytes of UTF-8 that `text` needs; 0 when it has surrogates. */
static size_t utf8_size(PyObject *text)
{
    const int kind = PyUnicode_KIND(text);
    const void *data = PyUnicode_DATA(text);
    const Py_ssize_t length = PyUnicode_GET_LENGTH(text);
    size_t size = 0;

    for (Py_ssize_t i = 0; i < length; i++) {
        const Py_UCS4 c = PyUnicode_READ(kind, data, i);

        if (c >= 0xd800 && c < 0xe000)
            return 0;
        size += 1 + (c >= 0x80) + (c >= 0x800) + (c >= 0x10000);
    }
    return size;
}

static unsigned char *write_utf8(unsigned char *at, Py_UCS4 c)
{
    if (c < 0x80) {
        *at++ = (unsigned char)c;
        return at;
    }
    if (c < 0x800) {
        *at++ = (unsigned char)(0xc0 | c >> 6);
    } else {
        if (c < 0x10000) {
            *at++ = (unsigned char)(0xe0 | c >> 12);
        } else {
            *at++ = (unsigned char)(0xf0 | c >> 18);
            *at++ = (unsigned char)(0x80 | (c >> 12 & 0x3f));
        }
        *at++ = (unsigned char)(0x80 | (c >> 6 & 0x3f));
    }
    *at++ = (unsigned char)(0x80 | (c & 0x3f));
    return at;
}

static void encode_utf8(PyObject *text, unsigned char *at)
{
    const int kind = PyUnicode_KIND(text);
    const void *data = PyUnicode_DATA(text);
    const Py_ssize_t length = PyUnicode_GET_LENGTH(text);

    for (Py_ssize_t i = 0; i < length; i++)
        at = write_utf8(at, PyUnicode_READ(kind, data, i));
}

static bool surrogates_to_term(scalars_sink_t *sink, PyObject *text, ERL_NIF_TERM *out)
{
    bool ok = false;
    PyObject *bytes = PyUnicode_AsEncodedString(text, "utf-8", "surrogateescape");

    if (bytes == NULL) {
        PyErr_Clear();
        bytes = PyUnicode_AsEncodedString(text, "utf-8", "surrogatepass");
    }
    if (bytes != NULL)
        ok = scalars_bytes_to_term(sink, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes),
                                   out);
    PyErr_Clear();
    Py_XDECREF(bytes);
    return ok;
}

bool scalars_str_to_term(scalars_sink_t *sink, PyObject *text, ERL_NIF_TERM *out)
{
    ErlNifBinary binary;
    size_t size = 0;

    if (!compat_str_ready(text)) {
        PyErr_Clear();
        return false;
    }
    if (PyUnicode_IS_ASCII(text))
        return scalars_bytes_to_term(sink, PyUnicode_DATA(text), (size_t)PyUnicode_GET_LENGTH(text),
                                     out);
    size = utf8_size(text);
    if (size == 0)
        return surrogates_to_term(sink, text, out);
    if (size <= SCALARS_SMALL_BINARY) {
        encode_utf8(text, scalars_small_binary(sink, size, out));
        return true;
    }
    if (!enif_alloc_binary(size, &binary))
        return false;
    encode_utf8(text, binary.data);
    *out = enif_make_binary(sink->env, &binary);
    return true;
}

/* ---- atoms ---- */

enum { CACHED_ATOMS = 1024 };

/*
 * One slot per hash of the term, the newer atom wins. Guarded by the GIL; without one a
 * slot is written once, its atom first (which claims it), then its text, so no
 * reader can see a string go.
 */
struct atom_cache {
    struct {
        _Atomic(ERL_NIF_TERM) atom;
        _Atomic(PyObject *) text; /* owned */
    } slots[CACHED_ATOMS];
};

struct atom_cache *scalars_atom_cache_create(void)
{
    return calloc(1, sizeof(struct atom_cache));
}

void scalars_atom_cache_destroy(struct atom_cache *cache)
{
    if (cache == NULL)
        return;
    for (size_t i = 0; i < CACHED_ATOMS; i++)
        Py_XDECREF(atomic_load(&cache->slots[i].text));
    free(cache);
}

/* The low six bits of an atom are its tag. */
static size_t atom_slot(ERL_NIF_TERM atom)
{
    return (size_t)(atom >> 6) % CACHED_ATOMS;
}

static PyObject *cached_atom(struct atom_cache *cache, ERL_NIF_TERM atom)
{
    const size_t i = atom_slot(atom);

    if (cache == NULL || atomic_load_explicit(&cache->slots[i].atom, memory_order_acquire) != atom)
        return NULL;
    return Py_XNewRef(atomic_load_explicit(&cache->slots[i].text, memory_order_acquire));
}

static void cache_atom(struct atom_cache *cache, ERL_NIF_TERM atom, PyObject *text)
{
    const size_t i = atom_slot(atom);

    if (cache == NULL)
        return;
#ifdef Py_GIL_DISABLED
    ERL_NIF_TERM none = 0;

    if (atomic_compare_exchange_strong(&cache->slots[i].atom, &none, atom))
        atomic_store(&cache->slots[i].text, Py_NewRef(text));
#else
    Py_XDECREF(atomic_load_explicit(&cache->slots[i].text, memory_order_relaxed));
    atomic_store_explicit(&cache->slots[i].text, Py_NewRef(text), memory_order_relaxed);
    atomic_store_explicit(&cache->slots[i].atom, atom, memory_order_relaxed);
#endif
}

/* {131, 119, Size8, Utf8} or {131, 118, Size16, Utf8}. */
static PyObject *str_from_atom_etf(const unsigned char *etf, size_t size)
{
    const size_t header = size > 1 && etf[1] == ETF_ATOM_UTF8 ? 4 : 3;

    if (size < header || (etf[1] != ETF_ATOM_UTF8 && etf[1] != ETF_SMALL_ATOM_UTF8)) {
        PyErr_SetString(PyExc_SystemError, "an atom in an unknown external format");
        return NULL;
    }
    return PyUnicode_DecodeUTF8((const char *)etf + header, (Py_ssize_t)(size - header), NULL);
}

static PyObject *str_from_atom(ErlNifEnv *env, ERL_NIF_TERM atom)
{
    char latin1[ATOM_TEXT_MAX];
    ErlNifBinary etf;
    PyObject *text = NULL;
    int size = enif_get_atom(env, atom, latin1, sizeof latin1, ERL_NIF_LATIN1);

    if (size > 0) {
        text = PyUnicode_DecodeLatin1(latin1, size - 1, NULL);
    } else if (enif_term_to_binary(env, atom, &etf)) {
        text = str_from_atom_etf(etf.data, etf.size);
        enif_release_binary(&etf);
    } else {
        PyErr_NoMemory();
    }
    if (text != NULL)
        PyUnicode_InternInPlace(&text);
    return text;
}

PyObject *scalars_atom_from_term(module_state_t *state, ErlNifEnv *env, ERL_NIF_TERM atom)
{
    PyObject *object = cached_atom(state->atoms, atom);

    if (object != NULL)
        return object;
    if (atom == atom_true || atom == atom_false)
        object = PyBool_FromLong(atom == atom_true);
    else if (atom == atom_none || atom == atom_nil || atom == atom_undefined)
        object = Py_NewRef(Py_None);
    else
        object = str_from_atom(env, atom);
    if (object != NULL)
        cache_atom(state->atoms, atom, object);
    return object;
}
