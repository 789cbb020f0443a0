#include "enif.h"

#include <math.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * A term is a word: a pointer to a box (low bits 0), to an atom, or an immediate. Kinds are in
 * the order of terms.
 */
typedef enum {
    KIND_INT, /* 60 bits, in the word */
    KIND_BIG,
    KIND_FLOAT,
    KIND_ATOM,
    KIND_REF,
    KIND_FUN,
    KIND_PORT,
    KIND_PID,
    KIND_TUPLE,
    KIND_MAP,
    KIND_NIL,
    KIND_CONS,
    KIND_BITS
} kind_t;

enum {
    TAG_BOX = 0,
    TAG_PID = 3,
    TAG_PORT = 7,
    TAG_ATOM = 11,
    TAG_NIL = 13,
    TAG_INT = 15,
    TAG = 15
};
enum { ATOMS = 1 << 18, ATOM_BYTES = 1020, ATOM_CHARS = 255 };

typedef struct box {
    struct box *next; /* of the env's */
    ErlNifEnv *env;
    kind_t kind;
    bool flag;            /* BIG: negative; REF: a resource */
    size_t size;          /* terms (MAP: pairs, first all keys), else bytes (BITS: bits) */
    ERL_NIF_TERM terms[]; /* or bytes: of a BIG its digits, of a REF its external format */
} box_t;

struct enif_environment_t {
    box_t *boxes;
};

typedef struct {
    size_t size;
    bool is_temporary;
    unsigned char text[]; /* UTF-8 */
} atom_t;

struct enif_resource_type_t {
    ErlNifResourceDtor *destroy;
};

typedef struct {
    ErlNifResourceType *type;
    atomic_int references;
    max_align_t object[];
} resource_t;

bool (*enif_is_short)(void);
static atomic_long live;
static _Atomic(atom_t *) atoms[ATOMS]; /* open addressing */
static unsigned temporary_atoms;
static bool keeps_atoms = true;

static bool is_short(void)
{
    return enif_is_short != NULL && enif_is_short();
}

static void insist(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "enif: the VM would not bear it: %s\n", what);
        abort();
    }
}

/* Not malloc, which the tests of memory shortage wrap: the VM ends where we do. */
static void *must_alloc(size_t alignment, size_t size)
{
    void *memory = NULL;

    insist(posix_memalign(&memory, alignment, size) == 0, "no memory");
    return memory;
}

static void count(long change)
{
    atomic_fetch_add_explicit(&live, change, memory_order_relaxed);
}

long enif_count_live(void)
{
    return atomic_load(&live);
}

/* ---- boxes ---- */

static box_t *box_of(ERL_NIF_TERM term)
{
    return (box_t *)term; /* NOLINT: a word made of a pointer */
}

static unsigned char *bytes_of(ERL_NIF_TERM term)
{
    return (unsigned char *)box_of(term)->terms;
}

static kind_t kind_of(ERL_NIF_TERM term)
{
    switch (term & TAG) {
    case TAG_PID:
        return KIND_PID;
    case TAG_PORT:
        return KIND_PORT;
    case TAG_ATOM:
        return KIND_ATOM;
    case TAG_NIL:
        return KIND_NIL;
    case TAG_INT:
        return KIND_INT;
    default:
        insist(term != 0 && (term & TAG) == TAG_BOX, "a word that is no term");
        return box_of(term)->kind;
    }
}

static ERL_NIF_TERM new_box(ErlNifEnv *env, kind_t kind, size_t size, size_t bytes)
{
    box_t *box = must_alloc(16, sizeof *box + bytes);

    *box = (box_t){.next = env->boxes, .env = env, .kind = kind, .size = size};
    env->boxes = box;
    return (ERL_NIF_TERM)box;
}

/* Room for terms, each to be put by put(). */
static ERL_NIF_TERM new_terms(ErlNifEnv *env, kind_t kind, size_t size)
{
    return new_box(env, kind, size, (kind == KIND_MAP ? 2 * size : size) * sizeof(ERL_NIF_TERM));
}

static void put(ERL_NIF_TERM term, size_t i, ERL_NIF_TERM item)
{
    insist((item & TAG) != TAG_BOX || (item != 0 && box_of(item)->env == box_of(term)->env),
           "a term of another env");
    box_of(term)->terms[i] = item;
}

static void put_all(ERL_NIF_TERM term, size_t at, const ERL_NIF_TERM *items, size_t size)
{
    for (size_t i = 0; i < size; i++)
        put(term, at + i, items[i]);
}

static size_t byte_size(ERL_NIF_TERM term)
{
    const box_t *box = box_of(term);

    return box->kind == KIND_BITS ? (box->size + 7) / 8 : box->size;
}

