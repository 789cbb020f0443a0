/* The queue: order, closing, many producers. */
#include "queue.h"

#include "test.h"

typedef struct {
    queue_node_t node; /* first */
    int producer;
    int number;
} item_t;

static item_t *as_item(queue_node_t *node)
{
    return (item_t *)node;
}

static void lists(void)
{
    item_t items[4] = {0};
    list_t list;

    list_init(&list);
    check(list_pop(&list) == NULL);
    list_append(&list, &items[1].node);
    list_append(&list, &items[2].node);
    list_prepend(&list, &items[0].node);
    list_append(&list, &items[3].node);
    for (int i = 0; i < 4; i++)
        check(list_pop(&list) == &items[i].node);
    check(list_pop(&list) == NULL);
    check(list.tail == NULL);
    list_prepend(&list, &items[0].node);
    list_append(&list, &items[1].node);
    check(list_pop(&list) == &items[0].node);
    check(list_pop(&list) == &items[1].node);
    check(items[0].node.next == NULL);
}

static void order_of_arrival(void)
{
    item_t items[6] = {0};
    queue_t queue;
    list_t list;

    queue_init(&queue);
    list_init(&list);
    check(!queue_has(&queue));
    check(queue_peek(&queue) == NULL);
    queue_take(&queue, &list);
    check(list.head == NULL);
    for (int i = 0; i < 3; i++)
        check(queue_push(&queue, &items[i].node));
    check(queue_has(&queue));
    check(queue_peek(&queue) == &items[2].node);
    queue_take(&queue, &list);
    check(!queue_has(&queue));
    for (int i = 3; i < 6; i++)
        check(queue_push(&queue, &items[i].node));
    queue_take(&queue, &list); /* behind what is there */
    for (int i = 0; i < 6; i++)
        check(list_pop(&list) == &items[i].node);
    check(list_pop(&list) == NULL);
}

static void closing(void)
{
    item_t items[3] = {0};
    queue_node_t *mark = &items[1].node;
    queue_t queue;
    list_t list;

    queue_init(&queue);
    list_init(&list);
    queue_push(&queue, &items[0].node);
    queue_push(&queue, &items[1].node);
    queue_close(&queue, &list);
    check(list_pop(&list) == &items[0].node);
    check(list_pop(&list) == &items[1].node);
    check(list_pop(&list) == NULL);
    items[2].node.next = mark;
    check(!queue_push(&queue, &items[2].node));
    check(items[2].node.next == mark); /* untouched */
    check(!queue_has(&queue));
    check(queue_peek(&queue) == NULL);
    queue_take(&queue, &list);
    queue_close(&queue, &list);
    check(list.head == NULL);
    queue_init(&queue); /* may be used again */
    check(queue_push(&queue, &items[2].node));
}

#define PRODUCERS 4
#define ITEMS     100000

static queue_t shared;
static atomic_int accepted;
static atomic_int still_pushing;
static item_t *items_of[PRODUCERS];

static void *produce(void *argument)
{
    item_t *items = argument;
    int64_t until = clock_now() + STRESS_NS;
    bool open = true;

    for (int i = 0; open && i < ITEMS && clock_now() < until; i++) {
        open = queue_push(&shared, &items[i].node);
        atomic_fetch_add(&accepted, open);
    }
    atomic_fetch_sub(&still_pushing, 1);
    return NULL;
}

/* Checks that each producer's items come in its order, each once. */
static int count_in_order(list_t *list, int *last)
{
    queue_node_t *node;
    int count = 0;

    while ((node = list_pop(list)) != NULL) {
        item_t *item = as_item(node);

        check(item->number == last[item->producer] + 1);
        last[item->producer] = item->number;
        count++;
    }
    return count;
}

static void start_producers(pthread_t *threads)
{
    queue_init(&shared);
    atomic_store(&accepted, 0);
    atomic_store(&still_pushing, PRODUCERS);
    for (int p = 0; p < PRODUCERS; p++) {
        items_of[p] = test_new(ITEMS, sizeof(item_t));
        for (int i = 0; i < ITEMS; i++)
            items_of[p][i] = (item_t){{NULL}, p, i + 1};
    }
    for (int p = 0; p < PRODUCERS; p++)
        threads[p] = test_spawn(produce, items_of[p]);
}

static void free_items(void)
{
    for (int p = 0; p < PRODUCERS; p++)
        free(items_of[p]);
}

static void many_producers(void)
{
    pthread_t threads[PRODUCERS];
    int last[PRODUCERS] = {0};
    int count = 0;
    bool more = true;
    list_t list;

    list_init(&list);
    start_producers(threads);
    while (more) {
        more = atomic_load(&still_pushing) > 0;
        queue_take(&shared, &list);
        count += count_in_order(&list, last);
    }
    test_join(threads, PRODUCERS);
    check(count == atomic_load(&accepted));
    free_items();
}

/* What was accepted is there, what was refused is not. */
static void closing_under_fire(void)
{
    for (uint32_t round = 0; round < 20; round++) {
        pthread_t threads[PRODUCERS];
        int last[PRODUCERS] = {0};
        int count = 0;
        list_t list;

        list_init(&list);
        start_producers(threads);
        while (atomic_load(&accepted) < (int)(round * 500))
            queue_take(&shared, &list);
        count = count_in_order(&list, last);
        queue_close(&shared, &list);
        test_join(threads, PRODUCERS);
        count += count_in_order(&list, last);
        check(count == atomic_load(&accepted));
        free_items();
    }
}

int main(void)
{
    test_case("lists", lists);
    test_case("order_of_arrival", order_of_arrival);
    test_case("closing", closing);
    test_case("many_producers", many_producers);
    test_case("closing_under_fire", closing_under_fire);
    return test_end();
}
