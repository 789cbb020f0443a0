#include "interp.h"

#include "giveway.h"
#include "guard.h"
#include "pycompat.h"
#include "seat.h"
#include "thread.h"

#include <dlfcn.h>
#if defined(__GLIBC__)
#    include <malloc.h>
#endif
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    const interp_config_t *config;
    pthread_mutex_t lock;
    pthread_cond_t done;
    bool is_done;
    bool ok;
    char *error;
    size_t size;
} start_t;

static interp_t *main_interp;

/* Creation and ending of sub-interpreters are serialised: a turn each, waited for only while detached.
 * What CPython runs of users' code while it takes an interpreter apart cannot be interrupted; after
 * LIFE_PATIENCE the others go on without waiting for it. */
#define LIFE_PATIENCE INT64_C(5000000000)
static struct {
    pthread_mutex_t lock;
    pthread_cond_t is_free;
    uint64_t turn; /* whose turn it is, 0: nobody's */
    uint64_t turns;
    int64_t since;
} life = {.lock = PTHREAD_MUTEX_INITIALIZER, .is_free = PTHREAD_COND_INITIALIZER};
static atomic_bool has_anchors;

static void life_wait(void)
{
    struct timespec soon;

    clock_gettime(CLOCK_REALTIME, &soon); /* steps of a second: a clock that is set does no harm */
    soon.tv_sec += 1;
    pthread_cond_timedwait(&life.is_free, &life.lock, &soon);
}

static uint64_t life_enter(void)
{
    uint64_t turn;

    pthread_mutex_lock(&life.lock);
    while (life.turn != 0 && clock_now() < life.since + LIFE_PATIENCE)
        life_wait();
    turn = life.turn = ++life.turns;
    life.since = clock_now();
    pthread_mutex_unlock(&life.lock);
    return turn;
}

static void life_leave(uint64_t turn)
{
    pthread_mutex_lock(&life.lock);
    if (life.turn == turn) {
        life.turn = 0;
        pthread_cond_signal(&life.is_free);
    }
    pthread_mutex_unlock(&life.lock);
}

bool interp_supports_subinterpreters(void)
{
    return PY_VERSION_HEX >= 0x030C0000;
}

bool interp_is_free_threaded(void)
{
#ifdef Py_GIL_DISABLED
    return true;
#else
    return false;
#endif
}

interp_t *interp_main(void)
{
    return main_interp;
}

static interp_t *new_interp(interp_kind_t kind)
{
    interp_t *interp = calloc(1, sizeof(*interp));

    if (interp == NULL)
        return NULL;
    atomic_init(&interp->references, 1);
    interp->kind = kind;
    interp->gil = kind == INTERP_SHARED_GIL ? main_interp->gil : &interp->own_gil;
    queue_init(&interp->drops);
    pthread_mutex_init(&interp->lock, NULL);
    return interp;
}

interp_t *interp_acquire(interp_t *interp)
{
    atomic_fetch_add(&interp->references, 1);
    return interp;
}

/* Whether Python takes a large block from its raw allocator, which needs no interpreter to free it. */
static bool has_raw_blocks;

static bool finds_raw_blocks(void)
{
#ifdef Py_GIL_DISABLED
    return false;
#else
    PyMemAllocatorEx objects;

    PyMem_GetAllocator(PYMEM_DOMAIN_OBJ, &objects);
    return objects.ctx == NULL && getenv("PYTHONMALLOC") == NULL; /* no debug hooks, the default */
#endif
}

/* Of an interpreter that is gone: its objects went with it, but for blocks that were kept. */
static void free_drop(drop_t *drop)
{
    if (drop->is_block && has_raw_blocks)
        PyMem_RawFree(drop->object);
    free(drop);
}

static void free_drops(interp_t *interp)
{
    list_t list;
    queue_node_t *node;

    list_init(&list);
    queue_take(&interp->drops, &list);
    while ((node = list_pop(&list)) != NULL) {
        ((drop_t *)node)->is_block &= atomic_load(&interp->is_gone);
        free_drop((drop_t *)node);
    }
}

