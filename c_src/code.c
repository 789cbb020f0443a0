#include "code.h"

#include "atoms.h"
#include "pycompat.h"

#include <string.h>

#define CODES_MAX 512 /* compiled sources kept per interpreter */

static PyObject *source_of(run_t *run)
{
    ErlNifBinary source;
    PyObject *text = NULL;

    if (enif_inspect_iolist_as_binary(run->from, run->request->target, &source))
        text = PyUnicode_DecodeUTF8((const char *)source.data, (Py_ssize_t)source.size, NULL);
    else
        PyErr_SetString(PyExc_TypeError, "source must be iodata");
    if (text == NULL)
        run_fail_raised(run);
    return text;
}

/* Remembers code under text; a full table starts anew. */
static void keep_code(run_t *run, PyObject *codes, PyObject *text, PyObject *code)
{
    (void)run;
    if (PyDict_GET_SIZE(codes) >= CODES_MAX)
        PyDict_Clear(codes);
    if (PyDict_SetItem(codes, text, code) != 0)
        PyErr_Clear();
}

/* The compiled source; new. */
static PyObject *code_of(run_t *run, PyObject *text)
{
    bool is_eval = run->request->op == OP_EVAL;
    PyObject *codes = is_eval ? run->state->eval_codes : run->state->exec_codes;
    PyObject *code = compat_dict_get(codes, text);
    const char *utf8;

    if (code != NULL)
        return code;
    PyErr_Clear();
    utf8 = PyUnicode_AsUTF8(text);
    if (utf8 != NULL && strlen(utf8) != (size_t)PyUnicode_GetLength(text) &&
        memchr(utf8, 0, (size_t)PyUnicode_GetLength(text)) != NULL) {
        PyErr_SetString(PyExc_ValueError, "source code cannot contain null bytes");
        utf8 = NULL;
    }
    if (utf8 != NULL && is_eval)
        while (*utf8 == ' ' || *utf8 == '\t')
            utf8++;
    if (utf8 != NULL)
        code = Py_CompileString(utf8, "<erlang>", is_eval ? Py_eval_input : Py_file_input);
    if (code == NULL)
        run_fail_raised(run);
    else
        keep_code(run, codes, text, code);
    return code;
}

/* Whether the process's first code imports a package that only main can load. */
static bool belongs_to_main(run_t *run, PyObject *text)
{
    PyObject *answer;
    bool yes;

    if ((run->request->flags & FLAG_PLACING) == 0 || run->state->interp->kind == INTERP_MAIN)
        return false;
    answer = PyObject_CallFunctionObjArgs(run->state->imports_main_only, text, NULL);
    yes = answer != NULL && PyObject_IsTrue(answer) == 1;
    Py_XDECREF(answer);
    PyErr_Clear();
    return yes;
}

/* Nothing may be dropped: `x` and <<"x">> are one name. */
static bool add_local(run_t *run, PyObject *locals, ERL_NIF_TERM key, ERL_NIF_TERM value)
{
    ERL_NIF_TERM step = enif_make_copy(run->env, key);
    ERL_NIF_TERM place = enif_make_list2(run->env, step, atom_locals);
    PyObject *name = run_to_name(run, key, place);
    PyObject *object = NULL;
    bool ok = false;

    if (name == NULL)
        return false;
    if (PyDict_Contains(locals, name) > 0)
        run_fail(run, enif_make_tuple3(run->env, atom_badarg,
                                       enif_make_list2(run->env, atom_locals, step),
                                       atom_duplicate_key));
    else
        object = run_to_object(run, value, place);
    if (object != NULL)
        ok = PyDict_SetItem(locals, name, object) == 0 || run_fail_raised(run);
    Py_DECREF(name);
    Py_XDECREF(object);
    return ok;
}

/* The locals by their names, whatever binaries become; new. */
static PyObject *locals_of(run_t *run)
{
    ErlNifMapIterator at;
    ERL_NIF_TERM key;
    ERL_NIF_TERM value;
    PyObject *locals = PyDict_New();
    bool ok = locals != NULL || run_fail_raised(run);

    enif_map_iterator_create(run->from, run->request->arguments, &at, ERL_NIF_MAP_ITERATOR_FIRST);
    while (ok && enif_map_iterator_get_pair(run->from, &at, &key, &value)) {
        ok = add_local(run, locals, key, value);
        enif_map_iterator_next(run->from, &at);
    }
    enif_map_iterator_destroy(run->from, &at);
    if (!ok)
        Py_CLEAR(locals);
    return locals;
}

/* The namespace with the locals laid over it, so that nested scopes see them too; new. */
static PyObject *merged_globals(run_t *run, PyObject *globals, PyObject **locals)
{
    PyObject *merged = NULL;

    *locals = locals_of(run);
    if (*locals == NULL)
        return NULL;
    merged = PyDict_Copy(globals);
    if (merged == NULL || PyDict_Update(merged, *locals) != 0) {
        Py_CLEAR(merged);
        Py_CLEAR(*locals);
        run_fail_raised(run);
    }
    return merged;
}

/* Names that := bound go to the namespace, unless a local has that name. */
static bool write_back(PyObject *globals, PyObject *merged, PyObject *locals)
{
    PyObject *snapshot = PyDict_Copy(merged);
    Py_ssize_t at = 0;
    PyObject *key;
    PyObject *value;
    bool ok = snapshot != NULL;

    while (ok && PyDict_Next(snapshot, &at, &key, &value)) {
        PyObject *known = compat_dict_get(globals, key);

        Py_XDECREF(known); /* only compared */
        if (known == value)
            continue;
        if (PyErr_Occurred())
            ok = false;
        else if (PyDict_Contains(locals, key) == 0)
            ok = PyDict_SetItem(globals, key, value) == 0;
    }
    Py_XDECREF(snapshot);
    return ok;
}

static PyObject *eval_with_locals(run_t *run, PyObject *code, PyObject *globals)
{
    PyObject *locals = NULL;
    PyObject *merged = merged_globals(run, globals, &locals);
    PyObject *value;

    if (merged == NULL)
        return NULL;
    value = PyEval_EvalCode(code, merged, merged);
    if (value != NULL && !write_back(globals, merged, locals))
        Py_CLEAR(value);
    if (value == NULL)
        run_fail_raised(run);
    Py_DECREF(merged);
    Py_DECREF(locals);
    return value;
}

static PyObject *evaluate(run_t *run, PyObject *code, PyObject *globals)
{
    size_t locals = 0;
    PyObject *value;

    if (run->request->op == OP_EVAL &&
        enif_get_map_size(run->from, run->request->arguments, &locals) && locals > 0)
        return eval_with_locals(run, code, globals);
    value = PyEval_EvalCode(code, globals, globals);
    if (value == NULL)
        run_fail_raised(run);
    return value;
}

void code_run(run_t *run)
{
    PyObject *text = source_of(run);
    PyObject *globals = NULL;
    PyObject *code = NULL;
    PyObject *value = NULL;

    if (text == NULL)
        goto done;
    if (belongs_to_main(run, text)) {
        run_fail_elsewhere(run, atom_placing); /* Erlang decides: the whole namespace moves */
        goto done;
    }
    globals = run_globals(run);
    if (globals != NULL)
        code = code_of(run, text);
    if (code != NULL)
        value = evaluate(run, code, globals);
    if (value == NULL)
        goto done;
    if (run->request->op == OP_EXEC)
        run->result = atom_ok;
    else
        run_to_result(run, value);
done:
    Py_XDECREF(text);
    Py_XDECREF(code);
    Py_XDECREF(value);
}
