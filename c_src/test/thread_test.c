/* Threads, how they sleep and how they are woken. */
#include "thread.h"

#include "stack.h"
#include "test.h"

#include <signal.h>
#include <string.h>
#include <sys/prctl.h>

#define STACK_BYTES ((size_t)2 << 20)
#define MAX_THREADS 16

typedef struct {
    char name[16];
    size_t stack;
    bool blocks_all;
    event_t done;
} seen_t;

static bool blocks_all(void)
{
    sigset_t blocked;

    pthread_sigmask(SIG_BLOCK, NULL, &blocked);
    return sigismember(&blocked, SIGINT) == 1 && sigismember(&blocked, SIGTERM) == 1 &&
           sigismember(&blocked, SIGCHLD) == 1 && sigismember(&blocked, SIGUSR1) == 1;
}

static void look_around(void *argument)
{
    seen_t *seen = argument;
    pthread_attr_t attributes;

    prctl(PR_GET_NAME, seen->name, 0, 0, 0);
    seen->blocks_all = blocks_all();
    if (pthread_getattr_np(pthread_self(), &attributes) == 0) {
        pthread_attr_getstacksize(&attributes, &seen->stack);
        pthread_attr_destroy(&attributes);
    }
    event_set(&seen->done);
}

static void names_signals_stacks(void)
{
    seen_t seen = {.stack = 0};

    event_init(&seen.done);
    check(thread_start("py:a name that is too long", look_around, &seen));
    event_wait(&seen.done);
    check(strcmp(seen.name, "py:a name that ") == 0);
    check(seen.blocks_all);
    check(seen.stack >= STACK_BYTES);
    check(!blocks_all()); /* the starter's signals are as before */
    eventually(thread_count() == 0);
}

static event_t gate;

static void wait_at_gate(void *argument)
{
    (void)argument;
    event_wait(&gate);
}

static void bound(void)
{
    event_init(&gate);
    check(thread_max() == MAX_THREADS);
    for (int i = 0; i < MAX_THREADS; i++)
        check(thread_start("gate", wait_at_gate, NULL));
    check(thread_count() == MAX_THREADS);
    for (int i = 0; i < 3; i++)
        check(!thread_start("gate", wait_at_gate, NULL));
    check(thread_count() == MAX_THREADS);
    event_set(&gate);
    eventually(thread_count() == 0);
    check(thread_start("gate", wait_at_gate, NULL));
    eventually(thread_count() == 0);
}

static void parker_alone(void)
{
    parker_t parker;
    int64_t start;

    parker_init(&parker);
    parker_notify(&parker);
    parker_notify(&parker); /* is one */
    check(parker_wait(&parker, CLOCK_NEVER));
    check(!parker_wait(&parker, clock_now() - 1));
    start = clock_now();
    check(!parker_wait(&parker, start + 20000000));
    check(clock_now() - start >= 20000000);
    parker_notify(&parker);
    check(parker_wait(&parker, clock_now() - 1)); /* what has come counts */
    parker_notify(&parker);
    parker_clear(&parker);
    check(!parker_wait(&parker, clock_now() + 1000000));
    parker_finish(&parker);
}

#define ROUNDS 30000

static parker_t ping;
static parker_t pong;
static atomic_int turns;

static void *answer(void *argument)
{
    uint32_t seed = 7;

    (void)argument;
    for (;;) {
        parker_wait(&ping, random_below(&seed, 2) == 0 ? CLOCK_NEVER : clock_now() + 5000);
        if (atomic_load(&turns) < 0)
            return NULL;
        if (atomic_load(&turns) % 2 == 1) {
            atomic_fetch_add(&turns, 1);
            parker_notify(&pong);
        }
    }
}

/* A wake-up that got lost would be waited for in vain. */
static void parkers_in_turn(void)
{
    int64_t until = clock_now() + STRESS_NS;
    uint32_t seed = 11;
    pthread_t other;

    parker_init(&ping);
    parker_init(&pong);
    atomic_store(&turns, 0);
    other = test_spawn(answer, NULL);
    for (int i = 0; i < ROUNDS && clock_now() < until; i++) {
        int64_t due = clock_now() + PATIENCE_NS;
        int64_t pause = random_below(&seed, 8) == 0 ? random_below(&seed, 20000) : 0;

        if (pause > 0)
            test_pause(pause);
        atomic_fetch_add(&turns, 1);
        parker_notify(&ping);
        while (atomic_load(&turns) % 2 == 1 && clock_now() < due)
            parker_wait(&pong, due);
        if (!check(atomic_load(&turns) % 2 == 0))
            break;
    }
    atomic_store(&turns, -2);
    parker_notify(&ping);
    test_join(&other, 1);
    parker_finish(&ping);
    parker_finish(&pong);
}