void interp_release(interp_t *interp)
{
    if (interp == NULL || atomic_fetch_sub(&interp->references, 1) != 1)
        return;
    free_drops(interp);
    free(atomic_load(&interp->gil_culprit));
    pthread_mutex_destroy(&interp->lock);
    free(interp);
}

/* Writes "what: Class: message" of the pending exception to error and clears it. */
static void describe_exception(const char *what, char *error, size_t size)
{
    PyObject *type;
    PyObject *value;
    PyObject *trace;
    PyObject *text = NULL;
    const char *utf8 = NULL;

    PyErr_Fetch(&type, &value, &trace);
    PyErr_NormalizeException(&type, &value, &trace);
    if (value != NULL)
        text = PyObject_Str(value);
    if (text != NULL)
        utf8 = PyUnicode_AsUTF8(text);
    snprintf(error, size, "%s: %s: %s", what,
             type != NULL ? ((PyTypeObject *)type)->tp_name : "no exception",
             utf8 != NULL ? utf8 : "");
    PyErr_Clear();
    Py_XDECREF(text);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(trace);
}

/* Puts directory first on sys.path. */
static bool prepend_path(const char *directory)
{
    PyObject *path = PySys_GetObject("path"); /* borrowed */
    PyObject *entry = PyUnicode_DecodeFSDefault(directory);
    bool ok = path != NULL && entry != NULL && PyList_Insert(path, 0, entry) == 0;

    Py_XDECREF(entry);
    return ok;
}

static char *package_dir; /* set once by interp_main_start */

/* The one bootstrap of every interpreter. GIL: held. */
static bool bootstrap(interp_t *interp)
{
    static const char *const kinds[] = {"main", "shared_gil", "own_gil"};
    PyObject *module = NULL;
    PyObject *setup = NULL;
    PyObject *result = NULL;

    interp->state = PyInterpreterState_Get();
    atomic_store(&interp->threads, 1); /* the calling one */
    interp->id = PyInterpreterState_GetID(interp->state);
    if (!prepend_path(package_dir))
        goto done;
    module = PyImport_ImportModule("_erlang");
    if (module == NULL)
        goto done;
    interp->module = module_state(module);
    interp->module->interp = interp;
    setup = PyImport_ImportModule("erlang._bootstrap");
    if (setup == NULL)
        goto done;
    result =
        PyObject_CallMethod(setup, "setup", "sn", kinds[interp->kind], (Py_ssize_t)thread_stack());
    if (result != NULL && !module_complete(interp->module)) {
        Py_CLEAR(result);
    }
done:
    Py_XDECREF(module); /* sys.modules keeps it */
    Py_XDECREF(setup);
    Py_XDECREF(result);
    return result != NULL;
}

#if defined(__GLIBC__)
static void leave_at_once(int status, void *unused)
{
    (void)unused;
    fflush(NULL);
    _exit(status);
}

void interp_guard_exit(void)
{
    on_exit(leave_at_once, NULL); /* handlers run last first */
}
#else
void interp_guard_exit(void)
{
    /* No exit handler learns the status elsewhere; application:stop/1 first is the way. */
}
#endif

/* Runs the bootstrap of main with the VM's signal handlers put back afterwards: importing
 * `signal` installs Python's SIGINT handler whatever the configuration says. */
static bool bootstrap_main(interp_t *interp)
{
    struct sigaction before[NSIG];
    bool known[NSIG];
    bool ok;

    for (int signal = 1; signal < NSIG; signal++)
        known[signal] = sigaction(signal, NULL, &before[signal]) == 0;
    ok = bootstrap(interp);
    for (int signal = 1; signal < NSIG; signal++)
        if (known[signal])
            sigaction(signal, &before[signal], NULL);
    return ok;
}

