#include "failure.h"

#include "atoms.h"
#include "convert.h"
#include "pycompat.h"
#include "scalars.h"
#include "terms.h"

#include <string.h>

enum { MESSAGE_MAX = 1000000, TRACEBACK_MAX = 1000 };

/* ---- small things ---- */

static ERL_NIF_TERM empty_binary(ErlNifEnv *env)
{
    ERL_NIF_TERM term;

    (void)enif_make_new_binary(env, 0, &term);
    return term;
}

/* Takes `text` (NULL allowed): a binary, <<>> when there is no str. */
static ERL_NIF_TERM text_or_empty(ErlNifEnv *env, PyObject *text)
{
    scalars_sink_t sink = {.env = env};
    ERL_NIF_TERM term;

    if (text == NULL || !PyUnicode_Check(text) || !scalars_str_to_term(&sink, text, &term))
        term = empty_binary(env);
    Py_XDECREF(text);
    PyErr_Clear();
    return term;
}

static ERL_NIF_TERM chars_to_list(ErlNifEnv *env, const char *chars)
{
    return enif_make_string(env, chars, ERL_NIF_LATIN1);
}

/* ---- class ---- */

/* Without user code: a metaclass could answer __name__ as it likes. A new str. */
static PyObject *class_name(PyTypeObject *type)
{
    const char *dot = NULL;

    if (type->tp_flags & Py_TPFLAGS_HEAPTYPE)
        return Py_NewRef(((PyHeapTypeObject *)type)->ht_name);
    dot = strrchr(type->tp_name, '.');
    return PyUnicode_FromString(dot == NULL ? type->tp_name : dot + 1);
}

static ERL_NIF_TERM class_to_term(ErlNifEnv *env, PyTypeObject *type)
{
    PyObject *name = class_name(type);
    Py_ssize_t size = 0;
    const char *utf8 = name == NULL ? NULL : PyUnicode_AsUTF8AndSize(name, &size);
    ERL_NIF_TERM term;

    PyErr_Clear();
    if (utf8 == NULL || !terms_atom(env, utf8, (size_t)size, &term))
        return text_or_empty(env, name);
    Py_DECREF(name);
    return term;
}

ERL_NIF_TERM failure_type_name(ErlNifEnv *env, PyTypeObject *type)
{
    PyObject *module = NULL, *name = NULL;

    if (type->tp_flags & Py_TPFLAGS_HEAPTYPE) {
        module = PyObject_GetAttrString((PyObject *)type, "__module__");
        name = Py_NewRef(((PyHeapTypeObject *)type)->ht_qualname);
    }
    if (module != NULL && PyUnicode_Check(module) &&
        PyUnicode_CompareWithASCIIString(module, "builtins") != 0)
        Py_SETREF(name, PyUnicode_FromFormat("%U.%U", module, name));
    if (name == NULL)
        name = PyUnicode_FromString(type->tp_name);
    PyErr_Clear();
    Py_XDECREF(module);
    return text_or_empty(env, name);
}

/* ---- message ---- */

static ERL_NIF_TERM code_points(ErlNifEnv *env, PyObject *text)
{
    const Py_ssize_t length = PyUnicode_GET_LENGTH(text);
    ERL_NIF_TERM list = length > MESSAGE_MAX ? chars_to_list(env, "...") : chars_to_list(env, "");

    for (Py_ssize_t i = length > MESSAGE_MAX ? MESSAGE_MAX : length; i > 0; i--)
        list =
            enif_make_list_cell(env, enif_make_uint(env, PyUnicode_READ_CHAR(text, i - 1)), list);
    return list;
}

static ERL_NIF_TERM message_to_term(ErlNifEnv *env, PyObject *exception)
{
    PyObject *text = PyObject_Str(exception);
    ERL_NIF_TERM term;

    if (text != NULL && compat_str_ready(text))
        term = code_points(env, text);
    else
        term = chars_to_list(env, "<exception str() failed>");
    Py_XDECREF(text);
    PyErr_Clear();
    return term;
}

/* ---- traceback ---- */

/* Code that was never a file ("<string>") has no lines to look up. A new str or NULL. */
static PyObject *source_line(PyObject *file, PyObject *line)
{
    PyObject *linecache = NULL, *text = NULL, *stripped = NULL;

    if (file == NULL || line == NULL || !PyUnicode_Check(file) || PyUnicode_GET_LENGTH(file) == 0 ||
        PyUnicode_READ_CHAR(file, 0) == '<')
        goto done;
    linecache = PyImport_ImportModule("linecache");
    if (linecache == NULL)
        goto done;
    text = PyObject_CallMethod(linecache, "getline", "OO", file, line);
    if (text != NULL && PyUnicode_Check(text))
        stripped = PyObject_CallMethod(text, "strip", NULL);
done:
    Py_XDECREF(linecache);
    Py_XDECREF(text);
    PyErr_Clear();
    return stripped;
}

static ERL_NIF_TERM line_to_term(ErlNifEnv *env, PyObject *line)
{
    long number = line == NULL || !PyLong_Check(line) ? 0 : PyLong_AsLong(line);

    PyErr_Clear();
    return enif_make_long(env, number);
}

