#include "convert.h"

#include "arrays.h"
#include "atoms.h"
#include "failure.h"
#include "growable.h"
#include "handle.h"
#include "pycompat.h"
#include "scalars.h"
#include "terms.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/*
 * An open container is a frame; a value is either ready at once (a scalar) or opens a
 * frame on top. When the top frame is full, it is popped and its container delivered to
 * the frame below.
 */
enum {
    FEW_FRAMES = 16,
    PATH_MAX_STEPS = 1000,
    /* Python hashes nested tuples recursively, without a check. */
    KEY_DEPTH_MAX = 1000,
    /* Binary keys are remembered from this map on: single maps do not pay. */
    KEYS_FROM_MAP = 4,
    KEYS = 256,
    KEY_SIZE_MAX = 32
};

typedef enum { READY, OPENED, FAILED, OTHER } step_t;
typedef enum { FRAME_LIST, FRAME_TUPLE, FRAME_MAP } frame_kind_t;

typedef struct {
    frame_kind_t kind;
    PyObject *container; /* owned, being filled */
    PyObject *key;       /* map: owned, waits for its value */
    Py_ssize_t index, size;
    ERL_NIF_TERM rest;         /* list: the cells to come; map: the current key */
    const ERL_NIF_TERM *items; /* tuple */
    ErlNifMapIterator pairs;   /* map */
} frame_t;

typedef struct {
    module_state_t *state;
    ErlNifEnv *env;
    binary_policy_t binaries;
    ERL_NIF_TERM why; /* of a failure without an exception */
    frame_t *frames;
    size_t depth, room;
    size_t key_depth; /* frames below the key that is being converted, 0: none is */
    size_t maps;      /* seen so far */
    PyObject **keys;  /* owned: ASCII binaries seen as keys, by hash; NULL at first */
    frame_t few_frames[FEW_FRAMES];
} walk_t;

static step_t fail(walk_t *walk, ERL_NIF_TERM why)
{
    walk->why = why;
    return FAILED;
}

/* ---- scalars ---- */

static PyObject *binary_from_term(walk_t *walk, ERL_NIF_TERM term, binary_policy_t policy)
{
    ErlNifBinary binary;
    PyObject *object = NULL;

    if (!enif_inspect_binary(walk->env, term, &binary)) {
        walk->why = atom_bitstring;
        return NULL;
    }
    if (policy == BINARY_BYTES)
        return PyBytes_FromStringAndSize((const char *)binary.data, (Py_ssize_t)binary.size);
    object = scalars_str_or_bytes(binary.data, binary.size);
    if (policy == BINARY_STR && object != NULL && PyBytes_CheckExact(object)) {
        walk->why = atom_invalid_utf8;
        Py_CLEAR(object);
    }
    return object;
}

static PyObject *float_from_term(walk_t *walk, ERL_NIF_TERM term)
{
    double number = 0;

    (void)enif_get_double(walk->env, term, &number);
    return PyFloat_FromDouble(number);
}

static PyObject *int_from_term(walk_t *walk, ERL_NIF_TERM term)
{
    ErlNifSInt64 number = 0;

    if (enif_get_int64(walk->env, term, &number))
        return PyLong_FromLongLong(number);
    return scalars_int_from_term(walk->env, term);
}

static PyObject *reference_from_term(walk_t *walk, ERL_NIF_TERM term)
{
    PyObject *object = NULL;

    switch (handle_from_term(walk->state, walk->env, term, &object)) {
    case HANDLE_HERE:
        return object;
    case HANDLE_ELSEWHERE:
        walk->why = atom_other_interpreter;
        return NULL;
    case HANDLE_NONE:
    default:
        return terms_from_term(walk->state, walk->env, term);
    }
}

/* ---- keys seen before ---- */

