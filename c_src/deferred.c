#include "deferred.h"

#include "atoms.h"
#include "context.h"
#include "dispatch.h"
#include "executor.h"
#include "origin.h"
#include "pycompat.h"
#include "run.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    PyObject_HEAD
    _Atomic(request_t *) request; /* NULL: settled */
    uint64_t token;
    module_state_t *state; /* borrowed: the type keeps the module */
} deferred_t;

static _Atomic int64_t max_tasks = 100000;
static char loop_kind[16] = "auto";

/* ---- settling ---- */

/* The request, for the one caller that settles it; NULL for all others. */
static request_t *take(deferred_t *self)
{
    return atomic_exchange(&self->request, NULL);
}

/* Answers with value, or with the pending exception when value is NULL, and lets go. */
static void settle(deferred_t *self, request_t *request, PyObject *value)
{
    ErlNifEnv *own = request->is_light ? request->env : enif_alloc_env();
    ErlNifEnv *env = own;
    ERL_NIF_TERM result;

    if (value != NULL)
        result = run_value(self->state, request, &env, value);
    else
        result = run_raised(self->state, request, env);
    dispatch_answer(request, env, result);
    if (env != own)
        enif_free_env(env);
    if (own != request->env)
        enif_free_env(own);
    request_end(request);
}

/* The object went away unsettled: its task was lost. */
static void settle_lost(deferred_t *self)
{
    request_t *request = take(self);
    ERL_NIF_TERM reason = atom_cancelled;
    ErlNifEnv *env;

    if (request == NULL)
        return;
    env = enif_alloc_env();
    if (!context_is_open(request->context))
        reason = context_down(request->context, env);
    dispatch_answer(request, env, enif_make_tuple2(env, atom_error, reason));
    enif_free_env(env);
    request_end(request);
}

/* ---- the type ---- */

static void deferred_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);

    settle_lost((deferred_t *)object);
    type->tp_free(object);
    Py_DECREF(type);
}

PyDoc_STRVAR(answer_doc, "answer(value)\n--\n\nSends the reply, unless it is settled already.");