static PyStatus configure(const interp_config_t *config)
{
    PyPreConfig before;
    PyConfig python;
    PyStatus status;
    char executable[4096];

    PyPreConfig_InitPythonConfig(&before);
    before.configure_locale = 0; /* the VM's locale is not ours to set */
    before.coerce_c_locale = 0;
    before.utf8_mode = 1;
    status = Py_PreInitialize(&before);
    if (PyStatus_Exception(status))
        return status;
    PyConfig_InitPythonConfig(&python);
    python.install_signal_handlers = 0;
    python.parse_argv = 0;
    python.faulthandler = 0;
    /* sys.executable: with a venv its interpreter, so that pyvenv.cfg is found. */
    if (config->virtual_env != NULL)
        snprintf(executable, sizeof(executable), "%s/bin/python", config->virtual_env);
    else
        snprintf(executable, sizeof(executable), "%s", EP_PYTHON_EXECUTABLE);
    status = PyConfig_SetBytesString(&python, &python.program_name, executable);
    if (!PyStatus_Exception(status))
        status = PyConfig_SetBytesString(&python, &python.executable, executable);
    if (!PyStatus_Exception(status))
        status = Py_InitializeFromConfig(&python);
    PyConfig_Clear(&python);
    return status;
}

#ifdef Py_GIL_DISABLED
static bool
    has_gil_anyway; /* a free-threaded Python that was started with its GIL on (PYTHON_GIL=1) */

static void look_for_gil(void)
{
    PyObject *sys = PyImport_ImportModule("sys");
    PyObject *answer = sys != NULL ? PyObject_CallMethod(sys, "_is_gil_enabled", NULL) : NULL;

    has_gil_anyway = answer == Py_True;
    PyErr_Clear();
    Py_XDECREF(answer);
    Py_XDECREF(sys);
}
#else
static void look_for_gil(void) {}
#endif

static bool initialise(start_t *start)
{
    PyStatus status;

    /* Extension modules look for Python's symbols in the global scope. */
    if (dlopen(EP_LIBPYTHON, RTLD_NOW | RTLD_GLOBAL) == NULL) {
        snprintf(start->error, start->size, "cannot load %s: %s", EP_LIBPYTHON, dlerror());
        return false;
    }
    if (PyImport_AppendInittab("_erlang", PyInit__erlang) != 0 || !guard_install()) {
        snprintf(start->error, start->size, "cannot register _erlang");
        return false;
    }
    status = configure(start->config);
    if (PyStatus_Exception(status)) {
        snprintf(start->error, start->size, "Python does not start: %s",
                 status.err_msg != NULL ? status.err_msg : "it asked for an exit");
        return false;
    }
    has_raw_blocks = finds_raw_blocks();
    main_interp = new_interp(INTERP_MAIN);
    if (main_interp == NULL || !bootstrap_main(main_interp)) {
        describe_exception("the bootstrap of the main interpreter failed", start->error,
                           start->size);
        PyEval_SaveThread();
        return false;
    }
    look_for_gil();
    PyEval_SaveThread();
    interp_guard_exit();
    return true;
}

/* The main interpreter's own thread: stays for ever as Python's main thread. */
static void main_body(void *argument)
{
    start_t *start = argument;
    parker_t parker;

    start->ok = initialise(start);
    pthread_mutex_lock(&start->lock);
    start->is_done = true;
    pthread_cond_signal(&start->done);
    pthread_mutex_unlock(&start->lock);
    parker_init(&parker);
    for (;;)
        parker_wait(&parker, CLOCK_NEVER);
}

/* The VM sets glibc's trim threshold, which ends its adapting to what is freed: every block of
 * 128 KB or more would be mapped anew, and its pages cost five times what copying it does. */
static void keep_freed_blocks(void)
{
#if defined(__GLIBC__)
    enum { MB = 1 << 20 };

    mallopt(M_MMAP_THRESHOLD, 4 * MB);
    mallopt(M_TRIM_THRESHOLD, 8 * MB);
#endif
}

