/* Initialised in two phases, silent about interpreters with a GIL of their own: those refuse it. */
#include "extension.h"

static int execute(PyObject *module)
{
    return PyModule_AddIntConstant(module, "executed", 1);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, execute},
#ifdef Py_GIL_DISABLED
#    ifndef NEEDS_GIL
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#    endif
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
