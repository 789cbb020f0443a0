/*
 * test - what the programs here share: cases, checks, events, random numbers.
 *
 * A program calls test_case(name, body) for each case and ends with `return test_end()`.
 * Stress cases do a number of rounds or stop after STRESS_NS, so that they end in time under
 * valgrind and ThreadSanitizer too. Whatever is waited for is given up after PATIENCE_NS.
 */
#ifndef EP_TEST_H
#define EP_TEST_H

#include "thread.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define STRESS_NS   INT64_C(1500000000)
#define PATIENCE_NS INT64_C(30000000000)

static atomic_int test_failures; /* of the case that runs */
static int test_failed_cases;

/* True if ok; else says where it was not, a few times per case. */
#define check(ok) test_check((ok), #ok, __FILE__, __LINE__)

/* Looks until ok holds. */
#define eventually(ok)                                                                             \
    do {                                                                                           \
        int64_t test_until = clock_now() + PATIENCE_NS;                                            \
        while (!(ok) && clock_now() < test_until)                                                  \
            test_pause(200000);                                                                    \
        check(ok);                                                                                 \
    } while (0)

static inline bool test_check(bool ok, const char *what, const char *file, int line)
{
    if (!ok && atomic_fetch_add(&test_failures, 1) < 5)
        printf("# %s:%d: not so: %s\n", file, line, what);
    return ok;
}

static inline void test_pause(int64_t ns)
{
    struct timespec time = {(time_t)(ns / 1000000000), (long)(ns % 1000000000)};

    nanosleep(&time, NULL);
}

static inline void test_case(const char *name, void (*body)(void))
{
    atomic_store(&test_failures, 0);
    body();
    if (atomic_load(&test_failures) != 0)
        test_failed_cases++;
    printf("%s %s\n", atomic_load(&test_failures) == 0 ? "ok" : "not ok", name);
    fflush(stdout);
}

static inline int test_end(void)
{
    return test_failed_cases == 0 ? 0 : 1;
}

/* Memory for a test; a program without it ends. */
static inline void *test_new(size_t count, size_t size)
{
    void *memory = calloc(count, size);

    if (memory == NULL)
        abort();
    return memory;
}

/* ---- random numbers (xorshift), each thread with a seed of its own ---- */

static inline uint32_t random_next(uint32_t *seed)
{
    uint32_t x = *seed != 0 ? *seed : 1;

    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return *seed = x;
}

static inline uint32_t random_below(uint32_t *seed, uint32_t bound)
{
    return random_next(seed) % bound;
}

/* ---- something that happens once ---- */

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool is_set;
} event_t;

static inline void event_init(event_t *event)
{
    pthread_condattr_t attributes;

    pthread_mutex_init(&event->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&event->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    event->is_set = false;
}

static inline void event_set(event_t *event)
{
    pthread_mutex_lock(&event->lock);
    event->is_set = true;
    pthread_cond_broadcast(&event->changed);
    pthread_mutex_unlock(&event->lock);
}

/* Whether it happened within ns. */
static inline bool event_within(event_t *event, int64_t ns)
{
    int64_t due = clock_now() + ns;
    struct timespec until = {(time_t)(due / 1000000000), (long)(due % 1000000000)};
    bool answer;

    pthread_mutex_lock(&event->lock);
    while (!event->is_set && clock_now() < due)
        pthread_cond_timedwait(&event->changed, &event->lock, &until);
    answer = event->is_set;
    pthread_mutex_unlock(&event->lock);
    return answer;
}

static inline bool event_wait(event_t *event)
{
    return check(event_within(event, PATIENCE_NS));
}

/* ---- threads that are waited for ---- */

static inline pthread_t test_spawn(void *(*body)(void *), void *argument)
{
    pthread_t thread;

    if (pthread_create(&thread, NULL, body, argument) != 0)
        abort();
    return thread;
}

static inline void test_join(pthread_t *threads, int count)
{
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
}

#endif
