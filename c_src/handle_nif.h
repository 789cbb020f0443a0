/*
 * handle_nif - the side of handles that schedulers see: their resource type, and
 * where the object behind one lives. See handle.h for the Python side.
 */
#ifndef EP_HANDLE_NIF_H
#define EP_HANDLE_NIF_H

#include <erl_nif.h>
#include <stdbool.h>

typedef enum {
    HANDLE_PLACE_MAIN,         /* in main, any of its threads will do */
    HANDLE_PLACE_MAIN_CONTEXT, /* in main, best in its context */
    HANDLE_PLACE_CONTEXT,
    HANDLE_PLACE_GONE
} handle_place_t;

bool handle_setup(ErlNifEnv *env, ErlNifResourceFlags flags);

bool handle_is(ErlNifEnv *env, ERL_NIF_TERM term);

/* Where the handle's object lives; *pid is the context's process for
 * HANDLE_PLACE_CONTEXT and HANDLE_PLACE_MAIN_CONTEXT. False: not a handle. Any thread, no GIL. */
bool handle_process(ErlNifEnv *env, ERL_NIF_TERM term, handle_place_t *place, ErlNifPid *pid);

#endif
