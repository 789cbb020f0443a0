/* The seat: who serves, who takes over, who ends; with threads as an executor has them. */
#include "seat.h"

#include "test.h"
#include "timer.h"

#include <sched.h>

/* An executor without Erlang and Python. Never freed: a late timer may look at it. */
typedef struct office {
    seat_t seat; /* first: a seat is its office */
    struct office *next;
    atomic_int alive;    /* its threads */
    atomic_int started;  /* threads that were started */
    atomic_int fresh;    /* requests that were started, and have not parked or been given up */
    atomic_int served;
    atomic_int refusals; /* so many times no spare is to be had */
    worker_t *_Atomic first_home;
} office_t;

typedef struct {
    worker_t worker; /* first */
    office_t *office;
} part_t;

typedef struct job {
    queue_node_t node; /* first */
    void (*run)(struct job *job, worker_t *worker);
    office_t *office;
    int number;
    bool is_errand;
    atomic_int runs;
    worker_t *_Atomic by;
    event_t begun;
    event_t parked;
    event_t gate; /* what it waits for */
    event_t finished;
} job_t;

static office_t *offices;

/* ---- threads ---- */

static void serve(office_t *office, worker_t *worker, job_t *job)
{
    if (!job->is_errand)
        check(atomic_fetch_add(&office->fresh, 1) == 0); /* one is started at a time */
    atomic_store(&job->by, worker);
    check(atomic_fetch_add(&job->runs, 1) == 0);
    job->run(job, worker);
}

/* What a request does last, still in its seat. A lost one has been counted off. */
static void leave_seat(job_t *job)
{
    if (!job->is_errand)
        atomic_fetch_sub(&job->office->fresh, 1);
}

static void thread_body(void *argument)
{
    part_t *self = argument;
    office_t *office = self->office;
    queue_node_t *before = NULL;
    queue_node_t *node;
    bool is_lost;

    for (;;) {
        node = worker_next(&self->worker, NULL, &is_lost);
        if (before != NULL) {
            atomic_fetch_add(&office->served, 1);
            event_set(&((job_t *)before)->finished);
        }
        if (is_lost)
            break;
        if (node == NULL)
            node = worker_wait(&self->worker);
        if (node == NULL)
            break;
        serve(office, &self->worker, (job_t *)node);
        before = node;
    }
    worker_leave(&self->worker);
    free(self);
    atomic_fetch_sub(&office->alive, 1);
}

static bool start_worker(office_t *office, bool is_home)
{
    part_t *part = test_new(1, sizeof(*part));

    part->office = office;
    if (!worker_enter(&part->worker, &office->seat, is_home)) {
        free(part);
        return false;
    }
    if (is_home)
        atomic_store(&office->first_home, &part->worker);
    atomic_fetch_add(&office->alive, 1);
    atomic_fetch_add(&office->started, 1);
    check(thread_start(is_home ? "home" : "spare", thread_body, part));
    return true;
}

static bool has_ended(office_t *office)
{
    bool answer;

    pthread_mutex_lock(&office->seat.lock);
    answer = office->seat.is_ended;
    pthread_mutex_unlock(&office->seat.lock);
    return answer;
}

static bool spawn(seat_t *seat)
{
    office_t *office = (office_t *)seat;

    if (atomic_load(&office->refusals) > 0) {
        atomic_fetch_sub(&office->refusals, 1);
        return false;
    }
    return start_worker(office, false);
}

static void spawn_now(uint64_t token)
{
    seat_t *seat = (seat_t *)(uintptr_t)token;

    if (!spawn(seat) && !has_ended((office_t *)seat))
        timer_arm(clock_now() + 1000000, spawn_now, NULL, token);
}

static void spawn_later(seat_t *seat)
{
    timer_arm(0, spawn_now, NULL, (uint64_t)(uintptr_t)seat);
}

/* ---- offices and jobs ---- */

static office_t *new_office(void)
{
    office_t *office = test_new(1, sizeof(*office));

    seat_init(&office->seat, spawn, spawn_later);
    office->next = offices;
    offices = office;
    return office;
}

static office_t *open_office(void)
{
    office_t *office = new_office();

    check(start_worker(office, true));
    return office;
}

