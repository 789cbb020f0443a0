#include "run.h"

#include "atoms.h"
#include "batch.h"
#include "context.h"
#include "convert.h"
#include "deferred.h"
#include "failure.h"
#include "handle.h"
#include "names.h"
#include "namespace.h"
#include "pycompat.h"

#include <stdlib.h>
#include <string.h>

#define STACK_ARGUMENTS 8
#define CODES_MAX       512 /* compiled sources kept per interpreter */

/* What one request needs at hand. */
typedef struct {
    pyworker_t *self;
    module_state_t *state;
    request_t *request;
    ErlNifEnv *env;      /* where the result is built */
    ErlNifEnv *from;     /* where the arguments are */
    ERL_NIF_TERM result; /* set when a step fails */
} run_t;

/* The arguments of one call, as vectorcall wants them. */
typedef struct {
    PyObject *on_stack[STACK_ARGUMENTS + 1];
    PyObject **all;   /* on_stack or allocated; [0] is scratch for vectorcall */
    Py_ssize_t count; /* positional and keyword values, from all[1] on */
    Py_ssize_t positional;
    PyObject *names; /* tuple of keyword names, or NULL */
} arguments_t;

bool run_is_success(ErlNifEnv *env, ERL_NIF_TERM result)
{
    const ERL_NIF_TERM *parts;
    int arity;

    if (enif_is_identical(result, atom_ok))
        return true;
    return enif_get_tuple(env, result, &arity, &parts) && arity == 2 &&
           enif_is_identical(parts[0], atom_ok);
}

bool run_is_elsewhere(ErlNifEnv *env, ERL_NIF_TERM result)
{
    const ERL_NIF_TERM *parts;
    int arity;

    return enif_get_tuple(env, result, &arity, &parts) && arity == 2 &&
           enif_is_identical(parts[0], atom_py_elsewhere) &&
           !enif_is_identical(parts[1], atom_placing);
}

convert_out_options_t run_options(const request_t *request)
{
    convert_out_options_t options = {UNKNOWN_HANDLE, (request->flags & FLAG_ARRAYS) != 0,
                                     (request->flags & FLAG_AS_HANDLE) != 0};

    if ((request->flags & FLAG_UNKNOWN_REPR) != 0)
        options.unknown = UNKNOWN_REPR;
    else if ((request->flags & FLAG_UNKNOWN_ERROR) != 0)
        options.unknown = UNKNOWN_ERROR;
    return options;
}

ERL_NIF_TERM run_value(module_state_t *state, request_t *request, ErlNifEnv **env, PyObject *value)
{
    convert_failure_t failure = {.env = *env};
    ERL_NIF_TERM term;

    if (Py_IS_TYPE(value, state->batch_type))
        return batch_take(value, env);
    failure.prefix = enif_make_list(*env, 0);
    if (!convert_out(state, *env, value, run_options(request), &term, &failure))
        return enif_make_tuple2(*env, atom_error, failure.reason);
    return enif_make_tuple2(*env, atom_ok, term);
}

ERL_NIF_TERM run_raised(module_state_t *state, request_t *request, ErlNifEnv *env)
{
    bool traceback = (request->flags & FLAG_TRACEBACK) != 0;

    return enif_make_tuple2(env, atom_error,
                            failure_to_term(state, env, traceback, atom_interrupted));
}

static bool fail(run_t *run, ERL_NIF_TERM reason)
{
    run->result = enif_make_tuple2(run->env, atom_error, reason);
    return false;
}

/* The pending exception becomes the result. */
static bool fail_raised(run_t *run)
{
    run->result = run_raised(run->state, run->request, run->env);
    return false;
}

static bool fail_elsewhere(run_t *run, ERL_NIF_TERM where)
{
    run->result = enif_make_tuple2(run->env, atom_py_elsewhere, where);
    return false;
}

/* A strong reference, NULL with or without an exception. */
static PyObject *lookup(PyObject *dict, PyObject *key)
{
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *found;

    PyDict_GetItemRef(dict, key, &found);
    return found;
#else
    return Py_XNewRef(PyDict_GetItemWithError(dict, key));
#endif
}

/* ---- conversion with the request's options ---- */

binary_policy_t run_binaries(const request_t *request)
{
    if ((request->flags & FLAG_BINARY_BYTES) != 0)
        return BINARY_BYTES;
    return (request->flags & FLAG_BINARY_STR) != 0 ? BINARY_STR : BINARY_AUTO;
}