static ERL_NIF_TERM new_bytes(ErlNifEnv *env, kind_t kind, const void *bytes, size_t size)
{
    ERL_NIF_TERM term = new_box(env, kind, kind == KIND_BITS ? size * 8 : size, size);

    if (size > 0 && bytes != NULL)
        memcpy(bytes_of(term), bytes, size);
    return term;
}

static resource_t *resource_of(ERL_NIF_TERM term)
{
    resource_t *resource = NULL;

    memcpy(&resource, bytes_of(term), sizeof resource);
    return resource;
}

/* ---- envs, binaries, resources ---- */

ErlNifEnv *enif_alloc_env(void)
{
    ErlNifEnv *env = must_alloc(16, sizeof *env);

    env->boxes = NULL;
    count(1);
    return env;
}

void enif_clear_env(ErlNifEnv *env)
{
    while (env->boxes != NULL) {
        box_t *box = env->boxes;

        env->boxes = box->next;
        if (box->kind == KIND_REF && box->flag)
            enif_release_resource(resource_of((ERL_NIF_TERM)box)->object);
        free(box);
    }
}

void enif_free_env(ErlNifEnv *env)
{
    enif_clear_env(env);
    free(env);
    count(-1);
}

int enif_alloc_binary(size_t size, ErlNifBinary *binary)
{
    if (is_short())
        return 0;
    *binary = (ErlNifBinary){.size = size, .data = must_alloc(16, size)};
    count(1);
    return 1;
}

void enif_release_binary(ErlNifBinary *binary)
{
    free(binary->data);
    binary->data = NULL;
    count(-1);
}

ErlNifResourceType *enif_open_resource_type_x(ErlNifEnv *env, const char *name,
                                              const ErlNifResourceTypeInit *init,
                                              ErlNifResourceFlags flags, ErlNifResourceFlags *tried)
{
    static ErlNifResourceType types[8];
    static size_t used;

    (void)env, (void)name, (void)flags, (void)tried;
    insist(used < 8, "so many resource types");
    types[used].destroy = init->dtor;
    return &types[used++];
}

void *enif_alloc_resource(ErlNifResourceType *type, size_t size)
{
    resource_t *resource = is_short() ? NULL : must_alloc(16, sizeof *resource + size);

    if (resource == NULL)
        return NULL;
    resource->type = type;
    atomic_init(&resource->references, 1);
    count(1);
    return resource->object;
}

static resource_t *resource_from(void *object)
{
    return (resource_t *)((char *)object - offsetof(resource_t, object));
}

void enif_release_resource(void *object)
{
    resource_t *resource = resource_from(object);

    if (atomic_fetch_sub(&resource->references, 1) != 1)
        return;
    if (resource->type->destroy != NULL)
        resource->type->destroy(NULL, object);
    free(resource);
    count(-1);
}

ERL_NIF_TERM enif_make_resource(ErlNifEnv *env, void *object)
{
    resource_t *resource = resource_from(object);
    ERL_NIF_TERM term = new_bytes(env, KIND_REF, &resource, sizeof(resource_t *));

    atomic_fetch_add_explicit(&resource->references, 1, memory_order_relaxed);
    box_of(term)->flag = true;
    return term;
}

/* A copy; the resource lives as long as the env. */
ERL_NIF_TERM enif_make_resource_binary(ErlNifEnv *env, void *object, const void *bytes, size_t size)
{
    enif_make_resource(env, object);
    return new_bytes(env, KIND_BITS, bytes, size);
}

int enif_get_resource(ErlNifEnv *env, ERL_NIF_TERM term, ErlNifResourceType *type, void **object)
{
    (void)env;
    if ((term & TAG) != TAG_BOX || kind_of(term) != KIND_REF || !box_of(term)->flag ||
        resource_of(term)->type != type)
        return 0;
    *object = resource_of(term)->object;
    return 1;
}

/* ---- atoms ---- */

static atom_t *atom_of(ERL_NIF_TERM term)
{
    return (atom_t *)(term - TAG_ATOM); /* NOLINT: a word made of a pointer */
}

static uint64_t hash_bytes(const unsigned char *bytes, size_t size)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    for (size_t i = 0; i < size; i++)
        hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
    return hash ^ hash >> 32;
}

