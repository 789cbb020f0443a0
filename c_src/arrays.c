#include "arrays.h"

#include "atoms.h"
#include "scalars.h"
#include "terms.h"

#include <stdio.h>
#include <string.h>

enum { DIMENSIONS_MAX = 64 /* numpy's; Python's own buffers have the same */ };

/* ---- out ---- */

/* The kind of numpy's array interface for a format of the struct module; 0: not a number. */
static char kind_of(const char *format)
{
    if (format[0] == 'Z' && strchr("fd", format[1]) != NULL && format[1] != 0 && format[2] == 0)
        return 'c';
    if (format[0] == 0 || format[1] != 0)
        return 0;
    if (strchr("bhilqn", format[0]) != NULL)
        return 'i';
    if (strchr("BHILQN", format[0]) != NULL)
        return 'u';
    if (strchr("efd", format[0]) != NULL)
        return 'f';
    return format[0] == '?' ? 'b' : 0;
}

/* Writes the type of the items to text. False: they are no numbers. */
static bool describe(const Py_buffer *buffer, char text[8])
{
    const char *format = buffer->format != NULL ? buffer->format : "B";
    char order = PY_LITTLE_ENDIAN ? '<' : '>';
    char kind;

    if (*format == '>' || *format == '!')
        order = '>';
    else if (*format == '<')
        order = '<';
    if (*format != 0 && strchr("<>!=@", *format) != NULL)
        format++;
    kind = kind_of(format);
    if (buffer->itemsize == 1)
        order = '|';
    snprintf(text, 8, "%c%c%d", order, kind, (int)buffer->itemsize);
    return kind != 0 && buffer->itemsize <= 16;
}

static bool copy_items(ErlNifEnv *env, const Py_buffer *buffer, ERL_NIF_TERM *out)
{
    ErlNifBinary items;

    if (!enif_alloc_binary((size_t)buffer->len, &items)) {
        PyErr_NoMemory();
        return false;
    }
    if (PyBuffer_IsContiguous(buffer, 'C')) {
        memcpy(items.data, buffer->buf, items.size);
    } else if (PyBuffer_ToContiguous(items.data, buffer, buffer->len, 'C') < 0) {
        enif_release_binary(&items);
        return false;
    }
    *out = enif_make_binary(env, &items);
    return true;
}

static bool buffer_to_term(ErlNifEnv *env, const Py_buffer *buffer, ERL_NIF_TERM *out)
{
    ERL_NIF_TERM lengths[DIMENSIONS_MAX];
    ERL_NIF_TERM type;
    ERL_NIF_TERM items;
    char text[8];

    if (buffer->ndim < 1 || buffer->ndim > DIMENSIONS_MAX || !describe(buffer, text) ||
        !copy_items(env, buffer, &items))
        return false;
    for (int i = 0; i < buffer->ndim; i++)
        lengths[i] = enif_make_int64(env, buffer->shape[i]);
    memcpy(enif_make_new_binary(env, strlen(text), &type), text, strlen(text));
    *out = enif_make_tuple4(env, atom_ndarray, type,
                            enif_make_list_from_array(env, lengths, (unsigned)buffer->ndim), items);
    return true;
}

bool arrays_to_term(ErlNifEnv *env, PyObject *object, ERL_NIF_TERM *out)
{
    Py_buffer buffer;
    bool ok = false;

    if (!PyObject_CheckBuffer(object) || PyBytes_Check(object) || PyByteArray_Check(object))
        return false;
    if (PyObject_GetBuffer(object, &buffer, PyBUF_FULL_RO) < 0) {
        /* numpy's dates, for example; not an interrupt, nor a want of memory */
        if (PyErr_ExceptionMatches(PyExc_ValueError) || PyErr_ExceptionMatches(PyExc_TypeError) ||
            PyErr_ExceptionMatches(PyExc_BufferError))
            PyErr_Clear();
        return false;
    }
    if (!PyMemoryView_Check(object) || buffer.ndim != 1 || !scalars_are_bytes(&buffer))
        ok = buffer_to_term(env, &buffer, out);
    PyBuffer_Release(&buffer);
    return ok;
}

/* ---- in ---- */

/* A list of lengths as a tuple; NULL without an exception: it is none. */
static PyObject *shape_from_term(ErlNifEnv *env, ERL_NIF_TERM list)
{
    unsigned count = 0;
    ErlNifUInt64 length = 0;
    PyObject *shape = NULL;
    ERL_NIF_TERM head;

    if (!enif_get_list_length(env, list, &count) || count > DIMENSIONS_MAX)
        return NULL;
    shape = PyTuple_New((Py_ssize_t)count);
    for (unsigned i = 0; shape != NULL && i < count; i++) {
        PyObject *item = NULL;

        if (enif_get_list_cell(env, list, &head, &list) && enif_get_uint64(env, head, &length))
            item = PyLong_FromUnsignedLongLong(length);
        if (item == NULL)
            Py_CLEAR(shape);
        else
            PyTuple_SET_ITEM(shape, (Py_ssize_t)i, item);
    }
    return shape;
}

PyObject *arrays_from_term(module_state_t *state, ErlNifEnv *env, const ERL_NIF_TERM items[4],
                           ERL_NIF_TERM *why)
{
    ErlNifBinary type;
    PyObject *shape = NULL, *buffer = NULL, *array = NULL;

    *why = atom_bad_ndarray;
    if (!enif_inspect_binary(env, items[1], &type) || type.size > 8)
        return NULL;
    shape = shape_from_term(env, items[2]);
    if (shape != NULL)
        buffer = terms_buffer(state, items[3]);
    if (buffer != NULL)
        array = PyObject_CallFunction(state->array, "Oy#O", buffer, type.data,
                                      (Py_ssize_t)type.size, shape);
    Py_XDECREF(shape);
    Py_XDECREF(buffer);
    if (array == Py_None || array == Py_NotImplemented) {
        *why = array == Py_None ? atom_bad_ndarray : atom_needs_numpy;
        Py_CLEAR(array);
    }
    return array;
}
