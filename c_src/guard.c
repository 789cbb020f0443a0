#include "guard.h"

#include "interp.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define OWNED_MAX 1024 /* descriptors above are not looked after */

/* A descriptor of the VM by what it refers to: its number may be another file's by now. */
typedef struct {
    dev_t device;
    ino_t inode; /* 0: not the VM's */
} owned_t;

static atomic_bool is_on;
static owned_t owned[OWNED_MAX]; /* written by guard_install only */

void guard_set(bool on)
{
    atomic_store(&is_on, on);
}

/* ---- descriptors ---- */

/* Files that are open only for a moment (code being loaded) are left out: 0 to 2 and pipes, sockets,
 * terminals and the like count. */
static void note_descriptor(int fd)
{
    struct stat status;
    int flags = fcntl(fd, F_GETFD);

    if (flags < 0 || fstat(fd, &status) != 0)
        return;
    if (fd > 2) {
        fcntl(fd, F_SETFD, flags | FD_CLOEXEC);
        if (S_ISREG(status.st_mode) || S_ISDIR(status.st_mode))
            return;
    }
    owned[fd].device = status.st_dev;
    owned[fd].inode = status.st_ino;
}

static bool owns(long fd)
{
    struct stat status;

    return fd >= 0 && fd < OWNED_MAX && owned[fd].inode != 0 && fstat((int)fd, &status) == 0 &&
           status.st_dev == owned[fd].device && status.st_ino == owned[fd].inode;
}

PyObject *guard_owns(PyObject *module, PyObject *descriptor)
{
    long fd = PyLong_AsLong(descriptor);

    (void)module;
    if (fd == -1 && PyErr_Occurred())
        PyErr_Clear(); /* no descriptor: whoever gets it says so */
    return PyBool_FromLong(owns(fd));
}

/* ---- refusing ---- */

static int refuse(const char *sentence)
{
    PyObject *name = PyUnicode_FromString("_erlang");
    PyObject *module = name != NULL ? PyImport_GetModule(name) : NULL;
    PyObject *class = module != NULL ? PyObject_GetAttrString(module, "ProcessError") : NULL;

    PyErr_Clear();
    PyErr_SetString(class != NULL ? class : PyExc_RuntimeError, sentence);
    Py_XDECREF(class);
    Py_XDECREF(module);
    Py_XDECREF(name);
    return -1;
}

/* ---- signals ---- */

/* The VM's helper, whose end is the VM's end: a child that carries this name. */
static bool is_setup_child(long pid)
{
    static const char name[] = "(erl_child_setup) ";
    char path[64];
    char line[256] = "";
    char *found;
    FILE *file;
    int parent = 0;

    snprintf(path, sizeof(path), "/proc/%ld/stat", pid);
    file = fopen(path, "re");
    if (file == NULL)
        return false;
    found = fgets(line, sizeof(line), file) != NULL ? strstr(line, name) : NULL;
    fclose(file);
    return found != NULL && sscanf(found + sizeof(name) - 1, "%*c %d", &parent) == 1 &&
           parent == (int)getpid();
}

/* Whether kill(pid, signal) reaches the VM. */
static bool hits_vm(long pid, long signal)
{
    if (signal == 0)
        return false;
    if (pid > 0)
        return pid == (long)getpid() || is_setup_child(pid);
    return pid == 0 || pid == -1 || -pid == (long)getpgrp();
}

PyObject *guard_hits_vm(PyObject *module, PyObject *arguments)
{
    long pid;
    long signal;

    (void)module;
    if (!PyArg_ParseTuple(arguments, "ll", &pid, &signal))
        return NULL;
    return PyBool_FromLong(hits_vm(pid, signal));
}

static int on_kill(PyObject *arguments, bool is_group)
{
    long pid;
    long signal;

    if (!PyArg_ParseTuple(arguments, "ll", &pid, &signal)) {
        PyErr_Clear();
        return 0;
    }
    if (!hits_vm(is_group ? -pid : pid, signal))
        return 0;
    return refuse("the signal would reach the Erlang VM; end this call by an exception, and the VM "
                  "by an Erlang function that calls init:stop()");
}

