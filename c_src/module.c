#include "module.h"

#include "atoms.h"
#include "batch.h"
#include "callback.h"
#include "deferred.h"
#include "executor.h"
#include "guard.h"
#include "interp.h"
#include "names.h"
#include "origin.h"
#include "owner.h"
#include "pycompat.h"
#include "sink.h"
#include "terms.h"

/* ---- functions of the module; what users see is in the package `erlang` ---- */

PyDoc_STRVAR(call_doc, "call(kind, name, args, kwargs)\n--\n\n"
                       "Runs something in Erlang and waits. kind is 'call', 'state' or 'system'.");

static PyObject *module_call(PyObject *module, PyObject *arguments)
{
    const char *kind;
    PyObject *name;
    PyObject *positional;
    PyObject *keywords;
    ERL_NIF_TERM kind_atom = atom_call;

    if (!PyArg_ParseTuple(arguments, "sOOO", &kind, &name, &positional, &keywords))
        return NULL;
    if (kind[0] == 's')
        kind_atom = kind[1] == 't' ? atom_state : atom_system;
    return callback_call(module_state(module), kind_atom, name, positional, keywords);
}

PyDoc_STRVAR(start_doc,
             "start(name, args, kwargs, done)\n--\n\n"
             "Calls an Erlang function without waiting; done(value, exception) is called\n"
             "later on another thread, one of the two being None. The Ref is for abandon.");
PyDoc_STRVAR(abandon_doc, "abandon(ref)\n--\n\n"
                          "Kills the process of a call that start made, unless it has answered.");

static PyObject *module_start(PyObject *module, PyObject *arguments)
{
    PyObject *name;
    PyObject *positional;
    PyObject *keywords;
    PyObject *done;

    if (!PyArg_ParseTuple(arguments, "OOOO", &name, &positional, &keywords, &done))
        return NULL;
    return callback_start(module_state(module), name, positional, keywords, done);
}

static PyObject *module_abandon(PyObject *module, PyObject *ref)
{
    return callback_abandon(module_state(module), ref);
}

PyDoc_STRVAR(self_doc, "self()\n--\n\n"
                       "The Pid on whose behalf this code runs, or None. Does not block.");

static PyObject *module_self(PyObject *module, PyObject *unused)
{
    origin_t origin;
    ErlNifEnv *env;
    PyObject *pid;

    (void)unused;
    if (!origin_of_thread(module_state(module), &origin) || origin.owner == NULL)
        Py_RETURN_NONE;
    env = enif_alloc_env();
    pid = terms_from_term(module_state(module), env, enif_make_pid(env, &origin.owner->pid));
    enif_free_env(env);
    return pid;
}

PyDoc_STRVAR(send_doc, "send(pid, term)\n--\n\n"
                       "Sends to a local process; False if there is none. Does not block.");

static PyObject *module_send(PyObject *module, PyObject *arguments)
{
    PyObject *pid;
    PyObject *term;

    if (!PyArg_ParseTuple(arguments, "OO", &pid, &term))
        return NULL;
    return callback_send(module_state(module), pid, term);
}

PyDoc_STRVAR(atom_doc,
             "atom(text)\n--\n\n"
             "The Atom of a text; its atom exists from then on. erlang.Error: the table is full.");

static PyObject *module_atom(PyObject *module, PyObject *text)
{
    return terms_make_atom(module_state(module), text);
}

PyDoc_STRVAR(whereis_doc, "whereis(name)\n--\n\n"
                          "The Pid registered under a name on this node, or None.");

static PyObject *module_whereis(PyObject *module, PyObject *name)
{
    return callback_whereis(module_state(module), name);
}

PyDoc_STRVAR(origin_doc, "origin()\n--\n\nOn whose behalf this code runs, or None.");
PyDoc_STRVAR(enter_doc,
             "enter(origin)\n--\n\n"
             "Makes this thread run on behalf of origin (or of nobody: None); the one before.");

PyDoc_STRVAR(interrupt_thread_doc,
             "interrupt_thread(ident)\n--\n\n"
             "Raises Interrupt in a thread of this interpreter, at its next bytecode.");

PyDoc_STRVAR(import_in_main_doc,
             "import_in_main(package)\n--\n\n"
             "Imports the package in the main interpreter, once per VM; whether it is there.");

static PyObject *module_import_in_main(PyObject *module, PyObject *name)
{
    const char *text = PyUnicode_AsUTF8(name);
    PyThreadState *thread;
    bool is_there;

    (void)module;
    if (text == NULL)
        return NULL;
    Py_INCREF(name);
    thread = PyEval_SaveThread();
    is_there = interp_run_in_main("import_package", text);
    PyEval_RestoreThread(thread);
    Py_DECREF(name);
    return PyBool_FromLong(is_there);
}

PyDoc_STRVAR(mark_doc, "mark_main_only(package)\n--\n\n"
                       "Remembers, for the VM, that only the main interpreter can load it.");