/* Closes it; everything is served and everybody ends. */
static void close_office(office_t *office)
{
    job_t late = {.number = 0};

    seat_close(&office->seat);
    check(!seat_push(&office->seat, &late.node, false));
    check(!seat_push(&office->seat, &late.node, true));
    eventually(atomic_load(&office->alive) == 0);
    check(office->seat.is_ended);
    check(!seat_push_errand(&office->seat, &late.node));
    check(atomic_load(&office->fresh) == 0);
    check(office->seat.workers == 0 && office->seat.lost == 0 && office->seat.active == 0);
    check(office->seat.home == NULL && office->seat.idle == NULL && office->seat.all == NULL);
}

static void init_job(job_t *job, office_t *office, int number, void (*run)(job_t *, worker_t *))
{
    job->run = run;
    job->office = office;
    job->number = number;
    job->is_errand = false;
    atomic_init(&job->runs, 0);
    atomic_init(&job->by, NULL);
    event_init(&job->begun);
    event_init(&job->parked);
    event_init(&job->gate);
    event_init(&job->finished);
}

static job_t *new_jobs(office_t *office, int count, void (*run)(job_t *, worker_t *))
{
    job_t *jobs = test_new((size_t)count, sizeof(*jobs));

    for (int i = 0; i < count; i++)
        init_job(&jobs[i], office, i, run);
    return jobs;
}

static void push(job_t *job, bool nested)
{
    check(seat_push(&job->office->seat, &job->node, nested));
}

static void push_errand(job_t *job)
{
    job->is_errand = true;
    check(seat_push_errand(&job->office->seat, &job->node));
}

static void wait_finished(job_t *jobs, int count)
{
    for (int i = 0; i < count; i++)
        event_wait(&jobs[i].finished);
}

/* For what must not happen: time enough for it to show. */
static bool stays_unbegun(job_t *job)
{
    return !event_within(&job->begun, 20000000) && atomic_load(&job->runs) == 0;
}

static int order[2000]; /* numbers in order of service; written by the seat's holder */
static atomic_int ordered;

/* ---- what jobs do ---- */

static void do_nothing(job_t *job, worker_t *worker)
{
    (void)worker;
    event_set(&job->begun);
    leave_seat(job);
}

static void note_order(job_t *job, worker_t *worker)
{
    (void)worker;
    order[atomic_fetch_add(&ordered, 1)] = job->number;
    event_set(&job->begun);
    leave_seat(job);
}

/* Computes until the gate opens. */
static void hold_seat(job_t *job, worker_t *worker)
{
    (void)worker;
    event_set(&job->begun);
    event_wait(&job->gate);
    leave_seat(job);
}

/* Waits for Erlang until the gate opens. */
static void park(job_t *job, worker_t *worker)
{
    event_set(&job->begun);
    leave_seat(job);
    check(worker_park(worker));
    event_set(&job->parked);
    event_wait(&job->gate);
    worker_resume(worker);
}

/* Is given up while it computes: whoever gives it up has counted it off. */
static void get_stuck(job_t *job, worker_t *worker)
{
    (void)worker;
    event_set(&job->begun);
    event_wait(&job->gate);
}

static void give_up(job_t *job)
{
    leave_seat(job);
    check(seat_abandon(&job->office->seat, &job->node));
}

/* ---- cases ---- */

static void served_in_order(void)
{
    enum { COUNT = 1000 };
    office_t *office = open_office();
    job_t *jobs = new_jobs(office, COUNT, note_order);

    atomic_store(&ordered, 0);
    for (int i = 0; i < COUNT; i++)
        push(&jobs[i], false);
    wait_finished(jobs, COUNT);
    for (int i = 0; i < COUNT; i++) {
        check(order[i] == i);
        check(atomic_load(&jobs[i].by) == atomic_load(&office->first_home));
    }
    check(atomic_load(&office->started) == 1); /* no spare was needed */
    close_office(office);
    check(atomic_load(&office->served) == COUNT);
    free(jobs);
}

