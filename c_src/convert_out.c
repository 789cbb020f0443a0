#include "convert.h"

#include "arrays.h"
#include "atoms.h"
#include "failure.h"
#include "frames.h"
#include "handle.h"
#include "maps.h"
#include "pycompat.h"
#include "scalars.h"
#include "terms.h"

#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/*
 * Lists and dicts may be changed by user code or other threads. So they are first read
 * in place, as far as all items are scalars (nothing else runs then), and from the first
 * other item on from a frozen copy of their references.
 */
enum {
    IMAGES_MAX = 32,      /* images of images of one object */
    TUPLE_MAX = 16777215, /* the VM's */
    RANGE_MAX = 100000000,
    SHARED_MIN = 262144, /* bytes of what is shared with Python: smaller ones are copied faster */
    KEYS_FROM_DICT = 4,  /* keys are remembered from this dict on: single ones do not pay */
    KEYS = 256
};

typedef enum { READY, OPENED, FAILED, OTHER } step_t;
/* A str that was a key and its term; a reference, so its address stays its own. */
typedef struct {
    PyObject *text;
    ERL_NIF_TERM term;
} known_key_t;

typedef struct {
    module_state_t *state;
    ErlNifEnv *env;
    scalars_sink_t sink; /* into env */
    unknown_policy_t unknown;
    bool as_arrays;
    PyTypeObject *type; /* owned: of what has no term, in a failure without an exception */
    ERL_NIF_TERM key;   /* 0, or the key that two pairs of a map share */
    size_t dicts;       /* seen so far */
    known_key_t *keys;  /* owned; NULL at first */
    frames_t frames;
} walk_t;

/* A value on its way to a term. */
typedef struct {
    PyObject *origin; /* borrowed */
    PyObject *object; /* origin, or its image */
    bool owns;        /* object is a reference to be given up */
} value_t;

static step_t fail(walk_t *walk, PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);

    Py_INCREF(type);
    Py_XSETREF(walk->type, type);
    return FAILED;
}

static step_t no_memory(void)
{
    PyErr_NoMemory();
    return FAILED;
}

/* ---- scalars: no user code, nothing but the term ---- */

/* Immutable bytes of a built-in object as they are. */
static step_t share(walk_t *walk, PyObject *object, const void *bytes, size_t size,
                    ERL_NIF_TERM *out)
{
    return handle_to_binary(walk->state, walk->env, object, bytes, size, out) ? READY : no_memory();
}

static inline step_t str_to_term(walk_t *walk, PyObject *text, ERL_NIF_TERM *out)
{
    const size_t length = (size_t)PyUnicode_GET_LENGTH(text);

    if (length >= SHARED_MIN && PyUnicode_CheckExact(text) && PyUnicode_IS_COMPACT_ASCII(text))
        return share(walk, text, PyUnicode_DATA(text), length, out);
    if (PyUnicode_IS_COMPACT_ASCII(text) && length <= SCALARS_SMALL_BINARY) {
        memcpy(scalars_small_binary(&walk->sink, length, out), PyUnicode_DATA(text), length);
        return READY;
    }
    return scalars_str_to_term(&walk->sink, text, out) ? READY : fail(walk, text);
}

static inline step_t int_to_term(walk_t *walk, PyObject *number, ERL_NIF_TERM *out)
{
    return scalars_int_to_term(walk->env, number, out) ? READY : fail(walk, number);
}

static inline step_t bytes_to_term(walk_t *walk, PyObject *bytes, ERL_NIF_TERM *out)
{
    const size_t size = (size_t)PyBytes_GET_SIZE(bytes);

    if (size >= SHARED_MIN && PyBytes_CheckExact(bytes))
        return share(walk, bytes, PyBytes_AS_STRING(bytes), size, out);
    return scalars_bytes_to_term(&walk->sink, PyBytes_AS_STRING(bytes), size, out)
               ? READY
               : fail(walk, bytes);
}

/* Exact built-in types only; OTHER is left to value_to_term. */
static inline step_t scalar_to_term(walk_t *walk, PyObject *object, ERL_NIF_TERM *out)
{
    PyTypeObject *type = Py_TYPE(object);

    if (type == &PyLong_Type) {
        if (!compat_long_is_compact(object))
            return int_to_term(walk, object, out);
        *out = enif_make_int64(walk->env, compat_long_compact_value(object));
        return READY;
    }
    if (type == &PyUnicode_Type)
        return str_to_term(walk, object, out);
    if (type == &PyFloat_Type) {
        *out = scalars_float_to_term(walk->env, PyFloat_AS_DOUBLE(object));
        return READY;
    }
    if (object == Py_None || type == &PyBool_Type) {
        *out = object == Py_None ? atom_none : object == Py_True ? atom_true : atom_false;
        return READY;
    }
    if (type == &PyBytes_Type)
        return bytes_to_term(walk, object, out);
    return OTHER;
}

