/*
 * owner - an Erlang process that calls Python, for the time it lives.
 *
 * Made at the process's first call and kept in its dictionary; carries the one
 * monitor. When the process dies its running requests are interrupted, queued ones
 * dropped when they come up, and slots it took by hand are given back. Callback
 * processes are owners of their own.
 *
 * A NIF resource: the process dictionary and every request of it hold a reference.
 */
#ifndef EP_OWNER_H
#define EP_OWNER_H

#include <erl_nif.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define OWNER_RECENT 4

typedef struct owner {
    ErlNifPid pid;
    atomic_bool is_dead;
    atomic_int requests;                   /* that hold a reference: nothing to look for at 0 */
    atomic_int slots;                      /* py_semaphore:acquire/1 */
    _Atomic uint64_t recent[OWNER_RECENT]; /* tokens of its last requests */
    atomic_uint next_recent;               /* how many there were */
} owner_t;

bool owner_setup(ErlNifEnv *env, ErlNifResourceFlags flags);

/* A term for a new owner that watches the calling process; Python is told it is `pid` (NULL: that
 * process itself). Scheduler threads only. */
ERL_NIF_TERM owner_make(ErlNifEnv *env, const ErlNifPid *pid);

/* The owner behind a term; borrowed; NULL if it is something else. */
owner_t *owner_get(ErlNifEnv *env, ERL_NIF_TERM term);

/* A request's reference. Release takes NULL. */
owner_t *owner_acquire(owner_t *owner);
void owner_release(owner_t *owner);

/* Remembers a request's token, so that it is found when the process dies. */
void owner_note(owner_t *owner, uint64_t token);

/* How many requests there were, as far as that matters. */
int owner_last(owner_t *owner);

#endif