static void nested_goes_first(void)
{
    office_t *office = open_office();
    job_t *first = new_jobs(office, 1, hold_seat);
    job_t *jobs = new_jobs(office, 8, note_order);

    atomic_store(&ordered, 0);
    push(first, false);
    event_wait(&first->begun);
    for (int i = 0; i < 8; i++)
        push(&jobs[i], i >= 5);
    pthread_mutex_lock(&office->seat.lock);
    check(seat_waiting(&office->seat) == 8);
    pthread_mutex_unlock(&office->seat.lock);
    event_set(&first->gate);
    wait_finished(jobs, 8);
    for (int i = 0; i < 8; i++)
        check(order[i] == (i + 5) % 8);
    close_office(office);
    free(first);
    free(jobs);
}

static void spare_serves_while_home_is_parked(void)
{
    office_t *office = open_office();
    job_t *waits = new_jobs(office, 1, park);
    job_t *jobs = new_jobs(office, 20, do_nothing);
    worker_t *home = atomic_load(&office->first_home);

    push(waits, false);
    event_wait(&waits->parked);
    for (int i = 0; i < 10; i++) {
        push(&jobs[i], i % 2 == 0);
        event_wait(&jobs[i].finished);
        check(atomic_load(&jobs[i].by) != home);
    }
    check(!event_within(&waits->finished, 0));
    event_set(&waits->gate);
    event_wait(&waits->finished);
    for (int i = 10; i < 20; i++) {
        push(&jobs[i], false);
        event_wait(&jobs[i].finished);
        check(atomic_load(&jobs[i].by) == home);
    }
    check(atomic_load(&office->started) == 2);
    close_office(office);
    free(waits);
    free(jobs);
}

/* Going on waits for nobody; a resumed request and one started meanwhile overlap. */
static void resuming_does_not_wait(void)
{
    office_t *office = open_office();
    job_t *waits = new_jobs(office, 1, park);
    job_t *holds = new_jobs(office, 1, hold_seat);

    push(waits, false);
    event_wait(&waits->parked);
    push(holds, false);
    event_wait(&holds->begun);
    event_set(&waits->gate);
    event_wait(&waits->finished);
    check(!event_within(&holds->finished, 0));
    event_set(&holds->gate);
    event_wait(&holds->finished);
    close_office(office);
    free(waits);
    free(holds);
}

static void park_then_hold(job_t *job, worker_t *worker)
{
    park(job, worker);
    event_set(&job[1].begun); /* its neighbour's events stand for the second half */
    event_wait(&job[1].gate);
}

static void seat_is_taken_while_a_resumed_one_runs(void)
{
    office_t *office = open_office();
    job_t *waits = new_jobs(office, 2, park_then_hold);
    job_t *next = new_jobs(office, 2, do_nothing);

    push(&waits[0], false);
    event_wait(&waits[0].parked);
    push(&next[0], false);
    event_wait(&next[0].finished);
    event_set(&waits[0].gate);
    event_wait(&waits[1].begun); /* resumed, and computes */
    push(&next[1], false);
    check(stays_unbegun(&next[1]));
    event_set(&waits[1].gate);
    event_wait(&next[1].finished);
    check(atomic_load(&next[1].by) == atomic_load(&office->first_home));
    close_office(office);
    free(waits);
    free(next);
}

/* Each level waits for the next; they go on in any order. */
static void many_parked_at_once(void)
{
    enum { COUNT = 40 };
    office_t *office = open_office();
    job_t *waits = new_jobs(office, COUNT, park);
    job_t *last = new_jobs(office, 1, do_nothing);

    for (int i = 0; i < COUNT; i++) {
        push(&waits[i], i % 2 == 1);
        event_wait(&waits[i].parked);
    }
    push(last, false);
    event_wait(&last->finished);
    for (int i = 0; i < COUNT; i++)
        event_set(&waits[i * 7 % COUNT].gate); /* 7 and 40 have no common factor */
    wait_finished(waits, COUNT);
    check(atomic_load(&office->started) <= COUNT + 1);
    close_office(office);
    free(waits);
    free(last);
}

static bool was_refused;

static void park_in_vain(job_t *job, worker_t *worker)
{
    atomic_store(&job->office->refusals, 1);
    was_refused = !worker_park(worker);
    event_set(&job->begun);
    leave_seat(job);
}

static void no_spare_no_parking(void)
{
    office_t *office = open_office();
    job_t *jobs = new_jobs(office, 2, park_in_vain);

    jobs[1].run = do_nothing;
    push(&jobs[0], false);
    event_wait(&jobs[0].finished);
    check(was_refused);
    push(&jobs[1], false);
    event_wait(&jobs[1].finished);
    check(atomic_load(&office->started) == 1);
    close_office(office);
    free(jobs);
}