static int on_pthread_kill(PyObject *arguments)
{
    unsigned long thread;
    long signal;

    if (PyArg_ParseTuple(arguments, "kl", &thread, &signal) && signal == 0)
        return 0;
    PyErr_Clear();
    return refuse("a signal to a thread reaches the Erlang VM; use threading.Event, or "
                  "py:interrupt/1 in Erlang, to stop work");
}

/* ---- resource limits ---- */

static bool lowers(int resource, PyObject *limits)
{
    struct rlimit now;
    PyObject *item = PySequence_Check(limits) ? PySequence_GetItem(limits, 0) : NULL;
    long long wanted = item != NULL && PyLong_Check(item) ? PyLong_AsLongLong(item) : -1;

    Py_XDECREF(item);
    PyErr_Clear(); /* what is wrong, the call itself says */
    if (wanted < 0 || resource == RLIMIT_CORE || getrlimit(resource, &now) != 0)
        return false;
    return now.rlim_cur == RLIM_INFINITY || (rlim_t)wanted < now.rlim_cur;
}

static int on_limit(PyObject *arguments, bool has_pid)
{
    long pid = 0;
    int resource = 0;
    PyObject *limits = NULL; /* borrowed */
    bool ok = has_pid ? PyArg_ParseTuple(arguments, "liO", &pid, &resource, &limits)
                      : PyArg_ParseTuple(arguments, "iO", &resource, &limits);

    if (!ok || (pid != 0 && pid != (long)getpid()) || !lowers(resource, limits)) {
        PyErr_Clear();
        return 0;
    }
    return refuse("a lower resource limit would hit the Erlang VM, which does not survive it; set "
                  "it in a program of its own (subprocess, multiprocessing)");
}

/* ---- the audit hook ---- */

static int on_os(const char *event, PyObject *arguments)
{
    if (strcmp(event, "fork") == 0 || strcmp(event, "forkpty") == 0)
        return refuse("a fork copies the Erlang VM without its threads; use subprocess, or "
                      "multiprocessing with the start method spawn (the default here)");
    if (strcmp(event, "exec") == 0)
        return refuse("exec would replace the Erlang VM; use subprocess to run a program");
    if (strcmp(event, "kill") == 0)
        return on_kill(arguments, false);
    return strcmp(event, "killpg") == 0 ? on_kill(arguments, true) : 0;
}

/* Called for each event of each interpreter: the first characters decide nearly all. */
static int hook(const char *event, PyObject *arguments, void *unused)
{
    (void)unused;
    if (strncmp(event, "_thread.start_", 14) == 0)
        interp_note_thread();
    if (!atomic_load_explicit(&is_on, memory_order_relaxed))
        return 0;
    switch (event[0]) {
    case 'o':
        return event[1] == 's' && event[2] == '.' ? on_os(event + 3, arguments) : 0;
    case 's':
        return strcmp(event, "signal.pthread_kill") == 0 ? on_pthread_kill(arguments) : 0;
    case 'r':
        if (strcmp(event, "resource.setrlimit") == 0)
            return on_limit(arguments, false);
        return strcmp(event, "resource.prlimit") == 0 ? on_limit(arguments, true) : 0;
    default:
        return 0;
    }
}

/* ---- programs that Python starts ---- */

static _Thread_local bool is_spawning;

static void unblock_signals(void)
{
    sigset_t none;

    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, NULL);
}

/* A signal must not reach the VM's handlers in a child that has not become another program yet: they
 * tell the VM by a pipe that both have. vfork, which calls none of these, sees to that itself. */
static void before_fork(void)
{
    sigset_t all;

    sigfillset(&all);
    if (is_spawning)
        pthread_sigmask(SIG_SETMASK, &all, NULL);
}

static void after_fork(void)
{
    if (is_spawning)
        unblock_signals();
}

static void after_fork_in_child(void)
{
    struct sigaction action;

    if (!is_spawning)
        return;
    for (int signal = 1; signal < NSIG; signal++)
        if (sigaction(signal, NULL, &action) == 0 && action.sa_handler != SIG_IGN) {
            action.sa_handler = SIG_DFL;
            action.sa_flags = 0;
            sigaction(signal, &action, NULL);
        }
    unblock_signals();
}

