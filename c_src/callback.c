#include "callback.h"

#include "atoms.h"
#include "context.h"
#include "convert.h"
#include "dispatch.h"
#include "namespace.h"
#include "origin.h"
#include "owner.h"
#include "pycompat.h"
#include "terms.h"

#include <stdlib.h>
#include <string.h>

#define INNER_DELAY_NS 50000000

typedef enum { PENDING, ANSWERED, INTERRUPTED, UNSENT } callback_state_t;

/* What is to be done when a callback nobody waits for is settled. */
typedef struct {
    job_t job;            /* first: an errand */
    callback_t *callback; /* kept */
    context_t *context;   /* kept */
    interp_t *interp;     /* kept; where done lives */
    PyObject *done;       /* called by callback_complete, on a thread of its interpreter */
} completion_t;

struct callback {
    pthread_mutex_t lock;     /* leaf; guards the rest */
    _Atomic int state;        /* callback_state_t; written under lock */
    parker_t *parker;         /* of the waiting thread */
    completion_t *completion; /* instead of a parker */
    ErlNifEnv *env;           /* holds answer */
    ERL_NIF_TERM answer;
    binary_policy_t binaries; /* what those of the answer become */
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

/* The context's process ended: nobody answers any more. */
static void on_down(ErlNifEnv *env, void *object, ErlNifPid *pid, ErlNifMonitor *monitor)
{
    (void)env;
    (void)pid;
    (void)monitor;
    callback_interrupt(object);
}

bool callback_setup(ErlNifEnv *env, ErlNifResourceFlags flags)
{
    ErlNifResourceTypeInit init = {.dtor = destroy, .down = on_down};

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
    callback->completion = NULL;
    callback->env = NULL;
    callback->binaries = BINARY_AUTO;
    return callback;
}

/* Ends the wait with state; lock held. What it answers goes to hand_over without the lock. */
static completion_t *settle(callback_t *callback, callback_state_t state)
{
    completion_t *completion = callback->completion;

    callback->state = state;
    if (callback->parker != NULL)
        parker_notify(callback->parker);
    callback->completion = NULL;
    return completion;
}

/* Lets go of what is no object of Python. */
static void empty_completion(completion_t *completion)
{
    enif_release_resource(completion->callback);
    interp_release(completion->interp);
    context_release(completion->context);
}

/* Has the completion (NULL allowed) called. Of a closed executor nothing can be called any more: the
 * object went with its interpreter. */
static void hand_over(completion_t *completion)
{
    if (completion == NULL ||
        seat_push_errand(&completion->context->executor->seat, &completion->job.node))
        return;
    empty_completion(completion);
    free(completion);
}

/* The same for one that may be settled already. */
static void settle_pending(callback_t *callback, callback_state_t state)
{
    completion_t *completion = NULL;

    pthread_mutex_lock(&callback->lock);
    if (callback->state == PENDING)
        completion = settle(callback, state);
    pthread_mutex_unlock(&callback->lock);
    hand_over(completion);
}

bool callback_reply(ErlNifEnv *env, ERL_NIF_TERM term, ERL_NIF_TERM answer)
{
    completion_t *completion = NULL;
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
        completion = settle(callback, ANSWERED);
    }
    pthread_mutex_unlock(&callback->lock);
    hand_over(completion);
    return ok;
}

void callback_interrupt(callback_t *callback)
{
    settle_pending(callback, INTERRUPTED);
}

/* ---- asking ---- */

/* What the callback's process inherits:
 * {Owner | undefined, Context, Namespace | undefined, Depth, Milliseconds | infinity, IsErrand} */
static ERL_NIF_TERM chain_term(ErlNifEnv *env, const origin_t *origin)
{
    ERL_NIF_TERM owner = atom_undefined;
    ERL_NIF_TERM globals = atom_undefined;
    ERL_NIF_TERM left = atom_infinity;

    if (origin->owner != NULL)
        owner = enif_make_pid(env, &origin->owner->pid);
    if (origin->namespace != NULL)
        globals = namespace_term(env, origin->namespace);
    if (origin->deadline != CLOCK_NEVER) {
        int64_t ms = (origin->deadline - clock_now()) / 1000000;

        left = enif_make_int64(env, ms > 0 ? ms : 0);
    }
    return enif_make_tuple6(env, owner, enif_make_resource(env, origin->context), globals,
                            enif_make_uint(env, origin->depth + 1), left,
                            origin->is_errand ? atom_true : atom_false);
}