static void stuck_worker_is_given_up(void)
{
    office_t *office = open_office();
    job_t *stuck = new_jobs(office, 2, get_stuck);
    job_t *jobs = new_jobs(office, 3, do_nothing);

    push(&stuck[0], false);
    event_wait(&stuck[0].begun);
    push(&jobs[0], false);
    check(stays_unbegun(&jobs[0]));
    atomic_store(&office->refusals, 3); /* a spare is not to be had at once */
    give_up(&stuck[0]);
    check(!seat_abandon(&office->seat, &stuck[0].node)); /* it is already */
    event_wait(&jobs[0].finished);
    check(atomic_load(&jobs[0].by) != atomic_load(&office->first_home));
    pthread_mutex_lock(&office->seat.lock);
    check(office->seat.lost == 1 && office->seat.workers == 1);
    check(seat_find(&office->seat, &stuck[0].node) == atomic_load(&stuck[0].by));
    pthread_mutex_unlock(&office->seat.lock);
    push(&stuck[1], false); /* the spare has become the home worker; it gets stuck too */
    event_wait(&stuck[1].begun);
    give_up(&stuck[1]);
    push(&jobs[1], false);
    event_wait(&jobs[1].finished);
    event_set(&stuck[1].gate);
    event_set(&stuck[0].gate);
    wait_finished(stuck, 2);
    eventually(atomic_load(&office->alive) == 1);
    push(&jobs[2], false);
    event_wait(&jobs[2].finished);
    check(atomic_load(&jobs[2].by) == atomic_load(&jobs[1].by));
    close_office(office);
    free(stuck);
    free(jobs);
}

static void who_is_not_given_up(void)
{
    office_t *office = open_office();
    job_t *waits = new_jobs(office, 1, park);
    job_t *jobs = new_jobs(office, 2, do_nothing);

    push(waits, false);
    event_wait(&waits->parked);
    check(!seat_abandon(&office->seat, &waits->node)); /* parked: it is in nobody's way */
    push(&jobs[0], false);
    event_wait(&jobs[0].finished);
    check(!seat_abandon(&office->seat, &jobs[0].node)); /* over */
    check(!seat_abandon(&office->seat, &jobs[1].node)); /* never pushed */
    event_set(&waits->gate);
    event_wait(&waits->finished);
    close_office(office);
    free(waits);
    free(jobs);
}

/* The home worker is lost while it was parked before; the stuck one may also be a spare. */
static void stuck_spare_is_given_up(void)
{
    office_t *office = open_office();
    job_t *waits = new_jobs(office, 1, park);
    job_t *stuck = new_jobs(office, 1, get_stuck);
    job_t *jobs = new_jobs(office, 2, do_nothing);

    push(waits, false);
    event_wait(&waits->parked);
    push(stuck, true);
    event_wait(&stuck->begun);
    push(&jobs[0], true);
    check(stays_unbegun(&jobs[0]));
    give_up(stuck);
    event_wait(&jobs[0].finished);
    event_set(&waits->gate);
    event_wait(&waits->finished);
    push(&jobs[1], false);
    event_wait(&jobs[1].finished);
    check(atomic_load(&jobs[1].by) == atomic_load(&office->first_home));
    event_set(&stuck->gate);
    event_wait(&stuck->finished);
    close_office(office);
    free(waits);
    free(stuck);
    free(jobs);
}

/* Errands need no seat: several at once, while the seat is taken. */
static void errands(void)
{
    office_t *office = open_office();
    job_t *holds = new_jobs(office, 1, hold_seat);
    job_t *errand = new_jobs(office, 4, hold_seat);

    push(holds, false);
    event_wait(&holds->begun);
    for (int i = 0; i < 4; i++) {
        push_errand(&errand[i]);
        event_wait(&errand[i].begun);
        check(atomic_load(&errand[i].by) != atomic_load(&office->first_home));
    }
    for (int i = 0; i < 4; i++)
        event_set(&errand[i].gate);
    wait_finished(errand, 4);
    check(!event_within(&holds->finished, 0));
    event_set(&holds->gate);
    event_wait(&holds->finished);
    close_office(office);
    free(holds);
    free(errand);
}

