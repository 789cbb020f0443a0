#include "batch.h"

#include "atoms.h"
#include "convert.h"
#include "executor.h"
#include "failure.h"
#include "pycompat.h"
#include "run.h"
#include "timer.h"

#include <stdlib.h>

#define BYTES_MAX 65536
#define STEP_NS   1000000 /* a step lasts no longer, unless the iterator does */
#define AGE_NS    1000000 /* how long an item waits in a step that lasts */

/* What the timer may touch: lives as long as anybody knows it. */
typedef struct {
    atomic_int references;
    pthread_mutex_t lock; /* leaf; guards all below */
    bool is_open;         /* a step is under way and no outcome known */
    bool is_converting;   /* env is in use without the lock */
    bool is_armed;        /* the timer will look */
    bool sends_parts;
    ErlNifEnv *env; /* holds items */
    ERL_NIF_TERM *items;
    size_t count;
    size_t room;
    size_t bytes;  /* about what they weigh */
    int64_t first; /* when the oldest came */
    ErlNifPid reply_to;
    ErlNifEnv *reference_env;
    ERL_NIF_TERM reference;
} parts_t;

typedef struct {
    PyObject_HEAD
    module_state_t *state; /* borrowed: the type keeps the module */
    parts_t *parts;
    size_t limit;
    int64_t started;
    uint32_t flags; /* of the step's request */
    convert_out_options_t options;
    ERL_NIF_TERM outcome; /* more, done, {error, Reason} in parts->env */
} batch_t;

/* ---- parts ---- */

static parts_t *new_parts(void)
{
    parts_t *parts = calloc(1, sizeof(*parts));

    if (parts == NULL)
        return NULL;
    atomic_init(&parts->references, 1);
    pthread_mutex_init(&parts->lock, NULL);
    parts->reference_env = enif_alloc_env();
    return parts;
}

static void release_parts(parts_t *parts)
{
    if (atomic_fetch_sub(&parts->references, 1) > 1)
        return;
    if (parts->env != NULL)
        enif_free_env(parts->env);
    enif_free_env(parts->reference_env);
    pthread_mutex_destroy(&parts->lock);
    free(parts->items);
    free(parts);
}

static void forget_items(parts_t *parts)
{
    parts->count = 0;
    parts->bytes = 0;
}

/* Sends what is there; lock held. */
static void send_part(parts_t *parts)
{
    ErlNifEnv *env = parts->env;
    ERL_NIF_TERM list = enif_make_list_from_array(env, parts->items, (unsigned)parts->count);
    ERL_NIF_TERM reference = enif_make_copy(env, parts->reference);

    enif_send(NULL, &parts->reply_to, env,
              enif_make_tuple2(env, reference, enif_make_tuple2(env, atom_more, list)));
    enif_clear_env(env);
    forget_items(parts);
}

/* The timer looks: again in a while, as long as items wait in a step. */
static void look(uint64_t token)
{
    parts_t *parts = (parts_t *)(uintptr_t)token; /* a reference is the timer's */
    int64_t now = clock_now();
    int64_t due = 0;

    pthread_mutex_lock(&parts->lock);
    if (parts->is_open && parts->count > 0 && !parts->is_converting && now >= parts->first + AGE_NS)
        send_part(parts);
    else if (parts->is_open && parts->count > 0)
        due = parts->is_converting ? now + AGE_NS : parts->first + AGE_NS;
    parts->is_armed = due != 0;
    pthread_mutex_unlock(&parts->lock);
    if (due == 0 || !timer_arm(due, look, NULL, token))
        release_parts(parts);
}

/* Sees to it that the timer looks; lock held. */
static void arm(parts_t *parts)
{
    atomic_fetch_add(&parts->references, 1);
    parts->is_armed = timer_arm(parts->first + AGE_NS, look, NULL, (uint64_t)(uintptr_t)parts);
    if (!parts->is_armed)
        atomic_fetch_sub(&parts->references, 1);
}

