#include "sink.h"

#include "atoms.h"
#include "convert.h"
#include "module.h"
#include "request.h"

#include <stdatomic.h>

static _Atomic(ErlNifPid) process;
static atomic_int bound;  /* 0: there is no process yet */
static atomic_int unread; /* units sent and not taken */
static atomic_llong dropped[REPORT_KINDS];
static atomic_int level;
static atomic_bool tracing;

/* ---- for Erlang ---- */

/* A report that is under way while a new process comes may be counted for the old one and taken by
 * the new: then there is room for that much more. */
void sink_open(const ErlNifPid *pid, int units)
{
    atomic_store(&process, *pid);
    atomic_store(&unread, 0);
    atomic_store(&bound, units);
}

void sink_taken(int units)
{
    atomic_fetch_sub(&unread, units);
}

int64_t sink_dropped(report_kind_t kind)
{
    return atomic_load(&dropped[kind]);
}

void sink_set_level(int wanted)
{
    atomic_store(&level, wanted);
}

void sink_set_tracing(bool wanted)
{
    atomic_store(&tracing, wanted);
}

/* ---- for Python ---- */

static bool has_room(report_kind_t kind)
{
    bool ok = atomic_load(&unread) < atomic_load(&bound);

    if (!ok)
        atomic_fetch_add(&dropped[kind], 1);
    return ok;
}

PyObject *sink_log_level(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyLong_FromLong(atomic_load(&level));
}

PyObject *sink_log_admits(PyObject *module, PyObject *number)
{
    long wanted = PyLong_AsLong(number);

    (void)module;
    if (wanted == -1 && PyErr_Occurred())
        return NULL;
    return PyBool_FromLong(wanted >= atomic_load(&level) && has_room(REPORT_LOG));
}

PyObject *sink_is_tracing(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyBool_FromLong(atomic_load_explicit(&tracing, memory_order_relaxed));
}

/* Counted before it is sent, so that it is never taken first. */
static bool send(report_kind_t kind, int units, ErlNifEnv *env, ERL_NIF_TERM term)
{
    ErlNifPid pid = atomic_load(&process);
    bool ok;

    atomic_fetch_add(&unread, units);
    ok = enif_send(request_scheduler_env(), &pid, env,
                   enif_make_tuple4(env, atom_py_report, kind == REPORT_LOG ? atom_log : atom_span,
                                    enif_make_int(env, units), term));
    if (!ok) {
        atomic_fetch_sub(&unread, units);
        atomic_fetch_add(&dropped[kind], 1);
    }
    return ok;
}

PyObject *sink_report(PyObject *module, PyObject *arguments)
{
    convert_out_options_t options = {.unknown = UNKNOWN_REPR};
    convert_failure_t failure = {0};
    ERL_NIF_TERM term;
    PyObject *object;
    int kind;
    int units;
    bool ok;

    if (!PyArg_ParseTuple(arguments, "iiO", &kind, &units, &object))
        return NULL;
    if (kind < 0 || kind >= REPORT_KINDS || units < 1) {
        PyErr_SetString(PyExc_ValueError, "no such kind of report, or no units");
        return NULL;
    }
    if (!has_room((report_kind_t)kind))
        Py_RETURN_FALSE;
    failure.env = enif_alloc_env();
    failure.prefix = enif_make_list(failure.env, 0);
    ok = convert_out(module_state(module), failure.env, object, options, &term, &failure);
    if (ok)
        ok = send((report_kind_t)kind, units, failure.env, term);
    else
        atomic_fetch_add(&dropped[kind], 1);
    enif_free_env(failure.env);
    return PyBool_FromLong(ok);
}
