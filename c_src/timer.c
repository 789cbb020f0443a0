#include "timer.h"

#include "thread.h"

#include <stdlib.h>

typedef struct {
    int64_t due;
    timer_fire_t fire;
    bool (*is_wanted)(uint64_t token);
    uint64_t token;
} entry_t;

/* A binary heap, earliest first; all guarded by lock, a leaf. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static entry_t *heap;
static size_t used;
static size_t room;
static parker_t parker;

static void swap(size_t a, size_t b)
{
    entry_t entry = heap[a];

    heap[a] = heap[b];
    heap[b] = entry;
}

static void sift_up(size_t at)
{
    while (at > 0 && heap[at].due < heap[(at - 1) / 2].due) {
        swap(at, (at - 1) / 2);
        at = (at - 1) / 2;
    }
}

static void sift_down(size_t at)
{
    for (;;) {
        size_t least = at;
        size_t left = 2 * at + 1;

        if (left < used && heap[left].due < heap[least].due)
            least = left;
        if (left + 1 < used && heap[left + 1].due < heap[least].due)
            least = left + 1;
        if (least == at)
            return;
        swap(at, least);
        at = least;
    }
}

/* Takes the earliest entry if it is due; else *next is when to look again. */
static bool take_due(entry_t *entry, int64_t *next)
{
    bool due = false;

    pthread_mutex_lock(&lock);
    *next = used > 0 ? heap[0].due : CLOCK_NEVER;
    if (used > 0 && heap[0].due <= clock_now()) {
        *entry = heap[0];
        heap[0] = heap[--used];
        sift_down(0);
        due = true;
    }
    pthread_mutex_unlock(&lock);
    return due;
}

static void body(void *unused)
{
    entry_t entry;
    int64_t next;

    (void)unused;
    for (;;) {
        while (take_due(&entry, &next))
            entry.fire(entry.token);
        parker_wait(&parker, next);
    }
}

bool timer_setup(void)
{
    static bool is_running; /* setup calls come one after another */

    if (!is_running) {
        parker_init(&parker);
        is_running = thread_start("py:timer", body, NULL);
    }
    return is_running;
}

/* Drops the entries that are of no use any more; lock held. */
static void sweep(void)
{
    size_t kept = 0;

    for (size_t i = 0; i < used; i++)
        if (heap[i].is_wanted == NULL || heap[i].is_wanted(heap[i].token))
            heap[kept++] = heap[i];
    used = kept;
    for (size_t i = used / 2; i > 0; i--)
        sift_down(i - 1);
}

/* Room for one more; lock held. Grows when a sweep freed less than half. */
static bool make_room(void)
{
    size_t more;
    entry_t *grown;

    if (used < room)
        return true;
    sweep();
    if (room > 0 && used <= room / 2)
        return true;
    more = room == 0 ? 64 : 2 * room;
    grown = realloc(heap, more * sizeof(*grown));
    if (grown == NULL)
        return used < room;
    heap = grown;
    room = more;
    return true;
}

bool timer_arm(int64_t due, timer_fire_t fire, bool (*is_wanted)(uint64_t token), uint64_t token)
{
    bool ok;
    bool first = false;

    pthread_mutex_lock(&lock);
    ok = make_room();
    if (ok) {
        heap[used] = (entry_t){due, fire, is_wanted, token};
        sift_up(used++);
        first = heap[0].token == token && heap[0].due == due;
    }
    pthread_mutex_unlock(&lock);
    if (first)
        parker_notify(&parker);
    return ok;
}
