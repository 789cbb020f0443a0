/*
 * run - what a request does in Python: call a function, evaluate an expression,
 * execute statements. The only place where a Python function is called with
 * converted arguments.
 */
#ifndef EP_RUN_H
#define EP_RUN_H

#include "convert.h"
#include "executor.h"

/* No result yet: the request goes on as a task (deferred.h). */
#define RUN_DEFERRED ((ERL_NIF_TERM)0)

/*
 * Runs the request and returns its result, built in *env: `{ok, Value}`, `ok` (exec),
 * `{error, Reason}`, or `{py_elsewhere, Where}` when nothing was run because the
 * request belongs into another interpreter (Where: main, or the package's name).
 * RUN_DEFERRED when the result comes later. Another *env than was given is the caller's to
 * free. Leaves no exception pending. GIL: held.
 */
ERL_NIF_TERM run_request(pyworker_t *self, request_t *request, ErlNifEnv **env);

/* A value as a result, converted with the request's options; of a Batch its own (*env changes, as
 * above). GIL: held. */
ERL_NIF_TERM run_value(module_state_t *state, request_t *request, ErlNifEnv **env, PyObject *value);

/* The pending exception as a result. GIL: held. */
ERL_NIF_TERM run_raised(module_state_t *state, request_t *request, ErlNifEnv *env);

convert_out_options_t run_options(const request_t *request);

/* What the request wants binaries to become. */
binary_policy_t run_binaries(const request_t *request);

/* Whether result says that the request was not run because only main can. */
bool run_is_elsewhere(ErlNifEnv *env, ERL_NIF_TERM result);

/* Whether result is `ok` or `{ok, _}`. */
bool run_is_success(ErlNifEnv *env, ERL_NIF_TERM result);

#endif
