#include "queue.h"

/* Stands in `top` for "closed"; never linked, never read through. */
static queue_node_t closed_mark;

void list_init(list_t *list)
{
    list->head = NULL;
    list->tail = NULL;
}

void list_append(list_t *list, queue_node_t *node)
{
    node->next = NULL;
    if (list->tail != NULL)
        list->tail->next = node;
    else
        list->head = node;
    list->tail = node;
}

void list_prepend(list_t *list, queue_node_t *node)
{
    node->next = list->head;
    list->head = node;
    if (list->tail == NULL)
        list->tail = node;
}

queue_node_t *list_pop(list_t *list)
{
    queue_node_t *node = list->head;

    if (node != NULL) {
        list->head = node->next;
        if (list->head == NULL)
            list->tail = NULL;
        node->next = NULL;
    }
    return node;
}

void queue_init(queue_t *queue)
{
    atomic_init(&queue->top, NULL);
}

bool queue_push(queue_t *queue, queue_node_t *node)
{
    queue_node_t *top = atomic_load_explicit(&queue->top, memory_order_relaxed);

    do {
        if (top == &closed_mark)
            return false;
        node->next = top;
    } while (!atomic_compare_exchange_weak(&queue->top, &top, node));
    return true;
}

bool queue_has(queue_t *queue)
{
    queue_node_t *top = atomic_load(&queue->top);

    return top != NULL && top != &closed_mark;
}

const queue_node_t *queue_peek(queue_t *queue)
{
    const queue_node_t *top = atomic_load(&queue->top);

    return top != &closed_mark ? top : NULL;
}

/* Appends a chain that is linked newest first, in order of arrival. */
static void append_reversed(list_t *list, queue_node_t *chain)
{
    queue_node_t *newest = chain;
    queue_node_t *oldest = NULL;

    while (chain != NULL) {
        queue_node_t *next = chain->next;

        chain->next = oldest;
        oldest = chain;
        chain = next;
    }
    if (oldest == NULL)
        return;
    if (list->tail != NULL)
        list->tail->next = oldest;
    else
        list->head = oldest;
    list->tail = newest;
}

void queue_take(queue_t *queue, list_t *list)
{
    queue_node_t *top = atomic_load_explicit(&queue->top, memory_order_relaxed);

    do {
        if (top == NULL || top == &closed_mark)
            return;
    } while (!atomic_compare_exchange_weak(&queue->top, &top, NULL));
    append_reversed(list, top);
}

void queue_close(queue_t *queue, list_t *list)
{
    queue_node_t *top = atomic_exchange(&queue->top, &closed_mark);

    if (top != &closed_mark)
        append_reversed(list, top);
}