static ERL_NIF_TERM entry_to_term(ErlNifEnv *env, PyTracebackObject *entry)
{
    PyCodeObject *code = PyFrame_GetCode(entry->tb_frame);
    /* The attribute, since the field may not have been computed yet. */
    PyObject *line = PyObject_GetAttrString((PyObject *)entry, "tb_lineno");
    ERL_NIF_TERM keys[] = {atom_file, atom_line, atom_function, atom_source};
    ERL_NIF_TERM values[] = {
        text_or_empty(env, Py_NewRef(code->co_filename)),
        line_to_term(env, line),
        text_or_empty(env, Py_NewRef(code->co_name)),
        text_or_empty(env, source_line(code->co_filename, line)),
    };
    ERL_NIF_TERM map;

    (void)enif_make_map_from_arrays(env, keys, values, 4, &map);
    Py_DECREF(code);
    Py_XDECREF(line);
    PyErr_Clear();
    return map;
}

static ERL_NIF_TERM traceback_to_term(ErlNifEnv *env, PyObject *exception)
{
    PyObject *traceback = PyException_GetTraceback(exception);
    PyTracebackObject *first = NULL, *entry = NULL;
    ERL_NIF_TERM reversed = enif_make_list(env, 0), list = reversed;
    size_t count = 0, at = 0;

    if (traceback != NULL && PyTraceBack_Check(traceback)) /* before 3.12 it may be None */
        first = (PyTracebackObject *)traceback;
    for (entry = first; entry != NULL; entry = entry->tb_next)
        count++;
    for (entry = first; entry != NULL; entry = entry->tb_next, at++)
        if (at < TRACEBACK_MAX / 2 || count - at <= TRACEBACK_MAX / 2)
            reversed = enif_make_list_cell(env, entry_to_term(env, entry), reversed);
    (void)enif_make_reverse_list(env, reversed, &list);
    Py_XDECREF(traceback);
    return list;
}

/* What Python would print of the exception, or NULL. A new str. */
static PyObject *printed(PyObject *exception)
{
    PyObject *traceback = PyException_GetTraceback(exception);
    PyObject *module = PyImport_ImportModule("traceback");
    PyObject *lines = NULL, *empty = NULL, *text = NULL;

    if (module == NULL)
        goto done;
    lines = PyObject_CallMethod(module, "format_exception", "OOO", (PyObject *)Py_TYPE(exception),
                                exception, traceback != NULL ? traceback : Py_None);
    empty = PyUnicode_FromString("");
    if (lines != NULL && empty != NULL)
        text = PyUnicode_Join(empty, lines);
    if (text != NULL && PyUnicode_GET_LENGTH(text) > MESSAGE_MAX)
        Py_CLEAR(text);
done:
    PyErr_Clear();
    Py_XDECREF(traceback);
    Py_XDECREF(module);
    Py_XDECREF(lines);
    Py_XDECREF(empty);
    return text;
}

/* Takes text; gives it to the first entry, if there is one. */
static ERL_NIF_TERM with_text(ErlNifEnv *env, ERL_NIF_TERM entries, PyObject *text)
{
    ERL_NIF_TERM first, rest;

    if (text == NULL || !enif_get_list_cell(env, entries, &first, &rest)) {
        Py_XDECREF(text);
        return entries;
    }
    enif_make_map_put(env, first, atom_text, text_or_empty(env, text), &first);
    return enif_make_list_cell(env, first, rest);
}

/* ---- reasons ---- */

static ERL_NIF_TERM plain_reason(ErlNifEnv *env, PyObject *exception, bool traceback)
{
    ERL_NIF_TERM class = class_to_term(env, Py_TYPE(exception));
    /* Before the message: its __str__ may raise the exception once more. */
    ERL_NIF_TERM entries = traceback ? traceback_to_term(env, exception) : 0;
    PyObject *text = traceback ? printed(exception) : NULL;
    ERL_NIF_TERM message = message_to_term(env, exception);

    if (traceback)
        entries = with_text(env, entries, text);
    return traceback ? enif_make_tuple3(env, class, message, entries)
                     : enif_make_tuple2(env, class, message);
}

static ERL_NIF_TERM stop_reason(module_state_t *state, ErlNifEnv *env, PyObject *exception)
{
    convert_failure_t failure = {.env = env, .prefix = enif_make_list(env, 0)};
    convert_out_options_t options = {.unknown = UNKNOWN_HANDLE};
    PyObject *value = ((PyStopIterationObject *)exception)->value;
    ERL_NIF_TERM term;

    Py_XINCREF(value);
    if (!convert_out(state, env, value == NULL ? Py_None : value, options, &term, &failure))
        term = failure.reason;
    else
        term = enif_make_tuple2(env, atom_stop_iteration, term);
    Py_XDECREF(value);
    return term;
}

/* Takes the pending exception; without one, what a bug deserves. A new reference. */
static PyObject *pending_exception(void)
{
    PyObject *exception = compat_take_exception();

    if (exception == NULL) {
        PyErr_SetString(PyExc_SystemError, "an operation failed without an exception");
        exception = compat_take_exception();
    }
    return exception;
}

ERL_NIF_TERM failure_to_term(module_state_t *state, ErlNifEnv *env, bool traceback,
                             ERL_NIF_TERM interrupted)
{
    PyObject *exception = pending_exception();
    ERL_NIF_TERM reason;

    if (PyErr_GivenExceptionMatches(exception, state->interrupt))
        reason = interrupted;
    else if (PyErr_GivenExceptionMatches(exception, PyExc_StopIteration))
        reason = stop_reason(state, env, exception);
    else
        reason = plain_reason(env, exception, traceback);
    Py_DECREF(exception);
    return reason;
}

ERL_NIF_TERM failure_in_conversion(module_state_t *state, ErlNifEnv *env)
{
    PyObject *exception = pending_exception();
    ERL_NIF_TERM reason = atom_interrupted;

    if (!PyErr_GivenExceptionMatches(exception, state->interrupt))
        reason = plain_reason(env, exception, false);
    Py_DECREF(exception);
    return reason;
}
