#include "slots.h"

#define DEAD_MIN 64 /* so many stay in line until a slot is free */

void slots_init(slots_t *slots, int64_t max, bool (*wanted)(queue_node_t *),
                void (*start)(queue_node_t *), void (*dropped)(queue_node_t *))
{
    atomic_init(&slots->count, 0);
    atomic_init(&slots->max, max);
    atomic_init(&slots->waiting, 0);
    atomic_init(&slots->dead, 0);
    atomic_init(&slots->is_watched, false);
    slots->starts = 0;
    slots->starts_seen = 0;
    pthread_mutex_init(&slots->lock, NULL);
    for (int nested = 0; nested < 2; nested++) {
        queue_init(&slots->arriving[nested]);
        list_init(&slots->line[nested]);
    }
    slots->wanted = wanted;
    slots->start = start;
    slots->dropped = dropped;
}

/* Takes a slot if there is one. */
static bool take_free(slots_t *slots)
{
    int64_t count = atomic_load(&slots->count);

    while (count < atomic_load(&slots->max)) {
        if (atomic_compare_exchange_weak(&slots->count, &count, count + 1))
            return true;
    }
    return false;
}

bool slots_try(slots_t *slots)
{
    return atomic_load(&slots->waiting) == 0 && take_free(slots);
}

bool slots_admit(slots_t *slots, queue_node_t *node, bool nested)
{
    if (nested ? take_free(slots) : slots_try(slots))
        return true;
    /* waiting rises before the push and is read after a release: whoever gives a
     * slot back sees us, or we see the slot it gave back. */
    atomic_fetch_add(&slots->waiting, 1);
    queue_push(&slots->arriving[nested], node);
    slots_advance(slots);
    return false;
}

void slots_retake(slots_t *slots)
{
    atomic_fetch_add(&slots->count, 1);
}

void slots_release(slots_t *slots)
{
    atomic_fetch_sub(&slots->count, 1);
}

static queue_node_t *first_in_line(slots_t *slots)
{
    queue_node_t *node;

    for (int nested = 1; nested >= 0; nested--) {
        queue_take(&slots->arriving[nested], &slots->line[nested]);
        node = list_pop(&slots->line[nested]);
        if (node != NULL)
            return node;
    }
    return NULL;
}

/* Takes a slot and the first node in line, both or neither. */
static queue_node_t *next_with_slot(slots_t *slots)
{
    queue_node_t *node = NULL;

    pthread_mutex_lock(&slots->lock);
    if (take_free(slots)) {
        node = first_in_line(slots);
        if (node == NULL) {
            slots_release(slots);
        } else {
            atomic_fetch_sub(&slots->waiting, 1);
            slots->starts++;
        }
    }
    pthread_mutex_unlock(&slots->lock);
    return node;
}

/* For a node that was given a slot. */
static void start_or_drop(slots_t *slots, queue_node_t *node)
{
    if (slots->wanted(node)) {
        slots->start(node);
    } else {
        slots_release(slots);
        slots->dropped(node);
    }
}

void slots_advance(slots_t *slots)
{
    queue_node_t *node;

    while (atomic_load(&slots->waiting) > 0 &&
           atomic_load(&slots->count) < atomic_load(&slots->max)) {
        node = next_with_slot(slots);
        if (node == NULL) {
            /* Announced but not pushed yet: its own thread advances. Pushed while our
             * trial slot made the limit look reached: it is ours to start. */
            if (queue_has(&slots->arriving[0]) || queue_has(&slots->arriving[1]))
                continue;
            return;
        }
        start_or_drop(slots, node);
    }
}

bool slots_watch(slots_t *slots)
{
    return !atomic_exchange(&slots->is_watched, true);
}

bool slots_hurry(slots_t *slots)
{
    queue_node_t *node;
    list_t overdue;
    bool has_nested;

    list_init(&overdue);
    pthread_mutex_lock(&slots->lock);
    atomic_store(&slots->is_watched, false);
    queue_take(&slots->arriving[1], &slots->line[1]);
    while (slots->starts == slots->starts_seen && (node = list_pop(&slots->line[1])) != NULL) {
        atomic_fetch_sub(&slots->waiting, 1);
        slots_retake(slots);
        list_append(&overdue, node);
    }
    slots->starts_seen = slots->starts;
    has_nested = slots->line[1].head != NULL && slots_watch(slots);
    pthread_mutex_unlock(&slots->lock);
    while ((node = list_pop(&overdue)) != NULL)
        start_or_drop(slots, node);
    return has_nested;
}

/* Moves what is not wanted of a line to dead; lock held. */
static void pick_dead(slots_t *slots, int nested, list_t *dead)
{
    list_t kept;
    queue_node_t *node;

    list_init(&kept);
    queue_take(&slots->arriving[nested], &slots->line[nested]);
    while ((node = list_pop(&slots->line[nested])) != NULL) {
        bool is_wanted = slots->wanted(node);

        if (!is_wanted)
            atomic_fetch_sub(&slots->waiting, 1);
        list_append(is_wanted ? &kept : dead, node);
    }
    slots->line[nested] = kept;
}

void slots_forget(slots_t *slots)
{
    int64_t count = atomic_fetch_add(&slots->dead, 1) + 1;
    list_t dead;
    queue_node_t *node;

    if (count <= DEAD_MIN || 2 * count <= atomic_load(&slots->waiting))
        return;
    list_init(&dead);
    pthread_mutex_lock(&slots->lock);
    if (atomic_load(&slots->dead) > DEAD_MIN) { /* nobody else has done it meanwhile */
        atomic_store(&slots->dead, 0);
        pick_dead(slots, 1, &dead);
        pick_dead(slots, 0, &dead);
    }
    pthread_mutex_unlock(&slots->lock);
    while ((node = list_pop(&dead)) != NULL)
        slots->dropped(node);
}

void slots_set_max(slots_t *slots, int64_t max)
{
    atomic_store(&slots->max, max);
    slots_advance(slots);
}
