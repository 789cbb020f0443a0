/*
 * guard - what Python code must not do to the process it shares with the VM.
 *
 * Not a sandbox: it keeps well-meant code, written for a process of its own, from
 * ending or maiming the VM. An audit hook refuses what CPython reports by an event
 * (fork, exec, signals to the VM, lower resource limits); where there is no event,
 * erlang._guard replaces the function by one made with `guard` below.
 *
 *   guard_install (before Python starts) -> guard_set (each start of the application)
 *
 * GIL: held for what takes or returns objects.
 */
#ifndef EP_GUARD_H
#define EP_GUARD_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>

/* Switches the guard. Any thread. */
void guard_set(bool is_on);

/* Notes which descriptors are the VM's, keeps them from programs that Python starts, and adds the
 * audit hook. Once, before Python is initialised; false: no memory. */
bool guard_install(void);

/* Functions of the module _erlang, for erlang._guard. */
PyObject *guard_function(PyObject *module, PyObject *arguments); /* guard(original, check) */
PyObject *guard_spawner(PyObject *module, PyObject *original);   /* spawner(original) */
PyObject *guard_owns(PyObject *module, PyObject *descriptor);    /* owns(fd) -> bool */
PyObject *guard_hits_vm(PyObject *module, PyObject *arguments);  /* hits_vm(pid, signal) -> bool */

#endif
