/*
 * convert_faults - the converters when memory is short.
 *
 * Whatever is done here is done again and again, with the first allocation failing, then the second
 * and so on until none fails, and once more with all later ones failing too. Each time it must
 * succeed as ever or fail cleanly, and leave nothing behind. `ok NAME` or `not ok NAME` per case.
 */
#include "convert.h"
#include "embed.h"
#include "enif.h"

#include "atoms.h"
#include "failure.h"
#include "scalars.h"
#include "terms.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *block, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *block, size_t size);

/* True: it worked, and what came of it is right. False: it failed cleanly. */
typedef bool (*body_t)(void);

enum { WARM_UP = 3 };

static module_state_t *state;
static PyObject *object, *collect_garbage, *raise_exception;
static ErlNifEnv *terms_env, *known_env; /* of term; of known */
static ERL_NIF_TERM term, known;         /* what convert_in is given, and what comes back */
static int failed_cases;

/* ---- what the engine asks of malloc ---- */

void *__wrap_malloc(size_t size)
{
    return embed_fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return embed_fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *block, size_t size)
{
    return embed_fails() ? NULL : __real_realloc(block, size);
}

/* ---- bodies ---- */

/* Whether a reason is in order; with it, that there is no exception. */
static bool fails_cleanly(ErlNifEnv *env, ERL_NIF_TERM reason)
{
    const ERL_NIF_TERM *items = NULL;
    int size = 0;

    embed_insist(!PyErr_Occurred(), "no exception after a failure");
    embed_insist(enif_is_atom(env, reason) ||
                     (enif_get_tuple(env, reason, &size, &items) && size >= 2),
                 "a reason");
    return false;
}

static bool out(void)
{
    ErlNifEnv *env = enif_alloc_env();
    convert_failure_t failure = {.env = env};
    const convert_out_options_t options = {.unknown = UNKNOWN_REPR};
    ERL_NIF_TERM result = 0;
    const bool ok = convert_out(state, env, object, options, &result, &failure);

    if (!ok)
        fails_cleanly(env, failure.reason);
    else
        embed_insist(known == 0 || enif_is_identical(result, known), "the term as ever");
    enif_free_env(env);
    return ok;
}

static bool out_with_handles(void)
{
    ErlNifEnv *env = enif_alloc_env();
    convert_failure_t failure = {.env = env};
    const convert_out_options_t options = {.unknown = UNKNOWN_HANDLE};
    ERL_NIF_TERM result = 0;
    const bool ok = convert_out(state, env, object, options, &result, &failure);

    if (!ok)
        fails_cleanly(env, failure.reason);
    enif_free_env(env);
    return ok;
}

static bool in(void)
{
    convert_failure_t failure = {.env = enif_alloc_env()};
    PyObject *made = convert_in(state, terms_env, term, BINARY_AUTO, &failure);
    ERL_NIF_TERM back = 0;
    const convert_out_options_t options = {.unknown = UNKNOWN_ERROR};
    bool ok = made != NULL;

    if (!ok) {
        fails_cleanly(failure.env, failure.reason);
    } else {
        embed_fail_at(0, false);
        embed_insist(convert_out(state, failure.env, made, options, &back, &failure) &&
                         (known == 0 || enif_is_identical(back, known)),
                     "the object as ever");
    }
    Py_XDECREF(made);
    enif_free_env(failure.env);
    return ok;
}

static bool name(void)
{
    convert_failure_t failure = {.env = enif_alloc_env()};
    ERL_NIF_TERM text = enif_make_string(failure.env, "a name that is new", ERL_NIF_LATIN1);
    PyObject *made = convert_name(state, failure.env, text, &failure);
    const bool ok = made != NULL;

    if (!ok)
        fails_cleanly(failure.env, failure.reason);
    Py_XDECREF(made);
    enif_free_env(failure.env);
    return ok;
}

/* Whatever fails on the way to a reason, it is one. */
static bool reason(void)
{
    ErlNifEnv *env = enif_alloc_env();
    PyObject *result = NULL;

    result = PyObject_CallNoArgs(raise_exception);
    embed_insist(result == NULL, "an exception");
    fails_cleanly(env, failure_to_term(state, env, true, atom_interrupted));
    enif_free_env(env);
    return !embed_has_failed();
}

static bool atom(void)
{
    PyObject *text = PyUnicode_FromString("an atom"), *made = NULL;

    if (text != NULL)
        made = terms_make_atom(state, text);
    embed_insist((made != NULL) == !PyErr_Occurred(), "an exception or an Atom");
    PyErr_Clear();
    Py_XDECREF(text);
    Py_XDECREF(made);
    return made != NULL;
}

