/*
 * What the extension modules of extension_SUITE have in common: each has one function, f() -> 42.
 * Compiled with -DNAME=the_module, so that every case has one that the process never saw.
 */
#ifndef EXTENSION_H
#define EXTENSION_H

#include <Python.h>

#define PASTE(a, b)  a##b
#define INIT(name)   PASTE(PyInit_, name)
#define QUOTED(name) #name
#define TEXT(name)   QUOTED(name)

static PyObject *f(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyLong_FromLong(42);
}

static PyMethodDef functions[] = {{"f", f, METH_NOARGS, "Returns 42."}, {NULL, NULL, 0, NULL}};

#endif
