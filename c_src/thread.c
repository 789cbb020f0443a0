#include "thread.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#if defined(__linux__)
#    include <sys/prctl.h>
#endif

enum { EMPTY, SLEEPING, NOTIFIED };

#define SPIN_NS    40000 /* longest spin; about what waking a sleeping core costs */
#define YIELD_NS   5000  /* a yield that takes longer means that the machine is busy */
#define SCORE_MAX  8
#define SCORE_SPIN 4 /* spin from this score on */

typedef struct {
    char name[16];
    void (*body)(void *argument);
    void *argument;
} start_t;

static size_t stack_bytes = (size_t)16 << 20;
static int max_threads = 4096;
static atomic_int threads;
static atomic_int spinners;

int64_t clock_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void thread_setup(size_t stack, int max)
{
    stack_bytes = stack;
    max_threads = max;
}

size_t thread_stack(void)
{
    return stack_bytes;
}

int thread_count(void)
{
    return atomic_load(&threads);
}

int thread_max(void)
{
    return max_threads;
}

static void name_self(const char *name)
{
#if defined(__linux__)
    prctl(PR_SET_NAME, name, 0, 0, 0);
#elif defined(__APPLE__)
    pthread_setname_np(name);
#else
    (void)name;
#endif
}

static void *thread_body(void *argument)
{
    start_t start = *(start_t *)argument;

    free(argument);
    name_self(start.name);
    start.body(start.argument);
    atomic_fetch_sub(&threads, 1);
    return NULL;
}

/* pthread_create with our stack size, every signal blocked in the child. */
static bool create_detached(start_t *start)
{
    pthread_attr_t attributes;
    sigset_t all;
    sigset_t before;
    pthread_t thread;
    bool ok;

    if (pthread_attr_init(&attributes) != 0)
        return false;
    pthread_attr_setstacksize(&attributes, stack_bytes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    ok = pthread_create(&thread, &attributes, thread_body, start) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return ok;
}

bool thread_start(const char *name, void (*body)(void *argument), void *argument)
{
    start_t *start = NULL;

    if (atomic_fetch_add(&threads, 1) >= max_threads)
        goto failed;
    start = calloc(1, sizeof(*start));
    if (start == NULL)
        goto failed;
    strncpy(start->name, name, sizeof(start->name) - 1);
    start->body = body;
    start->argument = argument;
    if (create_detached(start))
        return true;
failed:
    atomic_fetch_sub(&threads, 1);
    free(start);
    return false;
}

void parker_init(parker_t *parker)
{
    pthread_condattr_t attributes;

    pthread_mutex_init(&parker->lock, NULL);
    pthread_condattr_init(&attributes);
#if !defined(__APPLE__)
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
#endif
    pthread_cond_init(&parker->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    atomic_init(&parker->state, EMPTY);
    atomic_init(&parker->woken, 0);
}

void parker_finish(parker_t *parker)
{
    pthread_mutex_lock(&parker->lock); /* the last notifier may still be leaving */
    pthread_mutex_unlock(&parker->lock);
    pthread_cond_destroy(&parker->wake);
    pthread_mutex_destroy(&parker->lock);
}

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

static int spin_limit(void)
{
    static atomic_int limit;
    int known = atomic_load_explicit(&limit, memory_order_relaxed);

    if (known == 0) {
        long cores = sysconf(_SC_NPROCESSORS_ONLN);

        known = cores > 2 ? (int)cores / 2 : 1;
        atomic_store_explicit(&limit, known, memory_order_relaxed);
    }
    return known;
}

void spin_init(spin_t *spin)
{
    spin->score = SCORE_SPIN;
}

static void learn(spin_t *spin, int64_t waited)
{
    if (waited < SPIN_NS) {
        if (spin->score < SCORE_MAX)
            spin->score++;
    } else if (spin->score > 0) {
        spin->score--;
    }
}

/* Lets others have the core; false when somebody did, for longer than a switch takes. */
static bool yield_core(int64_t *now)
{
    int64_t before = *now;

    sched_yield();
    *now = clock_now();
    return *now - before < YIELD_NS;
}

bool spin_until(spin_t *spin, bool (*ready)(void *argument), void *argument)
{
    int64_t now;
    int64_t end;
    bool is_ready = false;
    bool is_alone = true;

    if (spin->score < SCORE_SPIN || atomic_load(&spinners) >= spin_limit())
        return false;
    atomic_fetch_add(&spinners, 1);
    now = clock_now();
    end = now + SPIN_NS;
    do {
        for (int i = 0; i < 32 && !is_ready; i++) {
            relax();
            is_ready = ready(argument);
        }
        if (!is_ready)
            is_alone = yield_core(&now);
    } while (!is_ready && is_alone && now < end);
    atomic_fetch_sub(&spinners, 1);
    if (is_ready)
        learn(spin, 0);
    return is_ready;
}

void spin_learn(spin_t *spin, const parker_t *parker, int64_t start, bool notified)
{
    learn(spin, notified ? atomic_load(&parker->woken) - start : SPIN_NS);
}

static void wait_until(parker_t *parker, int64_t due)
{
    if (due == CLOCK_NEVER) {
        pthread_cond_wait(&parker->wake, &parker->lock);
    } else {
#if defined(__APPLE__)
        int64_t left = due - clock_now();
        struct timespec relative = {(time_t)(left / 1000000000), (long)(left % 1000000000)};

        if (left > 0)
            pthread_cond_timedwait_relative_np(&parker->wake, &parker->lock, &relative);
#else
        struct timespec absolute = {(time_t)(due / 1000000000), (long)(due % 1000000000)};

        pthread_cond_timedwait(&parker->wake, &parker->lock, &absolute);
#endif
    }
}

bool parker_wait(parker_t *parker, int64_t due)
{
    int expected = EMPTY;

    if (atomic_load(&parker->state) != NOTIFIED) {
        pthread_mutex_lock(&parker->lock);
        if (atomic_compare_exchange_strong(&parker->state, &expected, SLEEPING)) {
            while (atomic_load(&parker->state) == SLEEPING && clock_now() < due)
                wait_until(parker, due);
        }
        pthread_mutex_unlock(&parker->lock);
    }
    return atomic_exchange(&parker->state, EMPTY) == NOTIFIED;
}

void parker_clear(parker_t *parker)
{
    atomic_store(&parker->state, EMPTY);
}

void parker_notify(parker_t *parker)
{
    atomic_store(&parker->woken, clock_now());
    if (atomic_exchange(&parker->state, NOTIFIED) != SLEEPING)
        return;
    pthread_mutex_lock(&parker->lock);
    pthread_cond_signal(&parker->wake);
    pthread_mutex_unlock(&parker->lock);
}
