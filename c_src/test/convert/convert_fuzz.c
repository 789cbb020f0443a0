/*
 * convert_fuzz --terms | --objects [libFuzzer's options] - the converters on whatever comes.
 *
 * --terms: the bytes are a term in external format, which must come back from Python as the
 * oracle says, or fail if it says so. --objects: they are what objects.py builds an object from;
 * its term must then go through Python like any other. Either way nothing may be left behind:
 * no env, no resource, no block of Python's memory, no exception.
 */
#include "convert.h"
#include "embed.h"
#include "enif.h"
#include "oracle.h"

#include "atoms.h"
#include "failure.h"
#include "scalars.h"
#include "terms.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEMPORARY_ATOMS_MAX = 50000, LEAKS_TO_BELIEVE = 4 };

typedef void (*target_t)(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *count, char ***arguments);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static module_state_t *state;
static target_t target;
static PyObject *build, *probe, *collect_garbage;
static long known_blocks;

/* ---- what must hold ---- */

static void check_list(ErlNifEnv *env, ERL_NIF_TERM term, const char *what)
{
    unsigned length = 0;

    embed_insist(enif_get_list_length(env, term, &length), what);
}

/* {Tag, Path | Message} or {Tag, Path, Why}, or an atom. */
static void check_reason(const convert_failure_t *failure)
{
    const ERL_NIF_TERM *items = NULL;
    int size = 0;

    embed_insist(!PyErr_Occurred(), "no exception after a failure");
    if (enif_is_atom(failure->env, failure->reason))
        return;
    embed_insist(enif_get_tuple(failure->env, failure->reason, &size, &items) && size >= 2,
                 "a reason is a tuple");
    check_list(failure->env, items[1], "a path or a message is a list");
    if (items[0] == atom_badarg)
        embed_insist(size == 3 && enif_is_atom(failure->env, items[2]), "{badarg, Path, Why}");
    if (items[0] == atom_unconvertible)
        embed_insist(size == 3 && enif_is_binary(failure->env, items[2]),
                     "{unconvertible, Path, Type}");
}

/* Converts the term there and back; takes neither. */
static void check_term(ErlNifEnv *env, ERL_NIF_TERM term, binary_policy_t binaries)
{
    ErlNifEnv *other = enif_alloc_env();
    const oracle_t expected = oracle_ask(other, term, binaries);
    convert_failure_t failure = {.env = other};
    const convert_out_options_t options = {.unknown = UNKNOWN_HANDLE};
    PyObject *object = convert_in(state, env, term, binaries, &failure), *probed = NULL;
    ERL_NIF_TERM back = 0;
    bool ok = false;

    embed_insist(!PyErr_Occurred(), "no exception after convert_in");
    if (object == NULL)
        check_reason(&failure);
    if (!expected.has_resources)
        embed_insist((object == NULL) == expected.in_fails, "convert_in as the oracle says");
    if (object == NULL)
        goto done;
    ok = convert_out(state, other, object, options, &back, &failure);
    embed_insist(!PyErr_Occurred(), "no exception after convert_out");
    if (!ok)
        check_reason(&failure);
    if (!expected.has_resources) {
        embed_insist(ok == !expected.out_fails, "convert_out as the oracle says");
        embed_insist(!ok || enif_is_identical(back, expected.back), "the term as it was");
        probed = PyObject_CallOneArg(probe, object);
        embed_insist(probed != NULL, "what objects.probe says");
    }
done:
    Py_XDECREF(probed);
    Py_XDECREF(object);
    enif_free_env(other);
}

/* ---- targets ---- */

