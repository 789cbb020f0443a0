#include "oracle.h"

#include "enif.h"

#include "atoms.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    ErlNifEnv *env;
    binary_policy_t binaries;
    oracle_t answer;
    int key_depth; /* containers around, inside a key; 0: in none */
} asked_t;

enum { KEY_DEPTH_MAX = 1000 };

static ERL_NIF_TERM back(asked_t *asked, ERL_NIF_TERM term);

/* By CPython's decoder, not ours. */
static bool is_utf8(const ErlNifBinary *binary)
{
    PyObject *text =
        PyUnicode_DecodeUTF8((const char *)binary->data, (Py_ssize_t)binary->size, NULL);

    PyErr_Clear();
    Py_XDECREF(text);
    return text != NULL;
}

/* ---- keys ---- */

static bool is_said(ERL_NIF_TERM tuple, ERL_NIF_TERM how)
{
    const ERL_NIF_TERM *items = NULL;
    int size = 0;

    return enif_get_tuple(NULL, tuple, &size, &items) && size == 2 && items[0] == how &&
           enif_is_binary(NULL, items[1]);
}

static ERL_NIF_TERM text_of_atom(asked_t *asked, ERL_NIF_TERM atom)
{
    size_t size = 0;
    bool flag = false;
    const unsigned char *text = enif_inspect(atom, &size, &flag);

    return enif_make_bits(asked->env, text, size * 8);
}

static ERL_NIF_TERM atom_back(asked_t *asked, ERL_NIF_TERM atom)
{
    if (atom == atom_true || atom == atom_false)
        return atom;
    if (atom == atom_none || atom == atom_nil || atom == atom_undefined)
        return atom_none;
    return text_of_atom(asked, atom);
}

static ERL_NIF_TERM as_key(asked_t *asked, ERL_NIF_TERM term);

static ERL_NIF_TERM tuple_as_key(asked_t *asked, ERL_NIF_TERM term)
{
    ERL_NIF_TERM list = enif_make_list(asked->env, 0);
    const ERL_NIF_TERM *items = NULL;
    int size = 0;

    (void)enif_get_tuple(asked->env, term, &size, &items);
    for (int i = 0; i < 2 && size == 2; i++) { /* no str is equal to bytes or a Buffer */
        const ERL_NIF_TERM how = i == 0 ? atom_bytes : atom_buffer;

        if (is_said(term, how))
            return enif_make_list_cell(asked->env, how, enif_make_copy(asked->env, items[1]));
    }
    if (++asked->key_depth > KEY_DEPTH_MAX)
        asked->answer.in_fails = true;
    for (int i = 0; i < size; i++)
        list = enif_make_list_cell(asked->env, as_key(asked, items[i]), list);
    asked->key_depth--;
    return list;
}

/* What compares equal (==) if and only if the objects do. */
static ERL_NIF_TERM as_key(asked_t *asked, ERL_NIF_TERM term)
{
    ErlNifBinary binary;

    switch ((int)enif_term_type(asked->env, term)) {
    case ERL_NIF_TERM_TYPE_ATOM:
        if (term == atom_true || term == atom_false)
            return enif_make_uint(asked->env, term == atom_true);
        return atom_back(asked, term);
    case ERL_NIF_TERM_TYPE_BITSTRING:
        if (asked->binaries == BINARY_BYTES ||
            (enif_inspect_binary(asked->env, term, &binary) && !is_utf8(&binary)))
            return enif_make_list_cell(asked->env, atom_bytes, enif_make_copy(asked->env, term));
        break;
    case ERL_NIF_TERM_TYPE_TUPLE:
        return tuple_as_key(asked, term);
    case ERL_NIF_TERM_TYPE_LIST:
    case ERL_NIF_TERM_TYPE_MAP:
        asked->answer.in_fails = true;
        break;
    default:
        break;
    }
    return enif_make_copy(asked->env, term);
}