/* ---- keys seen before ---- */

/* Lists of dicts repeat their keys, mostly the same objects: their terms are shared. */
static inline step_t key_to_term(walk_t *walk, PyObject *key, ERL_NIF_TERM *out)
{
    known_key_t *known = NULL;
    step_t step = READY;

    if (walk->keys == NULL || Py_TYPE(key) != &PyUnicode_Type)
        return scalar_to_term(walk, key, out);
    known = &walk->keys[((uintptr_t)key >> 4) % KEYS];
    if (known->text != key) {
        step = str_to_term(walk, key, out);
        if (step != READY)
            return step;
        Py_XSETREF(known->text, Py_NewRef(key));
        known->term = *out;
    }
    *out = known->term;
    return READY;
}

static void count_dict(walk_t *walk)
{
    if (++walk->dicts == KEYS_FROM_DICT)
        walk->keys = calloc(KEYS, sizeof *walk->keys); /* NULL: it works without */
}

static void forget_keys(walk_t *walk)
{
    for (size_t i = 0; walk->keys != NULL && i < KEYS; i++)
        Py_XDECREF(walk->keys[i].text);
    free(walk->keys);
}

/* ---- reading lists and dicts in place, then freezing them ---- */

/* Opens a frame and takes the value's reference to its object. */
static step_t push(walk_t *walk, frame_kind_t kind, value_t *value)
{
    PyObject *culprit = NULL;

    if (!frames_push(&walk->frames, kind, value->origin, value->object, value->owns, &culprit))
        return culprit == NULL ? FAILED : fail(walk, culprit);
    value->owns = false;
    return OPENED;
}

static step_t read_list(walk_t *walk, frame_t *frame)
{
    PyObject *list = frame->container;
    step_t step = READY;

    if (!frames_reserve(&walk->frames, (size_t)PyList_GET_SIZE(list)))
        return no_memory();
    for (ERL_NIF_TERM *slot = walk->frames.slots + frame->first; frame->index < frame->count;
         slot++) {
        step = scalar_to_term(walk, PyList_GET_ITEM(list, (Py_ssize_t)frame->index), slot);
        if (step != READY)
            break;
        frame->index++;
    }
    return step != OTHER || frames_freeze(&walk->frames) ? step : no_memory();
}

static step_t read_dict(walk_t *walk, frame_t *frame)
{
    Py_ssize_t position = 0;
    PyObject *key = NULL, *value = NULL;
    step_t step = READY;
    const size_t size = (size_t)PyDict_GET_SIZE(frame->container);
    ERL_NIF_TERM *slot = NULL;

    if (!frames_reserve(&walk->frames, size * 2))
        return no_memory();
    slot = walk->frames.slots + frame->first;
    for (; frame->index < frame->count; slot++) {
        if (!PyDict_Next(frame->container, &position, &key, &value))
            return fail(walk, frame->origin);
        step = key_to_term(walk, key, slot);
        if (step != READY)
            break;
        frame->index++;
        step = scalar_to_term(walk, value, slot + size);
        if (step != READY)
            break;
        frame->index++;
    }
    return step != OTHER || frames_freeze(&walk->frames) ? step : no_memory();
}

static step_t read_in_place(walk_t *walk, frame_t *frame)
{
    step_t step = READY;

    Py_BEGIN_CRITICAL_SECTION(frame->container)
        ;
        step = frame->kind == FRAME_MAP ? read_dict(walk, frame) : read_list(walk, frame);
    Py_END_CRITICAL_SECTION();
    return step;
}

/* ---- opening containers ---- */

/* A list of the value's items, made by PySequence_List, takes the value's place. */
static step_t open_as_list(walk_t *walk, value_t *value)
{
    PyObject *list = PySequence_List(value->object);

    if (list == NULL)
        return FAILED;
    if (value->owns)
        Py_DECREF(value->object);
    value->object = list;
    value->owns = true;
    return push(walk, FRAME_LIST, value);
}

static step_t open_tuple(walk_t *walk, value_t *value)
{
    PyTupleObject *tuple = (PyTupleObject *)value->object;

    if (Py_SIZE(tuple) > TUPLE_MAX)
        return fail(walk, value->origin);
    if (push(walk, FRAME_TUPLE, value) == FAILED)
        return FAILED;
    frames_top(&walk->frames)->items = tuple->ob_item;
    return frames_reserve(&walk->frames, (size_t)Py_SIZE(tuple)) ? OPENED : no_memory();
}

