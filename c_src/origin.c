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
    return state->origin_type != NULL;
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
}

bool origin_of_thread(origin_t *origin)
{
    pyworker_t *self = pyworker_self();

    if (self != NULL && self->request != NULL) {
        from_request(origin, self->request);
        return true;
    }
    if (inherited == NULL)
        return false;
    *origin = inherited->origin;
    return true;
}

PyObject *origin_get(PyObject *module, PyObject *unused)
{
    module_state_t *state = module_state(module);
    origin_object_t *self;
    origin_t origin;

    (void)unused;
    if (!origin_of_thread(&origin))
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
    self->origin = origin;
    return (PyObject *)self;
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
