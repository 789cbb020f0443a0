#include "callable.h"

#include "atoms.h"
#include "handle.h"
#include "names.h"
#include "pycompat.h"

/* object.a.b.c for "a.b.c"; new. NULL with an exception set. */
static PyObject *dotted(PyObject *object, PyObject *path)
{
    PyObject *separator = NULL;
    PyObject *parts = NULL;
    PyObject *found = NULL;

    if (PyUnicode_FindChar(path, '.', 0, PyUnicode_GET_LENGTH(path), 1) < 0)
        return PyObject_GetAttr(object, path);
    separator = PyUnicode_FromString(".");
    if (separator != NULL)
        parts = PyUnicode_Split(path, separator, -1);
    if (parts == NULL)
        goto done;
    Py_INCREF(object);
    found = object;
    for (Py_ssize_t i = 0; found != NULL && i < PyList_GET_SIZE(parts); i++) {
        PyObject *next = PyObject_GetAttr(found, PyList_GET_ITEM(parts, i));

        Py_DECREF(found);
        found = next;
    }
done:
    Py_XDECREF(separator);
    Py_XDECREF(parts);
    return found;
}

/* Looks up the first part of a dotted path in dict, then goes on by attributes; new.
 * NULL without an exception: the first part is not there. */
static PyObject *dotted_from_dict(PyObject *dict, PyObject *path)
{
    Py_ssize_t length = PyUnicode_GET_LENGTH(path);
    Py_ssize_t dot = PyUnicode_FindChar(path, '.', 0, length, 1);
    PyObject *first = NULL;
    PyObject *rest = NULL;
    PyObject *object = NULL;
    PyObject *found = NULL;

    if (dot < 0)
        return compat_dict_get(dict, path);
    first = PyUnicode_Substring(path, 0, dot);
    rest = PyUnicode_Substring(path, dot + 1, length);
    if (first != NULL && rest != NULL)
        object = compat_dict_get(dict, first);
    if (object != NULL)
        found = dotted(object, rest);
    Py_XDECREF(first);
    Py_XDECREF(rest);
    Py_XDECREF(object);
    return found;
}

static PyObject *raise_no_main(PyObject *path)
{
    if (!PyErr_Occurred())
        PyErr_Format(PyExc_AttributeError, "'__main__' has no attribute '%U'", path);
    return NULL;
}

/* A function of '__main__': the caller's namespace first, then the interpreter's. */
static PyObject *find_in_main(run_t *run, PyObject *path)
{
    PyObject *globals = run_globals(run);
    PyObject *found;

    if (globals == NULL)
        return NULL;
    found = dotted_from_dict(globals, path);
    if (found == NULL && !PyErr_Occurred() && globals != run->state->main_ns)
        found = dotted_from_dict(run->state->main_ns, path);
    if (found == NULL) {
        raise_no_main(path);
        run_fail_raised(run);
    }
    return found;
}

/* Whether a failed import is of a package that only the main interpreter can load; the
 * request is then to be run there. The exception stays set if not. */
static bool is_main_only(run_t *run, PyObject *name)
{
    PyObject *type;
    PyObject *value;
    PyObject *trace;
    PyObject *answer;
    bool yes;

    if ((run->request->flags & FLAG_IMPLICIT) == 0 || run->state->interp->kind == INTERP_MAIN)
        return false;
    PyErr_Fetch(&type, &value, &trace);
    answer = PyObject_CallFunctionObjArgs(run->state->is_main_only, name, NULL);
    yes = answer != NULL && PyObject_IsTrue(answer) == 1;
    Py_XDECREF(answer);
    PyErr_Clear();
    if (yes) {
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(trace);
    } else {
        PyErr_Restore(type, value, trace);
    }
    return yes;
}

/* Whether the module's package is known to load in main only. */
static bool is_known_main_only(PyObject *name)
{
    const char *utf8 = names_count() > 0 ? PyUnicode_AsUTF8(name) : NULL;

    PyErr_Clear();
    return utf8 != NULL && names_has_package(utf8);
}

/* The module, imported if need be; new. */
static PyObject *find_module(run_t *run, PyObject *name)
{
    PyObject *module = NULL;

    /* Parts of the package may be here all the same. */
    if ((run->request->flags & FLAG_IMPLICIT) != 0 && run->state->interp->kind != INTERP_MAIN &&
        is_known_main_only(name)) {
        run_fail_elsewhere(run, atom_main);
        return NULL;
    }
    module = PyImport_GetModule(name);
    if (module != NULL || PyErr_Occurred())
        goto done;
    if ((run->request->flags & FLAG_INLINE) != 0) { /* an import is never short */
        run_fail_elsewhere(run, atom_worker);
        return NULL;
    }
    module = PyImport_Import(name);
    if (module == NULL && is_main_only(run, name)) {
        run_fail_elsewhere(run, atom_main);
        return NULL;
    }
    if (module != NULL) { /* PyImport_Import gives the top of a dotted name */
        PyObject *exact = PyImport_GetModule(name);

        if (exact != NULL)
            Py_SETREF(module, exact);
    }
done:
    if (module == NULL)
        run_fail_raised(run);
    return module;
}