#define WAKERS 4

static parker_t common;
static atomic_int due_wakes;
static atomic_bool is_over;

static void *wake_often(void *argument)
{
    (void)argument;
    while (!atomic_load(&is_over)) {
        atomic_fetch_add(&due_wakes, 1);
        parker_notify(&common);
    }
    return NULL;
}

/* Many wake one; each wait that ends by a wake-up sees what was done before it. */
static void many_wakers(void)
{
    int64_t until = clock_now() + STRESS_NS / 3;
    pthread_t threads[WAKERS];
    int woken = 0;

    parker_init(&common);
    atomic_store(&is_over, false);
    for (int i = 0; i < WAKERS; i++)
        threads[i] = test_spawn(wake_often, NULL);
    while (clock_now() < until) {
        woken += parker_wait(&common, clock_now() + PATIENCE_NS);
        check(atomic_exchange(&due_wakes, 0) >= 0);
    }
    check(woken > 0);
    atomic_store(&is_over, true);
    test_join(threads, WAKERS);
    parker_finish(&common);
}

static bool is_true(void *argument)
{
    return atomic_load((atomic_bool *)argument);
}

static void spinning(void)
{
    atomic_bool ready = false;
    parker_t parker;
    spin_t spin;
    int64_t start;

    parker_init(&parker);
    spin_init(&spin);
    start = clock_now();
    check(!spin_until(&spin, is_true, &ready)); /* nothing comes: ends by itself */
    check(clock_now() - start < INT64_C(5000000000));
    for (int i = 0; i < 20; i++) /* waits that were long: it does not spin any more */
        spin_learn(&spin, &parker, clock_now(), false);
    atomic_store(&ready, true);
    check(!spin_until(&spin, is_true, &ready));
    for (int i = 0; i < 20; i++) { /* short ones: it does again */
        start = clock_now();
        parker_notify(&parker);
        check(parker_wait(&parker, CLOCK_NEVER));
        atomic_store(&parker.woken, start + 1);
        spin_learn(&spin, &parker, start, true);
    }
    check(spin_until(&spin, is_true, &ready));
    parker_finish(&parker);
}

static void clock_goes_on(void)
{
    int64_t before = clock_now();

    for (int i = 0; i < 1000; i++) {
        int64_t now = clock_now();

        check(now >= before);
        before = now;
    }
    test_pause(2000000);
    check(clock_now() - before >= 2000000);
}

/* ---- a second stack ---- */

#define SECOND_BYTES ((size_t)8 << 20)

typedef struct {
    int depth;
    double product;
} deep_t;

/* Uses about 1 kB of stack a level. */
__attribute__((noinline)) static int deepen(int depth, volatile char *above)
{
    volatile char room[900];

    room[depth % 900] = above[0];
    return depth == 0 ? 0 : 1 + deepen(depth - 1, room) + 0 * room[0];
}

static void go_deep(void *argument)
{
    deep_t *deep = argument;
    char here = 1;

    deep->depth = deepen(6000, &here);
    deep->product *= 3;
}

/* More than the thread's own stack holds, again and again; what the caller had in registers stays. */
static void *use_second(void *unused)
{
    for (int i = 0; i < 20; i++) {
        double kept = i * 1.5;
        deep_t deep = {0, kept};

        check(stack_prepare(SECOND_BYTES));
        stack_call(go_deep, &deep);
        check(deep.depth == 6000 && deep.product > kept * 2.9 - 1 && kept < i * 1.5 + 0.1);
    }
    return unused;
}

static void use_second_on_small(void *done)
{
    use_second(NULL);
    event_set(done);
}

static void second_stack(void)
{
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    event_t done;

    if (!stack_prepare(SECOND_BYTES))
        return; /* not on this machine */
    event_init(&done);
    check(thread_start("small", use_second_on_small, &done));
    event_wait(&done);
    for (int i = 0; i < THREADS; i++)
        threads[i] = test_spawn(use_second, NULL);
    test_join(threads, THREADS);
}

int main(void)
{
    thread_setup(STACK_BYTES, MAX_THREADS);
    test_case("clock_goes_on", clock_goes_on);
    test_case("names_signals_stacks", names_signals_stacks);
    test_case("bound", bound);
    test_case("parker_alone", parker_alone);
    test_case("parkers_in_turn", parkers_in_turn);
    test_case("many_wakers", many_wakers);
    test_case("spinning", spinning);
    test_case("second_stack", second_stack);
    return test_end();
}
