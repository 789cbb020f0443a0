#include "embed.h"

#include "enif.h"

#include "atoms.h"
#include "handle.h"
#include "handle_nif.h"
#include "terms.h"

#include <stdio.h>
#include <stdlib.h>

enum { DOMAINS = 3 };

static interp_t *interp;
static module_state_t *the_state;
static PyMemAllocatorEx below[DOMAINS];
static atomic_long blocks;
static _Thread_local struct {
    long left; /* until one fails; 0: none will */
    bool onwards, has_failed;
} fault;

void embed_insist(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "embed: not so: %s\n", what);
    if (PyErr_Occurred())
        PyErr_Print();
    abort();
}

/* ---- memory ---- */

void embed_fail_at(long n, bool onwards)
{
    fault.left = n;
    fault.onwards = onwards;
    fault.has_failed = false;
}

bool embed_has_failed(void)
{
    return fault.has_failed;
}

bool embed_fails(void)
{
    if (fault.left == 0 || (fault.left > 1 && --fault.left > 0))
        return false;
    if (!fault.onwards)
        fault.left = 0;
    return fault.has_failed = true;
}

long embed_count_blocks(void)
{
    return atomic_load(&blocks);
}

static void *counted(void *block, long change)
{
    if (block != NULL)
        atomic_fetch_add_explicit(&blocks, change, memory_order_relaxed);
    return block;
}

static void *hook_malloc(void *domain, size_t size)
{
    PyMemAllocatorEx *to = domain;

    return embed_fails() ? NULL : counted(to->malloc(to->ctx, size), 1);
}

static void *hook_calloc(void *domain, size_t count, size_t size)
{
    PyMemAllocatorEx *to = domain;

    return embed_fails() ? NULL : counted(to->calloc(to->ctx, count, size), 1);
}

static void *hook_realloc(void *domain, void *block, size_t size)
{
    PyMemAllocatorEx *to = domain;

    return embed_fails() ? NULL : counted(to->realloc(to->ctx, block, size), block == NULL);
}

static void hook_free(void *domain, void *block)
{
    PyMemAllocatorEx *to = domain;

    counted(block, -1);
    to->free(to->ctx, block);
}

static void hook_memory(void)
{
    static const PyMemAllocatorDomain domains[DOMAINS] = {PYMEM_DOMAIN_RAW, PYMEM_DOMAIN_MEM,
                                                          PYMEM_DOMAIN_OBJ};

    for (int i = 0; i < DOMAINS; i++) {
        PyMemAllocatorEx hook = {&below[i], hook_malloc, hook_calloc, hook_realloc, hook_free};

        PyMem_GetAllocator(domains[i], &below[i]);
        PyMem_SetAllocator(domains[i], &hook);
    }
}

/* ---- what is expected of the layers above ---- */

module_state_t *module_state(PyObject *module)
{
    return PyModule_GetState(module);
}

bool module_complete(module_state_t *state)
{
    state->image = embed_fetch("_image", "image");
    return true;
}

/* As module.c's; nothing here has an __array_interface__ of its own. */
static PyObject *copy_memory(PyObject *module, PyObject *arguments)
{
    unsigned long long address;
    Py_ssize_t size;

    (void)module;
    if (!PyArg_ParseTuple(arguments, "Kn", &address, &size))
        return NULL;
    return PyBytes_FromStringAndSize((const char *)(uintptr_t)address, size);
}

static PyMethodDef functions[] = {
    {"copy_memory", copy_memory, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static int module_exec(PyObject *module)
{
    the_state = module_state(module);
    the_state->interp = interp;
    return terms_init(module, the_state) ? 0 : -1;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)module_exec},
#ifdef Py_GIL_DISABLED
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_erlang",
    .m_size = sizeof(module_state_t),
    .m_methods = functions,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__erlang(void)
{
    return PyModuleDef_Init(&definition);
}

/* Nobody here serves requests, so no handle has a maker. */
/* No executor makes a handle here. */
static void *no_maker(ErlNifPid *process)
{
    (void)process;
    return NULL;
}

static const handle_makers_t makers = {.here = no_maker};

/* ---- life ---- */

static interp_t *new_interp(void)
{
    interp_t *fresh = calloc(1, sizeof *fresh);

    embed_insist(fresh != NULL, "memory");
    atomic_init(&fresh->references, 1);
    queue_init(&fresh->drops);
    pthread_mutex_init(&fresh->lock, NULL);
    return fresh;
}

interp_t *embed_interp(void)
{
    return interp;
}

PyObject *embed_fetch(const char *module_name, const char *name)
{
    PyObject *module = PyImport_ImportModule(module_name);
    PyObject *found = module != NULL ? PyObject_GetAttrString(module, name) : NULL;

    Py_XDECREF(module);
    embed_insist(found != NULL, name);
    return found;
}

static void add_path(const char *folder)
{
    PyObject *path = PySys_GetObject("path"), *entry = PyUnicode_DecodeFSDefault(folder);

    embed_insist(path != NULL && entry != NULL && PyList_Append(path, entry) == 0, "sys.path");
    Py_DECREF(entry);
}

module_state_t *embed_start(bool hooks)
{
    PyPreConfig before;
    PyConfig config;
    PyObject *module = NULL;
    ErlNifEnv *env = enif_alloc_env();

    atoms_init(env);
    handle_set_makers(&makers);
    embed_insist(handle_setup(env, ERL_NIF_RT_CREATE), "the handles' type");
    enif_free_env(env);
    interp = new_interp();
    PyPreConfig_InitIsolatedConfig(&before);
    before.utf8_mode = 1;
#ifndef Py_GIL_DISABLED
    before.allocator = PYMEM_ALLOCATOR_MALLOC; /* for AddressSanitizer's eyes */
#endif
    embed_insist(!PyStatus_Exception(Py_PreInitialize(&before)), "Py_PreInitialize");
    if (hooks)
        hook_memory();
    embed_insist(PyImport_AppendInittab("_erlang", PyInit__erlang) == 0, "PyImport_AppendInittab");
    PyConfig_InitIsolatedConfig(&config);
    config.write_bytecode = 0;
    embed_insist(!PyStatus_Exception(PyConfig_SetBytesString(&config, &config.program_name,
                                                             EP_PYTHON_EXECUTABLE)) &&
                     !PyStatus_Exception(Py_InitializeFromConfig(&config)),
                 "Py_InitializeFromConfig");
    PyConfig_Clear(&config);
    add_path(EP_TEST_FOLDER);
    add_path(EP_TEST_FOLDER "/../../../priv/python/erlang");
    module = PyImport_ImportModule("_erlang");
    embed_insist(module != NULL && module_complete(the_state), "_erlang");
    Py_DECREF(module); /* sys.modules keeps it */
    return the_state;
}