static step_t open_dict(walk_t *walk, value_t *value)
{
    count_dict(walk);
    return push(walk, FRAME_MAP, value);
}

static step_t range_to_term(walk_t *walk, value_t *value, ERL_NIF_TERM *out)
{
    const Py_ssize_t size = PyObject_Size(value->object);

    PyErr_Clear(); /* too long even to tell its length */
    if (size < 0 || size > RANGE_MAX)
        return fail(walk, value->origin);
    return scalars_range_to_term(walk->env, value->object, size, out) ? READY
                                                                      : open_as_list(walk, value);
}

static step_t bytearray_to_term(walk_t *walk, PyObject *bytes, ERL_NIF_TERM *out)
{
    bool ok = false;

    Py_BEGIN_CRITICAL_SECTION(bytes)
        ;
        ok = scalars_bytes_to_term(&walk->sink, PyByteArray_AS_STRING(bytes),
                                   (size_t)PyByteArray_GET_SIZE(bytes), out);
    Py_END_CRITICAL_SECTION();
    return ok ? READY : fail(walk, bytes);
}

static step_t memoryview_to_term(walk_t *walk, PyObject *view, ERL_NIF_TERM *out)
{
    Py_buffer buffer;
    step_t step = OTHER;

    if (PyObject_GetBuffer(view, &buffer, PyBUF_FULL_RO) < 0)
        return FAILED;
    if (scalars_is_bytes(&buffer))
        step = scalars_bytes_to_term(&walk->sink, buffer.buf, (size_t)buffer.len, out)
                   ? READY
                   : fail(walk, view);
    PyBuffer_Release(&buffer);
    return step;
}

/* ---- one value ---- */

/* Subclasses go like their built-in base, but a metaclass of its own (Enum's) may mean
 * that an object stands for another: image knows. */
static step_t subclass_to_term(walk_t *walk, value_t *value, ERL_NIF_TERM *out)
{
    PyObject *object = value->object;

    if (Py_TYPE(Py_TYPE(object)) != &PyType_Type)
        return OTHER;
    if (PyTuple_Check(object))
        return open_tuple(walk, value);
    if (PyDict_Check(object))
        return open_dict(walk, value);
    if (PyList_Check(object))
        return push(walk, FRAME_LIST, value);
    if (PyUnicode_Check(object))
        return str_to_term(walk, object, out);
    if (PyLong_Check(object))
        return int_to_term(walk, object, out);
    if (PyFloat_Check(object)) {
        *out = scalars_float_to_term(walk->env, PyFloat_AS_DOUBLE(object));
        return READY;
    }
    if (PyBytes_Check(object))
        return bytes_to_term(walk, object, out);
    if (PyByteArray_Check(object))
        return bytearray_to_term(walk, object, out);
    if (PyAnySet_Check(object))
        return open_as_list(walk, value);
    return OTHER;
}

/* What has an image without asking Python. */
static step_t builtin_to_term(walk_t *walk, value_t *value, ERL_NIF_TERM *out)
{
    PyTypeObject *type = Py_TYPE(value->object);
    step_t step = scalar_to_term(walk, value->object, out);

    if (step != OTHER)
        return step;
    if (type == &PyList_Type)
        return push(walk, FRAME_LIST, value);
    if (type == &PyDict_Type)
        return open_dict(walk, value);
    if (type == &PyTuple_Type)
        return open_tuple(walk, value);
    if (terms_to_term(walk->state, walk->env, value->object, out))
        return READY;
    if (type == walk->state->atom_type)
        return fail(walk, value->object);
    if (type == &PyRange_Type)
        return range_to_term(walk, value, out);
    if (type == &PyMemoryView_Type)
        return memoryview_to_term(walk, value->object, out);
    return subclass_to_term(walk, value, out);
}

static step_t handle(walk_t *walk, PyObject *object, ERL_NIF_TERM *out)
{
    return handle_to_term(walk->state, walk->env, object, out) ? READY : no_memory();
}

static step_t unknown_to_term(walk_t *walk, PyObject *object, ERL_NIF_TERM *out)
{
    PyObject *text = NULL;
    step_t step = FAILED;

    switch (walk->unknown) {
    case UNKNOWN_HANDLE:
        return handle(walk, object, out);
    case UNKNOWN_REPR:
        text = PyObject_Repr(object);
        if (text != NULL)
            step = str_to_term(walk, text, out);
        Py_XDECREF(text);
        return step;
    case UNKNOWN_ERROR:
    default:
        return fail(walk, object);
    }
}

