/*
 * ticket - the reference a caller holds for a call it does not wait for yet.
 *
 * A reference like any other to Erlang, so it can stand in the reply; to the library it
 * carries the request's token, so that it can be cancelled.
 */
#ifndef EP_TICKET_H
#define EP_TICKET_H

#include <erl_nif.h>
#include <stdbool.h>
#include <stdint.h>

bool ticket_setup(ErlNifEnv *env, ErlNifResourceFlags flags);

/* A new one, the calling process's. */
ERL_NIF_TERM ticket_make(ErlNifEnv *env);

/* Does nothing when term is no ticket. */
void ticket_set_token(ErlNifEnv *env, ERL_NIF_TERM term, uint64_t token);

/* *token is 0 as long as it has none; *is_own: the calling process made the ticket. False: term is
 * no ticket. */
bool ticket_token(ErlNifEnv *env, ERL_NIF_TERM term, uint64_t *token, bool *is_own);

#endif
