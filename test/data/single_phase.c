/* Initialised in a single phase: no sub-interpreter that checks its extensions takes it. */
#include "extension.h"

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = TEXT(NAME),
    .m_size = -1,
    .m_methods = functions,
};

PyMODINIT_FUNC INIT(NAME)(void)
{
    PyObject *module = PyModule_Create(&definition);

#ifdef Py_GIL_DISABLED
    if (module != NULL)
        PyUnstable_Module_SetGIL(module, Py_MOD_GIL_NOT_USED);
#endif
    return module;
}