static size_t key_slot(const unsigned char *bytes, size_t size)
{
    const size_t part = size < 8 ? size : 8;
    uint64_t head = 0, tail = 0;

    memcpy(&head, bytes, part);
    memcpy(&tail, bytes + size - part, part);
    return (size_t)((((head << 7 | head >> 57) ^ tail) + size) * UINT64_C(0x9e3779b97f4a7c15) >>
                    56) %
           KEYS;
}

/*
 * Lists of maps repeat their keys. A str made once saves making it again and carries its
 * hash; what is compared are its bytes, so only ASCII is kept.
 */
static step_t repeated_key(walk_t *walk, ERL_NIF_TERM term, PyObject **out)
{
    ErlNifBinary binary;
    PyObject **slot = NULL;

    if (walk->keys == NULL || walk->binaries == BINARY_BYTES ||
        !enif_inspect_binary(walk->env, term, &binary) || binary.size < 2 ||
        binary.size > KEY_SIZE_MAX)
        return OTHER;
    slot = &walk->keys[key_slot(binary.data, binary.size)];
    if (*slot == NULL || (size_t)PyUnicode_GET_LENGTH(*slot) != binary.size ||
        memcmp(PyUnicode_DATA(*slot), binary.data, binary.size) != 0) {
        *out = binary_from_term(walk, term, walk->binaries);
        if (*out == NULL)
            return FAILED;
        if (PyUnicode_Check(*out) && PyUnicode_IS_COMPACT_ASCII(*out))
            Py_XSETREF(*slot, Py_NewRef(*out));
        return READY;
    }
    *out = Py_NewRef(*slot);
    return READY;
}

static void count_map(walk_t *walk)
{
    if (++walk->maps == KEYS_FROM_MAP)
        walk->keys = calloc(KEYS, sizeof(PyObject *)); /* NULL: it works without */
}

static void forget_keys(walk_t *walk)
{
    for (size_t i = 0; walk->keys != NULL && i < KEYS; i++)
        Py_XDECREF(walk->keys[i]);
    free(walk->keys);
}

/* ---- opening containers ---- */

/* A frame for `container` (taken; NULL is passed on as a failure). */
static frame_t *push(walk_t *walk, frame_kind_t kind, PyObject *container, Py_ssize_t size)
{
    frame_t *frames = NULL, *frame = NULL;

    if (container == NULL)
        return NULL;
    if (walk->depth >= CONVERT_DEPTH_MAX ||
        (walk->key_depth > 0 && walk->depth - walk->key_depth >= KEY_DEPTH_MAX)) {
        walk->why = atom_too_deep;
        goto failed;
    }
    frames = growable_reserve(walk->frames, walk->few_frames, walk->depth, &walk->room,
                              walk->depth + 1, sizeof *frames);
    if (frames == NULL) {
        PyErr_NoMemory();
        goto failed;
    }
    walk->frames = frames;
    frame = &frames[walk->depth++];
    frame->kind = kind;
    frame->container = container;
    frame->key = NULL;
    frame->index = 0;
    frame->size = size;
    return frame;
failed:
    Py_DECREF(container);
    return NULL;
}

static step_t open_list(walk_t *walk, ERL_NIF_TERM term)
{
    unsigned size = 0;
    frame_t *frame = NULL;

    if (!enif_get_list_length(walk->env, term, &size))
        return fail(walk, atom_improper_list);
    frame = push(walk, FRAME_LIST, PyList_New((Py_ssize_t)size), (Py_ssize_t)size);
    if (frame == NULL)
        return FAILED;
    frame->rest = term;
    return OPENED;
}

/* {bytes, Binary}, {buffer, Binary} and {ndarray, ...} are not tuples but ways to say `bytes`, `Buffer`
 * and an array. */