static bool occurs(const ERL_NIF_TERM *keys, size_t count, ERL_NIF_TERM key)
{
    for (size_t i = 0; i < count; i++)
        if (enif_compare(keys[i], key) == 0)
            return true;
    return false;
}

/* ---- values ---- */

static ERL_NIF_TERM map_back(asked_t *asked, ERL_NIF_TERM term)
{
    ERL_NIF_TERM key = 0, value = 0, map = enif_make_new_map(asked->env), *keys = NULL;
    ErlNifMapIterator pairs;
    size_t size = 0, became = 0;

    (void)enif_get_map_size(asked->env, term, &size);
    keys = calloc(size + 1, sizeof *keys);
    (void)enif_map_iterator_create(asked->env, term, &pairs, ERL_NIF_MAP_ITERATOR_FIRST);
    for (size_t i = 0; enif_map_iterator_get_pair(asked->env, &pairs, &key, &value); i++) {
        keys[i] = as_key(asked, key);
        asked->answer.in_fails |= occurs(keys, i, keys[i]);
        (void)enif_make_map_put(asked->env, map, back(asked, key), back(asked, value), &map);
        (void)enif_map_iterator_next(asked->env, &pairs);
    }
    enif_map_iterator_destroy(asked->env, &pairs);
    free(keys);
    (void)enif_get_map_size(asked->env, map, &became);
    asked->answer.out_fails |= became != size;
    return map;
}

static ERL_NIF_TERM list_back(asked_t *asked, ERL_NIF_TERM term)
{
    ERL_NIF_TERM head = 0, list = enif_make_list(asked->env, 0);
    unsigned length = 0;

    if (!enif_get_list_length(asked->env, term, &length))
        asked->answer.in_fails = true;
    while (enif_get_list_cell(asked->env, term, &head, &term))
        list = enif_make_list_cell(asked->env, back(asked, head), list);
    (void)enif_make_reverse_list(asked->env, list, &list);
    return list;
}

static ERL_NIF_TERM tuple_back(asked_t *asked, ERL_NIF_TERM term)
{
    const ERL_NIF_TERM *items = NULL;
    ERL_NIF_TERM *backs = NULL, tuple = 0;
    int size = 0;

    (void)enif_get_tuple(asked->env, term, &size, &items);
    if (is_said(term, atom_bytes) || is_said(term, atom_buffer))
        return enif_make_copy(asked->env, items[1]);
    backs = calloc((size_t)size + 1, sizeof *backs);
    for (int i = 0; i < size; i++)
        backs[i] = back(asked, items[i]);
    tuple = enif_make_tuple_from_array(asked->env, backs, (unsigned)size);
    free(backs);
    return tuple;
}

static ERL_NIF_TERM back(asked_t *asked, ERL_NIF_TERM term)
{
    ErlNifBinary binary;
    size_t size = 0;
    bool flag = false;

    switch ((int)enif_term_type(asked->env, term)) {
    case ERL_NIF_TERM_TYPE_ATOM:
        return atom_back(asked, term);
    case ERL_NIF_TERM_TYPE_LIST:
        return list_back(asked, term);
    case ERL_NIF_TERM_TYPE_TUPLE:
        return tuple_back(asked, term);
    case ERL_NIF_TERM_TYPE_MAP:
        return map_back(asked, term);
    case ERL_NIF_TERM_TYPE_BITSTRING:
        if (!enif_inspect_binary(asked->env, term, &binary) ||
            (asked->binaries == BINARY_STR && !is_utf8(&binary)))
            asked->answer.in_fails = true;
        break;
    case ERL_NIF_TERM_TYPE_REFERENCE:
        (void)enif_inspect(term, &size, &flag);
        asked->answer.has_resources |= flag;
        break;
    default:
        break;
    }
    return enif_make_copy(asked->env, term);
}

oracle_t oracle_ask(ErlNifEnv *env, ERL_NIF_TERM term, binary_policy_t binaries)
{
    asked_t asked = {.env = env, .binaries = binaries};

    asked.answer.back = back(&asked, term);
    return asked.answer;
}
