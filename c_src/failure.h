/*
 * failure - a raised Python exception as an Erlang error reason.
 *
 * GIL: held. Nothing here fails or leaves an exception pending; what str() or the
 * reading of a source line raises is dropped.
 */
#ifndef EP_FAILURE_H
#define EP_FAILURE_H

#include "module.h"

#include <erl_nif.h>
#include <stdbool.h>

/*
 * Takes the pending exception (one must be set) and returns what stands in
 * `{error, Reason}`: `{Class, Message}`, with `traceback` `{Class, Message,
 * Traceback}`, for StopIteration `{stop_iteration, Value}`.
 *
 *   Class      atom, or a binary when the name fits no atom of the bounded table
 *   Message    str(exception) as a list of code points, at most a million; when
 *              __str__ raises, a sentence that says so
 *   Traceback  list of #{file, line, function, source} (binaries, integer),
 *              outermost first, source the stripped line or <<>>; of more than 1 000
 *              entries the first and the last 500. The first has `text` too: all that Python
 *              would print (causes, contexts, notes, marks), unless that is too long
 *
 * `interrupted` is what an erlang.Interrupt maps to (`timeout`, `interrupted`...).
 */
ERL_NIF_TERM failure_to_term(module_state_t *state, ErlNifEnv *env, bool traceback,
                             ERL_NIF_TERM interrupted);

/* The same for an exception raised inside a conversion: no traceback, `interrupted` for
 * an Interrupt, and a StopIteration is `{'StopIteration', Message}` like any other (to
 * convert its value might raise the next one, for ever). */
ERL_NIF_TERM failure_in_conversion(module_state_t *state, ErlNifEnv *env);

/* The name of a type for people, in UTF-8: its qualified name, after its module unless
 * that is builtins. */
ERL_NIF_TERM failure_type_name(ErlNifEnv *env, PyTypeObject *type);

#endif
