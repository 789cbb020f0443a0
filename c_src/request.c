#include "request.h"

#include "atoms.h"
#include "context.h"
#include "namespace.h"
#include "owner.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#define CHUNK_BITS 8
#define CHUNK_SIZE (1u << CHUNK_BITS)
#define CHUNKS     (1u << 16)
#define INDEX_BITS REQUEST_INDEX_BITS /* CHUNK_BITS + bits of CHUNKS: 16 million requests at once */
#define KEPT_ENVS  128                /* per free list: the rest of an ended request keeps no env */

#define PHASE_MASK      3u
#define ANSWERED        4u
#define HELD            8u  /* somebody reads it: it must not end yet */
#define ENDED           16u /* its server let go of it while it was held */
#define SLOT            32u /* it has a slot: who clears this gives the slot back */
#define DEFERRED        64u /* a coroutine: nobody serves it, its task is on a loop */
#define STATE_BITS      7
#define GENERATION_BITS 35 /* with the index a token fits a small integer */
#define GENERATION_MASK ((UINT64_C(1) << GENERATION_BITS) - 1)

/* A thread's free list. Its owner pops from `free`; others return to `returned`. */
typedef struct cache {
    queue_t returned;
    list_t free;
    atomic_int envs;
} cache_t;

static _Atomic(request_t *) chunks[CHUNKS];
static pthread_mutex_t grow_lock = PTHREAD_MUTEX_INITIALIZER;
static uint32_t chunk_count; /* guarded by grow_lock */
static _Thread_local cache_t *cache;
static _Thread_local ErlNifEnv *scheduler_env;

void request_enter_scheduler(ErlNifEnv *env)
{
    scheduler_env = env;
}

void request_leave_scheduler(void)
{
    scheduler_env = NULL;
}

ErlNifEnv *request_scheduler_env(void)
{
    return scheduler_env;
}

bool request_setup(void)
{
    return sizeof(uint64_t) * 8 >= GENERATION_BITS + INDEX_BITS;
}

static cache_t *own_cache(void)
{
    if (cache == NULL) {
        cache = calloc(1, sizeof(*cache)); /* lives as long as the thread: for ever */
        if (cache != NULL)
            queue_init(&cache->returned);
    }
    return cache;
}

/* Adds a chunk of free requests to the list. */
static bool grow(cache_t *own)
{
    request_t *chunk = calloc(CHUNK_SIZE, sizeof(*chunk));
    uint32_t at;

    if (chunk == NULL)
        return false;
    pthread_mutex_lock(&grow_lock);
    at = chunk_count;
    if (at < CHUNKS) {
        chunk_count++;
        atomic_store(&chunks[at], chunk);
    }
    pthread_mutex_unlock(&grow_lock);
    if (at >= CHUNKS) {
        free(chunk);
        return false;
    }
    for (uint32_t i = 0; i < CHUNK_SIZE; i++) {
        chunk[i].index = at << CHUNK_BITS | i;
        atomic_init(&chunk[i].armed, INT64_MAX);
        chunk[i].home = own;
        list_append(&own->free, &chunk[i].job.node);
    }
    return true;
}

static request_t *pop_free(cache_t *own)
{
    if (own->free.head == NULL)
        queue_take(&own->returned, &own->free);
    if (own->free.head == NULL && !grow(own))
        return NULL;
    return (request_t *)list_pop(&own->free);
}

request_t *request_new(void)
{
    cache_t *own = own_cache();
    request_t *request = own != NULL ? pop_free(own) : NULL;

    if (request == NULL)
        return NULL;
    if (request->env == NULL) {
        request->env = enif_alloc_env();
        if (request->env == NULL) {
            list_append(&own->free, &request->job.node);
            return NULL;
        }
        atomic_fetch_add_explicit(&own->envs, 1, memory_order_relaxed);
    }
    request->job.kind = JOB_REQUEST;
    request->is_light = true;
    request->interrupted = false;
    atomic_store_explicit(&request->parts, 1, memory_order_relaxed);
    request->owner = NULL;
    request->context = NULL;
    request->namespace = NULL;
    atomic_store_explicit(&request->executor, NULL, memory_order_relaxed);
    return request; /* phase free until request_publish: nobody looks at it yet */
}

static uint64_t generation(uint64_t state)
{
    return state >> STATE_BITS & GENERATION_MASK;
}

uint64_t request_token(const request_t *request)
{
    return generation(atomic_load(&request->state)) << INDEX_BITS | request->index;
}

request_t *request_find(uint64_t token)
{
    uint32_t index = (uint32_t)(token & ((1u << INDEX_BITS) - 1));
    request_t *chunk = atomic_load(&chunks[index >> CHUNK_BITS]);

    return chunk != NULL ? &chunk[index & (CHUNK_SIZE - 1)] : NULL;
}

void request_set_phase(request_t *request, request_phase_t phase)
{
    uint64_t state = atomic_load(&request->state);

    while (!atomic_compare_exchange_weak(&request->state, &state,
                                         (state & ~(uint64_t)PHASE_MASK) | phase))
        continue;
}

void request_publish(request_t *request)
{
    request_set_phase(request, PHASE_WAITING);
}