ERL_NIF_TERM enif_utf8_atom(const unsigned char *text, size_t size, bool existing)
{
    size_t at = hash_bytes(text, size) % ATOMS, chars = 0;
    atom_t *atom = NULL, *fresh = NULL;

    for (size_t i = 0; i < size; i++)
        chars += (text[i] & 0xc0) != 0x80;
    if (size > ATOM_BYTES || chars > ATOM_CHARS)
        return 0;
    for (;; at = (at + 1) % ATOMS) {
        atom = atomic_load_explicit(&atoms[at], memory_order_acquire);
        if (atom == NULL && !existing) {
            if (fresh == NULL) {
                fresh = must_alloc(64, sizeof *fresh + size);
                *fresh = (atom_t){.size = size, .is_temporary = !keeps_atoms};
                memcpy(fresh->text, text, size);
            }
            if (atomic_compare_exchange_strong(&atoms[at], &atom, fresh)) {
                temporary_atoms += !keeps_atoms;
                return (ERL_NIF_TERM)fresh + TAG_ATOM;
            }
        }
        if (atom == NULL || (atom->size == size && memcmp(atom->text, text, size) == 0))
            break;
    }
    free(fresh);
    return atom == NULL ? 0 : (ERL_NIF_TERM)atom + TAG_ATOM;
}

void enif_keep_atoms(void)
{
    keeps_atoms = false;
}

unsigned enif_count_temporary_atoms(void)
{
    return temporary_atoms;
}

void enif_forget_atoms(void)
{
    atom_t **kept = must_alloc(16, ATOMS * sizeof *kept);
    size_t size = 0;

    for (size_t i = 0; i < ATOMS; i++) {
        atom_t *atom = atomic_exchange(&atoms[i], NULL);

        if (atom != NULL && !atom->is_temporary)
            kept[size++] = atom;
        else
            free(atom);
    }
    for (size_t i = 0; i < size; i++) {
        size_t at = hash_bytes(kept[i]->text, kept[i]->size) % ATOMS;

        while (atoms[at] != NULL)
            at = (at + 1) % ATOMS;
        atoms[at] = kept[i];
    }
    free(kept);
    temporary_atoms = 0;
}

ERL_NIF_TERM enif_latin1_atom(const char *text, size_t length, bool existing)
{
    unsigned char utf8[2 * ATOM_CHARS];
    size_t size = 0;

    if (length > ATOM_CHARS)
        return 0;
    for (size_t i = 0; i < length; i++) {
        const unsigned char c = (unsigned char)text[i];

        if (c >= 0x80)
            utf8[size++] = (unsigned char)(0xc0 | c >> 6);
        utf8[size++] = c < 0x80 ? c : 0x80 | (c & 0x3f);
    }
    return enif_utf8_atom(utf8, size, existing);
}

ERL_NIF_TERM enif_make_atom(ErlNifEnv *env, const char *text)
{
    ERL_NIF_TERM atom = enif_latin1_atom(text, strlen(text), false);

    (void)env;
    insist(atom != 0, "an atom of more than 255 characters");
    return atom;
}

int enif_make_existing_atom_len(ErlNifEnv *env, const char *text, size_t length, ERL_NIF_TERM *atom,
                                ErlNifCharEncoding encoding)
{
    (void)env, (void)encoding;
    *atom = enif_latin1_atom(text, length, true);
    return *atom != 0;
}

int enif_get_atom(ErlNifEnv *env, ERL_NIF_TERM term, char *text, unsigned room,
                  ErlNifCharEncoding encoding)
{
    const atom_t *atom = atom_of(term);
    unsigned used = 0;

    (void)env, (void)encoding;
    if (kind_of(term) != KIND_ATOM)
        return 0;
    for (size_t i = 0; i < atom->size; i++) {
        unsigned char c = atom->text[i];

        if (c > 0xc3 || used + 1 >= room)
            return 0;
        if (c >= 0x80)
            c = (unsigned char)(c << 6 | (atom->text[++i] & 0x3f));
        text[used++] = (char)c;
    }
    text[used++] = 0;
    return (int)used;
}

/* ---- numbers ---- */

static ERL_NIF_TERM make_small(int64_t number)
{
    return (ERL_NIF_TERM)((uint64_t)number << 4 | TAG_INT);
}

static int64_t small_value(ERL_NIF_TERM term)
{
    return (int64_t)term >> 4;
}

ERL_NIF_TERM enif_make_integer(ErlNifEnv *env, const unsigned char *digits, size_t size,
                               bool negative)
{
    uint64_t value = 0;
    ERL_NIF_TERM term = 0;

    while (size > 0 && digits[size - 1] == 0)
        size--;
    for (size_t i = 0; i < size && i < 8; i++)
        value |= (uint64_t)digits[i] << 8 * i;
    if (size <= 8 && value < UINT64_C(1) << 59)
        return make_small(negative ? -(int64_t)value : (int64_t)value);
    term = new_bytes(env, KIND_BIG, digits, size);
    box_of(term)->flag = negative;
    return term;
}

static ERL_NIF_TERM make_word(ErlNifEnv *env, uint64_t magnitude, bool negative)
{
    unsigned char digits[8];

    for (size_t i = 0; i < sizeof digits; i++)
        digits[i] = (unsigned char)(magnitude >> 8 * i);
    return enif_make_integer(env, digits, sizeof digits, negative);
}

