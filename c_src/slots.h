/*
 * slots - the rate limit: a counting semaphore whose line is in C.
 *
 * It is the request that stands in line, not its caller. First come, first served;
 * nested requests (made by a callback) have a line of their own that goes first,
 * so that a chain never waits behind requests that have not started.
 *
 * A slot is taken at admission and given back when the request's work ends; a
 * parked request gives it back early and takes one again without waiting, and nested
 * requests start without waiting when nothing in line has started for a while: who holds
 * the slots may be waiting for them. So the count may pass the maximum for a moment.
 *
 *   slots_admit --> admitted: the caller goes on
 *              \--> in line  --(slots_advance)--> start(node) on the advancing thread
 *
 * Threads: all from any thread. `lock` is a leaf held for a few instructions, and by slots_forget for
 * a walk along the line; wanted() may be called with it, start() and dropped() are not.
 */
#ifndef EP_SLOTS_H
#define EP_SLOTS_H

#include "queue.h"

#include <pthread.h>
#include <stdint.h>

typedef struct {
    _Atomic int64_t count; /* slots taken */
    _Atomic int64_t max;
    _Atomic int64_t waiting; /* nodes in both lines */
    _Atomic int64_t dead;    /* of them not wanted any more, at most */
    queue_t arriving[2];     /* [1]: nested, goes first */
    pthread_mutex_t lock;
    list_t line[2];                      /* guarded by lock */
    uint64_t starts;                     /* from the line; guarded by lock */
    uint64_t starts_seen;                /* when slots_hurry last looked; guarded by lock */
    atomic_bool is_watched;              /* slots_hurry will be called */
    bool (*wanted)(queue_node_t *node);  /* false: cancelled meanwhile, needs no slot */
    void (*start)(queue_node_t *node);   /* has a slot now */
    void (*dropped)(queue_node_t *node); /* was not wanted any more */
} slots_t;

void slots_init(slots_t *slots, int64_t max, bool (*wanted)(queue_node_t *),
                void (*start)(queue_node_t *), void (*dropped)(queue_node_t *));

/* Takes a slot (true), or puts node in line (false; start comes later). */
bool slots_admit(slots_t *slots, queue_node_t *node, bool nested);

/* Takes a slot if one is free and nobody waits for it. */
bool slots_try(slots_t *slots);

/* Takes a slot whatever the count: a parked request that goes on. */
void slots_retake(slots_t *slots);

/* Gives a slot back. slots_advance must follow; between the two the caller may
 * send its reply. */
void slots_release(slots_t *slots);

/* Starts those in line for whom there is room. */
void slots_advance(slots_t *slots);

/* True when the caller, whose nested node was put in line, has to see to it that slots_hurry is
 * called every few milliseconds. */
bool slots_watch(slots_t *slots);

/* Starts the nested requests in line, room or not, if nothing was started since the last call.
 * False: none are in line, no further call is needed. */
bool slots_hurry(slots_t *slots);

/* A node in line is not wanted any more. When more than half of a long line is dead, the dead leave it:
 * they hold arguments, and no slot may come free for long. */
void slots_forget(slots_t *slots);

void slots_set_max(slots_t *slots, int64_t max);

#endif