static bool to_term(module_state_t *state, ErlNifEnv *env, PyObject *object, ERL_NIF_TERM *term)
{
    convert_failure_t failure = {.env = env};
    convert_out_options_t options = {.unknown = UNKNOWN_HANDLE};
    char text[256];

    failure.prefix = enif_make_list(env, 0);
    if (convert_out(state, env, object, options, term, &failure))
        return true;
    enif_snprintf(text, sizeof(text), "cannot pass this to Erlang: %T", failure.reason);
    PyErr_SetString(PyExc_TypeError, text);
    return false;
}

/* What a call wants of Erlang. */
typedef struct {
    module_state_t *state;
    ERL_NIF_TERM kind;
    PyObject *name;
    PyObject *arguments;
    PyObject *keywords;
} question_t;

/* Makes the message that asks, in env. False with an exception set, and env is empty. */
static bool make_call(ErlNifEnv *env, callback_t *callback, const question_t *question,
                      const origin_t *origin, ERL_NIF_TERM *message)
{
    module_state_t *state = question->state;
    ERL_NIF_TERM parts[7];

    if (!PyUnicode_Check(question->name)) {
        PyErr_Format(PyExc_TypeError, "a function's name is a str, not %s",
                     Py_TYPE(question->name)->tp_name);
        return false;
    }
    callback->binaries = origin->binaries;
    parts[0] = atom_py_callback;
    parts[2] = question->kind;
    if (!to_term(state, env, question->name, &parts[3]) ||
        !to_term(state, env, question->arguments, &parts[4]) ||
        !to_term(state, env, question->keywords, &parts[5])) {
        enif_clear_env(env);
        return false;
    }
    parts[1] = enif_make_resource(env, callback);
    parts[6] = chain_term(env, origin);
    *message = enif_make_tuple_from_array(env, parts, 7);
    return true;
}

/* Sends it, or settles the callback if there is nobody to send it to; env is empty then. Any
 * thread, no GIL needed. */
static void send_call(ErlNifEnv *env, callback_t *callback, const origin_t *origin,
                      ERL_NIF_TERM message)
{
    bool ok = enif_send(NULL, &origin->context->process, env, message);

    enif_clear_env(env);
    if (!ok)
        settle_pending(callback, UNSENT);
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

/* When a thread that serves no request gives up: a little after the request that it belongs to, so
 * that the chain's time ends from the outermost request inwards. */
static int64_t thread_due(const origin_t *origin)
{
    return origin->deadline == CLOCK_NEVER ? CLOCK_NEVER : origin->deadline + INNER_DELAY_NS;
}

/* Waits until the callback is settled, at most until due; then it counts as interrupted. */
static void wait_settled(callback_t *callback, spin_t *spin, parker_t *parker, int64_t due)
{
    if (spin_until(spin, is_settled, callback))
        return;
    while (!is_settled(callback)) {
        int64_t start = clock_now();
        bool notified = parker_wait(parker, due);

        spin_learn(spin, parker, start, notified);
        if (!notified && clock_now() >= due)
            callback_interrupt(callback);
    }
}

/* Gives back seat and slot, sends and waits until the callback is settled. False, and nothing was
 * sent: no thread to serve meanwhile. Detached. */
static bool wait_parked(pyworker_t *self, callback_t *callback, const origin_t *origin,
                        ERL_NIF_TERM message)
{
    int64_t start = clock_now();

    if (!worker_park(&self->worker))
        return false;
    send_call(self->env, callback, origin, message);
    dispatch_drop_slot(self->request, request_token(self->request));
    wait_settled(callback, &self->reply_spin, &self->reply_parker, CLOCK_NEVER);
    slots_retake(dispatch_slots());
    request_set_slot(self->request);
    worker_resume(&self->worker);
    self->parked_ns += clock_now() - start;
    return true;
}

/* The callback's process works for nobody any more. */
static void abandon_process(const context_t *context, callback_t *callback)
{
    ErlNifEnv *env = enif_alloc_env();

    enif_send(request_scheduler_env(), &context->process, env,
              enif_make_tuple2(env, atom_py_callback_cancel, enif_make_resource(env, callback)));
    enif_free_env(env);
}

/* A term of the answer as an object; what Python cannot hold as text. */
static PyObject *answer_part(module_state_t *state, ErlNifEnv *env, ERL_NIF_TERM term)
{
    convert_failure_t failure = {.env = env};
    PyObject *object;
    char text[1024];

    failure.prefix = enif_make_list(env, 0);
    object = convert_in(state, env, term, BINARY_AUTO, &failure);
    if (object != NULL)
        return object;
    enif_snprintf(text, sizeof(text), "%T", term);
    return PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), "replace");
}

