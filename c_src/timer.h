/*
 * timer - one thread that does things at their time: deadlines, grace periods,
 * and errands that a scheduler must not do itself (starting a thread).
 *
 * An entry carries a token, not a pointer: what it fires at may be gone by then,
 * and `fire` finds out. Never attaches to an interpreter: it must not wait for a GIL.
 *
 * Threads: all from any thread; fire runs on the timer's thread, without its lock.
 */
#ifndef EP_TIMER_H
#define EP_TIMER_H

#include <stdbool.h>
#include <stdint.h>

typedef void (*timer_fire_t)(uint64_t token);

/* Starts the thread, once. False when it cannot be started. */
bool timer_setup(void);

/* Calls fire(token) at `due` (clock_now() time; the past means at once). is_wanted, if
 * given, tells whether the entry is still of use: those that are not go when room gets
 * short, so that the heap grows with what lives, not with what passed. False when memory
 * is short. */
bool timer_arm(int64_t due, timer_fire_t fire, bool (*is_wanted)(uint64_t token), uint64_t token);

#endif
