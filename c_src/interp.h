/*
 * interp - CPython interpreters: the main one, and sub-interpreters with the
 * shared or with their own GIL.
 *
 * The main interpreter is initialised once per VM on a thread of its own and
 * never finalised. A sub-interpreter is created and ended by its executor's home
 * thread. Every kind goes through the same bootstrap (erlang._bootstrap.setup).
 *
 *   interp_main_start -> main, for ever
 *   interp_create -> open -(interp_end)-> ended, or left behind when threads remain
 *
 * A handle or namespace may outlive its interpreter, so the struct is counted.
 * What they drop is linked into `drops` from any thread and released by the
 * interpreter's own threads; after the end only the nodes are freed.
 */
#ifndef EP_INTERP_H
#define EP_INTERP_H

#include "module.h"
#include "queue.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct seat;

typedef enum { INTERP_MAIN, INTERP_SHARED_GIL, INTERP_OWN_GIL } interp_kind_t;

/* Who uses a GIL, as far as the library knows: threads that hold it or are about to take it. */
typedef struct {
    atomic_int users;
    _Atomic uint64_t quiet_at; /* threads Python had started when it last had none left here */
} gil_t;

/* A reference to be dropped; allocated with what holds it. */
typedef struct {
    queue_node_t node;
    PyObject *object;
    bool is_block; /* one block of memory that refers to nothing: a large bytes or str */
} drop_t;

typedef struct interp {
    atomic_int references;
    interp_kind_t kind;
    int64_t id; /* Python's own id; stable after creation */
    PyInterpreterState *state;
    gil_t *gil; /* the main interpreter's, or own_gil */
    gil_t own_gil;
    struct interp *sibling; /* in the list of those that share the main interpreter's */
    atomic_int threads;     /* thread states that the library made in it */
    module_state_t *module; /* owned by the interpreter's module `_erlang` */
    queue_t drops;
    pthread_mutex_t lock; /* leaf */
    struct seat *seat;    /* who empties drops; NULL when nobody does. Guarded by lock */
    queue_node_t *drain;  /* pushed to seat when there is something to drop */
    atomic_bool is_drain_queued;
    bool is_ended;             /* guarded by lock */
    atomic_bool is_gone;       /* ended, and not left behind */
    const void *user;          /* ErlNifPid of the context, for routing handles. Guarded by lock */
    char *_Atomic gil_culprit; /* owned; set once, see interp_blame_for_gil */
} interp_t;

typedef struct {
    const char *package_dir; /* where the package `erlang` lies */
    const char *virtual_env; /* VIRTUAL_ENV or NULL */
} interp_config_t;

/* Starts the main interpreter, at the first call; waits until it runs. False with a
 * sentence in error. Not on a scheduler thread. */
bool interp_main_start(const interp_config_t *config, char *error, size_t size);

/* The main interpreter; borrowed, NULL before interp_main_start. */
interp_t *interp_main(void);

/* Makes the VM's exit end right after stdio is flushed, before the exit handlers of libraries
 * that were loaded so far: those would pull the ground from under our running threads. To be
 * called after a library with exit handlers may have been loaded. */
void interp_guard_exit(void);

/* What this CPython can do. */
bool interp_supports_subinterpreters(void); /* 3.12+ */
bool interp_is_free_threaded(void);

/* Creates a sub-interpreter on the calling thread, which ends up detached; *thread is
 * the thread's permanent state in it. NULL with a sentence in error. */
interp_t *interp_create(interp_kind_t kind, PyThreadState **thread, char *error, size_t size);

/* Ends it, on its home thread, attached through `thread`; afterwards detached. False:
 * other threads are still inside, so it was left behind (ending it would abort). */
bool interp_end(interp_t *interp, PyThreadState *thread);

/* Marks it as ended for handles, without touching it: its threads are stuck. */
void interp_leave_behind(interp_t *interp);

interp_t *interp_acquire(interp_t *interp);
void interp_release(interp_t *interp);

/* A permanent thread state for the calling thread; NULL when memory is short. */
PyThreadState *interp_thread_new(interp_t *interp);
/* Deletes it; attached through it before, detached afterwards. */
void interp_thread_delete(interp_t *interp, PyThreadState *thread);

/* Around each attachment to the interpreter, before and after: whoever wants to attach without waiting
 * has to know who else does. On a free-threaded build nobody waits, and nothing is counted. */
static inline void interp_enter_gil(interp_t *interp)
{
#ifndef Py_GIL_DISABLED
    atomic_fetch_add(&interp->gil->users, 1);
#else
    (void)interp;
#endif
}

static inline void interp_leave_gil(interp_t *interp)
{
#ifndef Py_GIL_DISABLED
    atomic_fetch_sub(&interp->gil->users, 1);
#else
    (void)interp;
#endif
}

/* interp_enter_gil if then nobody has to be waited for: no other user, and no thread of Python's since
 * interp_look_for_threads found none. */
bool interp_claim_gil(interp_t *interp);

/* Python is about to start a thread, wherever. */
void interp_note_thread(void);

/* Looks whether threads that Python started are left in the interpreters that have this one's GIL.
 * GIL: held. */
void interp_look_for_threads(interp_t *interp);

/* Links a reference to be dropped by a thread of the interpreter; of one that is gone, only blocks
 * are freed. Any thread, no GIL; takes drop (freed later). */
void interp_drop(interp_t *interp, drop_t *drop);

/* Releases what was linked. GIL: held. */
void interp_drain(interp_t *interp);

/* Releases a list of drops. GIL: held. */
void interp_release_drops(queue_t *drops);

/* Names the seat that gets `drain` pushed when something is dropped, unless there is one. */
void interp_set_seat(interp_t *interp, struct seat *seat, queue_node_t *drain, const void *user);
void interp_unset_seat(interp_t *interp, struct seat *seat);

/* Free-threaded builds: remembers the module whose import switched the interpreter's GIL on, for
 * good. False if one was named before, or memory is short. */
bool interp_blame_for_gil(interp_t *interp, const char *module);
/* That name, or NULL; valid as long as the interpreter is kept. Any thread, no GIL. */
const char *interp_gil_culprit(interp_t *interp);

/* Runs erlang._bootstrap.<name>(argument) in the main interpreter from a thread that is
 * detached; *result is its truth. GIL: none held. False if it raised. */
bool interp_run_in_main(const char *name, const char *argument);

#endif
