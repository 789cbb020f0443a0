/*
 * seat - who serves an executor's requests: one is started at a time.
 *
 * Knows neither Erlang nor Python. A worker is a thread's part in it. The home
 * worker serves every request it can; spares serve only while the home worker is
 * parked or lost. A worker that parks (its request waits for Erlang) gives the
 * seat back; going on never waits for the seat, so a resumed request and one that
 * was started in between overlap. The seat is free when all have ended or wait.
 *
 * Errands are nodes that need no seat and are served by spares at once: nested
 * requests of threads that serve no request, and interrupts. A nested request becomes
 * one when nothing was started for a while: the seat's holder may be waiting for a
 * Python lock whose owner is parked, and that one for the nested request.
 *
 *                  worker_next                    worker_park
 *        +--------> serving ------------------------> parked
 *   idle |            |  | worker_next                  |
 *        +<-----------+  | seat_abandon    worker_resume|
 *                        v                              v
 *                       lost (ends at its next worker_next)   serving
 *
 * Threads: push from any thread. `lock` is a leaf; it may be taken while a GIL is
 * held, because nobody waits for anything while holding it.
 */
#ifndef EP_SEAT_H
#define EP_SEAT_H

#include "queue.h"
#include "thread.h"

typedef struct seat seat_t;

typedef struct worker {
    seat_t *seat;
    parker_t parker; /* where it waits for work */
    spin_t spin;
    struct worker *next;    /* in seat->idle; guarded by seat->lock, like all below */
    struct worker *sibling; /* in seat->all or seat->given_up */
    queue_node_t *current;  /* what it serves; NULL between requests */
    bool is_errand;         /* current needs no seat */
    bool is_idle;
    bool spins; /* it was the home worker when it last looked; for its own thread */
    bool is_parked;
    bool is_lost;  /* given up: nobody waits for it any more */
    bool is_guest; /* of seat_lend */
} worker_t;

struct seat {
    queue_t arriving;
    queue_t nested;    /* goes first */
    _Atomic int awake; /* 1: somebody will look at the queues, a spinning worker too: a push then
                           is nothing but a push */
    pthread_mutex_t lock;
    list_t ready[2]; /* [1]: nested */
    list_t errands;
    worker_t *home;                    /* NULL when it was lost and nobody has its place yet */
    worker_t *idle;                    /* spares that sleep */
    worker_t *all;                     /* every worker that is not lost */
    worker_t *given_up;                /* the lost ones that have not come back */
    int active;                        /* requests started and not parked */
    int workers;                       /* length of all */
    int lost;                          /* length of given_up */
    bool is_closed;                    /* no more pushes */
    bool is_ended;                     /* the home worker has found all served and nobody left */
    bool only_nested;                  /* a new home worker prepares itself: nested nodes only */
    bool wants_spare;                  /* a spare is being made; stops a second one */
    uint64_t starts;                   /* requests taken so far */
    uint64_t starts_seen;              /* when seat_hurry last looked */
    atomic_bool is_watched;            /* seat_hurry will be called */
    int64_t spare_keep;                /* how long an unneeded spare stays, ns */
    bool (*spawn)(seat_t *seat);       /* enters a spare and starts its thread; no lock held */
    void (*spawn_later)(seat_t *seat); /* the same from a thread that must not do it itself */
};

void seat_init(seat_t *seat, bool (*spawn)(seat_t *), void (*spawn_later)(seat_t *));

/* Makes an ended seat usable again; nobody else may use it, but late callers of
 * seat_find may look. */
void seat_open(seat_t *seat);

/* False once the seat is closed. */
bool seat_push(seat_t *seat, queue_node_t *node, bool nested);

/* Gives node to a spare at once. False once the seat is closed. */
bool seat_push_errand(seat_t *seat, queue_node_t *node);

/* True when the caller, who pushed a nested node, has to see to it that seat_hurry is called
 * every few milliseconds. */
bool seat_watch(seat_t *seat);

/* Makes the queued nested requests errands if nothing was started since the last call. False: none
 * are queued, no further call is needed. */
bool seat_hurry(seat_t *seat);

/* Makes somebody call worker_next soon though nothing was pushed. */
void seat_poke(seat_t *seat);

/* Every later push is refused; what is queued is still served. The home worker's
 * worker_wait answers NULL when all is served and all other workers are gone. */
void seat_close(seat_t *seat);

/* Lends the seat to the calling thread, which serves node as `guest`, if the home worker is there,
 * nothing runs, waits or is parked, and the guest is nobody else's: never waits. began(guest, argument)
 * runs under seat->lock before anybody finds node, and may refuse. seat_take_back must follow; ended as
 * in worker_next. */
bool seat_lend(seat_t *seat, worker_t *guest, queue_node_t *node, bool (*began)(worker_t *, void *),
               void *argument);
void seat_take_back(worker_t *guest, void (*ended)(worker_t *));

/* Gives up the thread that serves node, if one does and it is neither parked nor a guest: a spare
 * takes its place. True when a worker was given up. */
bool seat_abandon(seat_t *seat, queue_node_t *node);

/* Gives up all workers at once, because what they work in is stuck. Nodes whose work has not begun
 * (has_begun, called with seat->lock held) go back, first in line. Until seat_admit_all
 * only nested nodes are served, by a home worker that is still to be entered. */
void seat_evict(seat_t *seat, bool (*has_begun)(queue_node_t *node));
void seat_admit_all(seat_t *seat);

/* Whether the worker still serves node: a worker that was evicted before it began does not. */
bool worker_has(worker_t *worker, const queue_node_t *node);

/* The worker that serves node, a lost one too, or NULL. Caller holds seat->lock, so the answer
 * stays true until it unlocks. */
worker_t *seat_find(seat_t *seat, queue_node_t *node);

/* How many nodes wait to be served; walks them. Caller holds seat->lock: only its holder takes. */
size_t seat_waiting(seat_t *seat);

/* Enters a worker as the home worker (is_home) or as a spare, before or on its own
 * thread. False once the seat has ended. */
bool worker_enter(worker_t *worker, seat_t *seat, bool is_home);
void worker_leave(worker_t *worker);

/* Ends what the worker serves and takes the next node if it may; never waits.
 * NULL: nothing to do now, worker_wait must follow, unless `*ends`: the thread was given up.
 * ended(worker), if given, runs under seat->lock before the node is let go. */
queue_node_t *worker_next(worker_t *worker, void (*ended)(worker_t *), bool *ends);

/* Waits for the next node. NULL: the thread is to end. Call detached. */
queue_node_t *worker_wait(worker_t *worker);

/* Gives the seat back while the request waits. False, and nothing changed, when no
 * thread could be had to serve meanwhile. Call detached. */
bool worker_park(worker_t *worker);
void worker_resume(worker_t *worker);

#endif
