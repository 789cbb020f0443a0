/*
 * convert_threads - the converters in several threads of a free-threaded Python at once, under
 * ThreadSanitizer. With a GIL it runs too, and shows less.
 *
 * `ok NAME` or `not ok NAME` per case. See convert_threads.supp for what ThreadSanitizer cannot
 * see.
 */
#include "convert.h"
#include "embed.h"
#include "enif.h"

#include "atoms.h"
#include "scalars.h"
#include "terms.h"
#include "test.h"

enum { THREADS = 4, ROUNDS = 150, ATOMS = 1500, SLOTS = 16 };

typedef struct {
    int number;
    uint32_t seed;
} self_t;

/* Runs in each thread, attached; `round` counts from 0. */
typedef void (*step_t)(self_t *self, int round);

static module_state_t *state;
static PyInterpreterState *interpreter;
static PyObject *object, *shared; /* of rich(); a container that changes */
static ErlNifEnv *terms_env, *known_env;
static ERL_NIF_TERM term, known; /* what convert_in is given, and what comes back */
static ERL_NIF_TERM atom_list;
static pthread_barrier_t barrier;
static step_t step;
static struct {
    pthread_mutex_t lock;
    ErlNifEnv *env; /* owned, or NULL */
    ERL_NIF_TERM handle;
} slots[SLOTS];

/* No thread waits attached: whoever stops the world would wait for it. */
static void meet(void)
{
    PyThreadState *thread = PyEval_SaveThread();

    pthread_barrier_wait(&barrier);
    PyEval_RestoreThread(thread);
}

/* ---- steps ---- */

static void both_ways(self_t *self, int round)
{
    convert_failure_t failure = {.env = enif_alloc_env()};
    const convert_out_options_t options = {.unknown = UNKNOWN_HANDLE};
    PyObject *made = convert_in(state, terms_env, term, BINARY_AUTO, &failure);
    ERL_NIF_TERM back = 0;

    (void)self, (void)round;
    check(made != NULL && convert_out(state, failure.env, made, options, &back, &failure) &&
          enif_is_identical(back, known));
    Py_XDECREF(made);
    enif_free_env(failure.env);
}

/* All read the same object. */
static void one_object(self_t *self, int round)
{
    convert_failure_t failure = {.env = enif_alloc_env()};
    const convert_out_options_t options = {.unknown = UNKNOWN_REPR};
    ERL_NIF_TERM out = 0;

    (void)self, (void)round;
    check(convert_out(state, failure.env, object, options, &out, &failure));
    enif_free_env(failure.env);
}

/* Some change what others read: whatever comes of it, it is a list of lists, or of a map. */
static void changing_object(self_t *self, int round)
{
    convert_failure_t failure = {.env = enif_alloc_env()};
    const convert_out_options_t options = {.unknown = UNKNOWN_REPR};
    PyObject *list = PyList_GET_ITEM(shared, 0), *dict = PyList_GET_ITEM(shared, 1), *item = NULL;
    ERL_NIF_TERM out = 0;
    unsigned length = 0;

    (void)round;
    if (self->number % 2 == 0) {
        check(convert_out(state, failure.env, shared, options, &out, &failure) &&
              enif_get_list_length(failure.env, out, &length) && length == 2);
    } else {
        for (int i = 0; i < 20; i++) {
            item = Py_BuildValue("[i]", i);
            if (random_below(&self->seed, 3) == 0)
                check(PyList_SetSlice(list, 0, 5, NULL) == 0);
            check(PyList_Append(list, item) == 0);
            if (PyDict_DelItemString(dict, random_below(&self->seed, 2) ? "a" : "b") < 0)
                PyErr_Clear();
            check(PyDict_SetItemString(dict, random_below(&self->seed, 2) ? "a" : "b", item) == 0);
            Py_DECREF(item);
        }
    }
    enif_free_env(failure.env);
}

/* The same new atoms in all threads, more of them than the cache has room for. */
static void new_atoms(self_t *self, int round)
{
    convert_failure_t failure = {.env = enif_alloc_env()};
    PyObject *list = NULL;

    (void)round;
    meet();
    if (self->number == 0) {
        scalars_atom_cache_destroy(state->atoms);
        state->atoms = scalars_atom_cache_create();
    }
    meet();
    list = convert_in(state, terms_env, atom_list, BINARY_AUTO, &failure);
    check(list != NULL && PyList_GET_SIZE(list) == ATOMS);
    for (Py_ssize_t i = 0; list != NULL && i < ATOMS; i++) {
        char text[32];

        snprintf(text, sizeof text, "atom %zd", i);
        if (PyUnicode_CompareWithASCIIString(PyList_GET_ITEM(list, i), text) != 0)
            check(false);
    }
    Py_XDECREF(list);
    enif_free_env(failure.env);
}

