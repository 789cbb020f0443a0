/*
 * giveway - turns at the shared GIL among interpreters, on CPython 3.12.
 *
 * A thread that waits for the GIL sets, after 5 ms, a flag that makes the holder drop it. 3.12
 * sets that of the waiter's interpreter, so a holder in another one never sees it and computes
 * on while all others wait. (Before 3.12 the flag was the process's, from 3.13 on it is the
 * holder's.) Here a thread of ours stands in line, and as long as it does, interpreters are
 * asked by a pending call to let the GIL go and to come back when that thread had it.
 *
 *   watcher:  resting -(giveway_watch, or in a while)-> in line -(has the GIL)-> pausing
 *   timer:    asks all that joined, every 5 ms while the watcher stands in line
 *   holder:   answers between two bytecodes: detach, wait for the watcher, attach
 *
 * Whoever waits is served, not only our threads: the GIL goes to one of those in line, and
 * that may be one in Python code. The main interpreter need not join: the watcher is of it.
 *
 * On other versions all this is nothing.
 */
#ifndef EP_GIVEWAY_H
#define EP_GIVEWAY_H

#include "pycompat.h"

#if PY_VERSION_HEX >= 0x030C0000 && PY_VERSION_HEX < 0x030D0000

#    include <stdatomic.h>

extern atomic_bool giveway_is_resting;

void giveway_wake(void);

/* The current interpreter, a sub-interpreter that shares the GIL, takes part until CPython
 * frees it. GIL: held. False with an exception set. */
bool giveway_join(void);

/* To be called when somebody attaches: it may have to wait. Any thread. */
static inline void giveway_watch(void)
{
    if (atomic_load_explicit(&giveway_is_resting, memory_order_relaxed))
        giveway_wake();
}

#else

static inline bool giveway_join(void)
{
    return true;
}

static inline void giveway_watch(void) {}

#endif
#endif