/* {Class, Reason, Stacktrace, Text}: raises CallbackError(Class, Reason, Stacktrace, Text). */
static void raise_callback_error(module_state_t *state, ErlNifEnv *env, ERL_NIF_TERM details)
{
    PyObject *arguments = NULL;
    PyObject *error = NULL;
    const ERL_NIF_TERM *parts;
    int arity = 0;

    if (enif_get_tuple(env, details, &arity, &parts))
        arguments = PyTuple_New(arity);
    for (int i = 0; arguments != NULL && i < arity; i++) {
        PyObject *part = answer_part(state, env, parts[i]);

        if (part == NULL)
            Py_CLEAR(arguments);
        else
            PyTuple_SET_ITEM(arguments, i, part);
    }
    if (arguments != NULL)
        error = PyObject_CallObject(state->callback_error, arguments);
    if (error != NULL)
        PyErr_SetObject(state->callback_error, error);
    Py_XDECREF(arguments);
    Py_XDECREF(error);
}

/* The answer as an object or an exception. */
static PyObject *take_answer(module_state_t *state, callback_t *callback)
{
    convert_failure_t failure = {.env = callback->env};
    const ERL_NIF_TERM *parts;
    PyObject *value;
    char text[512];
    int arity;

    if (atomic_load(&callback->state) == INTERRUPTED) {
        PyErr_SetNone(state->interrupt);
        return NULL;
    }
    if (atomic_load(&callback->state) == UNSENT) {
        PyErr_SetString(state->error, "the context's process is gone");
        return NULL;
    }
    if (!enif_get_tuple(callback->env, callback->answer, &arity, &parts) || arity != 2) {
        PyErr_SetString(state->error, "malformed answer");
        return NULL;
    }
    if (!enif_is_identical(parts[0], atom_ok)) {
        raise_callback_error(state, callback->env, parts[1]);
        return NULL;
    }
    failure.prefix = enif_make_list(callback->env, 0);
    value = convert_in(state, callback->env, parts[1], callback->binaries, &failure);
    if (value == NULL) {
        enif_snprintf(text, sizeof(text), "Python has no image of the result: %T", failure.reason);
        PyErr_SetString(PyExc_TypeError, text);
    }
    return value;
}

/* ---- on a thread that serves a request ---- */

static PyObject *call_parked(module_state_t *state, pyworker_t *self, callback_t *callback,
                             const origin_t *origin, ERL_NIF_TERM message)
{
    bool ok;

    pyworker_detach(self);
    ok = wait_parked(self, callback, origin, message);
    pyworker_attach(self);
    retract(self);
    if (ok)
        return take_answer(state, callback);
    enif_clear_env(self->env);
    PyErr_Format(state->error,
                 "no thread to serve others while this one waits: the limit is %d "
                 "(application setting max_threads)",
                 thread_max());
    return NULL;
}

static PyObject *ask_as_worker(pyworker_t *self, callback_t *callback, const question_t *question,
                               const origin_t *origin)
{
    ERL_NIF_TERM message;

    if (!make_call(self->env, callback, question, origin, &message))
        return NULL;
    if (!announce(self, callback)) {
        enif_clear_env(self->env);
        PyErr_SetNone(question->state->interrupt);
        return NULL;
    }
    return call_parked(question->state, self, callback, origin, message);
}

/* ---- on a thread that Python started ---- */