static step_t open_tuple(walk_t *walk, ERL_NIF_TERM term, PyObject **out)
{
    const ERL_NIF_TERM *items = NULL;
    int size = 0;
    frame_t *frame = NULL;

    (void)enif_get_tuple(walk->env, term, &size, &items);
    if (size == 2 && (items[0] == atom_bytes || items[0] == atom_buffer) &&
        enif_is_binary(walk->env, items[1])) {
        *out = items[0] == atom_bytes ? binary_from_term(walk, items[1], BINARY_BYTES)
                                      : terms_buffer(walk->state, items[1]);
        return *out == NULL ? FAILED : READY;
    }
    if (size == 4 && items[0] == atom_ndarray && enif_is_binary(walk->env, items[3])) {
        *out = arrays_from_term(walk->state, walk->env, items, &walk->why);
        return *out == NULL ? FAILED : READY;
    }
    frame = push(walk, FRAME_TUPLE, PyTuple_New(size), size);
    if (frame == NULL)
        return FAILED;
    frame->items = items;
    return OPENED;
}

static step_t open_map(walk_t *walk, ERL_NIF_TERM term)
{
    size_t size = 0;
    frame_t *frame = NULL;

    (void)enif_get_map_size(walk->env, term, &size);
    frame = push(walk, FRAME_MAP, PyDict_New(), (Py_ssize_t)size);
    if (frame == NULL)
        return FAILED;
    if (!enif_map_iterator_create(walk->env, term, &frame->pairs, ERL_NIF_MAP_ITERATOR_FIRST)) {
        Py_DECREF(frame->container);
        walk->depth--;
        PyErr_NoMemory();
        return FAILED;
    }
    count_map(walk);
    return OPENED;
}

/* ---- one value ---- */

static step_t value_from_term(walk_t *walk, ERL_NIF_TERM term, PyObject **out)
{
    switch (enif_term_type(walk->env, term)) {
    case ERL_NIF_TERM_TYPE_INTEGER:
        *out = int_from_term(walk, term);
        break;
    case ERL_NIF_TERM_TYPE_BITSTRING:
        *out = binary_from_term(walk, term, walk->binaries);
        break;
    case ERL_NIF_TERM_TYPE_FLOAT:
        *out = float_from_term(walk, term);
        break;
    case ERL_NIF_TERM_TYPE_ATOM:
        *out = scalars_atom_from_term(walk->state, walk->env, term);
        break;
    case ERL_NIF_TERM_TYPE_LIST:
        return open_list(walk, term);
    case ERL_NIF_TERM_TYPE_TUPLE:
        return open_tuple(walk, term, out);
    case ERL_NIF_TERM_TYPE_MAP:
        return open_map(walk, term);
    case ERL_NIF_TERM_TYPE_REFERENCE:
        *out = reference_from_term(walk, term);
        break;
    case ERL_NIF_TERM_TYPE_PID:
    case ERL_NIF_TERM_TYPE_PORT:
    case ERL_NIF_TERM_TYPE_FUN:
        *out = terms_from_term(walk->state, walk->env, term);
        break;
    case ERL_NIF_TERM_TYPE__MISSING_DEFAULT_CASE__READ_THE_MANUAL:
    default:
        return fail(walk, atom_unsupported_term);
    }
    return *out == NULL ? FAILED : READY;
}

/* ---- filling containers ---- */

/* Takes both. Nothing may be dropped: two keys that are one in Python are an error. */
static step_t set_item(walk_t *walk, frame_t *frame, PyObject *key, PyObject *value)
{
    step_t step = READY;

    if (PyDict_SetItem(frame->container, key, value) < 0) {
        step = FAILED;
        if (PyErr_ExceptionMatches(PyExc_TypeError)) {
            PyErr_Clear();
            walk->why = atom_unhashable_key;
        }
    } else if (PyDict_GET_SIZE(frame->container) != ++frame->index) {
        step = fail(walk, atom_duplicate_key);
    }
    Py_DECREF(key);
    Py_DECREF(value);
    return step;
}

