/*
 * oracle - what a term must become on its way through Python and back.
 */
#ifndef EP_TEST_ORACLE_H
#define EP_TEST_ORACLE_H

#include "convert.h"

#include <erl_nif.h>
#include <stdbool.h>

typedef struct {
    ERL_NIF_TERM back;  /* the term that comes back */
    bool in_fails;      /* it has no Python object */
    bool out_fails;     /* it has one, which has no term: two keys become one */
    bool has_resources; /* nothing is certain */
} oracle_t;

/* The answer's terms are made in `env`. */
oracle_t oracle_ask(ErlNifEnv *env, ERL_NIF_TERM term, binary_policy_t binaries);

#endif