ERL_NIF_TERM enif_make_int64(ErlNifEnv *env, ErlNifSInt64 number)
{
    return make_word(env, number < 0 ? -(uint64_t)number : (uint64_t)number, number < 0);
}

ERL_NIF_TERM enif_make_uint64(ErlNifEnv *env, ErlNifUInt64 number)
{
    return make_word(env, number, false);
}

#ifndef enif_make_int64 /* else it is the first of the two above */
ERL_NIF_TERM enif_make_long(ErlNifEnv *env, long number)
{
    return enif_make_int64(env, number);
}
#endif

ERL_NIF_TERM enif_make_uint(ErlNifEnv *env, unsigned number)
{
    (void)env;
    return make_small(number);
}

/* The integer's magnitude in one word; false if it is longer or no integer. */
static bool get_word(ERL_NIF_TERM term, uint64_t *magnitude, bool *negative)
{
    const kind_t kind = kind_of(term);

    if (kind == KIND_INT) {
        *negative = small_value(term) < 0;
        *magnitude = *negative ? -(uint64_t)small_value(term) : (uint64_t)small_value(term);
        return true;
    }
    if (kind != KIND_BIG || box_of(term)->size > 8)
        return false;
    *negative = box_of(term)->flag;
    *magnitude = 0;
    for (size_t i = 0; i < box_of(term)->size; i++)
        *magnitude |= (uint64_t)bytes_of(term)[i] << 8 * i;
    return true;
}

int enif_get_int64(ErlNifEnv *env, ERL_NIF_TERM term, ErlNifSInt64 *number)
{
    uint64_t magnitude = 0;
    bool negative = false;

    (void)env;
    if (!get_word(term, &magnitude, &negative) || magnitude > (UINT64_C(1) << 63) - !negative)
        return 0;
    *number = (int64_t)(negative ? -magnitude : magnitude);
    return 1;
}

int enif_get_uint64(ErlNifEnv *env, ERL_NIF_TERM term, ErlNifUInt64 *number)
{
    uint64_t magnitude = 0;
    bool negative = false;

    (void)env;
    if (!get_word(term, &magnitude, &negative) || negative)
        return 0;
    *number = magnitude;
    return 1;
}

int enif_get_uint(ErlNifEnv *env, ERL_NIF_TERM term, unsigned *number)
{
    ErlNifUInt64 wide = 0;

    if (!enif_get_uint64(env, term, &wide) || wide > UINT32_MAX)
        return 0;
    *number = (unsigned)wide;
    return 1;
}

ERL_NIF_TERM enif_make_double(ErlNifEnv *env, double number)
{
    insist(isfinite(number), "a float that is not finite");
    return new_bytes(env, KIND_FLOAT, &number, sizeof number);
}

int enif_get_double(ErlNifEnv *env, ERL_NIF_TERM term, double *number)
{
    (void)env;
    if (kind_of(term) != KIND_FLOAT)
        return 0;
    memcpy(number, bytes_of(term), sizeof *number);
    return 1;
}

/* ---- binaries ---- */

unsigned char *enif_make_new_binary(ErlNifEnv *env, size_t size, ERL_NIF_TERM *term)
{
    *term = new_bytes(env, KIND_BITS, NULL, size);
    return bytes_of(*term);
}

ERL_NIF_TERM enif_make_binary(ErlNifEnv *env, ErlNifBinary *binary)
{
    ERL_NIF_TERM term = new_bytes(env, KIND_BITS, binary->data, binary->size);

    enif_release_binary(binary);
    return term;
}

int enif_is_binary(ErlNifEnv *env, ERL_NIF_TERM term)
{
    (void)env;
    return kind_of(term) == KIND_BITS && box_of(term)->size % 8 == 0;
}

int enif_inspect_binary(ErlNifEnv *env, ERL_NIF_TERM term, ErlNifBinary *binary)
{
    if (!enif_is_binary(env, term))
        return 0;
    *binary = (ErlNifBinary){.size = box_of(term)->size / 8, .data = bytes_of(term)};
    return 1;
}

/* ---- lists and tuples ---- */

ERL_NIF_TERM enif_make_list_cell(ErlNifEnv *env, ERL_NIF_TERM head, ERL_NIF_TERM tail)
{
    ERL_NIF_TERM term = new_terms(env, KIND_CONS, 2);

    put_all(term, 0, (ERL_NIF_TERM[]){head, tail}, 2);
    return term;
}

ERL_NIF_TERM enif_make_list_from_array(ErlNifEnv *env, const ERL_NIF_TERM items[], unsigned size)
{
    ERL_NIF_TERM list = TAG_NIL;

    while (size > 0)
        list = enif_make_list_cell(env, items[--size], list);
    return list;
}