/* A spare that was woken for an errand is no spare for those that wait. */
static void errand_takes_the_spare(void)
{
    office_t *office = open_office();
    job_t *waits = new_jobs(office, 2, park);
    job_t *errand = new_jobs(office, 1, hold_seat);
    job_t *jobs = new_jobs(office, 1, do_nothing);

    push(&waits[0], false);
    event_wait(&waits[0].parked);
    push_errand(errand);
    event_wait(&errand->begun);
    push(&jobs[0], false);
    event_wait(&jobs[0].finished);
    push(&waits[1], false);
    event_wait(&waits[1].parked);
    event_set(&errand->gate);
    event_wait(&errand->finished);
    event_set(&waits[0].gate);
    event_set(&waits[1].gate);
    wait_finished(waits, 2);
    close_office(office);
    free(waits);
    free(errand);
    free(jobs);
}

/* An errand that parks (a thread's request that calls Erlang) gives no seat back: it has none. */
static void errand_parks(void)
{
    office_t *office = open_office();
    job_t *holds = new_jobs(office, 1, hold_seat);
    job_t *errand = new_jobs(office, 1, park);
    job_t *next = new_jobs(office, 1, do_nothing);

    push(holds, false);
    event_wait(&holds->begun);
    push_errand(errand);
    event_wait(&errand->parked);
    push(next, false);
    check(stays_unbegun(next));
    event_set(&errand->gate);
    event_wait(&errand->finished);
    check(stays_unbegun(next));
    event_set(&holds->gate);
    event_wait(&next->finished);
    close_office(office);
    free(holds);
    free(errand);
    free(next);
}

static void closing_serves_what_is_queued(void)
{
    enum { COUNT = 500 };
    office_t *office = open_office();
    job_t *holds = new_jobs(office, 1, hold_seat);
    job_t *waits = new_jobs(office, 1, park);
    job_t *errand = new_jobs(office, 1, do_nothing);
    job_t *jobs = new_jobs(office, COUNT, note_order);

    atomic_store(&ordered, 0);
    push(waits, false);
    event_wait(&waits->parked);
    push(holds, false);
    event_wait(&holds->begun);
    for (int i = 0; i < COUNT; i++)
        push(&jobs[i], false);
    seat_close(&office->seat);
    check(!seat_push(&office->seat, &jobs[0].node, false));
    push_errand(errand); /* as long as somebody is there */
    event_wait(&errand->finished);
    event_set(&holds->gate);
    wait_finished(jobs, COUNT);
    check(!has_ended(office)); /* one is still parked */
    check(atomic_load(&office->alive) > 0);
    event_set(&waits->gate);
    close_office(office);
    for (int i = 0; i < COUNT; i++)
        check(order[i] == i);
    free(holds);
    free(waits);
    free(errand);
    free(jobs);
}

/* Closed while somebody is stuck: given up, it is not waited for. */
static void closing_with_a_stuck_worker(void)
{
    office_t *office = open_office();
    job_t *stuck = new_jobs(office, 1, get_stuck);
    job_t *jobs = new_jobs(office, 1, do_nothing);

    push(stuck, false);
    event_wait(&stuck->begun);
    push(jobs, false);
    seat_close(&office->seat);
    check(stays_unbegun(jobs));
    give_up(stuck);
    event_wait(&jobs->finished);
    eventually(has_ended(office));
    eventually(atomic_load(&office->alive) == 1);
    event_set(&stuck->gate);
    close_office(office);
    free(stuck);
    free(jobs);
}

static void idle_spares_end(void)
{
    office_t *office = new_office();
    job_t *waits = new_jobs(office, 5, park);
    job_t *jobs = new_jobs(office, 1, do_nothing);

    office->seat.spare_keep = 30000000;
    check(start_worker(office, true));
    for (int i = 0; i < 5; i++) {
        push(&waits[i], false);
        event_wait(&waits[i].parked);
    }
    check(atomic_load(&office->alive) >= 5);
    for (int i = 1; i < 5; i++)
        event_set(&waits[i].gate);
    wait_finished(&waits[1], 4);
    test_pause(100000000); /* while the home worker is parked a spare stays */
    check(atomic_load(&office->alive) >= 2);
    push(jobs, false);
    event_wait(&jobs->finished);
    event_set(&waits[0].gate);
    event_wait(&waits[0].finished);
    eventually(atomic_load(&office->alive) == 1);
    close_office(office);
    free(waits);
    free(jobs);
}

