#include "terms.h"

#include "pycompat.h"
#include "scalars.h"

#include <stdatomic.h>
#include <string.h>

enum { ATOM_CHARS_MAX = 255, NEW_ATOMS_MAX = 16384 };

/* Pid, Ref, Port, Fun and Buffer alike. */
typedef struct {
    PyObject_HEAD
    ErlNifEnv *env; /* owned; NULL for a local pid or port, which is one word */
    ERL_NIF_TERM term;
} term_t;

typedef struct {
    term_t base;
    ErlNifBinary bytes; /* of the term in its env */
} buffer_t;

/* ---- the bounded atom table ---- */

/* Atoms made by this library since it was loaded: atoms are never collected. */
static atomic_uint new_atoms;

static size_t utf8_chars(const char *text, size_t length)
{
    size_t chars = 0;

    for (size_t i = 0; i < length; i++)
        chars += ((unsigned char)text[i] & 0xc0) != 0x80;
    return chars;
}

/* Through the external format: before NIF 2.17 no function takes UTF-8. */
static bool atom_from_utf8(ErlNifEnv *env, const char *text, size_t length, bool existing,
                           ERL_NIF_TERM *out)
{
    enum { ATOM_UTF8_EXT = 118, HEADER = 4 };
    unsigned char etf[HEADER + ATOM_CHARS_MAX * 4] = {
        131, ATOM_UTF8_EXT, (unsigned char)(length >> 8), (unsigned char)length};

    memcpy(etf + HEADER, text, length);
    return enif_binary_to_term(env, etf, HEADER + length, out,
                               existing ? ERL_NIF_BIN2TERM_SAFE : 0) != 0;
}

static bool fits_atom(const char *text, size_t length)
{
    return length <= (size_t)ATOM_CHARS_MAX * 4 && utf8_chars(text, length) <= ATOM_CHARS_MAX &&
           scalars_is_utf8((const unsigned char *)text, length);
}

/* For a text that fits. */
static bool existing_atom(ErlNifEnv *env, const char *text, size_t length, ERL_NIF_TERM *out)
{
    if (scalars_is_ascii((const unsigned char *)text, length))
        return enif_make_existing_atom_len(env, text, length, out, ERL_NIF_LATIN1);
    return atom_from_utf8(env, text, length, true, out);
}

bool terms_existing_atom(ErlNifEnv *env, const char *text, size_t length, ERL_NIF_TERM *out)
{
    return fits_atom(text, length) && existing_atom(env, text, length, out);
}

bool terms_atom(ErlNifEnv *env, const char *text, size_t length, ERL_NIF_TERM *out)
{
    if (!fits_atom(text, length))
        return false;
    if (existing_atom(env, text, length, out))
        return true;
    if (atomic_fetch_add(&new_atoms, 1) < NEW_ATOMS_MAX &&
        atom_from_utf8(env, text, length, false, out))
        return true;
    atomic_fetch_sub(&new_atoms, 1);
    return false;
}

/* ---- Pid, Ref, Port, Fun ---- */

static PyTypeObject *type_of_term(module_state_t *state, ErlNifEnv *env, ERL_NIF_TERM term)
{
    if (enif_is_pid(env, term))
        return state->pid_type;
    if (enif_is_ref(env, term))
        return state->ref_type;
    if (enif_is_port(env, term))
        return state->port_type;
    if (enif_is_fun(env, term))
        return state->fun_type;
    return NULL;
}