ERL_NIF_TERM enif_make_tuple_from_array(ErlNifEnv *env, const ERL_NIF_TERM items[], unsigned size)
{
    ERL_NIF_TERM term = new_terms(env, KIND_TUPLE, size);

    insist(size < 1 << 24, "a tuple of more than 16777215 elements");
    put_all(term, 0, items, size);
    return term;
}

ERL_NIF_TERM enif_make_list(ErlNifEnv *env, unsigned size, ...)
{
    (void)env;
    insist(size == 0, "an enif_make_list that the stand-in lacks");
    return TAG_NIL;
}

ERL_NIF_TERM enif_make_tuple(ErlNifEnv *env, unsigned size, ...)
{
    ERL_NIF_TERM items[8];
    va_list arguments;

    insist(size <= 8, "an enif_make_tuple that the stand-in lacks");
    va_start(arguments, size);
    for (unsigned i = 0; i < size; i++)
        items[i] = va_arg(arguments, ERL_NIF_TERM);
    va_end(arguments);
    return enif_make_tuple_from_array(env, items, size);
}

ERL_NIF_TERM enif_make_string(ErlNifEnv *env, const char *text, ErlNifCharEncoding encoding)
{
    ERL_NIF_TERM list = TAG_NIL;

    (void)encoding;
    for (size_t i = strlen(text); i > 0; i--)
        list = enif_make_list_cell(env, make_small((unsigned char)text[i - 1]), list);
    return list;
}

int enif_get_list_cell(ErlNifEnv *env, ERL_NIF_TERM term, ERL_NIF_TERM *head, ERL_NIF_TERM *tail)
{
    (void)env;
    if (kind_of(term) != KIND_CONS)
        return 0;
    *head = box_of(term)->terms[0];
    *tail = box_of(term)->terms[1];
    return 1;
}

int enif_get_list_length(ErlNifEnv *env, ERL_NIF_TERM term, unsigned *length)
{
    ERL_NIF_TERM head = 0;

    for (*length = 0; enif_get_list_cell(env, term, &head, &term); ++*length)
        ;
    return kind_of(term) == KIND_NIL;
}

int enif_make_reverse_list(ErlNifEnv *env, ERL_NIF_TERM term, ERL_NIF_TERM *list)
{
    ERL_NIF_TERM head = 0;

    for (*list = TAG_NIL; enif_get_list_cell(env, term, &head, &term);)
        *list = enif_make_list_cell(env, head, *list);
    return kind_of(term) == KIND_NIL;
}

int enif_get_tuple(ErlNifEnv *env, ERL_NIF_TERM term, int *size, const ERL_NIF_TERM **items)
{
    (void)env;
    if (kind_of(term) != KIND_TUPLE)
        return 0;
    *size = (int)box_of(term)->size;
    *items = box_of(term)->terms;
    return 1;
}

/* ---- order ---- */

static int sign_of(int64_t number)
{
    return (number > 0) - (number < 0);
}

static int order_sizes(size_t a, size_t b)
{
    return (a > b) - (a < b);
}

static int order_integers(ERL_NIF_TERM a, ERL_NIF_TERM b)
{
    const bool big_a = kind_of(a) == KIND_BIG, big_b = kind_of(b) == KIND_BIG;
    const int sign_a = big_a && box_of(a)->flag ? -1 : 1,
              sign_b = big_b && box_of(b)->flag ? -1 : 1;
    int order = 0;

    if (!big_a && !big_b)
        return (small_value(a) > small_value(b)) - (small_value(a) < small_value(b));
    if (!big_a || !big_b)
        return big_a ? sign_a : -sign_b;
    if (sign_a != sign_b)
        return sign_a;
    order = order_sizes(box_of(a)->size, box_of(b)->size);
    for (size_t i = box_of(a)->size; order == 0 && i > 0; i--)
        order = order_sizes(bytes_of(a)[i - 1], bytes_of(b)[i - 1]);
    return order * sign_a;
}

/* An integer against a float, exactly: against the float's whole part, then what it has beyond. */
static int order_with_float(ERL_NIF_TERM integer, double number)
{
    struct enif_environment_t env = {NULL};
    unsigned char digits[128] = {0};
    double whole = trunc(number);
    int exponent = 0, order = 0;
    uint64_t mantissa = (uint64_t)ldexp(frexp(fabs(whole), &exponent), 53);

    exponent -= 53;
    for (int bit = 0; bit < 53; bit++)
        if (mantissa >> bit & 1 && bit + exponent >= 0)
            digits[(bit + exponent) / 8] |= (unsigned char)(1U << (bit + exponent) % 8);
    order = order_integers(integer, enif_make_integer(&env, digits, sizeof digits, number < 0));
    enif_clear_env(&env);
    return order != 0 ? order : number > whole ? -1 : number < whole;
}