/* Puts the image in the value's place: OTHER. Or, when there is none, its term. */
static step_t image_to_term(walk_t *walk, value_t *value, ERL_NIF_TERM *out)
{
    PyObject *image = PyObject_CallOneArg(walk->state->image, value->object);

    if (image == NULL)
        return FAILED;
    if (image == Py_NotImplemented || image == value->object) {
        Py_DECREF(image);
        return unknown_to_term(walk, value->object, out);
    }
    if (value->owns)
        Py_DECREF(value->object);
    value->object = image;
    value->owns = true;
    return OTHER;
}

static step_t foreign_to_term(walk_t *walk, PyObject *object, ERL_NIF_TERM *out)
{
    value_t value = {.origin = object, .object = object};
    step_t step = OTHER;

    if (walk->as_arrays && Py_TYPE(object) != walk->state->buffer_type) {
        if (arrays_to_term(walk->env, object, out))
            return READY;
        if (PyErr_Occurred())
            return FAILED;
    }
    for (int images = 0; step == OTHER; images++) {
        step = builtin_to_term(walk, &value, out);
        if (step == OTHER)
            step = images < IMAGES_MAX ? image_to_term(walk, &value, out) : fail(walk, object);
    }
    if (value.owns)
        Py_DECREF(value.object);
    return step;
}

static inline step_t value_to_term(walk_t *walk, PyObject *object, ERL_NIF_TERM *out)
{
    const step_t step = scalar_to_term(walk, object, out);

    return step == OTHER ? foreign_to_term(walk, object, out) : step;
}

/* ---- closing containers ---- */

static step_t close_map(walk_t *walk, frame_t *frame, ERL_NIF_TERM *out)
{
    ERL_NIF_TERM *keys = walk->frames.slots + frame->first;
    const size_t pairs = frame->count / 2;

    if (maps_from_arrays(walk->env, keys, keys + pairs, pairs, out))
        return READY;
    walk->key = *out;
    return fail(walk, frame->origin);
}

static step_t close_frame(walk_t *walk, frame_t *frame, ERL_NIF_TERM *out)
{
    ERL_NIF_TERM *terms = walk->frames.slots + frame->first;

    if (frame->kind == FRAME_MAP)
        return close_map(walk, frame, out);
    if (frame->count > UINT_MAX)
        return fail(walk, frame->origin);
    if (frame->kind == FRAME_TUPLE)
        *out = enif_make_tuple_from_array(walk->env, terms, (unsigned)frame->count);
    else
        *out = enif_make_list_from_array(walk->env, terms, (unsigned)frame->count);
    return READY;
}

/* ---- the walk ---- */

static step_t fill(walk_t *walk, frame_t *frame)
{
    step_t step = READY;
    ERL_NIF_TERM term;

    if (frame->items == NULL) {
        step = read_in_place(walk, frame);
        if (step != OTHER)
            return step;
    }
    while (frame->index < frame->count) {
        /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): frames_freeze gave it items */
        step = value_to_term(walk, frame->items[frame->index], &term);
        if (step != READY)
            return step;
        frames_store(&walk->frames, frame, term);
    }
    return READY;
}

static bool run(walk_t *walk, PyObject *object, ERL_NIF_TERM *out)
{
    frames_t *frames = &walk->frames;
    step_t step = value_to_term(walk, object, out);

    while (frames->depth > 0 && step != FAILED) {
        frame_t *frame = frames_top(frames);

        step = fill(walk, frame);
        if (step == READY)
            step = close_frame(walk, frame, out);
        if (step != READY)
            continue;
        frames_pop(frames);
        if (frames->depth > 0)
            frames_store(frames, frames_top(frames), *out);
    }
    return step != FAILED;
}

static void set_reason(walk_t *walk, convert_failure_t *failure)
{
    ErlNifEnv *env = failure->env;

    if (PyErr_Occurred())
        failure->reason = failure_in_conversion(walk->state, env);
    else
        failure->reason =
            enif_make_tuple3(env, atom_unconvertible, frames_path(&walk->frames, env, walk->key),
                             failure_type_name(env, walk->type));
}

bool convert_out(module_state_t *state, ErlNifEnv *env, PyObject *object,
                 convert_out_options_t options, ERL_NIF_TERM *out, convert_failure_t *failure)
{
    walk_t walk;
    bool ok = false;

    walk.state = state;
    walk.env = env;
    walk.sink = (scalars_sink_t){.env = env};
    walk.unknown = options.unknown;
    walk.as_arrays = options.as_arrays;
    walk.type = NULL;
    walk.key = 0;
    walk.dicts = 0;
    walk.keys = NULL;
    frames_init(&walk.frames);
    ok = options.as_handle ? handle(&walk, object, out) == READY : run(&walk, object, out);
    if (!ok)
        set_reason(&walk, failure);
    frames_finish(&walk.frames);
    forget_keys(&walk);
    Py_XDECREF(walk.type);
    return ok;
}
