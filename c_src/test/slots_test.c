/* The rate limit: never above the maximum, first come first served, nobody forgotten. */
#include "slots.h"

#include "test.h"

#include <semaphore.h>

enum { NEW, STARTED, DROPPED };

typedef struct {
    queue_node_t node; /* first */
    atomic_int state;
    atomic_bool is_cancelled;
    int number;
} item_t;

static slots_t slots;
static int started[64]; /* the numbers of those that start() got, in order */
static int started_count;
static int dropped_count;

static bool wanted(queue_node_t *node)
{
    return !atomic_load(&((item_t *)node)->is_cancelled);
}

static void start(queue_node_t *node)
{
    item_t *item = (item_t *)node;

    check(atomic_exchange(&item->state, STARTED) == NEW);
    started[started_count++] = item->number;
}

static void dropped(queue_node_t *node)
{
    check(atomic_exchange(&((item_t *)node)->state, DROPPED) == NEW);
    dropped_count++;
}

static item_t *begin(int64_t max, int count)
{
    item_t *items = test_new((size_t)count, sizeof(*items));

    for (int i = 0; i < count; i++)
        items[i].number = i;
    started_count = 0;
    dropped_count = 0;
    slots_init(&slots, max, wanted, start, dropped);
    return items;
}

static void release(void)
{
    slots_release(&slots);
    slots_advance(&slots);
}

static int64_t taken(void)
{
    return atomic_load(&slots.count);
}

static int64_t waiting(void)
{
    return atomic_load(&slots.waiting);
}

static void first_come_first_served(void)
{
    item_t *items = begin(2, 8);

    check(slots_admit(&slots, &items[0].node, false));
    check(slots_admit(&slots, &items[1].node, false));
    for (int i = 2; i < 8; i++)
        check(!slots_admit(&slots, &items[i].node, false));
    check(taken() == 2 && waiting() == 6 && started_count == 0);
    check(!slots_try(&slots));
    for (int i = 2; i < 8; i++) {
        release();
        check(started_count == i - 1 && started[i - 2] == i);
        check(taken() == 2 && waiting() == 7 - i);
    }
    release();
    release();
    check(taken() == 0 && waiting() == 0);
    check(slots_try(&slots) && slots_try(&slots) && !slots_try(&slots));
    free(items);
}

static void nested_goes_first(void)
{
    item_t *items = begin(1, 6);

    check(slots_try(&slots));
    for (int i = 0; i < 3; i++)
        check(!slots_admit(&slots, &items[i].node, false));
    for (int i = 3; i < 6; i++)
        check(!slots_admit(&slots, &items[i].node, true));
    for (int i = 0; i < 6; i++)
        release();
    check(started_count == 6);
    for (int i = 0; i < 6; i++)
        check(started[i] == (i + 3) % 6);
    release();
    check(taken() == 0);
    free(items);
}

/* A parked request that goes on takes a slot whatever the count; nobody starts until the count is
 * below the maximum again. */
static void retaken(void)
{
    item_t *items = begin(2, 2);

    check(slots_try(&slots) && slots_try(&slots));
    slots_retake(&slots);
    slots_retake(&slots);
    check(taken() == 4);
    check(!slots_admit(&slots, &items[0].node, false));
    check(!slots_admit(&slots, &items[1].node, true));
    release();
    release();
    check(started_count == 0 && taken() == 2);
    release();
    check(started_count == 1 && started[0] == 1 && taken() == 2);
    release();
    check(started_count == 2 && taken() == 2);
    free(items);
}

static void cancelled_need_no_slot(void)
{
    item_t *items = begin(1, 6);

    check(slots_try(&slots));
    for (int i = 0; i < 6; i++)
        check(!slots_admit(&slots, &items[i].node, i == 2));
    atomic_store(&items[0].is_cancelled, true);
    atomic_store(&items[2].is_cancelled, true);
    atomic_store(&items[3].is_cancelled, true);
    atomic_store(&items[5].is_cancelled, true);
    release();
    check(started_count == 1 && started[0] == 1 && dropped_count == 2);
    release();
    check(started_count == 2 && started[1] == 4 && dropped_count == 3);
    release();
    check(dropped_count == 4 && taken() == 0 && waiting() == 0);
    free(items);
}