static double float_of(ERL_NIF_TERM term)
{
    double number = 0;

    memcpy(&number, bytes_of(term), sizeof number);
    return number;
}

/* exact: 1 and 1.0 differ, and all integers are before all floats, as in maps. */
static int order_numbers(ERL_NIF_TERM a, ERL_NIF_TERM b, bool exact)
{
    const bool float_a = kind_of(a) == KIND_FLOAT, float_b = kind_of(b) == KIND_FLOAT;

    if (!float_a && !float_b)
        return order_integers(a, b);
    if (float_a && float_b) {
        const int order = (float_of(a) > float_of(b)) - (float_of(a) < float_of(b));

        return order != 0 || !exact ? order : !!signbit(float_of(b)) - !!signbit(float_of(a));
    }
    if (exact)
        return float_a ? 1 : -1;
    return float_a ? -order_with_float(b, float_of(a)) : order_with_float(a, float_of(b));
}

static int order_bytes(const unsigned char *a, size_t size_a, const unsigned char *b, size_t size_b)
{
    const int order = sign_of(memcmp(a, b, size_a < size_b ? size_a : size_b));

    return order != 0 ? order : order_sizes(size_a, size_b);
}

static int order_terms(ERL_NIF_TERM a, ERL_NIF_TERM b, bool exact);

static int order_boxes(const box_t *a, const box_t *b, bool exact)
{
    const size_t keys = a->kind == KIND_MAP ? a->size : 0, size = a->size + keys;
    int order = order_sizes(a->size, b->size);

    for (size_t i = 0; order == 0 && i < size; i++)
        order = order_terms(a->terms[i], b->terms[i], exact || i < keys);
    return order;
}

static int order_terms(ERL_NIF_TERM a, ERL_NIF_TERM b, bool exact)
{
    int order = 0;

    for (; a != b && order == 0; a = box_of(a)->terms[1], b = box_of(b)->terms[1]) {
        const kind_t kind = kind_of(a), other = kind_of(b);

        if (kind <= KIND_FLOAT && other <= KIND_FLOAT)
            return order_numbers(a, b, exact);
        if (kind != other)
            return kind < other ? -1 : 1;
        if (kind == KIND_ATOM)
            return order_bytes(atom_of(a)->text, atom_of(a)->size, atom_of(b)->text,
                               atom_of(b)->size);
        if ((a & TAG) != TAG_BOX || (b & TAG) != TAG_BOX) /* a local pid or port */
            return order_sizes(a, b);
        if (kind == KIND_TUPLE || kind == KIND_MAP)
            return order_boxes(box_of(a), box_of(b), exact);
        if (kind != KIND_CONS) {
            order = order_bytes(bytes_of(a), byte_size(a), bytes_of(b), byte_size(b));
            return order != 0 ? order : order_sizes(box_of(a)->size, box_of(b)->size);
        }
        order = order_terms(box_of(a)->terms[0], box_of(b)->terms[0], exact);
    }
    return order;
}

int enif_compare(ERL_NIF_TERM a, ERL_NIF_TERM b)
{
    return order_terms(a, b, false);
}

int enif_is_identical(ERL_NIF_TERM a, ERL_NIF_TERM b)
{
    return order_terms(a, b, true) == 0;
}

/* ---- maps: keys in exact order ---- */