static PyObject *ask_as_thread(parker_t *parker, callback_t *callback, const question_t *question,
                               const origin_t *origin)
{
    ErlNifEnv *env = enif_alloc_env();
    ErlNifMonitor monitor;
    ERL_NIF_TERM message;
    spin_t spin;

    if (!make_call(env, callback, question, origin, &message)) {
        enif_free_env(env);
        return NULL;
    }
    spin_init(&spin);
    Py_BEGIN_ALLOW_THREADS
        /* No interrupt reaches a thread that serves no request: it looks after itself. */
        enif_monitor_process(NULL, callback, &origin->context->process, &monitor);
        send_call(env, callback, origin, message);
        wait_settled(callback, &spin, parker, thread_due(origin));
    Py_END_ALLOW_THREADS
    enif_free_env(env);
    return take_answer(question->state, callback);
}

/* ---- both ---- */

/* Lets nobody wake the parker any more, then lets go. */
static void finish(callback_t *callback, const origin_t *origin)
{
    bool is_interrupted;

    pthread_mutex_lock(&callback->lock);
    callback->parker = NULL;
    is_interrupted = atomic_load(&callback->state) == INTERRUPTED;
    pthread_mutex_unlock(&callback->lock);
    if (is_interrupted)
        abandon_process(origin->context, callback);
    enif_release_resource(callback);
}

static PyObject *ask(const question_t *question, const origin_t *origin)
{
    pyworker_t *self = pyworker_self();
    callback_t *callback;
    PyObject *value;

    if (self != NULL && self->request != NULL) {
        parker_clear(&self->reply_parker);
        callback = new_callback(&self->reply_parker);
        value = ask_as_worker(self, callback, question, origin);
        finish(callback, origin);
    } else {
        parker_t parker;

        parker_init(&parker);
        callback = new_callback(&parker);
        value = ask_as_thread(&parker, callback, question, origin);
        finish(callback, origin);
        parker_finish(&parker);
    }
    return value;
}

/* On whose behalf a callback is made; false with an exception set. */
static bool check_origin(module_state_t *state, origin_t *origin)
{
    if (!origin_of_thread(state, origin)) {
        PyErr_SetString(state->error, "this thread runs on behalf of no Erlang process");
        return false;
    }
    if (origin->is_inline) {
        PyErr_SetString(state->error,
                        "a call with the option inline cannot wait for Erlang, it runs on "
                        "a scheduler of the VM: make it without that option");
        return false;
    }
    if (origin->depth >= max_depth) {
        PyErr_Format(PyExc_RecursionError,
                     "callbacks nested deeper than %u (application setting max_callback_depth)",
                     max_depth);
        return false;
    }
    return true;
}

PyObject *callback_call(module_state_t *state, ERL_NIF_TERM kind, PyObject *name,
                        PyObject *arguments, PyObject *keywords)
{
    question_t question = {state, kind, name, arguments, keywords};
    origin_t origin;

    return check_origin(state, &origin) ? ask(&question, &origin) : NULL;
}

/* ---- without waiting ---- */

static completion_t *new_completion(module_state_t *state, const origin_t *origin,
                                    callback_t *callback, PyObject *done)
{
    completion_t *completion = calloc(1, sizeof(*completion));

    if (completion == NULL)
        return NULL;
    completion->job.kind = JOB_COMPLETION;
    enif_keep_resource(callback);
    completion->callback = callback;
    completion->context = context_acquire(origin->context);
    completion->interp = interp_acquire(state->interp);
    completion->done = Py_NewRef(done);
    return completion;
}

/* A Ref of the callback, or NULL with an exception set. */
static PyObject *name_of(module_state_t *state, ErlNifEnv *env, callback_t *callback)
{
    return terms_from_term(state, env, enif_make_resource(env, callback));
}

