/* The timer: order, re-arming, many threads, sweeping. */
#include "timer.h"

#include "test.h"

#define MS 1000000

static atomic_int fired;
static uint64_t order[64]; /* written by the timer's thread, read after `fired` says so */
static int64_t lateness;   /* the most; the same */
static int64_t base;

static void note(uint64_t token)
{
    int at = atomic_load(&fired);
    int64_t late = clock_now() - (base + (int64_t)token * MS);

    if (at < 64)
        order[at] = token;
    check(late >= 0);
    if (late > lateness)
        lateness = late;
    atomic_fetch_add(&fired, 1);
}

static void in_order_of_due(void)
{
    static const uint64_t tokens[] = {50, 10, 90, 30, 70, 20, 100, 60, 0, 40, 80};
    int count = (int)(sizeof(tokens) / sizeof(*tokens));

    atomic_store(&fired, 0);
    base = clock_now() + 200 * MS; /* all are armed before the first is due */
    for (int i = 0; i < count; i++)
        check(timer_arm(base + (int64_t)tokens[i] * MS, note, NULL, tokens[i]));
    eventually(atomic_load(&fired) == count);
    for (int i = 1; i < count; i++)
        check(order[i - 1] < order[i]);
    check(lateness < INT64_C(5000000000));
}

static int64_t fired_at;

static void note_time(uint64_t token)
{
    (void)token;
    fired_at = clock_now();
    atomic_fetch_add(&fired, 1);
}

static void the_past_is_now(void)
{
    atomic_store(&fired, 0);
    check(timer_arm(clock_now() + 3600 * INT64_C(1000000000), note_time, NULL, 1));
    check(timer_arm(0, note_time, NULL, 2));
    eventually(atomic_load(&fired) == 1);
    /* An earlier one than the one it sleeps for wakes it. */
    check(timer_arm(clock_now() + 10 * MS, note_time, NULL, 3));
    eventually(atomic_load(&fired) == 2);
    check(timer_arm(CLOCK_NEVER, note_time, NULL, 4));
}

static void rearm(uint64_t token)
{
    atomic_fetch_add(&fired, 1);
    if (token > 0)
        check(timer_arm(clock_now() + (int64_t)(token % 3) * MS / 10, rearm, NULL, token - 1));
}

static void armed_while_it_fires(void)
{
    atomic_store(&fired, 0);
    check(timer_arm(0, rearm, NULL, 200));
    eventually(atomic_load(&fired) == 201);
}

#define THREADS 4
#define ENTRIES 20000

static atomic_int armed;

static void count(uint64_t token)
{
    (void)token;
    atomic_fetch_add(&fired, 1);
}

static void *arm_many(void *argument)
{
    uint32_t seed = (uint32_t)(uintptr_t)argument;
    int64_t until = clock_now() + STRESS_NS / 2;

    for (int i = 0; i < ENTRIES && clock_now() < until; i++) {
        check(timer_arm(clock_now() + random_below(&seed, 300) * MS, count, NULL, seed));
        atomic_fetch_add(&armed, 1);
    }
    return NULL;
}

static void from_many_threads(void)
{
    pthread_t threads[THREADS];

    atomic_store(&fired, 0);
    for (int i = 0; i < THREADS; i++)
        threads[i] = test_spawn(arm_many, (void *)(uintptr_t)(i + 1));
    test_join(threads, THREADS);
    eventually(atomic_load(&fired) == atomic_load(&armed));
    test_pause(5 * MS);
    check(atomic_load(&fired) == atomic_load(&armed));
}

static atomic_int asked;

/* Odd tokens are of use. */
static bool is_odd(uint64_t token)
{
    atomic_fetch_add(&asked, 1);
    return token % 2 == 1;
}

static void count_odd(uint64_t token)
{
    if (token % 2 == 1)
        atomic_fetch_add(&fired, 1);
}

/* What is of no use goes when room gets short; what is of use stays and fires. */
static void sweeping(void)
{
    int64_t due = clock_now() + 500 * MS;
    int wanted = 0;

    atomic_store(&fired, 0);
    for (uint64_t i = 0; i < 100000; i++) {
        bool odd = i % 1000 == 1;

        check(timer_arm(due, count_odd, is_odd, odd ? i : i & ~UINT64_C(1)));
        wanted += odd;
    }
    check(atomic_load(&asked) > 0);
    /* Looked at a few times each, not all of them at each arming. */
    check(atomic_load(&asked) < 100000 * 40);
    eventually(atomic_load(&fired) == wanted);
}

int main(void)
{
    check(timer_setup());
    check(timer_setup()); /* the same one */
    check(thread_count() == 1);
    test_case("sweeping", sweeping); /* first: while the timer has little room */
    test_case("in_order_of_due", in_order_of_due);
    test_case("the_past_is_now", the_past_is_now);
    test_case("armed_while_it_fires", armed_while_it_fires);
    test_case("from_many_threads", from_many_threads);
    return test_end();
}