static PyObject *module_mark_main_only(PyObject *module, PyObject *name)
{
    const char *text = PyUnicode_AsUTF8(name);

    (void)module;
    if (text == NULL)
        return NULL;
    names_add(text);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(is_main_only_doc, "is_main_only(package)\n--\n\n"
                               "Whether mark_main_only was called with it.");

static PyObject *module_is_main_only(PyObject *module, PyObject *name)
{
    const char *text = PyUnicode_AsUTF8(name);

    (void)module;
    return text == NULL ? NULL : PyBool_FromLong(names_has(text));
}

PyDoc_STRVAR(copy_memory_doc, "copy_memory(address, size)\n--\n\n"
                              "The bytes that an object's __array_interface__ points to.");

static PyObject *module_copy_memory(PyObject *module, PyObject *arguments)
{
    unsigned long long address;
    Py_ssize_t size;

    (void)module;
    if (!PyArg_ParseTuple(arguments, "Kn", &address, &size))
        return NULL;
    if (address == 0 || size < 0) {
        PyErr_SetString(PyExc_ValueError, "an array without memory");
        return NULL;
    }
    return PyBytes_FromStringAndSize((const char *)(uintptr_t)address, size);
}

PyDoc_STRVAR(guard_exit_doc,
             "guard_exit()\n--\n\n"
             "To be called after a library with exit handlers may have been loaded.");

static PyObject *module_guard_exit(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    interp_guard_exit();
    Py_RETURN_NONE;
}

PyDoc_STRVAR(needs_gil_doc,
             "needs_gil(module)\n--\n\n"
             "Whether an extension module does not declare in its slots that it can do "
             "without the GIL.");

static PyObject *module_needs_gil(PyObject *self, PyObject *module)
{
#if PY_VERSION_HEX >= 0x030D0000
    const PyModuleDef *def = PyModule_Check(module) ? PyModule_GetDef(module) : NULL;

    for (const PyModuleDef_Slot *slot = def != NULL ? def->m_slots : NULL;
         slot != NULL && slot->slot != 0; slot++)
        if (slot->slot == Py_mod_gil && slot->value == Py_MOD_GIL_NOT_USED)
            Py_RETURN_FALSE;
    PyErr_Clear(); /* no definition: it may have been made without */
#else
    (void)module;
#endif
    (void)self;
    Py_RETURN_TRUE;
}

PyDoc_STRVAR(gil_enabled_doc,
             "gil_enabled(module)\n--\n\n"
             "Reports the module whose import switched this interpreter's GIL on.");

static PyObject *module_gil_enabled(PyObject *module, PyObject *name)
{
    const char *text = PyUnicode_AsUTF8(name);

    if (text == NULL)
        return NULL;
    if (interp_blame_for_gil(module_state(module)->interp, text))
        executor_send_event(atom_gil_enabled, text);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(guard_doc, "guard(original, check)\n--\n\n"
                        "A function like original that calls check with its arguments first.");
PyDoc_STRVAR(spawner_doc, "spawner(original)\n--\n\n"
                          "A function like original that runs with no signal blocked.");
PyDoc_STRVAR(owns_doc, "owns(fd)\n--\n\nWhether the VM owned the descriptor at start.");
PyDoc_STRVAR(hits_vm_doc, "hits_vm(pid, signal)\n--\n\nWhether kill(pid, signal) reaches the VM.");

PyDoc_STRVAR(log_level_doc, "log_level()\n--\n\n"
                            "The least level that Erlang's logger wants, as a number of logging.");
PyDoc_STRVAR(log_admits_doc, "log_admits(level)\n--\n\n"
                             "Whether a record of that level is wanted and there is room for it.");
PyDoc_STRVAR(is_tracing_doc, "is_tracing()\n--\n\nWhether spans are wanted.");
PyDoc_STRVAR(report_doc, "report(kind, units, term)\n--\n\n"
                         "Sends a log record (kind 0) or a span (1) of so many KiB; False: it was\n"
                         "dropped. Does not block.");

static PyMethodDef functions[] = {
    {"call", module_call, METH_VARARGS, call_doc},
    {"start", module_start, METH_VARARGS, start_doc},
    {"abandon", module_abandon, METH_O, abandon_doc},
    {"self", module_self, METH_NOARGS, self_doc},
    {"send", module_send, METH_VARARGS, send_doc},
    {"atom", module_atom, METH_O, atom_doc},
    {"whereis", module_whereis, METH_O, whereis_doc},
    {"origin", origin_get, METH_NOARGS, origin_doc},
    {"enter", origin_enter, METH_O, enter_doc},
    {"guard_exit", module_guard_exit, METH_NOARGS, guard_exit_doc},
    {"needs_gil", module_needs_gil, METH_O, needs_gil_doc},
    {"gil_enabled", module_gil_enabled, METH_O, gil_enabled_doc},
    {"loop_settings", deferred_settings, METH_NOARGS, "loop_settings() -> (max_tasks, kind)"},
    {"interrupt_thread", deferred_interrupt_thread, METH_O, interrupt_thread_doc},
    {"import_in_main", module_import_in_main, METH_O, import_in_main_doc},
    {"mark_main_only", module_mark_main_only, METH_O, mark_doc},
    {"is_main_only", module_is_main_only, METH_O, is_main_only_doc},
    {"copy_memory", module_copy_memory, METH_VARARGS, copy_memory_doc},
    {"guard", guard_function, METH_VARARGS, guard_doc},
    {"spawner", guard_spawner, METH_O, spawner_doc},
    {"owns", guard_owns, METH_O, owns_doc},
    {"hits_vm", guard_hits_vm, METH_VARARGS, hits_vm_doc},
    {"log_level", sink_log_level, METH_NOARGS, log_level_doc},
    {"log_admits", sink_log_admits, METH_O, log_admits_doc},
    {"is_tracing", sink_is_tracing, METH_NOARGS, is_tracing_doc},
    {"report", sink_report, METH_VARARGS, report_doc},
    {NULL, NULL, 0, NULL},
};

/* ---- life ---- */

module_state_t *module_state(PyObject *module)
{
    return PyModule_GetState(module);
}

static PyObject *main_dict(void)
{
    PyObject *module = PyImport_AddModule("__main__"); /* borrowed */

    return module != NULL ? Py_NewRef(PyModule_GetDict(module)) : NULL;
}

static int module_exec(PyObject *module)
{
    module_state_t *state = module_state(module);

    state->main_ns = main_dict();
    state->eval_codes = PyDict_New();
    state->exec_codes = PyDict_New();
    state->str_main = PyUnicode_InternFromString("__main__");
    state->str_name = PyUnicode_InternFromString("__name__");
    if (state->main_ns == NULL || state->eval_codes == NULL || state->exec_codes == NULL ||
        state->str_main == NULL || state->str_name == NULL)
        return -1;
    return terms_init(module, state) && origin_init(module, state) &&
                   deferred_init(module, state) && batch_init(module, state)
               ? 0
               : -1;
}

/* An attribute of a module of the package; new, NULL with an exception set. */
static PyObject *fetch(const char *module_name, const char *attribute)
{
    PyObject *module = PyImport_ImportModule(module_name);
    PyObject *found = NULL;

    if (module != NULL)
        found = PyObject_GetAttrString(module, attribute);
    Py_XDECREF(module);
    return found;
}

bool module_complete(module_state_t *state)
{
    state->image = fetch("erlang._image", "image");
    if (state->image != NULL)
        state->array = fetch("erlang._image", "array");
    if (state->array != NULL)
        state->is_main_only = fetch("erlang._bootstrap", "is_main_only");
    if (state->is_main_only != NULL)
        state->imports_main_only = fetch("erlang._bootstrap", "imports_main_only");
    if (state->imports_main_only != NULL)
        Py_XSETREF(state->callback_error, fetch("erlang._errors", "CallbackError"));
    return state->imports_main_only != NULL && state->callback_error != NULL;
}

/* Every object of the state, for the collector. */
#define STATE_OBJECTS(X)                                                                           \
    X(ref_type)                                                                                    \
    X(port_type)                                                                                   \
    X(fun_type)                                                                                    \
    X(buffer_type)                                                                                 \
    X(atom_type)                                                                                   \
    X(origin_type)                                                                                 \
    X(deferred_type)                                                                               \
    X(batch_type)                                                                                  \
    X(task_origin)                                                                                 \
    X(loop_submit)                                                                                 \
    X(loop_cancel)                                                                                 \
    X(loop_close)                                                                                  \
    X(loop_wake)                                                                                   \
    X(error)                                                                                       \
    X(callback_error)                                                                              \
    X(process_error)                                                                               \
    X(interrupt)                                                                                   \
    X(array)                                                                                       \
    X(image)                                                                                       \
    X(is_main_only)                                                                                \
    X(imports_main_only)                                                                           \
    X(eval_codes)                                                                                  \
    X(exec_codes)                                                                                  \
    X(main_ns)                                                                                     \
    X(str_main)                                                                                    \
    X(str_name)

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    module_state_t *state = module_state(module);

#define X(name) Py_VISIT(state->name);
    STATE_OBJECTS(X)
#undef X
    return 0;
}

static int module_clear(PyObject *module)
{
    module_state_t *state = module_state(module);

#define X(name) Py_CLEAR(state->name);
    STATE_OBJECTS(X)
#undef X
    return 0;
}

static void module_free(void *module)
{
    module_clear(module);
    terms_finish(module_state(module));
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_erlang",
    .m_doc = "The C side of the package erlang.",
    .m_size = sizeof(module_state_t),
    .m_methods = functions,
    .m_slots = slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyObject *PyInit__erlang(void)
{
    return PyModuleDef_Init(&definition);
}
