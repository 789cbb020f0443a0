/*
 * floors - what the benchmarks compare with: a NIF that does nothing, on a
 * normal and on a dirty scheduler, and the bare way to another thread and
 * back. Built by bin/bench beside the library; no part of it.
 *
 * The way to a thread is the cheapest we know: one list, one lock, envs that
 * are used again, and a thread that looks a few microseconds for more before
 * it sleeps, giving its core to whoever wants it.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>

#include <erl_nif.h>

#define SPIN_NS 50000

typedef struct errand errand_t;
struct errand {
    errand_t *next;
    ErlNifEnv *env;
    ErlNifPid from;
    ERL_NIF_TERM ref;
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    errand_t *first, **last; /* lock */
    errand_t *unused;        /* lock */
    bool sleeps;             /* lock */
    atomic_bool any;
} desk = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

static long long now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void look_for_more(void)
{
    long long end = now() + SPIN_NS;
    int turn;

    do {
        for (turn = 0; turn < 64; turn++)
            if (atomic_load_explicit(&desk.any, memory_order_acquire))
                return;
        sched_yield();
    } while (now() < end);
}

/* All that are there, after a wait if there are none. */
static errand_t *take_all(void)
{
    errand_t *all;

    look_for_more();
    pthread_mutex_lock(&desk.lock);
    while (desk.first == NULL) {
        desk.sleeps = true;
        pthread_cond_wait(&desk.wake, &desk.lock);
    }
    desk.sleeps = false;
    all = desk.first;
    desk.first = NULL;
    desk.last = &desk.first;
    atomic_store(&desk.any, false);
    pthread_mutex_unlock(&desk.lock);
    return all;
}

static void *serve(void *nothing)
{
    errand_t *all, *errand, *last;

    (void)nothing;
    for (;;) {
        all = take_all();
        for (errand = all; errand != NULL; errand = errand->next) {
            enif_send(NULL, &errand->from, errand->env, errand->ref);
            enif_clear_env(errand->env);
            last = errand;
        }
        pthread_mutex_lock(&desk.lock);
        last->next = desk.unused;
        desk.unused = all;
        pthread_mutex_unlock(&desk.lock);
    }
    return NULL;
}

static errand_t *new_errand(void)
{
    errand_t *errand;

    pthread_mutex_lock(&desk.lock);
    errand = desk.unused;
    if (errand != NULL)
        desk.unused = errand->next;
    pthread_mutex_unlock(&desk.lock);
    if (errand == NULL) {
        errand = enif_alloc(sizeof *errand);
        errand->env = enif_alloc_env();
    }
    return errand;
}

/* hand_off(Ref) -> ok, and the Ref as a message from the thread */
static ERL_NIF_TERM hand_off(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    errand_t *errand = new_errand();
    bool sleeps;

    (void)argc;
    errand->next = NULL;
    errand->ref = enif_make_copy(errand->env, argv[0]);
    enif_self(env, &errand->from);
    pthread_mutex_lock(&desk.lock);
    *desk.last = errand;
    desk.last = &errand->next;
    atomic_store(&desk.any, true);
    sleeps = desk.sleeps;
    desk.sleeps = false;
    pthread_mutex_unlock(&desk.lock);
    if (sleeps)
        pthread_cond_signal(&desk.wake);
    return enif_make_atom(env, "ok");
}

/* empty() -> ok, dirty() -> ok */
static ERL_NIF_TERM empty(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    (void)argc;
    (void)argv;
    return enif_make_atom(env, "ok");
}

static int load(ErlNifEnv *env, void **data, ERL_NIF_TERM info)
{
    pthread_t thread;

    (void)env;
    (void)data;
    (void)info;
    desk.last = &desk.first;
    return pthread_create(&thread, NULL, serve, NULL);
}

static ErlNifFunc functions[] = {
    {"empty", 0, empty, 0},
    {"dirty", 0, empty, ERL_NIF_DIRTY_JOB_CPU_BOUND},
    {"hand_off", 1, hand_off, 0},
};

ERL_NIF_INIT(floors, functions, load, NULL, NULL, NULL)
