#include "origin.h"

#include "context.h"
#include "executor.h"
#include "namespace.h"
#include "owner.h"
#include "pycompat.h"
#include "run.h"

typedef struct {
    PyObject_HEAD
    origin_t origin;
} origin_object_t;

/* Of a thread that Python started; borrowed from the frame that entered it. */
static _Thread_local origin_object_t *inherited;

static void origin_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    origin_t *origin = &((origin_object_t *)self)->origin;

    owner_release(origin->owner);
    namespace_release(origin->namespace);
    context_release(origin->context);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot origin_slots[] = {
    {Py_tp_dealloc, origin_dealloc},
    {Py_tp_doc, "On whose behalf code runs; opaque."},
    {0, NULL},
};

static PyType_Spec origin_spec = {
    .name = "_erlang.Origin",
    .basicsize = sizeof(origin_object_t),
    .flags = Py_TPFLAGS_DEFAULT
#if PY_VERSION_HEX >= 0x030A0000
             | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION
#endif
    ,
    .slots = origin_slots,
};

bool origin_init(PyObject *module, module_state_t *state)
{
    state->origin_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &origin_spec, NULL);
    state->task_origin = PyContextVar_New("erlang.origin", NULL);
    return state->origin_type != NULL && state->task_origin != NULL &&
           PyModule_AddObjectRef(module, "task_origin", state->task_origin) == 0;
}

static void from_request(origin_t *origin, const request_t *request)
{
    origin->owner = request->owner;
    origin->context = request->context;
    origin->namespace = request->namespace;
    origin->deadline = request->deadline;
    origin->depth = request->depth;
    origin->binaries = run_binaries(request);
    origin->is_errand = (request->flags & FLAG_ERRAND) != 0;
    origin->is_inline = (request->flags & FLAG_INLINE) != 0;
}

/* What the running task was given (erlang/_loop.py); borrowed from its context. */
static origin_object_t *origin_of_task(module_state_t *state)
{
    PyObject *found = NULL;

    if (PyContextVar_Get(state->task_origin, NULL, &found) != 0)
        PyErr_Clear();
    if (found == NULL)
        return NULL;
    Py_DECREF(found);
    return Py_IS_TYPE(found, state->origin_type) ? (origin_object_t *)found : NULL;
}

bool origin_of_thread(module_state_t *state, origin_t *origin)
{
    pyworker_t *self = pyworker_self();
    origin_object_t *object;

    if (self != NULL && self->request != NULL) {
        from_request(origin, self->request);
        return true;
    }
    object = origin_of_task(state);
    if (object == NULL)
        object = inherited;
    if (object == NULL)
        return false;
    *origin = object->origin;
    return true;
}

PyObject *origin_new(module_state_t *state)
{
    origin_object_t *self;
    origin_t origin;

    if (!origin_of_thread(state, &origin))
        Py_RETURN_NONE;
    self = PyObject_New(origin_object_t, state->origin_type);
    if (self == NULL)
        return NULL;
    if (origin.owner != NULL)
        owner_acquire(origin.owner);
    if (origin.namespace != NULL)
        namespace_acquire(origin.namespace);
    context_acquire(origin.context);
    origin.is_errand = true; /* whoever inherits it holds no seat */
    origin.is_inline = false;
    self->origin = origin;
    return (PyObject *)self;
}

PyObject *origin_get(PyObject *module, PyObject *unused)
{
    (void)unused;
    return origin_new(module_state(module));
}

PyObject *origin_enter(PyObject *module, PyObject *origin)
{
    PyObject *before = inherited != NULL ? (PyObject *)inherited : Py_None;

    if (origin != Py_None && !Py_IS_TYPE(origin, module_state(module)->origin_type)) {
        PyErr_SetString(PyExc_TypeError, "an Origin or None is needed");
        return NULL;
    }
    inherited = origin != Py_None ? (origin_object_t *)origin : NULL;
    return Py_NewRef(before);
}
