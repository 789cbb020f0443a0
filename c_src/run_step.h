/*
 * run_step - one request on its way through Python (run.c, callable.c, code.c): a step that fails
 * sets the result and answers false or NULL.
 *
 * GIL: held.
 */
#ifndef EP_RUN_STEP_H
#define EP_RUN_STEP_H

#include "run.h"

/* What one request needs at hand. */
typedef struct {
    pyworker_t *self;
    module_state_t *state;
    request_t *request;
    ErlNifEnv *env;      /* where the result is built */
    ErlNifEnv *from;     /* where the arguments are */
    ERL_NIF_TERM result; /* set when a step fails */
} run_t;

bool run_fail(run_t *run, ERL_NIF_TERM reason);

/* The pending exception becomes the result. */
bool run_fail_raised(run_t *run);

/* Nothing was run: the request belongs to that interpreter. */
bool run_fail_elsewhere(run_t *run, ERL_NIF_TERM where);

/* Conversion with the request's options. `place` is the reversed path to the term, in run->env. */
PyObject *run_to_object(run_t *run, ERL_NIF_TERM term, ERL_NIF_TERM place);
PyObject *run_to_name(run_t *run, ERL_NIF_TERM term, ERL_NIF_TERM place);
void run_to_result(run_t *run, PyObject *value);

/* The globals in which the request's code runs; borrowed. */
PyObject *run_globals(run_t *run);

#endif