void request_set_slot(request_t *request)
{
    atomic_fetch_or(&request->state, (uint64_t)SLOT);
}

bool request_clear_slot(request_t *request, uint64_t token)
{
    uint64_t state = atomic_load(&request->state);

    do {
        if (generation(state) != token >> INDEX_BITS || (state & SLOT) == 0)
            return false;
    } while (!atomic_compare_exchange_weak(&request->state, &state, state & ~(uint64_t)SLOT));
    return true;
}

void request_each(void (*visit)(request_t *request, uint64_t token, void *argument), void *argument)
{
    for (uint32_t at = 0; at < CHUNKS; at++) {
        request_t *chunk = atomic_load(&chunks[at]);

        if (chunk == NULL)
            return;
        for (uint32_t i = 0; i < CHUNK_SIZE; i++)
            if (request_phase(&chunk[i]) != PHASE_FREE)
                visit(&chunk[i], request_token(&chunk[i]), argument);
    }
}

request_phase_t request_phase(request_t *request)
{
    return (request_phase_t)(atomic_load(&request->state) & PHASE_MASK);
}

/* Sets bits, the answered one among them, unless it is set. */
static bool claim(request_t *request, uint64_t token, uint64_t bits, request_phase_t *phase)
{
    uint64_t state = atomic_load(&request->state);

    do {
        *phase = (request_phase_t)(state & PHASE_MASK);
        if (generation(state) != token >> INDEX_BITS || (state & ENDED) != 0)
            *phase = PHASE_FREE;
        if (*phase == PHASE_FREE || (state & ANSWERED) != 0)
            return false;
    } while (!atomic_compare_exchange_weak(&request->state, &state, state | bits));
    return true;
}

bool request_answer(request_t *request, uint64_t token, request_phase_t *phase)
{
    return claim(request, token, ANSWERED, phase);
}

bool request_hold(request_t *request, uint64_t token, request_phase_t *phase)
{
    return claim(request, token, ANSWERED | HELD, phase);
}

bool request_hold_waiting(request_t *request, uint64_t token)
{
    uint64_t waiting = (token >> INDEX_BITS) << STATE_BITS | PHASE_WAITING;

    return atomic_compare_exchange_strong(&request->state, &waiting, waiting | ANSWERED | HELD);
}

bool request_is_answered(request_t *request)
{
    return (atomic_load(&request->state) & ANSWERED) != 0;
}

bool request_is_alive(request_t *request, uint64_t token)
{
    uint64_t state = atomic_load(&request->state);

    return generation(state) == token >> INDEX_BITS && (state & PHASE_MASK) != PHASE_FREE &&
           (state & ENDED) == 0;
}

void request_send(request_t *request, ErlNifEnv *env, ERL_NIF_TERM result)
{
    ERL_NIF_TERM reference = request->reference;
    ERL_NIF_TERM message;

    if (env != request->env)
        reference = enif_make_copy(env, reference);
    if ((request->flags & FLAG_RESPONSE) != 0)
        message = enif_make_tuple3(env, atom_py_response, reference, result);
    else
        message = enif_make_tuple2(env, reference, result);
    enif_send(scheduler_env, &request->reply_to, env, message);
    enif_clear_env(env);
}

/* From here on no token finds it; then nobody else touches what it holds. */
static void retire(request_t *request)
{
    uint64_t state = atomic_load(&request->state);

    atomic_store(&request->state, ((generation(state) + 1) & GENERATION_MASK) << STATE_BITS);
}

static void free_request(request_t *request)
{
    cache_t *home = request->home;

    retire(request);
    owner_release(request->owner);
    namespace_release(request->namespace);
    context_release(request->context);
    if (atomic_load_explicit(&home->envs, memory_order_relaxed) > KEPT_ENVS) {
        enif_free_env(request->env);
        request->env = NULL;
        atomic_fetch_sub_explicit(&home->envs, 1, memory_order_relaxed);
    } else {
        enif_clear_env(request->env);
    }
    queue_push(&home->returned, &request->job.node);
}

void request_end_borrowed(request_t *request)
{
    while ((atomic_load(&request->state) & HELD) != 0)
        sched_yield(); /* for a few instructions */
    retire(request);
    list_prepend(&request->home->free, &request->job.node);
}

void request_unhold(request_t *request)
{
    uint64_t before = atomic_fetch_and(&request->state, ~(uint64_t)HELD);

    if ((before & ENDED) != 0)
        free_request(request);
}

void request_defer(request_t *request)
{
    atomic_store(&request->parts, 2);
    atomic_fetch_or(&request->state, (uint64_t)DEFERRED);
}

void request_undefer(request_t *request)
{
    atomic_fetch_and(&request->state, ~(uint64_t)DEFERRED);
    atomic_store(&request->parts, 1);
}

bool request_is_deferred(request_t *request)
{
    return (atomic_load(&request->state) & DEFERRED) != 0;
}

void request_end(request_t *request)
{
    uint64_t state;

    if (atomic_load(&request->parts) > 1 && atomic_fetch_sub(&request->parts, 1) > 1)
        return;
    state = atomic_load(&request->state);
    while ((state & HELD) != 0) {
        if (atomic_compare_exchange_weak(&request->state, &state, state | ENDED))
            return;
    }
    free_request(request);
}