/* Looks a plain name up in a module's dict without the cost of an attribute error. */
static PyObject *module_attribute(PyObject *module, PyObject *path)
{
    if (PyModule_CheckExact(module)) {
        PyObject *found = compat_dict_get(PyModule_GetDict(module), path);

        if (found != NULL)
            return found;
        PyErr_Clear();
    }
    return dotted(module, path);
}

static known_function_t *known_slot(run_t *run)
{
    ERL_NIF_TERM target = run->request->target;
    ERL_NIF_TERM function = run->request->function;

    return &run->self->known[(target >> 6 ^ function >> 6) & (KNOWN_FUNCTIONS - 1)];
}

/* The function a pair of atoms named before, if the module is still the same and has it: two look-ups
 * by interned names instead of a search. New; NULL, no exception: search. */
static PyObject *find_known(run_t *run)
{
    known_function_t *known = known_slot(run);
    PyObject *module;
    PyObject *found = NULL;

    if (run->self->names_seen != names_count()) { /* it may belong elsewhere by now */
        run->self->names_seen = names_count();
        callable_forget_all(run->self);
        return NULL;
    }
    if (known->target != run->request->target || known->function != run->request->function)
        return NULL;
    module = compat_dict_get(PyImport_GetModuleDict(), known->module_name);
    if (module != NULL && module == known->module)
        found = compat_dict_get(PyModule_GetDict(module), known->name);
    Py_XDECREF(module);
    if (found == NULL)
        PyErr_Clear();
    return found;
}

static void forget(known_function_t *known)
{
    known->target = 0;
    Py_CLEAR(known->module_name);
    Py_CLEAR(known->module);
    Py_CLEAR(known->name);
}

void callable_forget_all(pyworker_t *self)
{
    for (int i = 0; i < KNOWN_FUNCTIONS; i++)
        forget(&self->known[i]);
}

/* Remembers that name was found in the dict of module. */
static void remember(run_t *run, PyObject *module_name, PyObject *module, PyObject *name)
{
    known_function_t *known = known_slot(run);

    if (!enif_is_atom(run->from, run->request->target) ||
        !enif_is_atom(run->from, run->request->function) || !PyModule_CheckExact(module) ||
        (run->state->interp->kind != INTERP_MAIN && is_known_main_only(module_name)))
        return;
    forget(known);
    known->target = run->request->target;
    known->function = run->request->function;
    known->module_name = Py_NewRef(module_name);
    known->module = Py_NewRef(module);
    known->name = Py_NewRef(name);
}

static PyObject *find_in_module(run_t *run, PyObject *name, PyObject *path)
{
    PyObject *module = find_module(run, name);
    PyObject *found = NULL;

    if (module == NULL)
        return NULL;
    found = module_attribute(module, path);
    if (found == NULL)
        run_fail_raised(run);
    else
        remember(run, name, module, path);
    Py_DECREF(module);
    return found;
}

PyObject *callable_find(run_t *run)
{
    PyObject *found = find_known(run);
    PyObject *target = NULL;
    PyObject *path;

    if (found != NULL)
        return found;
    path = run_to_name(run, run->request->function, 0);
    if (path == NULL)
        return NULL;
    switch (handle_from_term(run->state, run->from, run->request->target, &target)) {
    case HANDLE_HERE:
        found = PyUnicode_GET_LENGTH(path) > 0 ? dotted(target, path) : Py_NewRef(target);
        if (found == NULL)
            run_fail_raised(run);
        break;
    case HANDLE_ELSEWHERE:
        run_fail(run, enif_make_tuple3(run->env, atom_badarg, enif_make_list(run->env, 0),
                                       atom_other_interpreter));
        break;
    case HANDLE_NONE:
        target = run_to_name(run, run->request->target, 0);
        if (target == NULL)
            break;
        if (PyUnicode_Compare(target, run->state->str_main) == 0)
            found = find_in_main(run, path);
        else
            found = find_in_module(run, target, path);
        break;
    }
    Py_XDECREF(target);
    Py_DECREF(path);
    return found;
}