/* ---- the loop ---- */

static void collect(void)
{
    PyObject *found = NULL;

    PyType_ClearCache();
    found = PyObject_CallNoArgs(collect_garbage);
    embed_insist(found != NULL, "gc.collect");
    Py_DECREF(found);
}

/* Runs the body once with the n-th allocation failing; false when there were not so many. */
static bool once(body_t body, long n, bool onwards)
{
    bool ok = false, has_failed = false;

    embed_fail_at(n, onwards);
    ok = body();
    has_failed = embed_has_failed();
    embed_fail_at(0, false);
    interp_drain(embed_interp());
    embed_insist(ok || has_failed, "success when nothing fails");
    embed_insist(!PyErr_Occurred(), "no exception left");
    return has_failed;
}

/* Memory that this step of the loop takes each time it is repeated. */
static bool leaks(body_t body, long n, bool onwards)
{
    long before = 0;

    for (int i = 0; i < WARM_UP; i++) {
        collect();
        before = embed_count_blocks();
        (void)once(body, n, onwards);
        collect();
        if (embed_count_blocks() <= before)
            return false;
    }
    printf("# allocation %ld: %ld blocks more each time\n", n, embed_count_blocks() - before);
    return true;
}

static void test_case(const char *what, body_t body)
{
    const long envs = enif_count_live();
    bool ok = true;
    long n = 0;

    for (int i = 0; i < WARM_UP; i++)
        (void)once(body, 0, false);
    for (int onwards = 0; onwards < 2; onwards++)
        for (n = 1; once(body, n, onwards != 0); n++) {
            if (enif_count_live() != envs)
                printf("# allocation %ld: %ld envs or resources more\n", n,
                       enif_count_live() - envs);
            ok = ok && enif_count_live() == envs && !leaks(body, n, onwards != 0);
        }
    failed_cases += !ok;
    printf("%s %s: %ld allocations\n", ok ? "ok" : "not ok", what, n - 1);
    fflush(stdout);
}

/* What `object` is in Erlang, and that again after a visit to Python. */
static void learn(void)
{
    convert_failure_t failure = {0};
    const convert_out_options_t options = {.unknown = UNKNOWN_REPR};
    PyObject *back = NULL;
    ERL_NIF_TERM list = 0;

    failure.env = terms_env = enif_alloc_env();
    known_env = enif_alloc_env();
    embed_insist(convert_out(state, terms_env, object, options, &term, &failure), "a rich term");
    list = enif_make_list(terms_env, 0);
    list = enif_make_list_cell(
        terms_env, enif_make_tuple2(terms_env, atom_buffer, enif_make_atom(terms_env, "k\344se")),
        list);
    list = enif_make_list_cell(terms_env, enif_make_local(ERL_NIF_TERM_TYPE_PID, 1), list);
    term = enif_make_list_cell(terms_env, term, list);
    back = convert_in(state, terms_env, term, BINARY_AUTO, &failure);
    embed_insist(back != NULL && convert_out(state, known_env, back, options, &known, &failure),
                 "a rich term back");
    Py_DECREF(back);
}

/* From now on no text of an atom is remembered. */
static void forget_atoms(void)
{
    scalars_atom_cache_destroy(state->atoms);
    state->atoms = NULL;
}

int main(void)
{
    PyObject *rich = NULL, *print_little = NULL;

    state = embed_start(true);
    enif_is_short = embed_fails;
    collect_garbage = embed_fetch("gc", "collect");
    raise_exception = embed_fetch("objects", "fail");
    print_little = embed_fetch("objects", "print_little");
    Py_XDECREF(PyObject_CallNoArgs(print_little));
    Py_DECREF(print_little);
    rich = embed_fetch("objects", "rich");
    object = PyObject_CallNoArgs(rich);
    embed_insist(object != NULL, "objects.rich");
    learn();
    test_case("a rich term to Python", in);
    forget_atoms();
    test_case("the same, no atom known", in);
    known = 0;
    test_case("a rich object to Erlang", out);
    test_case("a rich object to Erlang, with handles", out_with_handles);
    test_case("a name", name);
    test_case("an exception to a reason", reason);
    test_case("erlang.atom", atom);
    Py_CLEAR(object);
    Py_DECREF(rich);
    enif_free_env(terms_env);
    enif_free_env(known_env);
    fflush(stdout);
    return failed_cases != 0;
}