static PyObject *deferred_answer(PyObject *object, PyObject *value)
{
    deferred_t *self = (deferred_t *)object;
    request_t *request = take(self);

    if (request != NULL)
        settle(self, request, value);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(fail_doc,
             "fail(exception)\n--\n\nReplies with an error, unless it is settled already.");

static PyObject *deferred_fail(PyObject *object, PyObject *exception)
{
    deferred_t *self = (deferred_t *)object;
    request_t *request;

    if (!PyExceptionInstance_Check(exception)) {
        PyErr_SetString(PyExc_TypeError, "an exception is needed");
        return NULL;
    }
    request = take(self);
    if (request != NULL) {
        compat_restore_exception(Py_NewRef(exception));
        settle(self, request, NULL);
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(wanted_doc, "is_wanted()\n--\n\nWhether somebody still waits for the answer.");

/* Only asked by the loop's thread before the task starts, so nobody settles it meanwhile. */
static PyObject *deferred_is_wanted(PyObject *object, PyObject *unused)
{
    request_t *request = atomic_load(&((deferred_t *)object)->request);

    (void)unused;
    return PyBool_FromLong(request != NULL && dispatch_is_wanted(&request->job.node));
}

static PyObject *deferred_token(PyObject *object, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(((deferred_t *)object)->token);
}

static PyMethodDef methods[] = {
    {"answer", deferred_answer, METH_O, answer_doc},
    {"fail", deferred_fail, METH_O, fail_doc},
    {"is_wanted", deferred_is_wanted, METH_NOARGS, wanted_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef properties[] = {
    {"token", deferred_token, NULL, "Names the request.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_dealloc, deferred_dealloc},
    {Py_tp_doc, "The right to answer a request that goes on as a task; opaque."},
    {Py_tp_methods, methods},
    {Py_tp_getset, properties},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "_erlang.Deferred",
    .basicsize = sizeof(deferred_t),
    .flags = Py_TPFLAGS_DEFAULT
#if PY_VERSION_HEX >= 0x030A0000
             | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION
#endif
    ,
    .slots = slots,
};

bool deferred_init(PyObject *module, module_state_t *state)
{
    state->deferred_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
    return state->deferred_type != NULL;
}

/* ---- starting ---- */

bool deferred_is_awaitable(PyObject *object)
{
    PyAsyncMethods *async = Py_TYPE(object)->tp_as_async;

    return async != NULL && async->am_await != NULL;
}

/* erlang._loop is loaded with the first coroutine: asyncio is not small. */
static bool load_loop(module_state_t *state)
{
    PyObject *module;

    if (state->loop_submit != NULL)
        return true;
    module = PyImport_ImportModule("erlang._loop");
    if (module == NULL)
        return false;
    Py_XSETREF(state->loop_cancel, PyObject_GetAttrString(module, "cancel"));
    Py_XSETREF(state->loop_close, PyObject_GetAttrString(module, "close"));
    Py_XSETREF(state->loop_wake, PyObject_GetAttrString(module, "wake"));
    Py_XSETREF(state->loop_submit, PyObject_GetAttrString(module, "submit"));
    Py_DECREF(module);
    return state->loop_submit != NULL;
}

static deferred_t *new_deferred(module_state_t *state, request_t *request)
{
    deferred_t *self = PyObject_New(deferred_t, state->deferred_type);

    if (self == NULL)
        return NULL;
    self->token = request_token(request);
    self->state = state;
    atomic_init(&self->request, request);
    request_defer(request);
    return self;
}

/* Which loop: the context's, or 0, the main interpreter's for requests that were passed on to it. */
static uint64_t loop_of(request_t *request)
{
    context_t *context = request->context;
    bool is_at_home =
        !context->is_exclusive || atomic_load(&request->executor) == context->executor;

    return is_at_home ? context->serial : 0;
}

/* submit(loop, deferred, origin, awaitable) */
static PyObject *submit(module_state_t *state, request_t *request, deferred_t *deferred,
                        PyObject *awaitable)
{
    PyObject *serial = PyLong_FromUnsignedLongLong(loop_of(request));
    PyObject *origin = origin_new(state);
    PyObject *result = NULL;

    atomic_store(&request->context->has_loop, true);
    if (serial != NULL && origin != NULL)
        result = PyObject_CallFunctionObjArgs(state->loop_submit, serial, (PyObject *)deferred,
                                              origin, awaitable, NULL);
    Py_XDECREF(serial);
    Py_XDECREF(origin);
    return result;
}

bool deferred_start(module_state_t *state, request_t *request, PyObject *awaitable)
{
    deferred_t *deferred = NULL;
    PyObject *result = NULL;
    bool ok = false;

    if (load_loop(state))
        deferred = new_deferred(state, request);
    if (deferred == NULL)
        return false;
    result = submit(state, request, deferred, awaitable);
    ok = result != NULL;
    if (!ok && take(deferred) != NULL) {
        request_undefer(request);
    } else if (!ok) { /* it was settled before what went wrong afterwards */
        PyErr_Clear();
        ok = true;
    }
    Py_XDECREF(result);
    Py_DECREF(deferred);
    return ok;
}

/* ---- stopping ---- */

/* Calls a function of erlang._loop, if that was loaded; takes argument. */
static void tell_loop(PyObject *function, PyObject *argument)
{
    PyObject *result = NULL;

    if (function != NULL && argument != NULL)
        result = PyObject_CallFunctionObjArgs(function, argument, NULL);
    if (PyErr_Occurred())
        PyErr_WriteUnraisable(function);
    Py_XDECREF(result);
    Py_XDECREF(argument);
}

void deferred_cancel(module_state_t *state, uint64_t token)
{
    tell_loop(state->loop_cancel, PyLong_FromUnsignedLongLong(token));
}

/* Whether erlang._loop is there, and fetched from. */
static bool has_loop_module(module_state_t *state)
{
    PyObject *modules = PyImport_GetModuleDict(); /* borrowed */

    if (PyMapping_HasKeyString(modules, "erlang._loop") && load_loop(state))
        return true;
    PyErr_Clear();
    return false;
}

void deferred_wake(module_state_t *state, unsigned long thread_id)
{
    if (has_loop_module(state))
        tell_loop(state->loop_wake, PyLong_FromUnsignedLong(thread_id));
}

PyObject *deferred_interrupt_thread(PyObject *module, PyObject *ident)
{
    unsigned long thread_id = PyLong_AsUnsignedLong(ident);

    if (PyErr_Occurred())
        return NULL;
    PyThreadState_SetAsyncExc(thread_id, module_state(module)->interrupt);
    Py_RETURN_NONE;
}

/* An errand that closes a loop. */
typedef struct {
    job_t job; /* first */
    uint64_t serial;
} close_job_t;

void deferred_close_loop(struct context *context)
{
    close_job_t *job;

    if (!atomic_load(&context->has_loop))
        return;
    job = malloc(sizeof(*job));
    if (job == NULL)
        return;
    job->job.kind = JOB_CLOSE_LOOP;
    job->serial = context->serial;
    if (!seat_push_errand(&context->executor->seat, &job->job.node))
        free(job);
}

void deferred_close(module_state_t *state, job_t *job)
{
    tell_loop(state->loop_close, PyLong_FromUnsignedLongLong(((close_job_t *)job)->serial));
}

/* ---- settings ---- */

void deferred_configure(int64_t max, const char *kind)
{
    atomic_store(&max_tasks, max);
    strncpy(loop_kind, kind, sizeof(loop_kind) - 1);
}

PyObject *deferred_settings(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return Py_BuildValue("(Ls)", (long long)atomic_load(&max_tasks), loop_kind);
}