/* Appends a term that took `bytes`; lock held. False: no memory. */
static bool append(parts_t *parts, ERL_NIF_TERM term, size_t bytes, int64_t now)
{
    if (parts->count == parts->room) {
        size_t room = parts->room == 0 ? 64 : 2 * parts->room;
        ERL_NIF_TERM *grown = realloc(parts->items, room * sizeof(*grown));

        if (grown == NULL)
            return false;
        parts->items = grown;
        parts->room = room;
    }
    if (parts->count == 0)
        parts->first = now;
    parts->items[parts->count++] = term;
    parts->bytes += bytes;
    return true;
}

/* ---- weight ---- */

static size_t weigh_flat(PyObject *object)
{
    if (PyBytes_Check(object))
        return (size_t)PyBytes_GET_SIZE(object);
    if (PyUnicode_Check(object))
        return (size_t)PyUnicode_GET_LENGTH(object);
    if (PyByteArray_Check(object))
        return (size_t)PyByteArray_GET_SIZE(object);
    return 16;
}

/* About how many bytes an item takes in Erlang; of containers one level. */
static size_t weigh(PyObject *object)
{
    size_t bytes = 16;
    Py_ssize_t size;

    if (!PyTuple_Check(object) && !PyList_Check(object)) /* a dict's size, not its values */
        return PyDict_Check(object) ? 32 * (size_t)PyDict_Size(object) : weigh_flat(object);
    size = PySequence_Fast_GET_SIZE(object);
    bytes += 16 * (size_t)size;
    for (Py_ssize_t i = 0; i < size && i < 64 && PyTuple_Check(object); i++)
        bytes += weigh_flat(PyTuple_GET_ITEM(object, i));
    return bytes;
}

/* ---- filling ---- */

/* Converts item into the batch; *goes_on: whether the step wants more. False, with an exception or
 * the outcome set, when it cannot be converted. */
static bool add(batch_t *self, PyObject *item, bool *goes_on)
{
    parts_t *parts = self->parts;
    convert_failure_t failure = {0};
    ERL_NIF_TERM term;
    int64_t now;
    bool ok;

    pthread_mutex_lock(&parts->lock);
    parts->is_converting = true;
    pthread_mutex_unlock(&parts->lock);
    failure.env = parts->env;
    failure.prefix = enif_make_list(parts->env, 0);
    ok = convert_out(self->state, parts->env, item, self->options, &term, &failure);
    now = clock_now();
    pthread_mutex_lock(&parts->lock);
    parts->is_converting = false;
    *goes_on = ok && append(parts, term, weigh(item), now) && parts->count < self->limit &&
               parts->bytes < BYTES_MAX && now - self->started < STEP_NS;
    if (!ok) {
        parts->is_open = false;
        self->outcome = enif_make_tuple2(parts->env, atom_error, failure.reason);
    } else if (*goes_on && parts->sends_parts && !parts->is_armed) {
        arm(parts);
    }
    pthread_mutex_unlock(&parts->lock);
    return ok;
}

/* The iterator came to its end, or raised what is pending. */
static void finish(batch_t *self)
{
    parts_t *parts = self->parts;
    bool traceback = (self->flags & FLAG_TRACEBACK) != 0;

    pthread_mutex_lock(&parts->lock);
    parts->is_open = false;
    pthread_mutex_unlock(&parts->lock);
    self->outcome = atom_done;
    if (PyErr_Occurred())
        self->outcome =
            enif_make_tuple2(parts->env, atom_error,
                             failure_to_term(self->state, parts->env, traceback, atom_interrupted));
}

ERL_NIF_TERM batch_take(PyObject *object, ErlNifEnv **env)
{
    batch_t *self = (batch_t *)object;
    parts_t *parts = self->parts;
    ERL_NIF_TERM list;

    pthread_mutex_lock(&parts->lock);
    *env = parts->env;
    list = enif_make_list_from_array(*env, parts->items, (unsigned)parts->count);
    parts->env = NULL;
    parts->is_open = false;
    forget_items(parts);
    pthread_mutex_unlock(&parts->lock);
    return enif_make_tuple2(*env, atom_ok, enif_make_tuple2(*env, list, self->outcome));
}

/* ---- methods ---- */

PyDoc_STRVAR(begin_doc, "begin(limit, parts)\n--\n\n"
                        "Begins a step, on the thread that serves its request.");