static void another_maximum(void)
{
    item_t *items = begin(1, 8);

    check(slots_try(&slots));
    for (int i = 0; i < 8; i++)
        check(!slots_admit(&slots, &items[i].node, false));
    slots_set_max(&slots, 4); /* upwards starts those in line at once */
    check(started_count == 3 && taken() == 4 && waiting() == 5);
    slots_set_max(&slots, 2); /* downwards: those that run go on */
    check(taken() == 4);
    release();
    release();
    check(started_count == 3 && taken() == 2);
    release();
    check(started_count == 4 && taken() == 2);
    slots_set_max(&slots, 100);
    check(started_count == 8 && waiting() == 0 && taken() == 6);
    for (int i = 0; i < 8; i++)
        check(started[i] == i);
    free(items);
}

/* Whoever comes later does not pass by those in line. */
static void no_overtaking(void)
{
    item_t *items = begin(1, 3);

    check(slots_try(&slots));
    check(!slots_admit(&slots, &items[0].node, false));
    slots_release(&slots); /* a slot is free, and somebody waits for it */
    check(!slots_try(&slots));
    check(!slots_admit(&slots, &items[1].node, false)); /* advances */
    check(started_count == 1 && started[0] == 0);
    release();
    check(started_count == 2 && started[1] == 1);
    release();
    check(taken() == 0);
    free(items);
}

/* Nested requests get slots beyond the maximum when none was given between two looks. */
static void nested_in_a_hurry(void)
{
    item_t *items = begin(1, 5);

    check(slots_watch(&slots));
    check(!slots_watch(&slots));
    check(!slots_hurry(&slots)); /* nobody is in line */
    check(slots_try(&slots));
    for (int i = 0; i < 4; i++)
        check(!slots_admit(&slots, &items[i].node, i >= 1));
    release(); /* the first nested one gets the slot */
    check(started_count == 1 && started[0] == 1);
    atomic_store(&items[3].is_cancelled, true);
    check(slots_watch(&slots));
    check(slots_hurry(&slots)); /* one was started meanwhile */
    check(started_count == 1);
    check(!slots_hurry(&slots));
    check(started_count == 2 && started[1] == 2 && dropped_count == 1);
    check(taken() == 2 && waiting() == 1);
    release();
    check(started_count == 2);
    release();
    check(started_count == 3 && started[2] == 0);
    release();
    check(taken() == 0 && waiting() == 0);
    free(items);
}

/* ---- many threads ---- */

#define ADMITTERS 3
#define WORKERS   5
#define ROUNDS    40000

static queue_t admitted;
static pthread_mutex_t admitted_lock = PTHREAD_MUTEX_INITIALIZER;
static list_t admitted_list;
static sem_t admitted_count;
static atomic_int running;
static atomic_int highest; /* of running */
static atomic_int done;
static atomic_int submitted;
static atomic_bool retakes;
static atomic_int pacing;

static void run_later(queue_node_t *node)
{
    item_t *item = (item_t *)node;
    int now = atomic_fetch_add(&running, 1) + 1;
    int before = atomic_load(&highest);

    while (now > before && !atomic_compare_exchange_weak(&highest, &before, now))
        continue;
    check(atomic_exchange(&item->state, STARTED) == NEW);
    queue_push(&admitted, node);
    sem_post(&admitted_count);
}

static void forget(queue_node_t *node)
{
    check(atomic_exchange(&((item_t *)node)->state, DROPPED) == NEW);
    atomic_fetch_add(&done, 1);
}

static queue_node_t *next_admitted(void)
{
    queue_node_t *node;

    sem_wait(&admitted_count);
    pthread_mutex_lock(&admitted_lock);
    queue_take(&admitted, &admitted_list);
    node = list_pop(&admitted_list);
    pthread_mutex_unlock(&admitted_lock);
    return node;
}

/* Gives its slot back in between, as a request does that waits for Erlang. */
static void park(void)
{
    atomic_fetch_sub(&running, 1);
    release();
    sched_yield();
    slots_retake(&slots);
    atomic_fetch_add(&running, 1);
}

static void *work(void *argument)
{
    uint32_t seed = (uint32_t)(uintptr_t)argument;
    queue_node_t *node;

    while ((node = next_admitted()) != NULL) {
        if (atomic_load(&retakes) && random_below(&seed, 4) == 0)
            park();
        if (random_below(&seed, 64) == 0)
            test_pause(random_below(&seed, 50000));
        atomic_fetch_sub(&running, 1);
        release();
        atomic_fetch_add(&done, 1);
    }
    return NULL;
}

