/*
 * executor - a seat (who serves) joined to an interpreter (where), and its threads.
 *
 * The one engine: every mode is an executor whose threads attach to this or that
 * interpreter. Its home thread creates and ends the interpreter; spare threads are
 * started when the home thread parks. Executors are recycled, never given back to
 * the heap: whoever finds one through a stale request locks a real seat and finds
 * that the request is not there.
 *
 * GIL: functions here are called without one unless they say so.
 */
#ifndef EP_EXECUTOR_H
#define EP_EXECUTOR_H

#include "handle.h"
#include "interp.h"
#include "request.h"
#include "seat.h"
#include "slots.h"

#include <erl_nif.h>

struct callback;
struct executor;

/* A function that was called by atoms, with what finds it again without a search. */
typedef struct {
    ERL_NIF_TERM target; /* 0: unused */
    ERL_NIF_TERM function;
    PyObject *module_name;
    PyObject *module; /* what sys.modules had under that name */
    PyObject *name;
} known_function_t;

#define KNOWN_FUNCTIONS 64 /* a power of two */

/* A thread's part in an executor. */
typedef struct pyworker {
    worker_t worker; /* first: a worker is its pyworker */
    struct executor *executor;
    interp_t *interp; /* written under seat->lock */
    PyThreadState *thread;
    bool is_attached;
    bool is_home;
    unsigned long thread_id; /* Python's ident, for asynchronous exceptions */
    bool was_interrupted;    /* an asynchronous exception was set; guarded by seat->lock */
    request_t *request;      /* what it serves */
    int64_t parked_ns;       /* how long its request has waited for Erlang */
    int64_t now;             /* clock when the last one ended, or since it is attached */
    struct callback *waits;  /* for what it is parked; guarded by seat->lock */
    parker_t reply_parker;   /* where it waits for that */
    spin_t reply_spin;
    ErlNifEnv *env;                          /* for replies */
    known_function_t known[KNOWN_FUNCTIONS]; /* callable.c; direct-mapped */
    unsigned names_seen; /* callable.c; the main-only packages there were when they were found */
} pyworker_t;

typedef struct executor {
    seat_t seat;           /* first: a seat is its executor */
    struct executor *next; /* in the list of all; never unlinked */
    atomic_int references;
    interp_kind_t kind;
    _Atomic(interp_t *) interp; /* NULL until the home thread has it, and while it is replaced */
    _Atomic int64_t
        knocks_since; /* since when somebody waits to attach for an interrupt; 0: nobody */
    job_t drain;      /* queued when something is to be dropped in the interpreter */
    queue_t drops;    /* free-threaded builds: what was made here, see executor_drop */
    job_t drop;       /* queued when there are drops */
    atomic_bool is_drop_queued;
    char name[16];
    _Atomic int64_t calls; /* written by the server only */
    _Atomic int64_t errors;
    _Atomic int64_t busy_ns;
    _Atomic int64_t inlined; /* calls that ran on their caller's scheduler; not among `calls` */
    pyworker_t guest; /* the part of a scheduler that has the seat (inline.h), for one at a time */
    ErlNifPid report_to; /* the context's process; gets {py_opened, Tag, ...} */
    ErlNifEnv *report_env;
    ERL_NIF_TERM report_tag;
} executor_t;

/* All executors that ever were, linked by next; some are not in use. */
executor_t *executor_first(void);

/* Opens an executor; `tag` (in env) goes to the calling process in {py_opened, Tag, ok |
 * {error, Binary}} when it serves. NULL when no thread is to be had. */
executor_t *executor_open(ErlNifEnv *env, interp_kind_t kind, const char *name, ERL_NIF_TERM tag);

/* Gives the executor a new interpreter, because the GIL of its own does not come free: its threads are
 * given up, running requests answered `{context_down, replaced}`, the others wait. The context's
 * process gets {py_replaced} and ends the preparation with executor_prepared. */
void executor_replace(executor_t *executor);
void executor_prepared(executor_t *executor);

/* What is queued is still answered; then the home thread ends the interpreter. */
void executor_close(executor_t *executor);
executor_t *executor_acquire(executor_t *executor);
void executor_release(executor_t *executor);

/* The pool of mode multi_executor. */
#define EXECUTOR_POOL_MAX 256

void executor_pool_add(executor_t *executor);
void executor_pool_close(void);
/* The next one, round-robin; NULL before the pool was started. */
executor_t *executor_pool_next(void);

/* Links a reference to be dropped by this executor's threads. On a free-threaded build an object belongs
 * to the thread that made it: dropped elsewhere it stays until that thread runs again. The executor is
 * kept by the caller. Any thread, no GIL. */
void executor_drop(executor_t *executor, drop_t *drop);

/* What handles need of executors. */
extern const handle_makers_t executor_makers;

/* Gives what another executor of the main interpreter leaves behind to one that goes on. */
void executor_adopt_drops(void);

/* Fills parts[11]: interpreter id, calls, errors, busy ns, threads, lost threads, {running
 * request's token, ns} | undefined, parked, queued, the module that brought the GIL back, calls that ran
 * inline. */
void executor_info(executor_t *executor, ErlNifEnv *env, ERL_NIF_TERM *parts);

/* Sets the process that gets {py_event, What} (threads given up, interpreters left). */
void executor_set_event_process(const ErlNifPid *pid);

/* Sends {py_event, {What, Name}} to it, Name a binary. */
void executor_send_event(ERL_NIF_TERM what, const char *name);

/* The pyworker of the calling thread, or NULL on a thread that serves no request. */
pyworker_t *pyworker_self(void);
void pyworker_set_self(pyworker_t *self);

/* Attaches or detaches the calling worker's thread (its GIL). */
void pyworker_attach(pyworker_t *self);
void pyworker_detach(pyworker_t *self);

#endif
