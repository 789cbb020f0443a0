#include "callback.h"

#include "atoms.h"
#include "context.h"
#include "convert.h"
#include "namespace.h"
#include "owner.h"

typedef enum { PENDING, ANSWERED, INTERRUPTED } callback_state_t;

struct callback {
    pthread_mutex_t lock; /* leaf; guards the rest */
    _Atomic int state;    /* callback_state_t; written under lock */
    parker_t *parker; /* of the waiting thread */
    ErlNifEnv *env;   /* holds answer, unless that is immediate */
    ERL_NIF_TERM answer;
};

static ErlNifResourceType *type;
static uint32_t max_depth = 1000;

static void destroy(ErlNifEnv *env, void *object)
{
    callback_t *callback = object;

    (void)env;
    if (callback->env != NULL)
        enif_free_env(callback->env);
    pthread_mutex_destroy(&callback->lock);
}

bool callback_setup(ErlNifEnv *env, ErlNifResourceFlags flags)
{
    ErlNifResourceTypeInit init = {.dtor = destroy};

    type = enif_open_resource_type_x(env, "py_callback", &init, flags, NULL);
    return type != NULL;
}

void callback_set_max_depth(uint32_t depth)
{
    max_depth = depth;
}

static callback_t *new_callback(parker_t *parker)
{
    callback_t *callback = enif_alloc_resource(type, sizeof(*callback));

    pthread_mutex_init(&callback->lock, NULL);
    callback->state = PENDING;
    callback->parker = parker;
    callback->env = NULL;
    return callback;
}

/* Ends the wait with state; lock held. */
static void settle(callback_t *callback, callback_state_t state)
{
    callback->state = state;
    if (callback->parker != NULL)
        parker_notify(callback->parker);
}

bool callback_reply(ErlNifEnv *env, ERL_NIF_TERM term, ERL_NIF_TERM answer)
{
    callback_t *callback;
    void *found;
    bool ok;

    if (!enif_get_resource(env, term, type, &found))
        return false;
    callback = found;
    pthread_mutex_lock(&callback->lock);
    ok = callback->state == PENDING;
    if (ok) {
        callback->env = enif_alloc_env();
        callback->answer = enif_make_copy(callback->env, answer);
        settle(callback, ANSWERED);
    }
    pthread_mutex_unlock(&callback->lock);
    return ok;
}

void callback_interrupt(callback_t *callback)
{
    pthread_mutex_lock(&callback->lock);
    if (callback->state == PENDING)
        settle(callback, INTERRUPTED);
    pthread_mutex_unlock(&callback->lock);
}

/* ---- asking ---- */

/* What the callback's process inherits: {Owner, Context, Namespace, Depth, Deadline}. */
static ERL_NIF_TERM chain_term(ErlNifEnv *env, const request_t *request)
{
    ERL_NIF_TERM owner = atom_undefined;
    ERL_NIF_TERM namespace = atom_undefined;
    ERL_NIF_TERM left = atom_infinity;

    if (request->owner != NULL)
        owner = enif_make_pid(env, &request->owner->pid);
    if (request->namespace != NULL)
        namespace = namespace_term(env, request->namespace);
    if (request->deadline != CLOCK_NEVER) {
        int64_t ms = (request->deadline - clock_now()) / 1000000;

        left = enif_make_int64(env, ms > 0 ? ms : 0);
    }
    return enif_make_tuple5(env, owner, enif_make_resource(env, request->context), namespace,
                            enif_make_uint(env, request->depth + 1), left);
}

/* Converts one object for the message; NULL-safe: an absent one is []. */
static bool to_term(module_state_t *state, ErlNifEnv *env, PyObject *object, ERL_NIF_TERM *term)
{
    convert_failure_t failure = {.env = env};
    convert_out_options_t options = {UNKNOWN_HANDLE, false};

    failure.prefix = enif_make_list(env, 0);
    if (convert_out(state, env, object, options, term, &failure))
        return true;
    {
        char text[256];

        enif_snprintf(text, sizeof(text), "cannot pass this to Erlang: %T", failure.reason);
        PyErr_SetString(PyExc_TypeError, text);
    }
    return false;
}

static bool send_call(pyworker_t *self, callback_t *callback, ERL_NIF_TERM kind, PyObject *name,
                      PyObject *arguments, PyObject *keywords)
{
    ErlNifEnv *env = self->env;
    ERL_NIF_TERM parts[7];
    bool ok;

    parts[0] = atom_py_callback;
    parts[2] = kind;
    ok = to_term(self->interp->module, env, name, &parts[3]) &&
         to_term(self->interp->module, env, arguments, &parts[4]) &&
         to_term(self->interp->module, env, keywords, &parts[5]);
    if (ok) {
        parts[1] = enif_make_resource(env, callback);
        parts[6] = chain_term(env, self->request);
        ok = enif_send(NULL, &self->request->context->process, env,
                       enif_make_tuple_from_array(env, parts, 7));
        if (!ok)
            PyErr_SetString(self->interp->module->error, "the context's process is gone");
    }
    enif_clear_env(env);
    return ok;
}

