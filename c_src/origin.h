/*
 * origin - on whose behalf Python code runs: owner, context, namespace, deadline, depth.
 *
 * A request's code has one; threads that it starts inherit it (erlang/_threads.py
 * hands it down), so that their callbacks have an owner all the same.
 *
 * GIL: held for everything here.
 */
#ifndef EP_ORIGIN_H
#define EP_ORIGIN_H

#include "convert.h"
#include "module.h"
#include "request.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    struct owner *owner;         /* kept, or NULL */
    struct context *context;     /* kept */
    struct namespace *namespace; /* kept, or NULL */
    int64_t deadline;
    uint32_t depth;
    binary_policy_t binaries;
    bool is_errand; /* nested requests need no seat: this thread holds none */
    bool is_inline; /* this thread is a scheduler: it may not wait */
} origin_t;

/* Creates the type `_erlang.Origin` and the context variable `_erlang.task_origin`. */
bool origin_init(PyObject *module, module_state_t *state);

/* The origin of the code that runs on this thread: of its request, of its task (a context
 * variable), or inherited. Its references are borrowed. False: it belongs to no request. */
bool origin_of_thread(module_state_t *state, origin_t *origin);

/* The same as an object, a new reference; None if there is none. */
PyObject *origin_new(module_state_t *state);

/* _erlang.origin() -> Origin | None */
PyObject *origin_get(PyObject *module, PyObject *unused);

/* _erlang.enter(Origin | None) -> the one before: sets what this thread inherits. */
PyObject *origin_enter(PyObject *module, PyObject *origin);

#endif
