/*
 * thread - our threads, how they sleep and how they are woken; the clock.
 *
 * Threads carry names (at most 15 bytes), block all signals, have stacks of
 * thread_stack() bytes and are detached. Their number is bounded for the VM.
 *
 * A parker is a thread's bed: one thread waits on it, any thread wakes it. A wake
 * that comes first is remembered. Waking a sleeper costs microseconds, on a sleeping
 * core tens of them, so whoever expects something soon spins first: as long as that has
 * paid off lately, and in no more threads at once than half the cores.
 */
#ifndef EP_THREAD_H
#define EP_THREAD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CLOCK_NEVER INT64_MAX

/* Nanoseconds of the monotonic clock. */
int64_t clock_now(void);

/* Set once, before the first thread. */
void thread_setup(size_t stack_bytes, int max_threads);
size_t thread_stack(void);

/* How many of our threads are alive, and the bound. */
int thread_count(void);
int thread_max(void);

/* Starts body(argument) on a new thread. False when the bound is reached or the
 * system gives no thread. */
bool thread_start(const char *name, void (*body)(void *argument), void *argument);

typedef struct {
    pthread_mutex_t lock; /* leaf; guards sleeping */
    pthread_cond_t wake;
    _Atomic int state;     /* EMPTY, SLEEPING, NOTIFIED */
    _Atomic int64_t woken; /* when the last sleeper was notified */
} parker_t;

void parker_init(parker_t *parker);
void parker_finish(parker_t *parker);

/* Waits until notified (true) or until `due`, CLOCK_NEVER for ever (false). */
bool parker_wait(parker_t *parker, int64_t due);

/* Forgets a notification that has not been waited for. */
void parker_clear(parker_t *parker);

/* Wakes the waiter, or the next wait. Any thread; a system call only if it sleeps. */
void parker_notify(parker_t *parker);

/* How often short waits were seen lately; belongs to one waiting thread. */
typedef struct {
    int score;
} spin_t;

void spin_init(spin_t *spin);

/* Spins, if that is worthwhile, until ready(argument); its last answer. */
bool spin_until(spin_t *spin, bool (*ready)(void *argument), void *argument);

/* Learns from a sleep that began at `start` and was ended by parker_notify (notified). */
void spin_learn(spin_t *spin, const parker_t *parker, int64_t start, bool notified);

#endif