/* Sets for what the worker waits, so that an interrupt finds it. False: it was interrupted. */
static bool announce(pyworker_t *self, callback_t *callback)
{
    bool ok;

    pthread_mutex_lock(&self->executor->seat.lock);
    ok = !self->request->interrupted;
    if (ok)
        self->waits = callback;
    pthread_mutex_unlock(&self->executor->seat.lock);
    return ok;
}

static void retract(pyworker_t *self)
{
    pthread_mutex_lock(&self->executor->seat.lock);
    self->waits = NULL;
    pthread_mutex_unlock(&self->executor->seat.lock);
}

static bool is_settled(void *argument)
{
    callback_t *callback = argument;

    return atomic_load_explicit(&callback->state, memory_order_acquire) != PENDING;
}

static void wait_settled(pyworker_t *self, callback_t *callback)
{
    if (spin_until(&self->reply_spin, is_settled, callback))
        return;
    while (!is_settled(callback)) {
        int64_t start = clock_now();

        parker_wait(&self->reply_parker, CLOCK_NEVER);
        spin_learn(&self->reply_spin, &self->reply_parker, start, true);
    }
}

/* Gives back seat and slot until the callback is settled. False: no thread to serve
 * meanwhile. Detached. */
static bool wait_parked(pyworker_t *self, callback_t *callback)
{
    if (!worker_park(&self->worker))
        return false;
    executor_slot_free();
    wait_settled(self, callback);
    slots_retake(executor_slots());
    worker_resume(&self->worker);
    return true;
}

static PyObject *raise_callback_error(module_state_t *state, PyObject *details)
{
    PyObject *error = PyObject_CallObject(state->callback_error, details);

    if (error != NULL)
        PyErr_SetObject(state->callback_error, error);
    Py_XDECREF(error);
    return NULL;
}

/* The answer as an object or an exception. */
static PyObject *take_answer(module_state_t *state, callback_t *callback)
{
    convert_failure_t failure = {.env = callback->env};
    const ERL_NIF_TERM *parts;
    PyObject *value;
    int arity;

    if (callback->state == INTERRUPTED) {
        PyErr_SetNone(state->interrupt);
        return NULL;
    }
    if (!enif_get_tuple(callback->env, callback->answer, &arity, &parts) || arity != 2) {
        PyErr_SetString(state->error, "malformed answer");
        return NULL;
    }
    failure.prefix = enif_make_list(callback->env, 0);
    value = convert_in(state, callback->env, parts[1], BINARY_AUTO, &failure);
    if (value == NULL) {
        char text[256];

        enif_snprintf(text, sizeof(text), "Python has no image of the result: %T", failure.reason);
        PyErr_SetString(PyExc_TypeError, text);
        return NULL;
    }
    if (enif_is_identical(parts[0], atom_ok))
        return value;
    raise_callback_error(state, value);
    Py_DECREF(value);
    return NULL;
}

static PyObject *call_parked(module_state_t *state, pyworker_t *self, callback_t *callback)
{
    bool ok;

    pyworker_detach(self);
    ok = wait_parked(self, callback);
    pyworker_attach(self);
    retract(self);
    if (ok)
        return take_answer(state, callback);
    PyErr_Format(state->error,
                 "no thread to serve others while this one waits: the limit is %d "
                 "(application setting max_threads)",
                 thread_max());
    return NULL;
}

PyObject *callback_call(module_state_t *state, ERL_NIF_TERM kind, PyObject *name,
                        PyObject *arguments, PyObject *keywords)
{
    pyworker_t *self = pyworker_self();
    callback_t *callback;
    PyObject *value = NULL;

    if (self == NULL || self->request == NULL) {
        PyErr_SetString(state->error, "no Erlang request on this thread");
        return NULL;
    }
    if (self->request->depth >= max_depth) {
        PyErr_Format(PyExc_RecursionError,
                     "callbacks nested deeper than %u (application setting max_callback_depth)",
                     max_depth);
        return NULL;
    }
    parker_clear(&self->reply_parker);
    callback = new_callback(&self->reply_parker);
    if (!announce(self, callback))
        PyErr_SetNone(state->interrupt);
    else if (send_call(self, callback, kind, name, arguments, keywords))
        value = call_parked(state, self, callback);
    else
        retract(self);
    pthread_mutex_lock(&callback->lock);
    callback->parker = NULL; /* a late answer wakes nobody */
    pthread_mutex_unlock(&callback->lock);
    enif_release_resource(callback);
    return value;
}