bool guard_install(void)
{
    for (int fd = 0; fd < OWNED_MAX; fd++)
        note_descriptor(fd);
    return pthread_atfork(before_fork, after_fork, after_fork_in_child) == 0 &&
           PySys_AddAuditHook(hook, NULL) == 0;
}

/* ---- functions in the place of others ---- */

/* How a replaced function looks from outside is how the original does; one for each original, for
 * all interpreters, never freed. */
typedef struct look {
    PyMethodDef method;
    const PyMethodDef *original;
    struct look *next;
} look_t;

static look_t *looks;                                          /* guarded by looks_lock */
static pthread_mutex_t looks_lock = PTHREAD_MUTEX_INITIALIZER; /* leaf */

static look_t *look_like(const PyMethodDef *original, PyCFunctionWithKeywords body)
{
    look_t *look;

    pthread_mutex_lock(&looks_lock);
    for (look = looks; look != NULL && look->original != original; look = look->next)
        continue;
    if (look == NULL && (look = calloc(1, sizeof(*look))) != NULL) {
        look->method.ml_name = original->ml_name;
        look->method.ml_doc = original->ml_doc;
        look->method.ml_meth = (PyCFunction)(void (*)(void))body;
        look->method.ml_flags = METH_VARARGS | METH_KEYWORDS;
        look->original = original;
        look->next = looks;
        looks = look;
    }
    pthread_mutex_unlock(&looks_lock);
    return look;
}

/* The function's `self` is a module, as with any function of a module: so it is pickled by name. */
static PyObject *replacement(PyObject *original, PyObject *check, PyCFunctionWithKeywords body)
{
    PyObject *home = NULL;
    PyObject *self = NULL;
    PyObject *function = NULL;
    look_t *look = NULL;

    if (!PyCFunction_Check(original)) {
        PyErr_SetString(PyExc_TypeError, "a built-in function is needed");
        return NULL;
    }
    look = look_like(((PyCFunctionObject *)original)->m_ml, body);
    home = PyObject_GetAttrString(original, "__module__");
    if (look == NULL)
        PyErr_NoMemory();
    else if (home != NULL)
        self = PyModule_NewObject(home);
    if (self != NULL && PyObject_SetAttrString(self, "original", original) == 0 &&
        PyObject_SetAttrString(self, "check", check) == 0)
        function = PyCFunction_NewEx(&look->method, self, home);
    Py_XDECREF(home);
    Py_XDECREF(self);
    return function;
}

/* Borrowed: the module is known to nobody else. */
static PyObject *attribute(PyObject *self, const char *name)
{
    return PyDict_GetItemString(PyModule_GetDict(self), name);
}

static PyObject *checked(PyObject *self, PyObject *arguments, PyObject *keywords)
{
    PyObject *answer;

    if (atomic_load_explicit(&is_on, memory_order_relaxed)) {
        answer = PyObject_Call(attribute(self, "check"), arguments, keywords);
        if (answer == NULL)
            return NULL;
        Py_DECREF(answer);
    }
    return PyObject_Call(attribute(self, "original"), arguments, keywords);
}

/* Our threads block all signals, and a new program inherits that: it could not be terminated. What
 * reaches the VM meanwhile through this thread is handled by the VM's handlers as on any other. */
static PyObject *unblocked(PyObject *self, PyObject *arguments, PyObject *keywords)
{
    sigset_t before;
    PyObject *result;

    pthread_sigmask(SIG_SETMASK, NULL, &before);
    unblock_signals();
    is_spawning = true;
    result = PyObject_Call(attribute(self, "original"), arguments, keywords);
    is_spawning = false;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return result;
}

PyObject *guard_function(PyObject *module, PyObject *arguments)
{
    PyObject *original;
    PyObject *check;

    (void)module;
    if (!PyArg_ParseTuple(arguments, "OO", &original, &check))
        return NULL;
    return replacement(original, check, checked);
}

PyObject *guard_spawner(PyObject *module, PyObject *original)
{
    (void)module;
    return replacement(original, Py_None, unblocked);
}