bool interp_main_start(const interp_config_t *config, char *error, size_t size)
{
    start_t start = {
        config, PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, false, error, size};

    if (main_interp != NULL)
        return true;
    keep_freed_blocks();
    package_dir = strdup(config->package_dir);
    if (package_dir == NULL || !thread_start("py:main", main_body, &start)) {
        snprintf(error, size, "cannot start the thread of the main interpreter");
        return false;
    }
    pthread_mutex_lock(&start.lock);
    while (!start.is_done)
        pthread_cond_wait(&start.done, &start.lock);
    pthread_mutex_unlock(&start.lock);
    return start.ok;
}

PyThreadState *interp_thread_new(interp_t *interp)
{
    PyThreadState *thread = PyThreadState_New(interp->state);

    if (thread != NULL)
        atomic_fetch_add_explicit(&interp->threads, 1, memory_order_relaxed);
    return thread;
}

void interp_thread_delete(interp_t *interp, PyThreadState *thread)
{
    atomic_fetch_sub_explicit(&interp->threads, 1, memory_order_relaxed);
    PyThreadState_Clear(thread);
    PyThreadState_DeleteCurrent();
}

/* ---- who uses a GIL ---- */

static _Atomic uint64_t threads_noted = 1; /* how many threads Python started, and one */

void interp_note_thread(void)
{
    atomic_fetch_add(&threads_noted, 1);
}

bool interp_claim_gil(interp_t *interp)
{
#ifdef Py_GIL_DISABLED
    return !has_gil_anyway && interp_gil_culprit(interp) == NULL;
#else
    int nobody = 0;

    if (!atomic_compare_exchange_strong(&interp->gil->users, &nobody, 1))
        return false;
    if (atomic_load(&interp->gil->quiet_at) == atomic_load(&threads_noted))
        return true;
    interp_leave_gil(interp);
    return false;
#endif
}

static pthread_mutex_t sharers_lock = PTHREAD_MUTEX_INITIALIZER; /* leaf */
static interp_t *sharers; /* sub-interpreters with the shared GIL, from bootstrap to end */

static void link_sharer(interp_t *interp)
{
    if (interp->kind != INTERP_SHARED_GIL)
        return;
    pthread_mutex_lock(&sharers_lock);
    interp->sibling = sharers;
    sharers = interp;
    pthread_mutex_unlock(&sharers_lock);
}

static void unlink_sharer(interp_t *interp)
{
    interp_t **at = &sharers;

    pthread_mutex_lock(&sharers_lock);
    while (*at != NULL && *at != interp)
        at = &(*at)->sibling;
    if (*at != NULL)
        *at = interp->sibling;
    pthread_mutex_unlock(&sharers_lock);
}

#ifdef Py_GIL_DISABLED
void interp_look_for_threads(interp_t *interp)
{
    (void)interp;
}
#else
/* A state of our own is counted from when it is there until it is about to end: at worst it is taken for one of Python's. */
static bool has_others(interp_t *interp)
{
    PyThreadState *thread = PyInterpreterState_ThreadHead(interp->state);
    int own = atomic_load(&interp->threads);

    while (thread != NULL && own >= 0) {
        thread = PyThreadState_Next(thread);
        own--;
    }
    return own < 0;
}

void interp_look_for_threads(interp_t *interp)
{
    uint64_t noted = atomic_load(&threads_noted);
    bool found;

    if (atomic_load(&interp->gil->quiet_at) == noted)
        return;
    if (interp->kind == INTERP_OWN_GIL) {
        found = has_others(interp);
    } else {
        found = has_others(main_interp);
        pthread_mutex_lock(&sharers_lock);
        for (interp_t *at = sharers; at != NULL && !found; at = at->sibling)
            found = has_others(at);
        pthread_mutex_unlock(&sharers_lock);
    }
    if (!found)
        atomic_store(&interp->gil->quiet_at, noted);
}
#endif

bool interp_run_in_main(const char *name, const char *argument)
{
    PyThreadState *thread = interp_thread_new(main_interp);
    PyObject *module = NULL;
    PyObject *result = NULL;
    bool ok = false;

    if (thread == NULL)
        return false;
    interp_enter_gil(main_interp);
    PyEval_RestoreThread(thread);
    module = PyImport_ImportModule("erlang._bootstrap");
    if (module != NULL)
        result = PyObject_CallMethod(module, name, "s", argument);
    ok = result != NULL;
    PyErr_Clear();
    Py_XDECREF(result);
    Py_XDECREF(module);
    interp_thread_delete(main_interp, thread);
    interp_leave_gil(main_interp);
    return ok;
}

