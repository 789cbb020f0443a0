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
ERL_NIF_TERM ticket_make(ErlNifEnv *env);

/* The place of the token; NULL when term is no ticket. */
_Atomic uint64_t *ticket_token(ErlNifEnv *env, ERL_NIF_TERM term);

#endif