/* `place` is the reversed path to the term, in run->env; for names, too. */
static PyObject *to_object(run_t *run, ERL_NIF_TERM term, ERL_NIF_TERM place)
{
    convert_failure_t failure = {.env = run->env, .prefix = place};
    PyObject *object;

    object = convert_in(run->state, run->from, term, run_binaries(run->request), &failure);
    if (object == NULL)
        fail(run, failure.reason);
    return object;
}

static PyObject *to_name(run_t *run, ERL_NIF_TERM term, ERL_NIF_TERM place)
{
    convert_failure_t failure = {.env = run->env, .prefix = place};
    PyObject *name;

    name = convert_name(run->state, run->from, term, &failure);
    if (name == NULL)
        fail(run, failure.reason);
    return name;
}

static void to_result(run_t *run, PyObject *value)
{
    run->result = run_value(run->state, run->request, &run->env, value);
}

/* ---- namespaces ---- */

/* The globals in which the request's code runs; borrowed. */
static PyObject *globals_of(run_t *run)
{
    PyObject *globals = run->state->main_ns;

    if (run->request->namespace != NULL) {
        globals = namespace_dict(run->request->namespace, run->state);
        if (globals == NULL && PyErr_Occurred())
            fail_raised(run);
        else if (globals == NULL)
            fail(run, enif_make_tuple2(run->env, atom_context_down, atom_replaced));
    }
    return globals;
}

/* ---- finding the callable ---- */

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
        return lookup(dict, path);
    first = PyUnicode_Substring(path, 0, dot);
    rest = PyUnicode_Substring(path, dot + 1, length);
    if (first != NULL && rest != NULL)
        object = lookup(dict, first);
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
    PyObject *globals = globals_of(run);
    PyObject *found;

    if (globals == NULL)
        return NULL;
    found = dotted_from_dict(globals, path);
    if (found == NULL && !PyErr_Occurred() && globals != run->state->main_ns)
        found = dotted_from_dict(run->state->main_ns, path);
    if (found == NULL) {
        raise_no_main(path);
        fail_raised(run);
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
        fail_elsewhere(run, atom_main);
        return NULL;
    }
    module = PyImport_GetModule(name);
    if (module != NULL || PyErr_Occurred())
        goto done;
    module = PyImport_Import(name);
    if (module == NULL && is_main_only(run, name)) {
        fail_elsewhere(run, atom_main);
        return NULL;
    }
    if (module != NULL) { /* PyImport_Import gives the top of a dotted name */
        PyObject *exact = PyImport_GetModule(name);

        if (exact != NULL)
            Py_SETREF(module, exact);
    }
done:
    if (module == NULL)
        fail_raised(run);
    return module;
}

/* Looks a plain name up in a module's dict without the cost of an attribute error. */
static PyObject *module_attribute(PyObject *module, PyObject *path)
{
    if (PyModule_CheckExact(module)) {
        PyObject *found = lookup(PyModule_GetDict(module), path);

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
        run_forget(run->self);
        return NULL;
    }
    if (known->target != run->request->target || known->function != run->request->function)
        return NULL;
    module = lookup(PyImport_GetModuleDict(), known->module_name);
    if (module != NULL && module == known->module)
        found = lookup(PyModule_GetDict(module), known->name);
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

void run_forget(pyworker_t *self)
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
        fail_raised(run);
    else
        remember(run, name, module, path);
    Py_DECREF(module);
    return found;
}