static void *admit(void *argument)
{
    item_t *items = argument;
    uint32_t seed = (uint32_t)(uintptr_t)argument | 1;
    int64_t until = clock_now() + STRESS_NS / 2;

    for (int i = 0; i < ROUNDS && clock_now() < until; i++) {
        bool nested = random_below(&seed, 4) == 0;

        atomic_fetch_add(&submitted, 1);
        if (slots_admit(&slots, &items[i].node, nested))
            run_later(&items[i].node);
        else if (random_below(&seed, 3) == 0)
            atomic_store(&items[i].is_cancelled, true);
        slots_advance(&slots);
        if (atomic_load(&submitted) - atomic_load(&done) > 200)
            test_pause(100000);
    }
    atomic_fetch_sub(&pacing, 1);
    return NULL;
}

/* Everybody is served or dropped, once; then all slots are free. */
static void stress(int64_t max, bool with_retakes, bool with_changes)
{
    pthread_t admitters[ADMITTERS];
    pthread_t workers[WORKERS];
    item_t *items[ADMITTERS];
    uint32_t seed = 5;

    slots_init(&slots, max, wanted, run_later, forget);
    queue_init(&admitted);
    list_init(&admitted_list);
    sem_init(&admitted_count, 0, 0);
    atomic_store(&running, 0);
    atomic_store(&highest, 0);
    atomic_store(&done, 0);
    atomic_store(&submitted, 0);
    atomic_store(&retakes, with_retakes);
    atomic_store(&pacing, ADMITTERS);
    for (int i = 0; i < WORKERS; i++)
        workers[i] = test_spawn(work, (void *)(uintptr_t)(i + 1));
    for (int i = 0; i < ADMITTERS; i++) {
        items[i] = test_new(ROUNDS, sizeof(item_t));
        admitters[i] = test_spawn(admit, items[i]);
    }
    while (with_changes && atomic_load(&pacing) > 0) {
        slots_set_max(&slots, 1 + random_below(&seed, (uint32_t)max));
        test_pause(200000);
    }
    test_join(admitters, ADMITTERS);
    eventually(atomic_load(&done) == atomic_load(&submitted)); /* without another push */
    for (int i = 0; i < WORKERS; i++)
        sem_post(&admitted_count); /* nothing is there: they end */
    test_join(workers, WORKERS);
    check(taken() == 0);
    check(waiting() == 0);
    check(with_retakes || atomic_load(&highest) <= max);
    check(atomic_load(&highest) > 0);
    for (int i = 0; i < ADMITTERS; i++)
        free(items[i]);
}

static void many_threads(void)
{
    stress(2, false, false);
}

/* Long before a slot is free, and in order for those that stay. */
static void dead_leave_the_line(void)
{
    item_t *items = begin(1, 401);

    check(slots_admit(&slots, &items[400].node, false));
    for (int i = 0; i < 400; i++)
        check(!slots_admit(&slots, &items[i].node, i % 3 == 0));
    for (int i = 0; i < 400; i++) {
        if (i % 10 == 0)
            continue;
        atomic_store(&items[i].is_cancelled, true);
        slots_forget(&slots);
    }
    check(waiting() <= 40 + 64);
    check(dropped_count + waiting() == 400);
    for (int i = 0; i < 41; i++)
        release();
    check(taken() == 0 && waiting() == 0 && started_count == 40 && dropped_count == 360);
    for (int i = 1; i < 14; i++)
        check(started[i] > started[i - 1] && started[i] % 3 == 0);
    free(items);
}

static void many_threads_one_slot(void)
{
    stress(1, false, false);
}

static void many_threads_that_park(void)
{
    stress(3, true, false);
}

static void many_threads_changing_maximum(void)
{
    stress(8, false, true);
}

int main(void)
{
    test_case("first_come_first_served", first_come_first_served);
    test_case("nested_goes_first", nested_goes_first);
    test_case("retaken", retaken);
    test_case("cancelled_need_no_slot", cancelled_need_no_slot);
    test_case("another_maximum", another_maximum);
    test_case("no_overtaking", no_overtaking);
    test_case("nested_in_a_hurry", nested_in_a_hurry);
    test_case("dead_leave_the_line", dead_leave_the_line);
    test_case("many_threads", many_threads);
    test_case("many_threads_one_slot", many_threads_one_slot);
    test_case("many_threads_that_park", many_threads_that_park);
    test_case("many_threads_changing_maximum", many_threads_changing_maximum);
    return test_end();
}
