/*
 * module - the C module `_erlang`, one instance in each interpreter.
 *
 * Its state is the only place where Python objects of the library live: nothing
 * here is static or shared between interpreters. The public Python package is
 * `erlang` (priv/python/erlang), which re-exports from this module.
 *
 * GIL: held for everything here.
 */
#ifndef EP_MODULE_H
#define EP_MODULE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>

struct interp;

typedef struct module_state {
    struct interp *interp; /* borrowed: the interpreter outlives its module */

    /* Heap types that hold Erlang terms (terms.c). */
    PyTypeObject *pid_type;
    PyTypeObject *ref_type;
    PyTypeObject *port_type;
    PyTypeObject *fun_type;
    PyTypeObject *buffer_type;
    PyTypeObject *atom_type;
    PyTypeObject *origin_type;   /* origin.c */
    PyTypeObject *deferred_type; /* deferred.c */
    PyTypeObject *batch_type;    /* batch.c */
    PyObject *task_origin;       /* context variable: the Origin of a task */

    struct atom_cache *atoms; /* owned: atoms as str (scalars.c), freed by terms_finish */

    /* Exception classes, created by terms.c; callback_error is erlang._errors', NULL until
     * module_complete. */
    PyObject *error;          /* erlang.Error(Exception) */
    PyObject *callback_error; /* erlang.CallbackError(Error) */
    PyObject *process_error;  /* erlang.ProcessError(Error) */
    PyObject *interrupt;      /* erlang.Interrupt(BaseException) */

    /* erlang._image.image: reduces an object that is not of a built-in type to one
     * that is, or returns NotImplemented when the object has no Erlang image. */
    PyObject *image;
    /* erlang._image.array: what an {ndarray, Type, Shape, Binary} stands for. */
    PyObject *array;

    /* Of erlang._bootstrap: which packages only the main interpreter can load. */
    PyObject *is_main_only;      /* (module name) -> bool */
    PyObject *imports_main_only; /* (source text) -> bool */

    /* Of erlang._loop, which is loaded with the first coroutine (deferred.c). */
    PyObject *loop_submit;
    PyObject *loop_cancel;
    PyObject *loop_close;
    PyObject *loop_wake;

    PyObject *eval_codes; /* dicts: source text -> code object, bounded (code.c) */
    PyObject *exec_codes;
    PyObject *main_ns;  /* dict of __main__ */
    PyObject *str_main; /* "__main__" */
    PyObject *str_name; /* "__name__" */
} module_state_t;

/* Registered with PyImport_AppendInittab before Python starts. No PyMODINIT_FUNC: that exports it. */
PyObject *PyInit__erlang(void);

/* The state of `_erlang` in the current interpreter; borrowed, imported at the
 * interpreter's bootstrap, so never NULL afterwards. */
module_state_t *module_state(PyObject *module);

/* Fetches what lives in the Python package (image); after erlang._bootstrap.setup.
 * False with an exception set. */
bool module_complete(module_state_t *state);

#endif