/* What is to be called; new. NULL with run->result set. */
static PyObject *find_callable(run_t *run)
{
    PyObject *found = find_known(run);
    PyObject *target = NULL;
    PyObject *path;

    if (found != NULL)
        return found;
    path = to_name(run, run->request->function, 0);
    if (path == NULL)
        return NULL;
    switch (handle_from_term(run->state, run->from, run->request->target, &target)) {
    case HANDLE_HERE:
        found = PyUnicode_GET_LENGTH(path) > 0 ? dotted(target, path) : Py_NewRef(target);
        if (found == NULL)
            fail_raised(run);
        break;
    case HANDLE_ELSEWHERE:
        fail(run, enif_make_tuple3(run->env, atom_badarg, enif_make_list(run->env, 0),
                                   atom_other_interpreter));
        break;
    case HANDLE_NONE:
        target = to_name(run, run->request->target, 0);
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

/* ---- arguments ---- */

static bool arguments_init(run_t *run, arguments_t *arguments, size_t room)
{
    arguments->count = 0;
    arguments->positional = 0;
    arguments->names = NULL;
    arguments->all = arguments->on_stack;
    if (room > STACK_ARGUMENTS) {
        arguments->all = calloc(room + 1, sizeof(*arguments->all));
        if (arguments->all == NULL) {
            PyErr_NoMemory();
            return fail_raised(run);
        }
    }
    return true;
}

static void arguments_finish(arguments_t *arguments)
{
    for (Py_ssize_t i = 1; i <= arguments->count; i++)
        Py_DECREF(arguments->all[i]);
    if (arguments->all != arguments->on_stack)
        free(arguments->all);
    Py_XDECREF(arguments->names);
}

static bool add_positional(run_t *run, arguments_t *arguments)
{
    ERL_NIF_TERM rest = run->request->arguments;
    ERL_NIF_TERM head;

    while (enif_get_list_cell(run->from, rest, &head, &rest)) {
        ERL_NIF_TERM position = enif_make_int64(run->env, arguments->count + 1);
        PyObject *object = to_object(run, head, enif_make_list1(run->env, position));

        if (object == NULL)
            return false;
        arguments->all[++arguments->count] = object;
    }
    arguments->positional = arguments->count;
    return true;
}

/* `a` and <<"a">> are one name. They are few. */
static bool is_among(PyObject *names, Py_ssize_t count, PyObject *name)
{
    for (Py_ssize_t i = 0; i < count; i++)
        if (PyUnicode_Compare(PyTuple_GET_ITEM(names, i), name) == 0)
            return true;
    return false;
}

/* One keyword argument; index is its place among the names. */
static bool add_keyword(run_t *run, arguments_t *arguments, ERL_NIF_TERM key, ERL_NIF_TERM value,
                        Py_ssize_t index)
{
    ERL_NIF_TERM place = enif_make_list1(run->env, enif_make_copy(run->env, key));
    PyObject *name = to_name(run, key, place);
    PyObject *object;

    if (name == NULL)
        return false;
    if (is_among(arguments->names, index, name)) {
        Py_DECREF(name);
        return fail(run, enif_make_tuple3(run->env, atom_badarg, place, atom_duplicate_key));
    }
    object = to_object(run, value, place);
    if (object == NULL) {
        Py_DECREF(name);
        return false;
    }
    PyTuple_SET_ITEM(arguments->names, index, name);
    arguments->all[++arguments->count] = object;
    return true;
}

static bool add_keywords_map(run_t *run, arguments_t *arguments)
{
    ErlNifMapIterator at;
    ERL_NIF_TERM key;
    ERL_NIF_TERM value;
    bool ok = true;
    Py_ssize_t index = 0;

    enif_map_iterator_create(run->from, run->request->keywords, &at, ERL_NIF_MAP_ITERATOR_FIRST);
    while (ok && enif_map_iterator_get_pair(run->from, &at, &key, &value)) {
        ok = add_keyword(run, arguments, key, value, index++);
        enif_map_iterator_next(run->from, &at);
    }
    enif_map_iterator_destroy(run->from, &at);
    return ok;
}

static bool add_keywords_list(run_t *run, arguments_t *arguments)
{
    ERL_NIF_TERM rest = run->request->keywords;
    ERL_NIF_TERM head;
    const ERL_NIF_TERM *pair;
    int arity;
    Py_ssize_t index = 0;

    while (enif_get_list_cell(run->from, rest, &head, &rest)) {
        if (!enif_get_tuple(run->from, head, &arity, &pair) || arity != 2)
            return fail(run, enif_make_tuple3(run->env, atom_badarg,
                                              enif_make_list1(run->env, atom_kwargs),
                                              enif_make_copy(run->env, head)));
        if (!add_keyword(run, arguments, pair[0], pair[1], index++))
            return false;
    }
    return true;
}

/* How many keyword arguments there are (a map or a proper list). */
static size_t count_keywords(run_t *run, bool *is_map)
{
    size_t size = 0;
    unsigned length = 0;

    *is_map = enif_get_map_size(run->from, run->request->keywords, &size);
    if (!*is_map && enif_get_list_length(run->from, run->request->keywords, &length))
        size = length;
    return size;
}

static bool add_keywords(run_t *run, arguments_t *arguments, size_t size, bool is_map)
{
    if (size == 0)
        return true;
    arguments->names = PyTuple_New((Py_ssize_t)size);
    if (arguments->names == NULL)
        return fail_raised(run);
    return is_map ? add_keywords_map(run, arguments) : add_keywords_list(run, arguments);
}

/* ---- call ---- */

static PyObject *call_with(run_t *run, PyObject *callable, arguments_t *arguments)
{
    size_t positional = (size_t)arguments->positional | PY_VECTORCALL_ARGUMENTS_OFFSET;
    PyObject *value =
        PyObject_Vectorcall(callable, arguments->all + 1, positional, arguments->names);

    if (value == NULL)
        fail_raised(run);
    return value;
}

/* The awaitable's result comes later, on the context's event loop. */
static void defer(run_t *run, PyObject *awaitable)
{
    if (deferred_start(run->state, run->request, awaitable))
        run->result = RUN_DEFERRED;
    else
        fail_raised(run);
}

static void run_call(run_t *run)
{
    arguments_t arguments;
    PyObject *callable = find_callable(run);
    PyObject *value = NULL;
    unsigned positional = 0;
    bool is_map;
    size_t keywords;

    if (callable == NULL)
        return;
    enif_get_list_length(run->from, run->request->arguments, &positional);
    keywords = count_keywords(run, &is_map);
    if (arguments_init(run, &arguments, positional + keywords)) {
        if (add_positional(run, &arguments) && add_keywords(run, &arguments, keywords, is_map))
            value = call_with(run, callable, &arguments);
        arguments_finish(&arguments);
    }
    Py_DECREF(callable);
    if (value != NULL && (run->request->flags & FLAG_ASYNC) != 0 && deferred_is_awaitable(value))
        defer(run, value);
    else if (value != NULL)
        to_result(run, value);
    Py_XDECREF(value);
}

/* ---- eval and exec ---- */

static PyObject *source_of(run_t *run)
{
    ErlNifBinary source;
    PyObject *text = NULL;

    if (enif_inspect_iolist_as_binary(run->from, run->request->target, &source))
        text = PyUnicode_DecodeUTF8((const char *)source.data, (Py_ssize_t)source.size, NULL);
    else
        PyErr_SetString(PyExc_TypeError, "source must be iodata");
    if (text == NULL)
        fail_raised(run);
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
    PyObject *code = lookup(codes, text);
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
        fail_raised(run);
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
    PyObject *name = to_name(run, key, place);
    PyObject *object = NULL;
    bool ok = false;

    if (name == NULL)
        return false;
    if (PyDict_Contains(locals, name) > 0)
        fail(run,
             enif_make_tuple3(run->env, atom_badarg, enif_make_list2(run->env, atom_locals, step),
                              atom_duplicate_key));
    else
        object = to_object(run, value, place);
    if (object != NULL)
        ok = PyDict_SetItem(locals, name, object) == 0 || fail_raised(run);
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
    bool ok = locals != NULL || fail_raised(run);

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
        fail_raised(run);
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
        PyObject *known = lookup(globals, key);

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
        fail_raised(run);
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
        fail_raised(run);
    return value;
}

static void run_code(run_t *run)
{
    PyObject *text = source_of(run);
    PyObject *globals = NULL;
    PyObject *code = NULL;
    PyObject *value = NULL;

    if (text == NULL)
        goto done;
    if (belongs_to_main(run, text)) {
        fail_elsewhere(run, atom_placing); /* Erlang decides: the whole namespace moves */
        goto done;
    }
    globals = globals_of(run);
    if (globals != NULL)
        code = code_of(run, text);
    if (code != NULL)
        value = evaluate(run, code, globals);
    if (value == NULL)
        goto done;
    if (run->request->op == OP_EXEC)
        run->result = atom_ok;
    else
        to_result(run, value);
done:
    Py_XDECREF(text);
    Py_XDECREF(code);
    Py_XDECREF(value);
}

ERL_NIF_TERM run_request(pyworker_t *self, request_t *request, ErlNifEnv **env)
{
    run_t run = {self, self->interp->module, request, *env, request->env, atom_error};

    switch (request->op) {
    case OP_CALL:
        run_call(&run);
        break;
    case OP_EVAL:
    case OP_EXEC:
        run_code(&run);
        break;
    case OP_ACQUIRE:
        run.result = atom_ok; /* never gets here: granted when its slot is there */
        break;
    }
    *env = run.env;
    return run.result;
}