/* Puts a finished value where its container wants it next. Takes it. */
static step_t deliver(walk_t *walk, frame_t *frame, PyObject *value)
{
    PyObject *key = frame->key;

    if (frame->kind == FRAME_LIST) {
        PyList_SET_ITEM(frame->container, frame->index++, value);
        return READY;
    }
    if (frame->kind == FRAME_TUPLE) {
        PyTuple_SET_ITEM(frame->container, frame->index++, value);
        return READY;
    }
    if (key == NULL) {
        if (walk->key_depth == walk->depth)
            walk->key_depth = 0;
        frame->key = value;
        return READY;
    }
    frame->key = NULL;
    (void)enif_map_iterator_next(walk->env, &frame->pairs);
    return set_item(walk, frame, key, value);
}

static step_t fill_list(walk_t *walk, frame_t *frame)
{
    ERL_NIF_TERM head = 0;
    PyObject *value = NULL;

    while (frame->index < frame->size) {
        (void)enif_get_list_cell(walk->env, frame->rest, &head, &frame->rest);
        const step_t step = value_from_term(walk, head, &value);
        if (step != READY)
            return step;
        PyList_SET_ITEM(frame->container, frame->index++, value);
    }
    return READY;
}

static step_t fill_tuple(walk_t *walk, frame_t *frame)
{
    PyObject *value = NULL;

    while (frame->index < frame->size) {
        const step_t step = value_from_term(walk, frame->items[frame->index], &value);
        if (step != READY)
            return step;
        PyTuple_SET_ITEM(frame->container, frame->index++, value);
    }
    return READY;
}

static step_t key_from_term(walk_t *walk, ERL_NIF_TERM term, PyObject **key)
{
    const size_t depth = walk->depth;
    step_t step = repeated_key(walk, term, key);

    if (step == OTHER)
        step = value_from_term(walk, term, key);
    if (step == OPENED && walk->key_depth == 0)
        walk->key_depth = depth;
    return step;
}

static step_t fill_map(walk_t *walk, frame_t *frame)
{
    ERL_NIF_TERM key = 0, value = 0;
    PyObject *object = NULL;
    step_t step = READY;

    while (step == READY && frame->index < frame->size) {
        (void)enif_map_iterator_get_pair(walk->env, &frame->pairs, &key, &value);
        frame->rest = key;
        if (frame->key == NULL) {
            step = key_from_term(walk, key, &object);
            if (step != READY)
                break;
            frame->key = object;
        }
        step = value_from_term(walk, value, &object);
        if (step == READY)
            step = deliver(walk, frame, object);
    }
    return step;
}

static step_t fill(walk_t *walk, frame_t *frame)
{
    switch (frame->kind) {
    case FRAME_LIST:
        return fill_list(walk, frame);
    case FRAME_TUPLE:
        return fill_tuple(walk, frame);
    case FRAME_MAP:
    default:
        return fill_map(walk, frame);
    }
}

/* ---- the walk ---- */

/* Leaves the frame's container to the caller. */
static PyObject *pop(walk_t *walk)
{
    frame_t *frame = &walk->frames[--walk->depth];

    if (frame->kind == FRAME_MAP)
        enif_map_iterator_destroy(walk->env, &frame->pairs);
    Py_XDECREF(frame->key);
    return frame->container;
}

/* NULL on failure; the frames then still tell where. */
static PyObject *run(walk_t *walk, ERL_NIF_TERM term)
{
    PyObject *value = NULL;
    step_t step = value_from_term(walk, term, &value);

    while (walk->depth > 0 && step != FAILED) {
        step = fill(walk, &walk->frames[walk->depth - 1]);
        if (step != READY)
            continue;
        value = pop(walk);
        if (walk->depth > 0)
            step = deliver(walk, &walk->frames[walk->depth - 1], value);
    }
    return step == FAILED ? NULL : value;
}

