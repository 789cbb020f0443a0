/*
 * run - what a request does in Python: call a function, evaluate an expression,
 * execute statements. The only place where a Python function is called with
 * converted arguments.
 */
#ifndef EP_RUN_H
#define EP_RUN_H

#include "convert.h"
#include "executor.h"

/*
 * Runs the request and returns its result, built in env: `{ok, Value}`, `ok` (exec),
 * `{error, Reason}`, or `{py_elsewhere, Where}` when nothing was run because the
 * request belongs into another interpreter (Where: main, or the package's name).
 * Leaves no exception pending. GIL: held.
 */
ERL_NIF_TERM run_request(pyworker_t *self, request_t *request, ErlNifEnv *env);

/* What the request wants binaries to become. */
binary_policy_t run_binaries(const request_t *request);

/* Lets go of what run_request keeps for the thread. GIL: held. */
void run_forget(pyworker_t *self);

/* Whether result says that the request was not run because only main can. */
bool run_is_elsewhere(ErlNifEnv *env, ERL_NIF_TERM result);

/* Whether result is `ok` or `{ok, _}`. */
bool run_is_success(ErlNifEnv *env, ERL_NIF_TERM result);

#endif