#if PY_VERSION_HEX >= 0x030C0000
/* Creates the interpreter while attached to main; *thread is current afterwards. */
static bool create_current(interp_kind_t kind, PyThreadState **thread, char *error, size_t size)
{
    PyInterpreterConfig config = {
        .use_main_obmalloc = kind == INTERP_SHARED_GIL,
        .allow_fork = 0,
        .allow_exec = 0,
        .allow_threads = 1,
        .allow_daemon_threads =
            1, /* multiprocessing needs them; whoever stays is seen (is_alone) */
        .check_multi_interp_extensions = 1,
        .gil =
            kind == INTERP_OWN_GIL ? PyInterpreterConfig_OWN_GIL : PyInterpreterConfig_SHARED_GIL,
    };
    PyStatus status = Py_NewInterpreterFromConfig(thread, &config);

    if (!PyStatus_Exception(status))
        return true;
    snprintf(error, size, "Python made no sub-interpreter: %s",
             status.err_msg != NULL ? status.err_msg : "no reason given");
    return false;
}

/* Creates it; the calling thread is detached before and after. */
static bool create_detached(interp_kind_t kind, PyThreadState **thread, char *error, size_t size)
{
    PyThreadState *in_main = interp_thread_new(main_interp);
    bool ok;

    if (in_main == NULL) {
        snprintf(error, size, "no memory for a thread state");
        return false;
    }
    PyEval_RestoreThread(in_main);
    ok = create_current(kind, thread, error, size);
    if (ok) {
        PyEval_SaveThread();
        PyEval_RestoreThread(in_main);
    }
    interp_thread_delete(main_interp, in_main);
    return ok;
}
#else
static bool create_detached(interp_kind_t kind, PyThreadState **thread, char *error, size_t size)
{
    (void)kind;
    (void)thread;
    snprintf(error, size, "sub-interpreters need Python 3.12 or newer");
    return false;
}
#endif

/* Whether the current thread state is the only one of its interpreter. */
static bool is_alone(PyThreadState *thread)
{
    PyInterpreterState *state = PyThreadState_GetInterpreter(thread);
    PyThreadState *other = PyInterpreterState_ThreadHead(state);

    while (other != NULL) {
        if (other != thread)
            return false;
        other = PyThreadState_Next(other);
    }
    return true;
}

/* Runs exit handlers, lets idle pool threads go (erlang._bootstrap.finish): users' code, which may
 * take long and is interrupted when it takes too long. */
static void finish_code(void)
{
    PyObject *module = PyImport_ImportModule("erlang._bootstrap");
    PyObject *result = module != NULL ? PyObject_CallMethod(module, "finish", NULL) : NULL;

    PyErr_Clear();
    compat_set_async_exc(PyThreadState_Get(), NULL); /* one that came late */
    Py_XDECREF(result);
    Py_XDECREF(module);
}

/* Ends the interpreter of the current thread state, or leaves it with the threads that
 * are still inside. */
static bool end_current(interp_t *interp, PyThreadState *thread)
{
    if (!is_alone(thread)) {
        interp_thread_delete(interp, thread);
        interp_enter_gil(interp); /* for ever: they use it */
        return false;
    }
    Py_EndInterpreter(thread);
    return true;
}

static void end_detached(interp_t *interp, PyThreadState *thread)
{
    PyEval_RestoreThread(thread);
    end_current(interp, thread);
}

