#include "run.h"

#include "atoms.h"
#include "batch.h"
#include "callable.h"
#include "code.h"
#include "deferred.h"
#include "failure.h"
#include "namespace.h"
#include "run_step.h"

#include <stdlib.h>

#define STACK_ARGUMENTS 8

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

bool run_fail(run_t *run, ERL_NIF_TERM reason)
{
    run->result = enif_make_tuple2(run->env, atom_error, reason);
    return false;
}

/* The pending exception becomes the result. */
bool run_fail_raised(run_t *run)
{
    run->result = run_raised(run->state, run->request, run->env);
    return false;
}

bool run_fail_elsewhere(run_t *run, ERL_NIF_TERM where)
{
    run->result = enif_make_tuple2(run->env, atom_py_elsewhere, where);
    return false;
}

/* ---- conversion with the request's options ---- */

binary_policy_t run_binaries(const request_t *request)
{
    if ((request->flags & FLAG_BINARY_BYTES) != 0)
        return BINARY_BYTES;
    return (request->flags & FLAG_BINARY_STR) != 0 ? BINARY_STR : BINARY_AUTO;
}

/* `place` is the reversed path to the term, in run->env; for names, too. */
PyObject *run_to_object(run_t *run, ERL_NIF_TERM term, ERL_NIF_TERM place)
{
    convert_failure_t failure = {.env = run->env, .prefix = place};
    PyObject *object;

    object = convert_in(run->state, run->from, term, run_binaries(run->request), &failure);
    if (object == NULL)
        run_fail(run, failure.reason);
    return object;
}

PyObject *run_to_name(run_t *run, ERL_NIF_TERM term, ERL_NIF_TERM place)
{
    convert_failure_t failure = {.env = run->env, .prefix = place};
    PyObject *name;

    name = convert_name(run->state, run->from, term, &failure);
    if (name == NULL)
        run_fail(run, failure.reason);
    return name;
}

void run_to_result(run_t *run, PyObject *value)
{
    run->result = run_value(run->state, run->request, &run->env, value);
}

/* ---- namespaces ---- */

PyObject *run_globals(run_t *run)
{
    PyObject *globals = run->state->main_ns;

    if (run->request->namespace != NULL) {
        globals = namespace_dict(run->request->namespace, run->state);
        if (globals == NULL && PyErr_Occurred())
            run_fail_raised(run);
        else if (globals == NULL)
            run_fail(run, enif_make_tuple2(run->env, atom_context_down, atom_replaced));
    }
    return globals;
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
            return run_fail_raised(run);
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
        PyObject *object = run_to_object(run, head, enif_make_list1(run->env, position));

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
    PyObject *name = run_to_name(run, key, place);
    PyObject *object;

    if (name == NULL)
        return false;
    if (is_among(arguments->names, index, name)) {
        Py_DECREF(name);
        return run_fail(run, enif_make_tuple3(run->env, atom_badarg, place, atom_duplicate_key));
    }
    object = run_to_object(run, value, place);
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
            return run_fail(run, enif_make_tuple3(run->env, atom_badarg,
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
        return run_fail_raised(run);
    return is_map ? add_keywords_map(run, arguments) : add_keywords_list(run, arguments);
}

/* ---- call ---- */

static PyObject *call_with(run_t *run, PyObject *callable, arguments_t *arguments)
{
    size_t positional = (size_t)arguments->positional | PY_VECTORCALL_ARGUMENTS_OFFSET;
    PyObject *value =
        PyObject_Vectorcall(callable, arguments->all + 1, positional, arguments->names);

    if (value == NULL)
        run_fail_raised(run);
    return value;
}

/* The awaitable's result comes later, on the context's event loop. */
static void defer(run_t *run, PyObject *awaitable)
{
    if (deferred_start(run->state, run->request, awaitable))
        run->result = RUN_DEFERRED;
    else
        run_fail_raised(run);
}

static void run_call(run_t *run)
{
    arguments_t arguments;
    PyObject *callable = callable_find(run);
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
        run_to_result(run, value);
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
        code_run(&run);
        break;
    case OP_ACQUIRE:
        run.result = atom_ok; /* never gets here: granted when its slot is there */
        break;
    }
    *env = run.env;
    return run.result;
}