static void fuzz_term(const uint8_t *data, size_t size)
{
    ErlNifEnv *env = NULL;
    ERL_NIF_TERM term = 0;
    convert_failure_t failure = {0};
    PyObject *name = NULL;

    if (size < 2)
        return;
    failure.env = env = enif_alloc_env();
    if (enif_binary_to_term(env, data + 1, size - 1, &term, 0)) {
        check_term(env, term, (binary_policy_t)(data[0] % 3));
        failure.prefix = enif_make_list_cell(env, term, enif_make_list(env, 0));
        name = convert_name(state, env, term, &failure);
        embed_insist(!PyErr_Occurred(), "no exception after convert_name");
        if (name == NULL)
            check_reason(&failure);
        Py_XDECREF(name);
    }
    enif_free_env(env);
}

static void fuzz_object(const uint8_t *data, size_t size)
{
    ErlNifEnv *env = NULL;
    ERL_NIF_TERM term = 0;
    convert_failure_t failure = {0};
    convert_out_options_t options = {.unknown = UNKNOWN_HANDLE};
    PyObject *object = NULL;

    if (size < 2)
        return;
    failure.env = env = enif_alloc_env();
    options.unknown = (unknown_policy_t)(data[0] % 3);
    options.as_handle = data[0] % 16 == 15;
    object = PyObject_CallFunction(build, "y#", data + 1, (Py_ssize_t)size - 1);
    if (object == NULL) {
        term = failure_to_term(state, env, data[0] % 2, atom_interrupted);
        (void)enif_make_copy(env, term);
    } else if (convert_out(state, env, object, options, &term, &failure)) {
        embed_insist(!PyErr_Occurred(), "no exception after convert_out");
        check_term(env, term, (binary_policy_t)(data[0] / 16 % 3));
    } else {
        check_reason(&failure);
    }
    embed_insist(!PyErr_Occurred(), "no exception left");
    Py_XDECREF(object);
    enif_free_env(env);
}

/* ---- leaks ---- */

static void run(const uint8_t *data, size_t size)
{
    target(data, size);
    interp_drain(embed_interp());
    embed_insist(enif_count_live() == 0, "no env, binary, iterator or resource left");
}

/* The cache of methods keeps every name that was made for PyObject_GetAttrString. */
static void collect(void)
{
    PyObject *found = NULL;

    PyType_ClearCache();
    found = PyObject_CallNoArgs(collect_garbage);
    embed_insist(found != NULL, "gc.collect");
    Py_DECREF(found);
}

/* Python caches this and that, so memory that grows is a leak only if it goes on growing. */
static void check_blocks(const uint8_t *data, size_t size)
{
    int leaks = 0;

    if (embed_count_blocks() > known_blocks)
        collect();
    while (embed_count_blocks() > known_blocks && leaks < LEAKS_TO_BELIEVE) {
        known_blocks = embed_count_blocks();
        run(data, size);
        collect();
        leaks++;
    }
    embed_insist(embed_count_blocks() <= known_blocks, "no block of Python's memory left");
    known_blocks = embed_count_blocks();
}

/* An atom stays in Python's caches as long as it exists. */
static void forget_atoms(void)
{
    scalars_atom_cache_destroy(state->atoms);
    enif_forget_atoms();
    state->atoms = scalars_atom_cache_create();
    embed_insist(state->atoms != NULL, "an atom cache");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    run(data, size);
    check_blocks(data, size);
    if (enif_count_temporary_atoms() > TEMPORARY_ATOMS_MAX)
        forget_atoms();
    return 0;
}

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
    for (int i = 1; i < *count; i++) {
        if (strcmp((*arguments)[i], "--terms") == 0)
            target = fuzz_term;
        if (strcmp((*arguments)[i], "--objects") == 0)
            target = fuzz_object;
    }
    if (target == NULL) {
        fprintf(stderr, "usage: convert_fuzz --terms | --objects [OPTION ...]\n");
        exit(2);
    }
    state = embed_start(true);
    build = embed_fetch("objects", "build");
    probe = embed_fetch("objects", "probe");
    collect_garbage = embed_fetch("gc", "collect");
    collect();
    enif_keep_atoms();
    known_blocks = embed_count_blocks();
    return 0;
}