interp_t *interp_create(interp_kind_t kind, PyThreadState **thread, char *error, size_t size)
{
    interp_t *interp = new_interp(kind);
    uint64_t turn;
    bool ok = false;

    if (interp == NULL) {
        snprintf(error, size, "no memory for an interpreter");
        return NULL;
    }
    turn = life_enter();
    if (kind == INTERP_OWN_GIL && !has_anchors) {
        has_anchors = interp_run_in_main("import_anchors", "");
        interp_guard_exit();
    }
    interp_enter_gil(main_interp);
    ok = create_detached(kind, thread, error, size);
    if (ok) {
        PyEval_RestoreThread(*thread);
        ok = bootstrap(interp) && (kind != INTERP_SHARED_GIL || giveway_join());
        if (!ok)
            describe_exception("the bootstrap of a sub-interpreter failed", error, size);
        else
            link_sharer(interp);
        PyEval_SaveThread();
        if (!ok)
            end_detached(interp, *thread);
    }
    interp_leave_gil(main_interp);
    life_leave(turn);
    if (!ok) {
        interp_release(interp);
        return NULL;
    }
    return interp;
}

static void mark_ended(interp_t *interp)
{
    unlink_sharer(interp);
    pthread_mutex_lock(&interp->lock);
    interp->is_ended = true;
    interp->seat = NULL;
    interp->user = NULL;
    pthread_mutex_unlock(&interp->lock);
}

bool interp_end(interp_t *interp, PyThreadState *thread)
{
    uint64_t turn;
    bool ended;

    interp_drain(interp);
    finish_code();
    PyEval_SaveThread(); /* a turn is never waited for while attached */
    turn = life_enter();
    PyEval_RestoreThread(thread);
    interp_drain(interp);
    mark_ended(interp);
    ended = end_current(interp, thread);
    atomic_store(&interp->is_gone, ended);
    life_leave(turn);
    return ended;
}

void interp_leave_behind(interp_t *interp)
{
    interp_enter_gil(interp); /* for ever: whoever is stuck there may come back */
    mark_ended(interp);
}

void interp_set_seat(interp_t *interp, struct seat *seat, queue_node_t *drain, const void *user)
{
    pthread_mutex_lock(&interp->lock);
    if (interp->seat == NULL && !interp->is_ended) {
        interp->seat = seat;
        interp->drain = drain;
        interp->user = user;
        atomic_store(&interp->is_drain_queued, false);
    }
    pthread_mutex_unlock(&interp->lock);
}

void interp_unset_seat(interp_t *interp, struct seat *seat)
{
    pthread_mutex_lock(&interp->lock);
    if (interp->seat == seat) {
        interp->seat = NULL;
        interp->user = NULL;
    }
    pthread_mutex_unlock(&interp->lock);
}

/* Which interpreter's GIL this one uses. */
static interp_t *gil_owner(interp_t *interp)
{
    return interp->kind == INTERP_SHARED_GIL ? main_interp : interp;
}

bool interp_blame_for_gil(interp_t *interp, const char *module)
{
    char *nobody = NULL;
    char *name = strdup(module);

    if (name != NULL &&
        atomic_compare_exchange_strong(&gil_owner(interp)->gil_culprit, &nobody, name))
        return true;
    free(name);
    return false;
}

const char *interp_gil_culprit(interp_t *interp)
{
    return atomic_load(&gil_owner(interp)->gil_culprit);
}

void interp_drop(interp_t *interp, drop_t *drop)
{
    if (atomic_load(&interp->is_gone)) {
        free_drop(drop);
        return;
    }
    queue_push(&interp->drops, &drop->node);
    if (atomic_exchange(&interp->is_drain_queued, true))
        return;
    pthread_mutex_lock(&interp->lock);
    if (interp->seat == NULL || !seat_push(interp->seat, interp->drain, false))
        atomic_store(&interp->is_drain_queued, false);
    pthread_mutex_unlock(&interp->lock);
}

void interp_release_drops(queue_t *drops)
{
    list_t list;
    queue_node_t *node;

    if (!queue_has(drops))
        return;
    list_init(&list);
    queue_take(drops, &list);
    while ((node = list_pop(&list)) != NULL) {
        Py_XDECREF(((drop_t *)node)->object);
        free(node);
    }
}

void interp_drain(interp_t *interp)
{
    interp_release_drops(&interp->drops);
}
