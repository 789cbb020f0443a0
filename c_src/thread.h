/*
 * thread - our threads, how they sleep and how they are woken; the clock.
 *
 * Threads carry names (at most 15 bytes), block all signals, have stacks of
 * thread_stack_set() bytes and are detached. Their number is bounded for the VM.
 *
 * A parker is a thread's bed: one thread waits on it, any thread wakes it. A wake
 * that comes first is remembered. Before it sleeps it spins for some microseconds
 * if that has paid off lately and a core is free for it (see spin_worthwhile).
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
    _Atomic int64_t woken; /* when a sleeper was notified */
    int score;             /* how often short waits were seen lately; the waiter's own */
} parker_t;

void parker_init(parker_t *parker);
void parker_finish(parker_t *parker);

/* Waits until notified (true) or until `due`, CLOCK_NEVER for ever (false). */
bool parker_wait(parker_t *parker, int64_t due);

/* Forgets a notification that has not been waited for. */
void parker_clear(parker_t *parker);

/* Wakes the waiter, or the next wait. Any thread; a system call only if it sleeps. */
void parker_notify(parker_t *parker);

#endif