PyObject *callback_start(module_state_t *state, PyObject *name, PyObject *arguments,
                         PyObject *keywords, PyObject *done)
{
    question_t question = {state, atom_call, name, arguments, keywords};
    ErlNifEnv *env;
    ErlNifMonitor monitor;
    callback_t *callback;
    completion_t *completion;
    PyObject *name_object = NULL;
    origin_t origin;
    ERL_NIF_TERM message;

    if (!check_origin(state, &origin))
        return NULL;
    env = enif_alloc_env();
    callback = new_callback(NULL);
    completion = new_completion(state, &origin, callback, done);
    callback->completion = completion;
    if (completion == NULL)
        PyErr_NoMemory();
    else if ((name_object = name_of(state, env, callback)) != NULL &&
             !make_call(env, callback, &question, &origin, &message))
        Py_CLEAR(name_object);
    if (name_object != NULL) {
        enif_monitor_process(NULL, callback, &origin.context->process, &monitor);
        send_call(env, callback, &origin, message);
    } else if (completion != NULL) {
        Py_DECREF(completion->done);
        empty_completion(completion);
        free(completion);
    }
    enif_free_env(env);
    enif_release_resource(callback);
    return name_object;
}

PyObject *callback_abandon(module_state_t *state, PyObject *name)
{
    ErlNifEnv *env = enif_alloc_env();
    context_t *context = NULL;
    callback_t *callback;
    ERL_NIF_TERM term;
    void *found;

    if (terms_to_term(state, env, name, &term) && enif_get_resource(env, term, type, &found)) {
        callback = found;
        pthread_mutex_lock(&callback->lock);
        if (callback->completion != NULL)
            context = context_acquire(callback->completion->context);
        pthread_mutex_unlock(&callback->lock);
        settle_pending(callback, INTERRUPTED);
        if (context != NULL)
            abandon_process(context, callback);
        context_release(context);
    }
    enif_free_env(env);
    Py_RETURN_NONE;
}

void callback_complete(module_state_t *state, job_t *job)
{
    completion_t *completion = (completion_t *)job;
    PyObject *value, *error, *result;

    /* Of an interpreter that was replaced: nobody may touch its objects. */
    if (completion->interp != state->interp) {
        empty_completion(completion);
        return;
    }
    value = take_answer(state, completion->callback);
    error = value == NULL ? compat_take_exception() : NULL;
    result = PyObject_CallFunctionObjArgs(completion->done, value != NULL ? value : Py_None,
                                          error != NULL ? error : Py_None, NULL);
    if (result == NULL)
        PyErr_WriteUnraisable(completion->done);
    Py_XDECREF(result);
    Py_XDECREF(value);
    Py_XDECREF(error);
    Py_DECREF(completion->done);
    empty_completion(completion);
}

/* ---- messages ---- */

PyObject *callback_send(module_state_t *state, PyObject *pid, PyObject *object)
{
    ErlNifEnv *env = enif_alloc_env();
    PyObject *result = NULL;
    ERL_NIF_TERM to;
    ERL_NIF_TERM term;
    ErlNifPid local;

    if (!terms_to_term(state, env, pid, &to) || !enif_is_pid(env, to)) {
        PyErr_SetString(PyExc_TypeError, "the receiver must be a Pid");
    } else if (!enif_get_local_pid(env, to, &local)) {
        PyErr_SetString(PyExc_LookupError, "the receiver is on another node");
    } else if (to_term(state, env, object, &term)) {
        result = PyBool_FromLong(enif_send(request_scheduler_env(), &local, env, term));
    }
    enif_free_env(env);
    return result;
}

PyObject *callback_whereis(module_state_t *state, PyObject *name)
{
    Py_ssize_t size;
    const char *text = NULL;
    ErlNifEnv *env;
    PyObject *result = NULL;
    ERL_NIF_TERM atom;
    ErlNifPid pid;

    if (!PyUnicode_Check(name)) {
        PyErr_Format(PyExc_TypeError, "a process's name is a str, not %s", Py_TYPE(name)->tp_name);
        return NULL;
    }
    text = PyUnicode_AsUTF8AndSize(name, &size);
    if (text == NULL && !PyErr_ExceptionMatches(PyExc_UnicodeEncodeError))
        return NULL;
    PyErr_Clear(); /* a lone surrogate: nothing is called that */
    env = enif_alloc_env();
    if (text != NULL && terms_existing_atom(env, text, (size_t)size, &atom) &&
        enif_whereis_pid(request_scheduler_env(), atom, &pid))
        result = terms_from_term(state, env, enif_make_pid(env, &pid));
    else
        result = Py_NewRef(Py_None);
    enif_free_env(env);
    return result;
}