static void used_again(void)
{
    office_t *office = open_office();
    job_t *jobs = new_jobs(office, 4, do_nothing);

    for (int i = 0; i < 4; i++) {
        push(&jobs[i], false);
        event_wait(&jobs[i].finished);
        close_office(office);
        seat_open(&office->seat);
        check(start_worker(office, true));
    }
    close_office(office);
    free(jobs);
}

/* ---- another interpreter for a stuck one ---- */

static atomic_bool all_begun;

static bool has_begun(queue_node_t *node)
{
    (void)node;
    return atomic_load(&all_begun);
}

/* Everybody is stuck: a new home worker prepares itself with nested requests, then all is as before. */
static void evicted(void)
{
    office_t *office = open_office();
    job_t *waits = new_jobs(office, 1, park);
    job_t *stuck = new_jobs(office, 1, get_stuck);
    job_t *plain = new_jobs(office, 3, note_order);
    job_t *nested = new_jobs(office, 2, note_order);

    atomic_store(&ordered, 0);
    push(waits, false);
    event_wait(&waits->parked);
    push(stuck, false);
    event_wait(&stuck->begun);
    push(&plain[0], false);
    leave_seat(stuck);
    atomic_store(&all_begun, true);
    seat_evict(&office->seat, has_begun);
    check(!worker_has(atomic_load(&office->first_home), &stuck->node));
    check(start_worker(office, true));
    push(&plain[1], false);
    check(stays_unbegun(&plain[0]));
    push(&nested[0], true);
    event_wait(&nested[0].finished);
    push(&nested[1], true);
    event_wait(&nested[1].finished);
    check(stays_unbegun(&plain[0]));
    pthread_mutex_lock(&office->seat.lock);
    check(office->seat.lost >= 2);
    pthread_mutex_unlock(&office->seat.lock);
    seat_admit_all(&office->seat);
    wait_finished(plain, 2);
    push(&plain[2], false);
    event_wait(&plain[2].finished);
    for (int i = 0; i < 3; i++) {
        check(order[2 + i] == i);
        check(atomic_load(&plain[i].by) == atomic_load(&office->first_home));
    }
    event_set(&waits->gate); /* the old ones come back, and end */
    event_set(&stuck->gate);
    event_wait(&waits->finished);
    event_wait(&stuck->finished);
    eventually(atomic_load(&office->alive) <= 2);
    close_office(office);
    free(waits);
    free(stuck);
    free(plain);
    free(nested);
}

/* A worker that has taken a node and waits to attach: it finds that the node is not its own any more. */
static void evicted_before_it_began(void)
{
    office_t *office = new_office();
    job_t *jobs = new_jobs(office, 3, note_order);
    worker_t old = {.seat = NULL};
    bool is_lost;

    atomic_store(&ordered, 0);
    check(worker_enter(&old, &office->seat, true));
    push(&jobs[1], false);
    push(&jobs[2], false);
    push(&jobs[0], true);
    check(worker_next(&old, NULL, &is_lost) == &jobs[0].node);
    check(!is_lost);
    check(worker_has(&old, &jobs[0].node));
    atomic_store(&all_begun, false);
    seat_evict(&office->seat, has_begun);
    check(!worker_has(&old, &jobs[0].node));
    check(worker_next(&old, NULL, &is_lost) == NULL);
    check(is_lost);
    worker_leave(&old);
    check(start_worker(office, true));
    event_wait(&jobs[0].finished); /* first in line, and among the nested */
    check(stays_unbegun(&jobs[1]));
    seat_admit_all(&office->seat);
    wait_finished(jobs, 3);
    for (int i = 0; i < 3; i++)
        check(order[i] == i);
    close_office(office);
    free(jobs);
}