PyObject *terms_from_term(module_state_t *state, ErlNifEnv *env, ERL_NIF_TERM term)
{
    PyTypeObject *type = type_of_term(state, env, term);
    ErlNifPid pid;
    ErlNifPort port;
    term_t *self = NULL;

    if (type == NULL) {
        PyErr_SetString(PyExc_TypeError, "not a pid, reference, port or fun");
        return NULL;
    }
    self = (term_t *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->term = term;
    if (!enif_get_local_pid(env, term, &pid) && !enif_get_local_port(env, term, &port)) {
        self->env = enif_alloc_env();
        self->term = enif_make_copy(self->env, term);
    }
    return (PyObject *)self;
}

static void term_dealloc(PyObject *object)
{
    term_t *self = (term_t *)object;
    PyTypeObject *type = Py_TYPE(object);

    if (self->env != NULL)
        enif_free_env(self->env);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyObject *term_repr(PyObject *object)
{
    char text[256];

    enif_snprintf(text, sizeof text, "%T", ((term_t *)object)->term);
    return PyUnicode_FromFormat("<%s %s>", Py_TYPE(object)->tp_name, text);
}

static Py_hash_t term_hash(PyObject *object)
{
    Py_hash_t hash = (Py_hash_t)enif_hash(ERL_NIF_INTERNAL_HASH, ((term_t *)object)->term, 0);

    return hash == -1 ? -2 : hash;
}

/* Equality is Erlang's =:=, order its term order. */
static PyObject *term_richcompare(PyObject *left, PyObject *right, int op)
{
    ERL_NIF_TERM a = 0, b = 0;

    if (Py_TYPE(left) != Py_TYPE(right))
        Py_RETURN_NOTIMPLEMENTED;
    a = ((term_t *)left)->term;
    b = ((term_t *)right)->term;
    if (op == Py_EQ || op == Py_NE)
        return PyBool_FromLong((enif_is_identical(a, b) != 0) == (op == Py_EQ));
    Py_RETURN_RICHCOMPARE(enif_compare(a, b), 0, op);
}

/* The tags of pids, references and ports. Nothing else is decoded: a fun may carry
 * anything. */
static bool is_etf_of_term(const char *etf, Py_ssize_t size)
{
    static const unsigned char tags[] = {88, 89, 90, 101, 102, 103, 114, 120};

    return size > 2 && (unsigned char)etf[0] == 131 &&
           memchr(tags, (unsigned char)etf[1], sizeof tags) != NULL;
}

/* Pid(external_format): what pickle calls. */
static PyObject *term_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    module_state_t *state = PyType_GetModuleState(type);
    ErlNifEnv *env = NULL;
    ERL_NIF_TERM term = 0;
    const char *etf = NULL;
    Py_ssize_t size = 0;
    PyObject *self = NULL;

    if (state == NULL || !PyArg_ParseTuple(args, "y#", &etf, &size))
        goto done;
    env = enif_alloc_env();
    if (kwargs != NULL || !is_etf_of_term(etf, size) ||
        enif_binary_to_term(env, (const unsigned char *)etf, (size_t)size, &term,
                            ERL_NIF_BIN2TERM_SAFE) == 0 ||
        type_of_term(state, env, term) != type) {
        PyErr_Format(PyExc_ValueError, "not the external format of an %s", type->tp_name);
        goto done;
    }
    self = terms_from_term(state, env, term);
done:
    if (env != NULL)
        enif_free_env(env);
    return self;
}

static PyObject *term_reduce(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    ErlNifEnv *env = enif_alloc_env();
    ERL_NIF_TERM term = enif_make_copy(env, ((term_t *)object)->term);
    ErlNifBinary etf;
    PyObject *reduced = NULL;

    if (enif_is_fun(env, term)) {
        PyErr_Format(PyExc_TypeError, "cannot pickle '%s' object", Py_TYPE(object)->tp_name);
    } else if (!enif_term_to_binary(env, term, &etf)) {
        PyErr_NoMemory();
    } else {
        reduced = Py_BuildValue("O(y#)", Py_TYPE(object), etf.data, (Py_ssize_t)etf.size);
        enif_release_binary(&etf);
    }
    enif_free_env(env);
    return reduced;
}

static PyObject *term_copy(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    return Py_NewRef(object);
}

static PyMethodDef term_methods[] = {
    {"__reduce__", term_reduce, METH_NOARGS, "Pickles through Erlang's external term format."},
    {"__copy__", term_copy, METH_NOARGS, "Itself: it never changes."},
    {"__deepcopy__", term_copy, METH_O, "Itself: it never changes."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot term_slots[] = {
    {Py_tp_new, term_new},
    {Py_tp_dealloc, term_dealloc},
    {Py_tp_repr, term_repr},
    {Py_tp_hash, term_hash},
    {Py_tp_richcompare, term_richcompare},
    {Py_tp_methods, term_methods},
    {Py_tp_doc, "An Erlang term that Python only hands on: immutable, hashable, ordered."},
    {0, NULL},
};

/* ---- Buffer ---- */

PyObject *terms_buffer(module_state_t *state, ERL_NIF_TERM binary)
{
    buffer_t *self = (buffer_t *)state->buffer_type->tp_alloc(state->buffer_type, 0);

    if (self == NULL)
        return NULL;
    self->base.env = enif_alloc_env();
    self->base.term = enif_make_copy(self->base.env, binary);
    if (!enif_inspect_binary(self->base.env, self->base.term, &self->bytes)) {
        PyErr_SetString(PyExc_TypeError, "not a binary");
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static PyObject *buffer_new(PyTypeObject *type, PyObject *Py_UNUSED(args),
                            PyObject *Py_UNUSED(kwargs))
{
    PyErr_Format(PyExc_TypeError, "an %s is made of {buffer, Binary}, in Erlang", type->tp_name);
    return NULL;
}

static int buffer_get(PyObject *object, Py_buffer *view, int flags)
{
    const ErlNifBinary *bytes = &((buffer_t *)object)->bytes;

    return PyBuffer_FillInfo(view, object, bytes->data, (Py_ssize_t)bytes->size, 1, flags);
}

static Py_ssize_t buffer_length(PyObject *object)
{
    return (Py_ssize_t)((buffer_t *)object)->bytes.size;
}

static PyObject *buffer_repr(PyObject *object)
{
    return PyUnicode_FromFormat("<%s of %zd bytes>", Py_TYPE(object)->tp_name,
                                buffer_length(object));
}

static PyMethodDef buffer_methods[] = {
    {"__copy__", term_copy, METH_NOARGS, "Itself: it never changes."},
    {"__deepcopy__", term_copy, METH_O, "Itself: it never changes."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot buffer_slots[] = {
    {Py_tp_new, buffer_new},
    {Py_tp_dealloc, term_dealloc},
    {Py_tp_repr, buffer_repr},
    {Py_tp_hash, term_hash},
    {Py_tp_richcompare, term_richcompare},
    {Py_tp_methods, buffer_methods},
    {Py_sq_length, buffer_length},
    {Py_bf_getbuffer, buffer_get},
    {Py_tp_doc, "The bytes of an Erlang binary, read where they are: memoryview(buffer), hashlib, "
                "numpy.frombuffer. Immutable."},
    {0, NULL},
};

/* ---- Atom ---- */

static bool check_atom_text(PyObject *text)
{
    Py_ssize_t size = 0;

    if (!PyUnicode_Check(text)) {
        PyErr_Format(PyExc_TypeError, "an atom's text must be str, not %s", Py_TYPE(text)->tp_name);
        return false;
    }
    if (PyUnicode_AsUTF8AndSize(text, &size) == NULL)
        return false; /* UnicodeEncodeError, a ValueError: lone surrogates */
    if (PyUnicode_GET_LENGTH(text) > ATOM_CHARS_MAX) {
        PyErr_Format(PyExc_ValueError, "an atom has at most %d characters", ATOM_CHARS_MAX);
        return false;
    }
    return true;
}

static PyObject *atom_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *text = NULL;

    if (kwargs != NULL && PyDict_GET_SIZE(kwargs) > 0) {
        PyErr_SetString(PyExc_TypeError, "Atom() takes no keyword arguments");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "O:Atom", &text) || !check_atom_text(text))
        return NULL;
    return PyUnicode_Type.tp_new(type, args, NULL);
}

static PyObject *atom_repr(PyObject *atom)
{
    PyObject *text = PyUnicode_Type.tp_repr(atom), *repr = NULL;

    if (text != NULL)
        repr = PyUnicode_FromFormat("erlang.Atom(%U)", text);
    Py_XDECREF(text);
    return repr;
}

static PyType_Slot atom_slots[] = {
    {Py_tp_new, atom_new},
    {Py_tp_repr, atom_repr},
    {Py_tp_doc, "Atom(text): a str that becomes an atom when it goes to Erlang."},
    {0, NULL},
};

static bool atom_to_term(ErlNifEnv *env, PyObject *atom, ERL_NIF_TERM *out)
{
    Py_ssize_t size = 0;
    const char *text = PyUnicode_AsUTF8AndSize(atom, &size);

    if (text == NULL) {
        PyErr_Clear();
        return false;
    }
    return terms_atom(env, text, (size_t)size, out);
}

PyObject *terms_make_atom(module_state_t *state, PyObject *text)
{
    PyObject *atom = PyObject_CallOneArg((PyObject *)state->atom_type, text);
    ErlNifEnv *env = NULL;
    ERL_NIF_TERM term = 0;

    if (atom == NULL)
        return NULL;
    env = enif_alloc_env();
    if (!atom_to_term(env, atom, &term)) {
        PyErr_Format(state->error, "no more than %d new atoms can be made from Python",
                     NEW_ATOMS_MAX);
        Py_CLEAR(atom);
    }
    enif_free_env(env);
    return atom;
}

bool terms_to_term(module_state_t *state, ErlNifEnv *env, PyObject *object, ERL_NIF_TERM *out)
{
    PyTypeObject *type = Py_TYPE(object);
    term_t *self = (term_t *)object;

    if (type == state->atom_type)
        return atom_to_term(env, object, out);
    if (type != state->pid_type && type != state->ref_type && type != state->port_type &&
        type != state->fun_type && type != state->buffer_type)
        return false;
    *out = self->env == NULL ? self->term : enif_make_copy(env, self->term);
    return true;
}

/* ---- making it all ---- */

static PyTypeObject *make_type(PyObject *module, const char *name, int size, PyType_Slot *slots,
                               PyObject *base)
{
    PyType_Spec spec = {
        .name = name, .basicsize = size, .flags = Py_TPFLAGS_DEFAULT, .slots = slots};
    PyObject *bases = base == NULL ? NULL : PyTuple_Pack(1, base), *type = NULL;

#if PY_VERSION_HEX >= 0x030A0000
    spec.flags |= Py_TPFLAGS_IMMUTABLETYPE;
#endif
    if (base != NULL && bases == NULL)
        return NULL;
    type = PyType_FromModuleAndSpec(module, &spec, bases);
    Py_XDECREF(bases);
    if (type != NULL && PyModule_AddType(module, (PyTypeObject *)type) < 0)
        Py_CLEAR(type);
    return (PyTypeObject *)type;
}

static PyObject *make_exception(PyObject *module, const char *name, const char *doc, PyObject *base)
{
    PyObject *class = base == NULL ? NULL : PyErr_NewExceptionWithDoc(name, doc, base, NULL);

    if (class != NULL && PyModule_AddType(module, (PyTypeObject *)class) < 0)
        Py_CLEAR(class);
    return class;
}

static bool make_exceptions(PyObject *module, module_state_t *state)
{
    state->error =
        make_exception(module, "erlang.Error", "What this package raises.", PyExc_Exception);
    state->process_error = make_exception(module, "erlang.ProcessError",
                                          "An Erlang process is not there, or died.", state->error);
    state->interrupt = make_exception(
        module, "erlang.Interrupt",
        "The request was interrupted or ran out of time. Not an Exception: let it pass.",
        PyExc_BaseException);
    return state->error != NULL && state->process_error != NULL && state->interrupt != NULL;
}

bool terms_init(PyObject *module, module_state_t *state)
{
    const int size = (int)sizeof(term_t);

    if (!make_exceptions(module, state))
        return false;
    state->atom_type = make_type(module, "erlang.Atom", 0, atom_slots, (PyObject *)&PyUnicode_Type);
    state->pid_type = make_type(module, "erlang.Pid", size, term_slots, NULL);
    state->ref_type = make_type(module, "erlang.Ref", size, term_slots, NULL);
    state->port_type = make_type(module, "erlang.Port", size, term_slots, NULL);
    state->fun_type = make_type(module, "erlang.Fun", size, term_slots, NULL);
    state->buffer_type =
        make_type(module, "erlang.Buffer", (int)sizeof(buffer_t), buffer_slots, NULL);
    state->atoms = scalars_atom_cache_create();
    if (state->atoms == NULL && !PyErr_Occurred())
        PyErr_NoMemory();
    return !PyErr_Occurred();
}

void terms_finish(module_state_t *state)
{
    scalars_atom_cache_destroy(state->atoms);
    state->atoms = NULL;
}