/* Handles made in one thread, used and dropped in another; the first thread sees to the objects. */
static void handles(self_t *self, int round)
{
    convert_failure_t failure = {.env = enif_alloc_env()};
    const convert_out_options_t options = {.as_handle = true};
    PyObject *dict = PyDict_New(), *again = NULL;
    ERL_NIF_TERM handle = 0;
    const uint32_t at = random_below(&self->seed, SLOTS);
    ErlNifEnv *env = NULL;

    (void)round;
    check(dict != NULL && convert_out(state, failure.env, dict, options, &handle, &failure));
    Py_XDECREF(dict);
    pthread_mutex_lock(&slots[at].lock);
    env = slots[at].env;
    slots[at].env = failure.env;
    failure.env = env;
    env = NULL;
    {
        const ERL_NIF_TERM other = slots[at].handle;

        slots[at].handle = handle;
        handle = other;
    }
    pthread_mutex_unlock(&slots[at].lock);
    if (failure.env != NULL) {
        again = convert_in(state, failure.env, handle, BINARY_AUTO, &failure);
        check(again != NULL && PyDict_CheckExact(again));
        Py_XDECREF(again);
        enif_free_env(failure.env);
    }
    if (self->number == 0)
        interp_drain(embed_interp());
}

/* ---- cases ---- */

static void *body(void *argument)
{
    self_t *self = argument;
    PyThreadState *thread = PyThreadState_New(interpreter);

    PyEval_RestoreThread(thread);
    meet();
    for (int round = 0; round < ROUNDS; round++)
        step(self, round);
    meet();
    PyThreadState_Clear(thread);
    PyThreadState_DeleteCurrent();
    return NULL;
}

static void run_case(void)
{
    pthread_t threads[THREADS];
    self_t selves[THREADS];
    PyThreadState *thread = PyEval_SaveThread();

    for (int i = 0; i < THREADS; i++) {
        selves[i] = (self_t){.number = i, .seed = (uint32_t)i + 1};
        threads[i] = test_spawn(body, &selves[i]);
    }
    test_join(threads, THREADS);
    PyEval_RestoreThread(thread);
    for (int i = 0; i < SLOTS; i++) {
        if (slots[i].env != NULL)
            enif_free_env(slots[i].env);
        slots[i].env = NULL;
    }
    interp_drain(embed_interp());
}

static void test_step(const char *name, step_t what)
{
    step = what;
    test_case(name, run_case);
}

static void learn(void)
{
    convert_failure_t failure = {0};
    const convert_out_options_t options = {.unknown = UNKNOWN_REPR};
    PyObject *back = NULL;

    failure.env = terms_env = enif_alloc_env();
    known_env = enif_alloc_env();
    embed_insist(convert_out(state, terms_env, object, options, &term, &failure), "a rich term");
    back = convert_in(state, terms_env, term, BINARY_AUTO, &failure);
    embed_insist(back != NULL && convert_out(state, known_env, back, options, &known, &failure),
                 "a rich term back");
    Py_DECREF(back);
    atom_list = enif_make_list(terms_env, 0);
    for (int i = ATOMS; i > 0; i--) {
        char text[32];

        snprintf(text, sizeof text, "atom %d", i - 1);
        atom_list = enif_make_list_cell(terms_env, enif_make_atom(terms_env, text), atom_list);
    }
}

int main(void)
{
    PyObject *rich = NULL;

    state = embed_start(false);
    interpreter = PyInterpreterState_Get();
    rich = embed_fetch("objects", "rich");
    object = PyObject_CallNoArgs(rich);
    shared = Py_BuildValue("[[[i][i]]{s:i}]", 1, 2, "a", 1);
    embed_insist(object != NULL && shared != NULL, "objects");
    learn();
    pthread_barrier_init(&barrier, NULL, THREADS);
    for (int i = 0; i < SLOTS; i++)
        pthread_mutex_init(&slots[i].lock, NULL);
    test_step("terms to objects and back", both_ways);
    test_step("one object by all", one_object);
    test_step("an object that changes", changing_object);
    test_step("new atoms", new_atoms);
    test_step("handles", handles);
    enif_free_env(terms_env);
    enif_free_env(known_env);
    check(enif_count_live() == 0);
    return test_end();
}
