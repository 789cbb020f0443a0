/*
 * Says that it supports every interpreter, then fails when it is loaded a second time in the
 * process, with an exception that is no ImportError. Loaded by a sub-interpreter first, the main one
 * would never get it.
 */
#include "extension.h"

static int loaded;

static int execute(PyObject *module)
{
    (void)module;
    if (loaded++ == 0)
        return 0;
    PyErr_SetString(PyExc_RuntimeError, "loaded more than once per process");
    return -1;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, execute},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#ifdef Py_GIL_DISABLED
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,  .m_name = TEXT(NAME), .m_size = 0,
    .m_methods = functions, .m_slots = slots,
};

PyMODINIT_FUNC INIT(NAME)(void)
{
    return PyModuleDef_Init(&definition);
}