/* From the inside out: where the frame stands, 1-based, or the key. */
static ERL_NIF_TERM path_of(walk_t *walk, convert_failure_t *failure)
{
    ErlNifEnv *env = failure->env;
    ERL_NIF_TERM path = enif_make_list(env, 0), prefix = failure->prefix, step = 0;
    const size_t steps = walk->depth < PATH_MAX_STEPS ? walk->depth : PATH_MAX_STEPS;

    for (size_t i = steps; i > 0; i--) {
        const frame_t *frame = &walk->frames[i - 1];

        step = frame->kind == FRAME_MAP ? enif_make_copy(env, frame->rest)
                                        : enif_make_int64(env, frame->index + 1);
        path = enif_make_list_cell(env, step, path);
    }
    while (prefix != 0 && enif_get_list_cell(env, prefix, &step, &prefix))
        path = enif_make_list_cell(env, step, path);
    return path;
}

static void set_reason(walk_t *walk, convert_failure_t *failure)
{
    if (PyErr_Occurred())
        failure->reason = failure_in_conversion(walk->state, failure->env);
    else
        failure->reason =
            enif_make_tuple3(failure->env, atom_badarg, path_of(walk, failure), walk->why);
}

PyObject *convert_in(module_state_t *state, ErlNifEnv *env, ERL_NIF_TERM term,
                     binary_policy_t binaries, convert_failure_t *failure)
{
    walk_t walk;
    PyObject *object = NULL;
    bool was_collecting = false;

    walk.state = state;
    walk.env = env;
    walk.binaries = binaries;
    walk.frames = walk.few_frames;
    walk.depth = walk.key_depth = walk.maps = 0;
    walk.room = FEW_FRAMES;
    walk.keys = NULL;
    was_collecting = compat_gc_pause();
    object = run(&walk, term);
    if (object == NULL)
        set_reason(&walk, failure);
    while (walk.depth > 0)
        Py_DECREF(pop(&walk));
    forget_keys(&walk);
    growable_free(walk.frames, walk.few_frames);
    compat_gc_resume(was_collecting);
    return object;
}

/* ---- names ---- */

static PyObject *str_from_code_points(ErlNifEnv *env, ERL_NIF_TERM list)
{
    unsigned length = 0, c = 0;
    ERL_NIF_TERM head = 0;
    Py_UCS4 *points = NULL;
    PyObject *text = NULL;

    if (!enif_get_list_length(env, list, &length))
        goto done;
    points = malloc(((size_t)length + 1) * sizeof *points);
    if (points == NULL)
        goto done;
    for (unsigned i = 0; i < length; i++) {
        (void)enif_get_list_cell(env, list, &head, &list);
        if (!enif_get_uint(env, head, &c) || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
            goto done;
        points[i] = c;
    }
    text = PyUnicode_FromKindAndData(PyUnicode_4BYTE_KIND, points, (Py_ssize_t)length);
done:
    free(points);
    return text;
}

static PyObject *name_from_term(module_state_t *state, ErlNifEnv *env, ERL_NIF_TERM term)
{
    char latin1[256];
    ErlNifBinary binary;
    int size = 0;

    if (enif_inspect_binary(env, term, &binary))
        return scalars_is_utf8(binary.data, binary.size)
                   ? scalars_str_or_bytes(binary.data, binary.size)
                   : NULL;
    if (!enif_is_atom(env, term))
        return str_from_code_points(env, term);
    /* A name is a name, `none` and `true` too. */
    size = enif_get_atom(env, term, latin1, sizeof latin1, ERL_NIF_LATIN1);
    if (size > 0)
        return PyUnicode_DecodeLatin1(latin1, size - 1, NULL);
    return scalars_atom_from_term(state, env, term);
}

PyObject *convert_name(module_state_t *state, ErlNifEnv *env, ERL_NIF_TERM term,
                       convert_failure_t *failure)
{
    walk_t walk = {.state = state, .env = env, .why = atom_bad_name};
    PyObject *name = name_from_term(state, env, term);

    if (name == NULL)
        set_reason(&walk, failure);
    else
        PyUnicode_InternInPlace(&name);
    return name;
}
