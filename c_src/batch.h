/*
 * batch - what a step of a stream has got so far, as terms.
 *
 * A step fills a Batch with converted items until enough are there: `limit` items, 64 KiB, or a
 * millisecond has passed. Its reply is `{ok, {Items, more | done | {error, Reason}}}`, sent from
 * the Batch's own environment.
 *
 * An iterator may give some items and then think for a long time. So a step that asked for it
 * does not keep them: a millisecond later the timer's thread, which needs no GIL, sends
 * `{Ref, {more, Items}}` to where the reply will go.
 *
 * GIL: held for everything here.
 */
#ifndef EP_BATCH_H
#define EP_BATCH_H

#include "module.h"

#include <erl_nif.h>
#include <stdbool.h>

/* Creates the type `_erlang.Batch`. */
bool batch_init(PyObject *module, module_state_t *state);

/* Ends the step: its result. *env becomes the environment that holds it, the caller's to free. */
ERL_NIF_TERM batch_take(PyObject *object, ErlNifEnv **env);

#endif
