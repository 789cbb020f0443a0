/*
 * queue - many producers, one consumer at a time; and the plain list it yields.
 *
 * How a scheduler hands work to an executor without waiting for anything. It
 * knows nothing of terms or objects: it links nodes that its user embeds. A push
 * is one compare-and-swap; the consumer takes everything at once and reverses it
 * into order of arrival.
 *
 * Life cycle:  open -(queue_close)-> closed; nodes belong to whoever takes them
 * Threads:     push from any thread; take by one consumer at a time (its user's lock)
 */
#ifndef EP_QUEUE_H
#define EP_QUEUE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct queue_node {
    struct queue_node *next;
} queue_node_t;

/* A first-in first-out list; guarded by its user. */
typedef struct {
    queue_node_t *head;
    queue_node_t *tail;
} list_t;

typedef struct {
    _Atomic(queue_node_t *) top;
} queue_t;

void list_init(list_t *list);
void list_append(list_t *list, queue_node_t *node);
void list_prepend(list_t *list, queue_node_t *node);
/* The oldest node, or NULL. */
queue_node_t *list_pop(list_t *list);

void queue_init(queue_t *queue);

/* Appends node. False, and node untouched, once the queue is closed. */
bool queue_push(queue_t *queue, queue_node_t *node);

/* Whether something was pushed and not taken yet. */
bool queue_has(queue_t *queue);

/* The newest node, linked towards the oldest, for a look while nobody takes. */
const queue_node_t *queue_peek(queue_t *queue);

/* Appends all that was pushed so far to list, oldest first. */
void queue_take(queue_t *queue, list_t *list);

/* Takes the rest; every later push answers false. */
void queue_close(queue_t *queue, list_t *list);

#endif
