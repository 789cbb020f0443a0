#include "giveway.h"

#if PY_VERSION_HEX >= 0x030C0000 && PY_VERSION_HEX < 0x030D0000

#    include "interp.h"
#    include "thread.h"
#    include "timer.h"

#    include <stdlib.h>
#    include <time.h>

#    define TURN_NS     INT64_C(5000000)   /* how long one may have the GIL when others wait */
#    define REST_NS     INT64_C(100000000) /* the longest pause, between two looks at an idle GIL */
#    define STEP_NS     100000             /* of the holder that waits: enough for others to wake */
#    define MEMBER_NAME "erlang_python.giveway"

/* Exported by libpython 3.12, declared in an internal header. Thread-safe, needs no GIL; the call
 * is made between two bytecodes by a thread of the interpreter. */
extern int _PyEval_AddPendingCall(PyInterpreterState *interp, int (*call)(void *), void *argument,
                                  int is_for_main_thread);

/* An interpreter that joined. It leaves when CPython clears its dict, which is after the last
 * of its modules; one that is left behind with threads inside stays. */
typedef struct member {
    PyInterpreterState *interp;
    bool is_asked; /* the call is in the interpreter's queue */
    struct member *next;
} member_t;

/* Guards members. Below it only the lock of a queue of pending calls is taken, under which CPython
 * waits for nothing either. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static member_t *members;
static parker_t bed;              /* the watcher's */
static atomic_uint_fast64_t line; /* which time the watcher stands in line, 0: it does not */

atomic_bool giveway_is_resting;

static bool is_in_line(uint64_t turn)
{
    return turn != 0 && atomic_load(&line) == turn;
}

/* ---- who holds it ---- */

static void answer(PyInterpreterState *interp)
{
    pthread_mutex_lock(&lock);
    for (member_t *member = members; member != NULL; member = member->next)
        if (member->interp == interp)
            member->is_asked = false;
    pthread_mutex_unlock(&lock);
}

/* The pending call. It comes late if the interpreter did nothing at the time: then nobody waits
 * any more. The watcher is certain to come, unless somebody else takes the GIL and keeps it for
 * a turn, so nobody is waited for in vain. */
static int give_way(void *unused)
{
    uint64_t turn = atomic_load(&line);
    int64_t end = clock_now() + TURN_NS;
    struct timespec step = {0, STEP_NS};
    PyThreadState *thread;

    (void)unused;
    answer(PyInterpreterState_Get());
    if (!is_in_line(turn))
        return 0;
    thread = PyEval_SaveThread();
    do
        nanosleep(&step, NULL);
    while (is_in_line(turn) && clock_now() < end);
    PyEval_RestoreThread(thread);
    return 0;
}

/* ---- who asks ---- */

static bool is_wanted(uint64_t turn)
{
    return is_in_line(turn);
}

static void ask(uint64_t turn)
{
    if (!is_in_line(turn))
        return;
    pthread_mutex_lock(&lock);
    for (member_t *member = members; member != NULL; member = member->next)
        if (!member->is_asked)
            member->is_asked = _PyEval_AddPendingCall(member->interp, give_way, NULL, 0) == 0;
    pthread_mutex_unlock(&lock);
    timer_arm(clock_now() + TURN_NS, ask, is_wanted, turn);
}

/* ---- who waits ---- */

/* Takes the GIL once and gives it back; how long that took. */
static int64_t stand_in_line(PyThreadState *thread, uint64_t turn)
{
    int64_t start = clock_now();

    atomic_store(&line, turn);
    timer_arm(start + TURN_NS, ask, is_wanted, turn);
    interp_enter_gil(interp_main());
    PyEval_RestoreThread(thread);
    atomic_store(&line, 0);
    PyEval_SaveThread();
    interp_leave_gil(interp_main());
    return clock_now() - start;
}

static void watch(void *argument)
{
    PyThreadState *thread = argument;
    int64_t pause = TURN_NS;

    for (uint64_t turn = 1;; turn++) {
        atomic_store(&giveway_is_resting, pause >= REST_NS);
        if (parker_wait(&bed, clock_now() + pause)) {
            pause = TURN_NS;
            parker_wait(&bed, clock_now() + pause);
        }
        pause = stand_in_line(thread, turn) >= TURN_NS ? TURN_NS : 2 * pause;
        if (pause > REST_NS)
            pause = REST_NS;
    }
}

void giveway_wake(void)
{
    if (atomic_exchange(&giveway_is_resting, false))
        parker_notify(&bed);
}

/* ---- who takes part ---- */

/* Starts the watcher, once. GIL: held. */
static bool start(void)
{
    static PyThreadState *thread; /* one attempt at a time: under the GIL */
    static bool is_started;

    if (thread == NULL) {
        parker_init(&bed);
        thread = interp_thread_new(interp_main());
    }
    if (thread != NULL && !is_started)
        is_started = thread_start("py:giveway", watch, thread);
    if (!is_started)
        PyErr_SetString(PyExc_RuntimeError, "no thread that gives turns at the GIL");
    return is_started;
}

static void leave(PyObject *capsule)
{
    member_t *member = PyCapsule_GetPointer(capsule, MEMBER_NAME);
    member_t **at = &members;

    pthread_mutex_lock(&lock);
    while (*at != member)
        at = &(*at)->next;
    *at = member->next;
    pthread_mutex_unlock(&lock);
    free(member);
}

/* Enters a member; the capsule whose end takes it out. */
static PyObject *enter(void)
{
    member_t *member = calloc(1, sizeof(*member));
    PyObject *capsule;

    if (member == NULL)
        return PyErr_NoMemory();
    member->interp = PyInterpreterState_Get();
    capsule = PyCapsule_New(member, MEMBER_NAME, leave);
    if (capsule == NULL) {
        free(member);
        return NULL;
    }
    pthread_mutex_lock(&lock);
    member->next = members;
    members = member;
    pthread_mutex_unlock(&lock);
    return capsule;
}

bool giveway_join(void)
{
    PyObject *dict = PyInterpreterState_GetDict(PyInterpreterState_Get()); /* borrowed */
    PyObject *capsule = NULL;
    bool ok = false;

    if (dict == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    if (!start())
        goto done;
    capsule = enter();
    ok = capsule != NULL && PyDict_SetItemString(dict, MEMBER_NAME, capsule) == 0;
done:
    Py_XDECREF(capsule);
    return ok;
}

#endif
