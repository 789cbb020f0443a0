/*
 * pycompat - what differs between CPython 3.9 and 3.15, under one name each.
 *
 * Only what the converters need. A function here has the name and the contract
 * of the newest API where one exists; elsewhere it is called compat_<what>.
 */
#ifndef EP_PYCOMPAT_H
#define EP_PYCOMPAT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>
#include <stddef.h>

#if PY_VERSION_HEX < 0x030A0000
static inline PyObject *Py_NewRef(PyObject *object)
{
    Py_INCREF(object);
    return object;
}

static inline PyObject *Py_XNewRef(PyObject *object)
{
    Py_XINCREF(object);
    return object;
}

static inline int PyModule_AddObjectRef(PyObject *module, const char *name, PyObject *object)
{
    Py_XINCREF(object);
    if (PyModule_AddObject(module, name, object) == 0)
        return 0;
    Py_XDECREF(object);
    return -1;
}
#endif

/* With the GIL there is nothing to lock. Leave such a section only at its end. */
#if PY_VERSION_HEX < 0x030D0000
#    define Py_BEGIN_CRITICAL_SECTION(object) {
#    define Py_END_CRITICAL_SECTION()         }
#endif

/* Takes the pending exception: normalised, its traceback attached; NULL if there is
 * none. A new reference. */
static inline PyObject *compat_take_exception(void)
{
#if PY_VERSION_HEX >= 0x030C0000
    return PyErr_GetRaisedException();
#else
    PyObject *type = NULL, *value = NULL, *traceback = NULL;

    PyErr_Fetch(&type, &value, &traceback);
    if (type != NULL)
        PyErr_NormalizeException(&type, &value, &traceback);
    if (value != NULL && traceback != NULL)
        PyException_SetTraceback(value, traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
#endif
}

/* Makes an exception the pending one; takes it. */
static inline void compat_restore_exception(PyObject *exception)
{
#if PY_VERSION_HEX >= 0x030C0000
    PyErr_SetRaisedException(exception);
#else
    PyErr_Restore(Py_NewRef((PyObject *)Py_TYPE(exception)), exception,
                  PyException_GetTraceback(exception));
#endif
}

/* Whether an int (exactly) is one machine word that can be read without a call. */
static inline bool compat_long_is_compact(PyObject *number)
{
#if PY_VERSION_HEX >= 0x030C0000
    return PyUnstable_Long_IsCompact((PyLongObject *)number);
#else
    (void)number;
    return false;
#endif
}

static inline Py_ssize_t compat_long_compact_value(PyObject *number)
{
#if PY_VERSION_HEX >= 0x030C0000
    return PyUnstable_Long_CompactValue((PyLongObject *)number);
#else
    (void)number;
    return 0;
#endif
}

/* How many bytes compat_long_to_bytes needs, at least one; -1 with an exception set. */
static inline Py_ssize_t compat_long_size(PyObject *number)
{
#if PY_VERSION_HEX >= 0x030D0000
    return PyLong_AsNativeBytes(number, NULL, 0, Py_ASNATIVEBYTES_LITTLE_ENDIAN);
#else
    size_t bits = _PyLong_NumBits(number);

    return bits == (size_t)-1 && PyErr_Occurred() ? -1 : (Py_ssize_t)(bits / 8 + 1);
#endif
}

/* Two's complement, least significant byte first. False with an exception set. */
static inline bool compat_long_to_bytes(PyObject *number, unsigned char *bytes, size_t size)
{
#if PY_VERSION_HEX >= 0x030D0000
    return PyLong_AsNativeBytes(number, bytes, (Py_ssize_t)size, Py_ASNATIVEBYTES_LITTLE_ENDIAN) >=
           0;
#else
    return _PyLong_AsByteArray((PyLongObject *)number, bytes, size, 1, 1) == 0;
#endif
}

/* A new int from an unsigned number, least significant byte first. */
static inline PyObject *compat_long_from_bytes(const unsigned char *bytes, size_t size)
{
#if PY_VERSION_HEX >= 0x030D0000
    return PyLong_FromUnsignedNativeBytes(bytes, size, Py_ASNATIVEBYTES_LITTLE_ENDIAN);
#else
    return _PyLong_FromByteArray(bytes, size, 1, 0);
#endif
}

/* Makes a str's data readable: a str of the old API may still have to be laid out. */
static inline bool compat_str_ready(PyObject *text)
{
#if PY_VERSION_HEX < 0x030C0000
    return PyUnicode_READY(text) == 0;
#else
    (void)text;
    return true;
#endif
}

/* Garbage collection during a conversion walks half-made containers over and over. From
 * 3.12 it only runs between bytecodes; before, these keep it from running. 3.9 has no
 * such switch and pays. */
static inline bool compat_gc_pause(void)
{
#if PY_VERSION_HEX >= 0x030A0000 && PY_VERSION_HEX < 0x030C0000
    return PyGC_Disable() != 0;
#else
    return false;
#endif
}

static inline void compat_gc_resume(bool was_running)
{
#if PY_VERSION_HEX >= 0x030A0000 && PY_VERSION_HEX < 0x030C0000
    if (was_running)
        PyGC_Enable();
#else
    (void)was_running;
#endif
}

/* A strong reference, NULL with or without an exception. */
static inline PyObject *compat_dict_get(PyObject *dict, PyObject *key)
{
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *found;

    PyDict_GetItemRef(dict, key, &found);
    return found;
#else
    return Py_XNewRef(PyDict_GetItemWithError(dict, key));
#endif
}

/* PyThreadState_SetAsyncExc for that very thread, from one that is attached to the same interpreter.
 * Up to 3.11 a thread that is about to be started has its starter's identity, and would get what is
 * meant for that: the exception is put in place by hand, the call only makes the threads look. */
static inline void compat_set_async_exc(PyThreadState *thread, PyObject *exception)
{
#if PY_VERSION_HEX < 0x030C0000
    PyObject *before = thread->async_exc;

    thread->async_exc = Py_XNewRef(exception);
    Py_XDECREF(before);
    if (exception != NULL)
        PyThreadState_SetAsyncExc(PyThread_get_thread_ident(), NULL);
#else
    PyThreadState_SetAsyncExc(thread->thread_id, exception);
#endif
}

#endif