static PyObject *batch_begin(PyObject *object, PyObject *arguments)
{
    batch_t *self = (batch_t *)object;
    parts_t *parts = self->parts;
    pyworker_t *worker = pyworker_self();
    Py_ssize_t limit;
    int sends_parts;

    if (!PyArg_ParseTuple(arguments, "np", &limit, &sends_parts))
        return NULL;
    if (worker == NULL || worker->request == NULL || (worker->request->flags & FLAG_INLINE) != 0) {
        PyErr_SetString(PyExc_RuntimeError, "a step is a request");
        return NULL;
    }
    self->limit = limit > 0 ? (size_t)limit : 1;
    self->started = clock_now();
    self->flags = worker->request->flags;
    self->options = run_options(worker->request);
    self->outcome = atom_more;
    pthread_mutex_lock(&parts->lock);
    if (parts->env == NULL)
        parts->env = enif_alloc_env();
    parts->is_open = true;
    parts->sends_parts = sends_parts != 0;
    parts->reply_to = worker->request->reply_to;
    enif_clear_env(parts->reference_env);
    parts->reference = enif_make_copy(parts->reference_env, worker->request->reference);
    pthread_mutex_unlock(&parts->lock);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(fill_doc, "fill(iterator)\n--\n\nTakes items as long as the step lasts.");

static PyObject *batch_fill(PyObject *object, PyObject *iterator)
{
    batch_t *self = (batch_t *)object;
    bool goes_on = true;
    bool ok = true;
    PyObject *item;

    if (!PyIter_Check(iterator)) {
        PyErr_SetString(PyExc_TypeError, "an iterator is needed");
        return NULL;
    }
    while (ok && goes_on) {
        item = Py_TYPE(iterator)->tp_iternext(iterator);
        if (item == NULL) {
            if (PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_StopIteration))
                PyErr_Clear();
            finish(self);
            break;
        }
        ok = add(self, item, &goes_on);
        Py_DECREF(item);
    }
    return Py_NewRef(object);
}

PyDoc_STRVAR(add_doc, "add(item)\n--\n\nTrue if the step wants more.");

static PyObject *batch_add(PyObject *object, PyObject *item)
{
    bool goes_on = false;

    (void)add((batch_t *)object, item, &goes_on);
    return PyBool_FromLong(goes_on);
}

PyDoc_STRVAR(finish_doc, "finish(exception)\n--\n\nThe iterator ended (None), or raised.");

static PyObject *batch_finish(PyObject *object, PyObject *exception)
{
    if (PyExceptionInstance_Check(exception))
        compat_restore_exception(Py_NewRef(exception));
    finish((batch_t *)object);
    Py_RETURN_NONE;
}

/* ---- the type ---- */

static PyObject *batch_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    batch_t *self = (batch_t *)type->tp_alloc(type, 0);

    (void)arguments;
    (void)keywords;
    if (self == NULL)
        return NULL;
    self->state = PyType_GetModuleState(type);
    self->parts = new_parts();
    if (self->parts == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    return (PyObject *)self;
}

static void batch_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    batch_t *self = (batch_t *)object;

    if (self->parts != NULL) {
        pthread_mutex_lock(&self->parts->lock);
        self->parts->is_open = false;
        pthread_mutex_unlock(&self->parts->lock);
        release_parts(self->parts);
    }
    type->tp_free(object);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"begin", batch_begin, METH_VARARGS, begin_doc},
    {"fill", batch_fill, METH_O, fill_doc},
    {"add", batch_add, METH_O, add_doc},
    {"finish", batch_finish, METH_O, finish_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, batch_new},
    {Py_tp_dealloc, batch_dealloc},
    {Py_tp_doc, "The items of a stream's step."},
    {Py_tp_methods, methods},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "_erlang.Batch",
    .basicsize = sizeof(batch_t),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = slots,
};

bool batch_init(PyObject *module, module_state_t *state)
{
    state->batch_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
    return state->batch_type != NULL &&
           PyModule_AddObjectRef(module, "Batch", (PyObject *)state->batch_type) == 0;
}
