/*
 * request - one call, eval or exec, with its deadline, its owner and exactly one reply.
 *
 * Requests live in a slab that is never given back, so a token (generation and
 * index, a small integer in Erlang) can be looked up at any time: a stale one
 * finds another generation. Each scheduler thread keeps a free list of its own;
 * an ended request goes back to the list it came from. So neither memory nor an
 * environment is allocated per call once warm, and no line is shared.
 *
 *   free --request_publish--> waiting --slots--> queued --executor--> running --request_end--> free
 *                            \________________\_____________________\__ request_answer (once)
 *
 * The phase and the `answered` bit share one atomic with the generation: who sets
 * the bit, and nobody else, sends the reply.
 */
#ifndef EP_REQUEST_H
#define EP_REQUEST_H

#define REQUEST_INDEX_BITS 24 /* of a token; the generation is above */

#include "queue.h"

#include <erl_nif.h>
#include <stdbool.h>
#include <stdint.h>

struct context;
struct namespace;
struct owner;
struct callback;

/* What an executor's worker serves. */
typedef enum {
    JOB_REQUEST,
    JOB_INTERRUPT,
    JOB_DRAIN,
    JOB_DROP,
    JOB_COMPLETION,
    JOB_CLOSE_LOOP
} job_kind_t;

typedef struct {
    queue_node_t node;
    job_kind_t kind;
} job_t;

typedef enum { OP_CALL, OP_EVAL, OP_EXEC, OP_ACQUIRE } request_op_t;

typedef enum { PHASE_FREE, PHASE_WAITING, PHASE_QUEUED, PHASE_RUNNING } request_phase_t;

/* Options of a request, as py_request.erl encodes them. */
enum {
    FLAG_TRACEBACK = 1 << 0,
    FLAG_AS_HANDLE = 1 << 1,
    FLAG_UNKNOWN_REPR = 1 << 2,
    FLAG_UNKNOWN_ERROR = 1 << 3,
    FLAG_BINARY_BYTES = 1 << 4,
    FLAG_BINARY_STR = 1 << 5,
    FLAG_OVERLOAD_FAIL = 1 << 6, /* answer at once when the limit is reached */
    FLAG_ERRORS_ONLY = 1 << 7,   /* cast: only a failure is reported */
    FLAG_RESPONSE = 1 << 8,      /* reply {py_response, Ref, Result} */
    FLAG_IMPLICIT = 1 << 9,      /* no explicit context: may be placed elsewhere */
    FLAG_PLACING = 1 << 10,      /* the process's first code: look at its imports */
    FLAG_ERRAND = 1 << 11,       /* made under a thread that serves no request: needs no seat */
    FLAG_ANY_EXECUTOR = 1 << 12, /* needs neither context nor namespace */
    FLAG_ASYNC = 1 << 13,        /* an awaitable result goes to the event loop */
    FLAG_ARRAYS = 1 << 14,       /* buffers of numbers become {ndarray, ...} */
    FLAG_MAY_INLINE = 1 << 15,   /* may run on its caller's scheduler (inline.h) */
    FLAG_INLINE = 1 << 16        /* does: the scheduler returns the result */
};

typedef struct request {
    job_t job; /* first: a queue's node is the request */
    _Atomic uint64_t state;
    uint32_t index;
    struct cache *home; /* the free list it goes back to */
    uint32_t flags;
    uint32_t depth; /* callbacks above it */
    request_op_t op;
    _Atomic int64_t deadline; /* clock_now() time */
    _Atomic int64_t patience; /* the same, as long as it stands in line; no later than deadline */
    _Atomic int64_t armed;    /* when the timer looks at it, in ms; no later than need be */
    int64_t started;
    ErlNifEnv *env; /* holds all terms below */
    bool is_light;  /* env holds little besides reference: the reply may carry it along */
    ERL_NIF_TERM reference;
    ERL_NIF_TERM target; /* module or handle; source for eval and exec */
    ERL_NIF_TERM function;
    ERL_NIF_TERM arguments; /* list; locals map for eval */
    ERL_NIF_TERM keywords;  /* map or list of pairs */
    ErlNifPid reply_to;
    struct owner *owner;                 /* kept; NULL for casts */
    struct context *context;             /* kept */
    struct namespace *namespace;         /* kept, or NULL */
    _Atomic(struct executor *) executor; /* borrowed: executors are never given back to the heap */
    bool interrupted;                    /* guarded by the seat's lock */
    atomic_int parts;                    /* how many request_end are to come: 2 once deferred */
} request_t;

bool request_setup(void);

/* A request with a cleared env that nobody finds before request_publish; NULL when memory is
 * short. */
request_t *request_new(void);

/* Its fields are set: from now on its token finds it, waiting. (At another phase: request_set_phase.) */
void request_publish(request_t *request);

/* It was given a slot; request_clear_slot is true for the one who is to give that back. */
void request_set_slot(request_t *request);
bool request_clear_slot(request_t *request, uint64_t token);

/* Visits all requests that have not ended; others may end them meanwhile, so visit may compare
 * pointers but must claim the token before it reads further. */
void request_each(void (*visit)(request_t *request, uint64_t token, void *argument),
                  void *argument);

uint64_t request_token(const request_t *request);

/* The request of a token, of which only the index counts; it may have ended meanwhile. NULL: never
 * existed. */
request_t *request_find(uint64_t token);

void request_set_phase(request_t *request, request_phase_t phase);

request_phase_t request_phase(request_t *request);

/* The right to answer: true once, while the token's generation lives. *phase is where it
 * was found (PHASE_FREE: ended, or another generation). */
bool request_answer(request_t *request, uint64_t token, request_phase_t *phase);

/* request_answer that also keeps the request from ending, so that another thread than its
 * server may read what it holds and send. request_unhold must follow. */
bool request_hold(request_t *request, uint64_t token, request_phase_t *phase);
void request_unhold(request_t *request);

/* The same for a request that still stands in line; else nothing happens. */
bool request_hold_waiting(request_t *request, uint64_t token);

bool request_is_answered(request_t *request);

/* Whether the token's request has not ended. */
bool request_is_alive(request_t *request, uint64_t token);

/* Around code on a scheduler that may send replies: enif_send wants to know the
 * calling environment there, and must not be given one on our own threads. */
void request_enter_scheduler(ErlNifEnv *env);
void request_leave_scheduler(void);
ErlNifEnv *request_scheduler_env(void); /* NULL on our own threads */

/* Sends the reply in `env` (cleared by it; the request's own or another one that
 * holds `result`). Only who won request_answer calls it. */
void request_send(request_t *request, ErlNifEnv *env, ERL_NIF_TERM result);

/* Its Python code goes on without its server (deferred.h): it ends with the second request_end. */
void request_defer(request_t *request);
/* As if nothing had happened; by its server. */
void request_undefer(request_t *request);
bool request_is_deferred(request_t *request);

/* Lets go of everything and returns the request to its free list, at once or, while it is held,
 * at request_unhold. */
void request_end(request_t *request);

/* The same by the thread that made it, for one whose owner, context and namespace were not kept and whose
 * env is empty: waits until nobody holds it. */
void request_end_borrowed(request_t *request);

#endif