/* Where the key is, or would be. */
static bool find_key(ERL_NIF_TERM map, ERL_NIF_TERM key, size_t *at)
{
    size_t low = 0, high = box_of(map)->size;

    while (low < high) {
        const size_t middle = (low + high) / 2;
        const int order = order_terms(box_of(map)->terms[middle], key, true);

        *at = middle;
        if (order == 0)
            return true;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *at = low;
    return false;
}

ERL_NIF_TERM enif_make_new_map(ErlNifEnv *env)
{
    return new_terms(env, KIND_MAP, 0);
}

int enif_make_map_put(ErlNifEnv *env, ERL_NIF_TERM map, ERL_NIF_TERM key, ERL_NIF_TERM value,
                      ERL_NIF_TERM *out)
{
    const size_t size = box_of(map)->size;
    const ERL_NIF_TERM *terms = box_of(map)->terms;
    size_t at = 0;
    const bool found = find_key(map, key, &at);
    const size_t larger = size + !found;

    *out = new_terms(env, KIND_MAP, larger);
    put_all(*out, 0, terms, at);
    put(*out, at, key);
    put_all(*out, at + 1, terms + at + found, size - at - found);
    put_all(*out, larger, terms + size, at);
    put(*out, larger + at, value);
    put_all(*out, larger + at + 1, terms + size + at + found, size - at - found);
    return 1;
}

int enif_make_map_from_arrays(ErlNifEnv *env, ERL_NIF_TERM keys[], ERL_NIF_TERM values[],
                              size_t size, ERL_NIF_TERM *out)
{
    insist(size <= 128, "a big map from arrays on a thread of no scheduler");
    *out = enif_make_new_map(env);
    for (size_t i = 0; i < size; i++)
        (void)enif_make_map_put(env, *out, keys[i], values[i], out);
    return box_of(*out)->size == size;
}

int enif_get_map_size(ErlNifEnv *env, ERL_NIF_TERM map, size_t *size)
{
    (void)env;
    if (kind_of(map) != KIND_MAP)
        return 0;
    *size = box_of(map)->size;
    return 1;
}

int enif_get_map_value(ErlNifEnv *env, ERL_NIF_TERM map, ERL_NIF_TERM key, ERL_NIF_TERM *value)
{
    size_t at = 0;

    (void)env;
    if (kind_of(map) != KIND_MAP || !find_key(map, key, &at))
        return 0;
    *value = box_of(map)->terms[box_of(map)->size + at];
    return 1;
}

int enif_map_iterator_create(ErlNifEnv *env, ERL_NIF_TERM map, ErlNifMapIterator *pairs,
                             ErlNifMapIteratorEntry entry)
{
    (void)env, (void)entry;
    if (kind_of(map) != KIND_MAP || is_short())
        return 0;
    pairs->map = map;
    pairs->idx = 0;
    pairs->size = box_of(map)->size;
    count(1);
    return 1;
}

void enif_map_iterator_destroy(ErlNifEnv *env, ErlNifMapIterator *pairs)
{
    (void)env;
    pairs->map = 0;
    count(-1);
}

int enif_map_iterator_next(ErlNifEnv *env, ErlNifMapIterator *pairs)
{
    (void)env;
    return ++pairs->idx < pairs->size;
}

int enif_map_iterator_get_pair(ErlNifEnv *env, ErlNifMapIterator *pairs, ERL_NIF_TERM *key,
                               ERL_NIF_TERM *value)
{
    (void)env;
    if (pairs->idx >= pairs->size)
        return 0;
    *key = box_of(pairs->map)->terms[pairs->idx];
    *value = box_of(pairs->map)->terms[pairs->size + pairs->idx];
    return 1;
}

/* ---- pids, references, ports, funs ---- */

ERL_NIF_TERM enif_make_external(ErlNifEnv *env, ErlNifTermType type, const unsigned char *etf,
                                size_t size)
{
    const kind_t kind = type == ERL_NIF_TERM_TYPE_PID    ? KIND_PID
                        : type == ERL_NIF_TERM_TYPE_PORT ? KIND_PORT
                        : type == ERL_NIF_TERM_TYPE_FUN  ? KIND_FUN
                                                         : KIND_REF;

    return new_bytes(env, kind, etf, size);
}

ERL_NIF_TERM enif_make_local(ErlNifTermType type, uint32_t number)
{
    return (ERL_NIF_TERM)number << 4 | (type == ERL_NIF_TERM_TYPE_PID ? TAG_PID : TAG_PORT);
}

bool enif_get_local(ERL_NIF_TERM term, uint32_t *number)
{
    *number = (uint32_t)(term >> 4);
    return (term & TAG) == TAG_PID || (term & TAG) == TAG_PORT;
}

int enif_get_local_pid(ErlNifEnv *env, ERL_NIF_TERM term, ErlNifPid *pid)
{
    (void)env;
    pid->pid = term;
    return (term & TAG) == TAG_PID;
}

int enif_get_local_port(ErlNifEnv *env, ERL_NIF_TERM term, ErlNifPort *port)
{
    (void)env;
    port->port_id = term;
    return (term & TAG) == TAG_PORT;
}

int enif_is_atom(ErlNifEnv *env, ERL_NIF_TERM term)
{
    (void)env;
    return kind_of(term) == KIND_ATOM;
}

int enif_is_pid(ErlNifEnv *env, ERL_NIF_TERM term)
{
    (void)env;
    return kind_of(term) == KIND_PID;
}

int enif_is_port(ErlNifEnv *env, ERL_NIF_TERM term)
{
    (void)env;
    return kind_of(term) == KIND_PORT;
}

int enif_is_ref(ErlNifEnv *env, ERL_NIF_TERM term)
{
    (void)env;
    return kind_of(term) == KIND_REF;
}

int enif_is_fun(ErlNifEnv *env, ERL_NIF_TERM term)
{
    (void)env;
    return kind_of(term) == KIND_FUN;
}

/* ---- any term ---- */

ErlNifTermType enif_term_type(ErlNifEnv *env, ERL_NIF_TERM term)
{
    static const ErlNifTermType types[] = {
        [KIND_INT] = ERL_NIF_TERM_TYPE_INTEGER,    [KIND_BIG] = ERL_NIF_TERM_TYPE_INTEGER,
        [KIND_FLOAT] = ERL_NIF_TERM_TYPE_FLOAT,    [KIND_ATOM] = ERL_NIF_TERM_TYPE_ATOM,
        [KIND_REF] = ERL_NIF_TERM_TYPE_REFERENCE,  [KIND_FUN] = ERL_NIF_TERM_TYPE_FUN,
        [KIND_PORT] = ERL_NIF_TERM_TYPE_PORT,      [KIND_PID] = ERL_NIF_TERM_TYPE_PID,
        [KIND_TUPLE] = ERL_NIF_TERM_TYPE_TUPLE,    [KIND_MAP] = ERL_NIF_TERM_TYPE_MAP,
        [KIND_NIL] = ERL_NIF_TERM_TYPE_LIST,       [KIND_CONS] = ERL_NIF_TERM_TYPE_LIST,
        [KIND_BITS] = ERL_NIF_TERM_TYPE_BITSTRING,
    };

    (void)env;
    return types[kind_of(term)];
}

ERL_NIF_TERM enif_make_bits(ErlNifEnv *env, const unsigned char *bytes, size_t bits)
{
    ERL_NIF_TERM term = new_bytes(env, KIND_BITS, bytes, (bits + 7) / 8);

    box_of(term)->size = bits;
    if (bits % 8 != 0)
        bytes_of(term)[bits / 8] &= (unsigned char)(0xff00 >> bits % 8);
    return term;
}

const unsigned char *enif_inspect(ERL_NIF_TERM term, size_t *size, bool *flag)
{
    *flag = false;
    *size = 0;
    if (kind_of(term) == KIND_ATOM) {
        *size = atom_of(term)->size;
        return atom_of(term)->text;
    }
    if ((term & TAG) != TAG_BOX)
        return NULL;
    *size = box_of(term)->size;
    *flag = box_of(term)->flag;
    return bytes_of(term);
}

static ERL_NIF_TERM copy_terms(ErlNifEnv *env, const box_t *box)
{
    const size_t size = box->kind == KIND_MAP ? 2 * box->size : box->size;
    ERL_NIF_TERM copy = new_terms(env, box->kind, box->size);

    for (size_t i = 0; i < size; i++)
        put(copy, i, enif_make_copy(env, box->terms[i]));
    return copy;
}

/* Along a list without recursion. */
static ERL_NIF_TERM copy_list(ErlNifEnv *env, ERL_NIF_TERM list)
{
    ERL_NIF_TERM first = 0, last = 0, head = 0;

    for (ERL_NIF_TERM cell = 0; enif_get_list_cell(env, list, &head, &list); last = cell) {
        cell = enif_make_list_cell(env, enif_make_copy(env, head), TAG_NIL);
        if (last == 0)
            first = cell;
        else
            put(last, 1, cell);
    }
    put(last, 1, enif_make_copy(env, list));
    return first;
}

ERL_NIF_TERM enif_make_copy(ErlNifEnv *env, ERL_NIF_TERM term)
{
    const kind_t kind = kind_of(term);
    ERL_NIF_TERM copy = 0;

    if ((term & TAG) != TAG_BOX)
        return term;
    if (kind == KIND_CONS)
        return copy_list(env, term);
    if (kind == KIND_TUPLE || kind == KIND_MAP)
        return copy_terms(env, box_of(term));
    if (kind == KIND_REF && box_of(term)->flag)
        return enif_make_resource(env, resource_of(term)->object);
    copy = new_bytes(env, kind, bytes_of(term), byte_size(term));
    box_of(copy)->size = box_of(term)->size;
    box_of(copy)->flag = box_of(term)->flag;
    return copy;
}

/* Only for what the library hashes: terms without terms inside. */
ErlNifUInt64 enif_hash(ErlNifHash type, ERL_NIF_TERM term, ErlNifUInt64 salt)
{
    (void)type;
    if ((term & TAG) == TAG_BOX)
        return hash_bytes(bytes_of(term), byte_size(term)) ^ salt;
    return hash_bytes((const unsigned char *)&term, sizeof term) ^ salt;
}

/* "%T" and nothing else. */
int enif_snprintf(char *text, size_t room, const char *format, ...)
{
    va_list arguments;
    ERL_NIF_TERM term = 0;

    insist(strcmp(format, "%T") == 0, "an enif_snprintf that the stand-in lacks");
    va_start(arguments, format);
    term = va_arg(arguments, ERL_NIF_TERM);
    va_end(arguments);
    return snprintf(text, room, "#Term<%lx>", (unsigned long)(term >> 4));
}