/* An idle office is evicted: its sleepers end. */
static void evicted_while_idle(void)
{
    office_t *office = open_office();
    job_t *waits = new_jobs(office, 1, park);
    job_t *jobs = new_jobs(office, 2, do_nothing);

    push(waits, false);
    event_wait(&waits->parked);
    push(&jobs[0], false);
    event_wait(&jobs[0].finished);
    event_set(&waits->gate);
    event_wait(&waits->finished);
    atomic_store(&all_begun, true);
    seat_evict(&office->seat, has_begun);
    eventually(atomic_load(&office->alive) == 0);
    check(start_worker(office, true));
    push(&jobs[1], false);
    check(stays_unbegun(&jobs[1]));
    seat_admit_all(&office->seat);
    event_wait(&jobs[1].finished);
    close_office(office);
    free(waits);
    free(jobs);
}

/* ---- stress ---- */

#define PRODUCERS 4
#define PUSHES 250000

/* A job that is nothing but a counter; no events, there are a million of them. */
typedef struct {
    job_t job; /* first; only node, run, office, number, is_errand, runs, by are used */
} light_t;

static _Atomic uint64_t light_served;
static atomic_int last_of[PRODUCERS];

static void serve_light(job_t *job, worker_t *worker)
{
    int producer = job->number % PRODUCERS;
    int number = job->number / PRODUCERS;

    (void)worker;
    check(atomic_exchange(&last_of[producer], number) < number); /* in its producer's order */
    atomic_fetch_add(&light_served, 1);
    leave_seat(job);
}

typedef struct {
    office_t *office;
    job_t *jobs;
    int producer;
    int pushed;
    int64_t for_ns;
    atomic_bool *is_over;
} producer_t;

/* Bursts, and pauses of all lengths around those a worker spins and falls asleep in. */
static void pace(uint32_t *seed)
{
    int64_t until;

    switch (random_below(seed, 512)) {
    case 0:
        test_pause(random_below(seed, 200000));
        break;
    case 1:
    case 2:
        sched_yield();
        break;
    case 3:
        until = clock_now() + random_below(seed, 60000);
        while (clock_now() < until)
            continue;
        break;
    default:
        break;
    }
}

static void *produce(void *argument)
{
    producer_t *self = argument;
    uint32_t seed = (uint32_t)self->producer + 17;
    int64_t until = clock_now() + self->for_ns;

    for (int i = 0; i < PUSHES && clock_now() < until; i++) {
        job_t *job = &self->jobs[i];

        job->run = serve_light;
        job->office = self->office;
        job->number = (i + 1) * PRODUCERS + self->producer;
        if (!check(seat_push(&self->office->seat, &job->node, false)))
            break;
        self->pushed++;
        pace(&seed);
    }
    return NULL;
}

/* `done` looked at the nodes' events; light jobs have none, so thread_body must not touch them. */
static void light_body(void *argument)
{
    part_t *self = argument;
    office_t *office = self->office;
    queue_node_t *node;
    bool is_lost;

    for (;;) {
        node = worker_next(&self->worker, NULL, &is_lost);
        if (node == NULL && !is_lost)
            node = worker_wait(&self->worker);
        if (node == NULL)
            break;
        serve(office, &self->worker, (job_t *)node);
    }
    worker_leave(&self->worker);
    free(self);
    atomic_fetch_sub(&office->alive, 1);
}

static office_t *open_light_office(void)
{
    office_t *office = new_office();
    part_t *part = test_new(1, sizeof(*part));

    part->office = office;
    check(worker_enter(&part->worker, &office->seat, true));
    atomic_fetch_add(&office->alive, 1);
    check(thread_start("home", light_body, part));
    return office;
}

static void a_million_pushes(void)
{
    office_t *office = open_light_office();
    producer_t producers[PRODUCERS];
    pthread_t threads[PRODUCERS];
    uint64_t pushed = 0;

    atomic_store(&light_served, 0);
    for (int p = 0; p < PRODUCERS; p++) {
        atomic_store(&last_of[p], 0);
        producers[p] = (producer_t){office, test_new(PUSHES, sizeof(job_t)), p, 0, 4 * STRESS_NS, NULL};
        threads[p] = test_spawn(produce, &producers[p]);
    }
    test_join(threads, PRODUCERS);
    for (int p = 0; p < PRODUCERS; p++)
        pushed += (uint64_t)producers[p].pushed;
    eventually(atomic_load(&light_served) == pushed); /* without another push */
    close_office(office);
    for (int p = 0; p < PRODUCERS; p++)
        free(producers[p].jobs);
}
