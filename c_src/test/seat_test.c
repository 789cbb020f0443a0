/* The seat: who serves, who takes over, who ends; with threads as an executor has them. */
#include "seat.h"

#include "test.h"
#include "timer.h"

#include <sched.h>

/* An executor without Erlang and Python. Never freed: a late timer may look at it. */
typedef struct office {
    seat_t seat; /* first: a seat is its office */
    struct office *next;
    atomic_int alive;   /* its threads */
    atomic_int started; /* threads that were started */
    atomic_int fresh;   /* requests that were started, and have not parked or been given up */
    atomic_int served;
    atomic_int refusals; /* so many times no spare is to be had */
    worker_t *_Atomic first_home;
} office_t;

typedef struct {
    worker_t worker; /* first */
    office_t *office;
} part_t;

typedef struct {
    event_t begun;
    event_t parked;
    event_t gate; /* what it waits for */
    event_t finished;
} steps_t;

typedef struct job {
    queue_node_t node; /* first */
    void (*run)(struct job *job, worker_t *worker);
    office_t *office;
    int number;
    bool is_errand; /* it runs without the seat */
    atomic_int runs;
    worker_t *_Atomic by;
    steps_t *at;        /* NULL in the stress cases */
    struct job *parent; /* whom it wakes when it ends, in the last case */
    parker_t sleep;     /* where it waits there */
} job_t;

static office_t *offices;

/* ---- threads ---- */

static void serve(office_t *office, worker_t *worker, job_t *job)
{
    job->is_errand = worker->is_errand;
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
            if (((job_t *)before)->at != NULL)
                event_set(&((job_t *)before)->at->finished);
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
    office->seat.spare_keep = 3600 * INT64_C(1000000000); /* nobody goes by itself */
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
    eventually(has_ended(office)); /* one more may come where all were given up */
    eventually(atomic_load(&office->alive) == 0);
    check(!seat_push_errand(&office->seat, &late.node));
    check(atomic_load(&office->fresh) == 0);
    check(office->seat.workers == 0 && office->seat.lost == 0 && office->seat.active == 0);
    check(office->seat.home == NULL && office->seat.idle == NULL && office->seat.all == NULL);
}

static steps_t *new_steps(void)
{
    steps_t *steps = test_new(1, sizeof(*steps));

    event_init(&steps->begun);
    event_init(&steps->parked);
    event_init(&steps->gate);
    event_init(&steps->finished);
    return steps;
}

static void init_job(job_t *job, office_t *office, int number, void (*run)(job_t *, worker_t *))
{
    job->run = run;
    job->office = office;
    job->number = number;
    job->is_errand = false;
    atomic_init(&job->runs, 0);
    atomic_init(&job->by, NULL);
    job->parent = NULL;
}

static job_t *new_jobs(office_t *office, int count, void (*run)(job_t *, worker_t *))
{
    job_t *jobs = test_new((size_t)count, sizeof(*jobs));

    for (int i = 0; i < count; i++) {
        init_job(&jobs[i], office, i, run);
        jobs[i].at = new_steps();
    }
    return jobs;
}

static void free_jobs(job_t *jobs, int count)
{
    for (int i = 0; i < count; i++)
        free(jobs[i].at);
    free(jobs);
}

static void push(job_t *job, bool nested)
{
    check(seat_push(&job->office->seat, &job->node, nested));
}

static void push_errand(job_t *job)
{
    check(seat_push_errand(&job->office->seat, &job->node));
}

static void wait_finished(job_t *jobs, int count)
{
    for (int i = 0; i < count; i++)
        event_wait(&jobs[i].at->finished);
}

/* For what must not happen: time enough for it to show. */
static bool stays_unbegun(job_t *job)
{
    return !event_within(&job->at->begun, 20000000) && atomic_load(&job->runs) == 0;
}

static int order[2000]; /* numbers in order of service; written by the seat's holder */
static atomic_int ordered;

/* ---- what jobs do ---- */

static void do_nothing(job_t *job, worker_t *worker)
{
    (void)worker;
    event_set(&job->at->begun);
    leave_seat(job);
}

static void note_order(job_t *job, worker_t *worker)
{
    (void)worker;
    order[atomic_fetch_add(&ordered, 1)] = job->number;
    event_set(&job->at->begun);
    leave_seat(job);
}

/* Computes until the gate opens. */
static void hold_seat(job_t *job, worker_t *worker)
{
    (void)worker;
    event_set(&job->at->begun);
    event_wait(&job->at->gate);
    leave_seat(job);
}

/* Waits for Erlang until the gate opens. */
static void park(job_t *job, worker_t *worker)
{
    event_set(&job->at->begun);
    leave_seat(job);
    check(worker_park(worker));
    event_set(&job->at->parked);
    event_wait(&job->at->gate);
    worker_resume(worker);
}

/* Is given up while it computes: whoever gives it up has counted it off. */
static void get_stuck(job_t *job, worker_t *worker)
{
    (void)worker;
    event_set(&job->at->begun);
    event_wait(&job->at->gate);
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
    free_jobs(jobs, COUNT);
}

static void nested_goes_first(void)
{
    office_t *office = open_office();
    job_t *first = new_jobs(office, 1, hold_seat);
    job_t *jobs = new_jobs(office, 8, note_order);

    atomic_store(&ordered, 0);
    push(first, false);
    event_wait(&first->at->begun);
    for (int i = 0; i < 8; i++)
        push(&jobs[i], i >= 5);
    pthread_mutex_lock(&office->seat.lock);
    check(seat_waiting(&office->seat) == 8);
    pthread_mutex_unlock(&office->seat.lock);
    event_set(&first->at->gate);
    wait_finished(jobs, 8);
    for (int i = 0; i < 8; i++)
        check(order[i] == (i + 5) % 8);
    close_office(office);
    free_jobs(first, 1);
    free_jobs(jobs, 8);
}

static void spare_serves_while_home_is_parked(void)
{
    office_t *office = open_office();
    job_t *waits = new_jobs(office, 1, park);
    job_t *jobs = new_jobs(office, 20, do_nothing);
    worker_t *home = atomic_load(&office->first_home);

    push(waits, false);
    event_wait(&waits->at->parked);
    for (int i = 0; i < 10; i++) {
        push(&jobs[i], i % 2 == 0);
        event_wait(&jobs[i].at->finished);
        check(atomic_load(&jobs[i].by) != home);
    }
    check(!event_within(&waits->at->finished, 0));
    event_set(&waits->at->gate);
    event_wait(&waits->at->finished);
    for (int i = 10; i < 20; i++) {
        push(&jobs[i], false);
        event_wait(&jobs[i].at->finished);
        check(atomic_load(&jobs[i].by) == home);
    }
    check(atomic_load(&office->started) == 2);
    close_office(office);
    free_jobs(waits, 1);
    free_jobs(jobs, 20);
}

/* Going on waits for nobody; a resumed request and one started meanwhile overlap. */
static void resuming_does_not_wait(void)
{
    office_t *office = open_office();
    job_t *waits = new_jobs(office, 1, park);
    job_t *holds = new_jobs(office, 1, hold_seat);
    job_t *next = new_jobs(office, 1, do_nothing);

    push(waits, false);
    event_wait(&waits->at->parked);
    push(holds, false);
    event_wait(&holds->at->begun);
    event_set(&waits->at->gate);
    event_wait(&waits->at->finished);
    check(!event_within(&holds->at->finished, 0));
    push(next, false);
    check(stays_unbegun(next)); /* the home worker is idle, but the seat is taken */
    event_set(&holds->at->gate);
    event_wait(&holds->at->finished);
    event_wait(&next->at->finished);
    check(atomic_load(&next->by) == atomic_load(&office->first_home));
    close_office(office);
    free_jobs(next, 1);
    free_jobs(waits, 1);
    free_jobs(holds, 1);
}

static void park_then_hold(job_t *job, worker_t *worker)
{
    park(job, worker);
    event_set(&job[1].at->begun); /* its neighbour's events stand for the second half */
    event_wait(&job[1].at->gate);
}

static void seat_is_taken_while_a_resumed_one_runs(void)
{
    office_t *office = open_office();
    job_t *waits = new_jobs(office, 2, park_then_hold);
    job_t *next = new_jobs(office, 2, do_nothing);

    push(&waits[0], false);
    event_wait(&waits[0].at->parked);
    push(&next[0], false);
    event_wait(&next[0].at->finished);
    event_set(&waits[0].at->gate);
    event_wait(&waits[1].at->begun); /* resumed, and computes */
    push(&next[1], false);
    check(stays_unbegun(&next[1]));
    event_set(&waits[1].at->gate);
    event_wait(&next[1].at->finished);
    check(atomic_load(&next[1].by) == atomic_load(&office->first_home));
    close_office(office);
    free_jobs(waits, 2);
    free_jobs(next, 2);
}

static void hold_then_park(job_t *job, worker_t *worker)
{
    event_set(&job[1].at->begun);
    event_wait(&job[1].at->gate);
    park(job, worker);
}

/* Who parks lets the sleeping spare serve what has come meanwhile. */
static void parking_wakes_a_spare(void)
{
    office_t *office = open_office();
    job_t *first = new_jobs(office, 1, park);
    job_t *waits = new_jobs(office, 2, hold_then_park);
    job_t *next = new_jobs(office, 1, do_nothing);

    push(first, false);
    event_wait(&first->at->parked);
    event_set(&first->at->gate);
    event_wait(&first->at->finished); /* now there is a spare */
    push(&waits[0], false);
    event_wait(&waits[1].at->begun);
    push(next, true);
    check(stays_unbegun(next));
    event_set(&waits[1].at->gate);
    event_wait(&next->at->finished);
    check(atomic_load(&office->started) == 2);
    event_set(&waits[0].at->gate);
    event_wait(&waits[0].at->finished);
    close_office(office);
    free_jobs(first, 1);
    free_jobs(waits, 2);
    free_jobs(next, 1);
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
        event_wait(&waits[i].at->parked);
    }
    push(last, false);
    event_wait(&last->at->finished);
    for (int i = 0; i < COUNT; i++)
        event_set(&waits[i * 7 % COUNT].at->gate); /* 7 and 40 have no common factor */
    wait_finished(waits, COUNT);
    check(atomic_load(&office->started) <= COUNT + 1);
    close_office(office);
    free_jobs(waits, COUNT);
    free_jobs(last, 1);
}

static bool was_refused;

static void park_in_vain(job_t *job, worker_t *worker)
{
    atomic_store(&job->office->refusals, 1);
    was_refused = !worker_park(worker);
    event_set(&job->at->begun);
    leave_seat(job);
}

static void no_spare_no_parking(void)
{
    office_t *office = open_office();
    job_t *jobs = new_jobs(office, 2, park_in_vain);

    jobs[1].run = do_nothing;
    push(&jobs[0], false);
    event_wait(&jobs[0].at->finished);
    check(was_refused);
    push(&jobs[1], false);
    event_wait(&jobs[1].at->finished);
    check(atomic_load(&office->started) == 1);
    close_office(office);
    free_jobs(jobs, 2);
}

static void stuck_worker_is_given_up(void)
{
    office_t *office = open_office();
    job_t *stuck = new_jobs(office, 2, get_stuck);
    job_t *jobs = new_jobs(office, 3, do_nothing);

    push(&stuck[0], false);
    event_wait(&stuck[0].at->begun);
    push(&jobs[0], false);
    check(stays_unbegun(&jobs[0]));
    atomic_store(&office->refusals, 3); /* a spare is not to be had at once */
    give_up(&stuck[0]);
    check(!seat_abandon(&office->seat, &stuck[0].node)); /* it is already */
    event_wait(&jobs[0].at->finished);
    check(atomic_load(&jobs[0].by) != atomic_load(&office->first_home));
    pthread_mutex_lock(&office->seat.lock);
    check(office->seat.lost == 1 && office->seat.workers == 1);
    check(seat_find(&office->seat, &stuck[0].node) == atomic_load(&stuck[0].by));
    pthread_mutex_unlock(&office->seat.lock);
    push(&stuck[1], false); /* the spare has become the home worker; it gets stuck too */
    event_wait(&stuck[1].at->begun);
    give_up(&stuck[1]);
    push(&jobs[1], false);
    event_wait(&jobs[1].at->finished);
    event_set(&stuck[1].at->gate);
    event_set(&stuck[0].at->gate);
    wait_finished(stuck, 2);
    eventually(atomic_load(&office->alive) == 1);
    push(&jobs[2], false);
    event_wait(&jobs[2].at->finished);
    check(atomic_load(&jobs[2].by) == atomic_load(&jobs[1].by));
    close_office(office);
    free_jobs(stuck, 2);
    free_jobs(jobs, 3);
}

static void who_is_not_given_up(void)
{
    office_t *office = open_office();
    job_t *waits = new_jobs(office, 1, park);
    job_t *jobs = new_jobs(office, 2, do_nothing);

    push(waits, false);
    event_wait(&waits->at->parked);
    check(!seat_abandon(&office->seat, &waits->node)); /* parked: it is in nobody's way */
    push(&jobs[0], false);
    event_wait(&jobs[0].at->finished);
    check(!seat_abandon(&office->seat, &jobs[0].node)); /* over */
    check(!seat_abandon(&office->seat, &jobs[1].node)); /* never pushed */
    event_set(&waits->at->gate);
    event_wait(&waits->at->finished);
    close_office(office);
    free_jobs(waits, 1);
    free_jobs(jobs, 2);
}

/* The home worker is lost while it was parked before; the stuck one may also be a spare. */
static void stuck_spare_is_given_up(void)
{
    office_t *office = open_office();
    job_t *waits = new_jobs(office, 1, park);
    job_t *stuck = new_jobs(office, 1, get_stuck);
    job_t *jobs = new_jobs(office, 2, do_nothing);

    push(waits, false);
    event_wait(&waits->at->parked);
    push(stuck, true);
    event_wait(&stuck->at->begun);
    push(&jobs[0], true);
    check(stays_unbegun(&jobs[0]));
    give_up(stuck);
    event_wait(&jobs[0].at->finished);
    event_set(&waits->at->gate);
    event_wait(&waits->at->finished);
    push(&jobs[1], false);
    event_wait(&jobs[1].at->finished);
    check(atomic_load(&jobs[1].by) == atomic_load(&office->first_home));
    event_set(&stuck->at->gate);
    event_wait(&stuck->at->finished);
    close_office(office);
    free_jobs(waits, 1);
    free_jobs(stuck, 1);
    free_jobs(jobs, 2);
}

/* Errands need no seat: several at once, while the seat is taken. */
static void errands(void)
{
    office_t *office = open_office();
    job_t *holds = new_jobs(office, 1, hold_seat);
    job_t *errand = new_jobs(office, 4, hold_seat);

    push(holds, false);
    event_wait(&holds->at->begun);
    for (int i = 0; i < 4; i++) {
        push_errand(&errand[i]);
        event_wait(&errand[i].at->begun);
        check(atomic_load(&errand[i].by) != atomic_load(&office->first_home));
    }
    for (int i = 0; i < 4; i++)
        event_set(&errand[i].at->gate);
    wait_finished(errand, 4);
    check(!event_within(&holds->at->finished, 0));
    event_set(&holds->at->gate);
    event_wait(&holds->at->finished);
    close_office(office);
    free_jobs(holds, 1);
    free_jobs(errand, 4);
}

/* A spare that was woken for an errand is no spare for those that wait. */
static void errand_takes_the_spare(void)
{
    office_t *office = open_office();
    job_t *waits = new_jobs(office, 2, park);
    job_t *errand = new_jobs(office, 1, hold_seat);
    job_t *jobs = new_jobs(office, 1, do_nothing);

    push(&waits[0], false);
    event_wait(&waits[0].at->parked);
    push_errand(errand);
    event_wait(&errand->at->begun);
    push(&jobs[0], false);
    event_wait(&jobs[0].at->finished);
    push(&waits[1], false);
    event_wait(&waits[1].at->parked);
    event_set(&errand->at->gate);
    event_wait(&errand->at->finished);
    event_set(&waits[0].at->gate);
    event_set(&waits[1].at->gate);
    wait_finished(waits, 2);
    close_office(office);
    free_jobs(waits, 2);
    free_jobs(errand, 1);
    free_jobs(jobs, 1);
}

/* An errand that parks (a thread's request that calls Erlang) gives no seat back: it has none. */
static void errand_parks(void)
{
    office_t *office = open_office();
    job_t *holds = new_jobs(office, 1, hold_seat);
    job_t *errand = new_jobs(office, 1, park);
    job_t *next = new_jobs(office, 1, do_nothing);

    push(holds, false);
    event_wait(&holds->at->begun);
    push_errand(errand);
    event_wait(&errand->at->parked);
    push(next, false);
    check(stays_unbegun(next));
    event_set(&errand->at->gate);
    event_wait(&errand->at->finished);
    check(stays_unbegun(next));
    event_set(&holds->at->gate);
    event_wait(&next->at->finished);
    close_office(office);
    free_jobs(holds, 1);
    free_jobs(errand, 1);
    free_jobs(next, 1);
}

/* The seat's holder may be waiting for a lock of one that is parked, and that one for a nested
 * request: when nothing was started between two looks, nested requests need no seat. */
static void nested_in_a_hurry(void)
{
    office_t *office = open_office();
    job_t *holds = new_jobs(office, 1, hold_seat);
    job_t *nested = new_jobs(office, 3, hold_seat);
    job_t *plain = new_jobs(office, 1, do_nothing);

    check(seat_watch(&office->seat));
    check(!seat_watch(&office->seat)); /* somebody does already */
    check(!seat_hurry(&office->seat)); /* nothing is queued: not watched any more */
    push(holds, false);
    event_wait(&holds->at->begun);
    push(plain, false);
    for (int i = 0; i < 3; i++)
        push(&nested[i], true);
    check(seat_watch(&office->seat));
    check(seat_hurry(&office->seat)); /* one was started since the last look */
    check(stays_unbegun(&nested[0]));
    check(!seat_hurry(&office->seat));
    for (int i = 0; i < 3; i++)
        event_wait(&nested[i].at->begun); /* all at once: each may wait for the next */
    check(stays_unbegun(plain));
    check(seat_watch(&office->seat));
    for (int i = 0; i < 3; i++)
        event_set(&nested[i].at->gate);
    wait_finished(nested, 3);
    event_set(&holds->at->gate);
    event_wait(&plain->at->finished);
    close_office(office);
    free_jobs(holds, 1);
    free_jobs(nested, 3);
    free_jobs(plain, 1);
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
    event_wait(&waits->at->parked);
    push(holds, false);
    event_wait(&holds->at->begun);
    for (int i = 0; i < COUNT; i++)
        push(&jobs[i], false);
    seat_close(&office->seat);
    check(!seat_push(&office->seat, &jobs[0].node, false));
    push_errand(errand); /* as long as somebody is there */
    event_wait(&errand->at->finished);
    event_set(&holds->at->gate);
    wait_finished(jobs, COUNT);
    check(!has_ended(office)); /* one is still parked */
    check(atomic_load(&office->alive) > 0);
    event_set(&waits->at->gate);
    close_office(office);
    for (int i = 0; i < COUNT; i++)
        check(order[i] == i);
    free_jobs(holds, 1);
    free_jobs(waits, 1);
    free_jobs(errand, 1);
    free_jobs(jobs, COUNT);
}

/* Closed while somebody is stuck: given up, it is not waited for. */
static void closing_with_a_stuck_worker(void)
{
    office_t *office = open_office();
    job_t *stuck = new_jobs(office, 1, get_stuck);
    job_t *jobs = new_jobs(office, 1, do_nothing);

    push(stuck, false);
    event_wait(&stuck->at->begun);
    push(jobs, false);
    seat_close(&office->seat);
    check(stays_unbegun(jobs));
    give_up(stuck);
    event_wait(&jobs->at->finished);
    eventually(has_ended(office));
    eventually(atomic_load(&office->alive) == 1);
    event_set(&stuck->at->gate);
    close_office(office);
    free_jobs(stuck, 1);
    free_jobs(jobs, 1);
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
        event_wait(&waits[i].at->parked);
    }
    check(atomic_load(&office->alive) >= 5);
    for (int i = 1; i < 5; i++)
        event_set(&waits[i].at->gate);
    wait_finished(&waits[1], 4);
    test_pause(100000000); /* while the home worker is parked a spare stays */
    check(atomic_load(&office->alive) >= 2);
    push(jobs, false);
    event_wait(&jobs->at->finished);
    event_set(&waits[0].at->gate);
    event_wait(&waits[0].at->finished);
    eventually(atomic_load(&office->alive) == 1);
    close_office(office);
    free_jobs(waits, 5);
    free_jobs(jobs, 1);
}

static void used_again(void)
{
    office_t *office = open_office();
    job_t *jobs = new_jobs(office, 4, do_nothing);

    for (int i = 0; i < 4; i++) {
        push(&jobs[i], false);
        event_wait(&jobs[i].at->finished);
        close_office(office);
        seat_open(&office->seat);
        check(start_worker(office, true));
    }
    close_office(office);
    free_jobs(jobs, 4);
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
    event_wait(&waits->at->parked);
    push(stuck, false);
    event_wait(&stuck->at->begun);
    push(&plain[0], false);
    leave_seat(stuck);
    atomic_store(&all_begun, true);
    seat_evict(&office->seat, has_begun);
    check(!worker_has(atomic_load(&office->first_home), &stuck->node));
    check(start_worker(office, true));
    push(&plain[1], false);
    check(stays_unbegun(&plain[0]));
    push(&nested[0], true);
    event_wait(&nested[0].at->finished);
    push(&nested[1], true);
    event_wait(&nested[1].at->finished);
    check(stays_unbegun(&plain[0]));
    pthread_mutex_lock(&office->seat.lock);
    check(office->seat.lost >= 2);
    pthread_mutex_unlock(&office->seat.lock);
    seat_admit_all(&office->seat);
    wait_finished(plain, 2);
    push(&plain[2], false);
    event_wait(&plain[2].at->finished);
    for (int i = 0; i < 3; i++) {
        check(order[2 + i] == i);
        check(atomic_load(&plain[i].by) == atomic_load(&office->first_home));
    }
    event_set(&waits->at->gate); /* the old ones come back, and end */
    event_set(&stuck->at->gate);
    event_wait(&waits->at->finished);
    event_wait(&stuck->at->finished);
    eventually(atomic_load(&office->alive) <= 2);
    close_office(office);
    free_jobs(waits, 1);
    free_jobs(stuck, 1);
    free_jobs(plain, 3);
    free_jobs(nested, 2);
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
    event_wait(&jobs[0].at->finished); /* first in line, and among the nested */
    check(stays_unbegun(&jobs[1]));
    seat_admit_all(&office->seat);
    wait_finished(jobs, 3);
    for (int i = 0; i < 3; i++)
        check(order[i] == i);
    close_office(office);
    free_jobs(jobs, 3);
}

/* An idle office is evicted: its sleepers end. */
static void evicted_while_idle(void)
{
    office_t *office = open_office();
    job_t *waits = new_jobs(office, 1, park);
    job_t *jobs = new_jobs(office, 2, do_nothing);

    push(waits, false);
    event_wait(&waits->at->parked);
    push(&jobs[0], false);
    event_wait(&jobs[0].at->finished);
    event_set(&waits->at->gate);
    event_wait(&waits->at->finished);
    atomic_store(&all_begun, true);
    seat_evict(&office->seat, has_begun);
    eventually(atomic_load(&office->alive) == 0);
    check(start_worker(office, true));
    push(&jobs[1], false);
    check(stays_unbegun(&jobs[1]));
    seat_admit_all(&office->seat);
    event_wait(&jobs[1].at->finished);
    close_office(office);
    free_jobs(waits, 1);
    free_jobs(jobs, 2);
}

/* ---- stress ---- */

#define PRODUCERS 4
#define PUSHES    250000

static int last_of[PRODUCERS]; /* guarded by the seat */

static void note_number(job_t *job, worker_t *worker)
{
    int *last = &last_of[job->number % PRODUCERS];

    (void)worker;
    check(*last < job->number); /* in its producer's order */
    *last = job->number;
    leave_seat(job);
}

typedef struct {
    office_t *office;
    job_t *jobs;
    int number;
    int pushed;
} producer_t;

static void compute_for(int64_t ns)
{
    int64_t until = clock_now() + ns;

    while (clock_now() < until)
        continue;
}

/* Bursts, and pauses of all lengths around those a worker spins and falls asleep in. */
static void pace(uint32_t *seed)
{
    switch (random_below(seed, 1024)) {
    case 0:
        test_pause(random_below(seed, 200000));
        break;
    case 1:
    case 2:
        sched_yield();
        break;
    case 3:
    case 4:
        compute_for(random_below(seed, 60000));
        break;
    default:
        break;
    }
}

static void *produce(void *argument)
{
    producer_t *self = argument;
    uint32_t seed = (uint32_t)self->number + 17;
    int64_t until = clock_now() + 4 * STRESS_NS;

    for (int i = 0; i < PUSHES && clock_now() < until; i++) {
        job_t *job = &self->jobs[i];

        init_job(job, self->office, (i + 1) * PRODUCERS + self->number, note_number);
        if (!check(seat_push(&self->office->seat, &job->node, false)))
            break;
        self->pushed++;
        pace(&seed);
    }
    return NULL;
}

static void a_million_pushes(void)
{
    office_t *office = open_office();
    producer_t producers[PRODUCERS];
    pthread_t threads[PRODUCERS];
    int pushed = 0;

    for (int p = 0; p < PRODUCERS; p++) {
        last_of[p] = 0;
        producers[p] = (producer_t){office, test_new(PUSHES, sizeof(job_t)), p, 0};
        threads[p] = test_spawn(produce, &producers[p]);
    }
    test_join(threads, PRODUCERS);
    for (int p = 0; p < PRODUCERS; p++)
        pushed += producers[p].pushed;
    eventually(atomic_load(&office->served) == pushed); /* without another push */
    check(atomic_load(&office->started) == 1);
    close_office(office);
    for (int p = 0; p < PRODUCERS; p++)
        free(producers[p].jobs);
}

/* One push at a time, waited for: the worker is just about to sleep, or to spin, or asleep. */
static void one_by_one(void)
{
    enum { COUNT = 60000 };
    office_t *office = open_office();
    job_t *jobs = test_new(COUNT, sizeof(*jobs));
    int64_t until = clock_now() + STRESS_NS;
    uint32_t seed = 3;

    last_of[0] = 0;
    for (int i = 0; i < COUNT && clock_now() < until; i++) {
        int64_t patience = clock_now() + PATIENCE_NS;

        init_job(&jobs[i], office, (i + 1) * PRODUCERS, note_number);
        push(&jobs[i], random_below(&seed, 2) == 0);
        for (int looks = 0; atomic_load(&office->served) <= i && clock_now() < patience; looks++)
            if (looks > 200)
                sched_yield();
        if (!check(atomic_load(&office->served) == i + 1))
            break;
        compute_for(random_below(&seed, random_below(&seed, 3) == 0 ? 80000 : 1500));
    }
    close_office(office);
    free(jobs);
}

/* ---- a guest ---- */

typedef struct {
    worker_t worker; /* first */
    job_t job;
    int ends;
} guest_t;

static atomic_bool refuses_guests;

static bool guest_begins(worker_t *worker, void *argument)
{
    check(worker == argument);
    return !atomic_load(&refuses_guests);
}

static void guest_ends(worker_t *worker)
{
    ((guest_t *)worker)->ends++;
}

static bool lend(office_t *office, guest_t *guest)
{
    return seat_lend(&office->seat, &guest->worker, &guest->job.node, guest_begins, guest);
}

static void lend_soon(office_t *office, guest_t *guest)
{
    int64_t patience = clock_now() + PATIENCE_NS;
    bool is_lent;

    while (!(is_lent = lend(office, guest)) && clock_now() < patience)
        test_pause(100000);
    check(is_lent);
}

static void take_back(guest_t *guest)
{
    int before = guest->ends;

    seat_take_back(&guest->worker, guest_ends);
    check(guest->ends == before + 1);
}

/* Nobody else starts anything meanwhile; what was pushed is served afterwards, without another push. */
static void lent(void)
{
    office_t *office = open_office();
    job_t *jobs = new_jobs(office, 3, do_nothing);
    guest_t guest = {.ends = 0};
    guest_t other = {.ends = 0};

    atomic_store(&refuses_guests, true);
    check(!lend(office, &guest));
    atomic_store(&refuses_guests, false);
    lend_soon(office, &guest);
    check(!lend(office, &other));
    pthread_mutex_lock(&office->seat.lock);
    check(seat_find(&office->seat, &guest.job.node) == &guest.worker);
    pthread_mutex_unlock(&office->seat.lock);
    check(!seat_abandon(&office->seat, &guest.job.node));
    push(&jobs[0], false);
    push(&jobs[1], true);
    check(stays_unbegun(&jobs[0]));
    check(stays_unbegun(&jobs[1]));
    take_back(&guest);
    wait_finished(jobs, 2);
    lend_soon(office, &guest);
    take_back(&guest);
    push(&jobs[2], false);
    event_wait(&jobs[2].at->finished);
    close_office(office);
    check(!lend(office, &guest));
    free_jobs(jobs, 3);
}

/* Not while somebody works, is parked or waits. */
static void not_lent(void)
{
    office_t *office = open_office();
    job_t *holds = new_jobs(office, 1, hold_seat);
    job_t *waits = new_jobs(office, 1, park);
    guest_t guest = {.ends = 0};

    push(holds, false);
    event_wait(&holds->at->begun);
    check(!lend(office, &guest));
    event_set(&holds->at->gate);
    event_wait(&holds->at->finished);
    push(waits, false);
    event_wait(&waits->at->parked);
    check(!lend(office, &guest));
    event_set(&waits->at->gate);
    event_wait(&waits->at->finished);
    lend_soon(office, &guest);
    take_back(&guest);
    close_office(office);
    free_jobs(holds, 1);
    free_jobs(waits, 1);
}

/* An errand, an interrupt of the guest's request, is served meanwhile. */
static void errand_while_lent(void)
{
    office_t *office = open_office();
    job_t *errand = new_jobs(office, 1, do_nothing);
    guest_t guest = {.ends = 0};

    lend_soon(office, &guest);
    push_errand(errand);
    event_wait(&errand->at->finished);
    take_back(&guest);
    close_office(office);
    free_jobs(errand, 1);
}

static void closed_while_lent(void)
{
    office_t *office = open_office();
    guest_t guest = {.ends = 0};

    lend_soon(office, &guest);
    seat_close(&office->seat);
    test_pause(20000000);
    check(!has_ended(office));
    take_back(&guest);
    close_office(office);
}

static void evicted_while_lent(void)
{
    office_t *office = open_office();
    job_t *jobs = new_jobs(office, 1, do_nothing);
    guest_t guest = {.ends = 0};

    lend_soon(office, &guest);
    atomic_store(&all_begun, true);
    seat_evict(&office->seat, has_begun);
    eventually(atomic_load(&office->alive) == 0);
    check(start_worker(office, true));
    seat_admit_all(&office->seat);
    push(jobs, false);
    event_wait(&jobs->at->finished);
    check(!lend(office, &guest)); /* it is in use still */
    take_back(&guest);
    check(office->seat.active == 0);
    lend_soon(office, &guest);
    take_back(&guest);
    close_office(office);
    free_jobs(jobs, 1);
}

/* ---- everything at once ---- */

#define JOBS 400

typedef struct {
    office_t *office;
    job_t *jobs;
    atomic_int used;   /* of jobs */
    atomic_int pushed; /* those that were not refused */
    queue_t waiting;   /* jobs that somebody outside has to wake, parked or stuck */
    atomic_bool is_over;
} chaos_t;

static chaos_t chaos;

static void do_anything(job_t *job, worker_t *worker);

static job_t *take_job(void)
{
    int at = atomic_fetch_add(&chaos.used, 1);

    if (at >= JOBS)
        return NULL;
    init_job(&chaos.jobs[at], chaos.office, at, do_anything);
    parker_init(&chaos.jobs[at].sleep);
    return &chaos.jobs[at];
}

static bool push_any(job_t *job, bool is_nested, bool is_errand)
{
    bool ok;

    if (is_errand)
        ok = seat_push_errand(&chaos.office->seat, &job->node);
    else
        ok = seat_push(&chaos.office->seat, &job->node, is_nested);
    if (ok)
        atomic_fetch_add(&chaos.pushed, 1);
    return ok;
}

static void sleep_until_woken(job_t *job)
{
    check(parker_wait(&job->sleep, clock_now() + PATIENCE_NS));
}

/* As erlang.call does it: a nested request must end before this one goes on. */
static void wait_for_child(job_t *job, worker_t *worker, uint32_t *seed)
{
    job_t *child = take_job();
    bool early = random_below(seed, 2) == 0;
    bool pushed = false;

    if (child == NULL)
        return;
    child->parent = job;
    if (early)
        pushed = push_any(child, true, job->is_errand);
    if (!worker_park(worker))
        return; /* the child, if pushed, wakes nobody */
    if (!early)
        pushed = push_any(child, true, job->is_errand);
    if (pushed)
        sleep_until_woken(job);
    worker_resume(worker);
}

static void wait_for_outside(job_t *job, worker_t *worker)
{
    job_t *token;

    if (!worker_park(worker))
        return;
    token = take_job(); /* a node of its own: job's is in the seat's hands */
    if (token != NULL) {
        token->parent = job;
        queue_push(&chaos.waiting, &token->node);
        sleep_until_woken(job);
    }
    worker_resume(worker);
}

/* Stays in its seat; somebody outside gives it up. */
static bool be_stuck(job_t *job)
{
    job_t *token = take_job();

    if (token == NULL)
        return false;
    token->parent = job;
    token->run = NULL; /* says: give it up */
    queue_push(&chaos.waiting, &token->node);
    sleep_until_woken(job);
    return true;
}

static void do_anything(job_t *job, worker_t *worker)
{
    uint32_t seed = (uint32_t)job->number * 2654435761u + 1;
    uint32_t what = random_below(&seed, 20);
    job_t *child;

    if (what == 0 && !job->is_errand && be_stuck(job)) {
        if (job->parent != NULL)
            parker_notify(&job->parent->sleep);
        return; /* its seat was given away */
    }
    if (what == 1)
        test_pause(random_below(&seed, 100000));
    leave_seat(job);
    if (what >= 2 && what < 8)
        wait_for_child(job, worker, &seed);
    else if (what >= 8 && what < 11)
        wait_for_outside(job, worker);
    else if (what == 11 && (child = take_job()) != NULL)
        push_any(child, false, true);
    if (job->parent != NULL)
        parker_notify(&job->parent->sleep);
}

/* The world outside: answers what waits, gives up what is stuck. */
static void *outside(void *unused)
{
    uint32_t seed = 23;
    list_t list;
    job_t *token;

    (void)unused;
    list_init(&list);
    while (!atomic_load(&chaos.is_over)) {
        queue_take(&chaos.waiting, &list);
        token = (job_t *)list_pop(&list);
        if (random_below(&seed, 10) == 0)
            seat_hurry(&chaos.office->seat);
        if (token == NULL || random_below(&seed, 3) == 0)
            test_pause(random_below(&seed, 50000));
        if (token == NULL)
            continue;
        if (token->run == NULL) {
            leave_seat(token->parent);
            check(seat_abandon(&chaos.office->seat, &token->parent->node));
        }
        if (random_below(&seed, 16) == 0)
            atomic_store(&chaos.office->refusals, (int)random_below(&seed, 3));
        parker_notify(&token->parent->sleep);
    }
    return NULL;
}

/* Has the seat now and then, while nobody else starts anything. */
static void *borrow_it(void *unused)
{
    uint32_t seed = 31;
    guest_t guest = {.ends = 0};

    (void)unused;
    while (!atomic_load(&chaos.is_over)) {
        if (lend(chaos.office, &guest)) {
            check(atomic_fetch_add(&chaos.office->fresh, 1) == 0);
            if (random_below(&seed, 4) == 0)
                test_pause(random_below(&seed, 50000));
            atomic_fetch_sub(&chaos.office->fresh, 1);
            take_back(&guest);
        }
        test_pause(random_below(&seed, 20000));
    }
    return NULL;
}

static void *push_some(void *argument)
{
    uint32_t seed = (uint32_t)(uintptr_t)argument;
    job_t *job;

    while ((job = take_job()) != NULL) {
        push_any(job, random_below(&seed, 5) == 0, random_below(&seed, 20) == 0);
        if (random_below(&seed, 8) == 0)
            test_pause(random_below(&seed, 100000));
    }
    return NULL;
}

static void one_life(uint32_t *seed)
{
    pthread_t pushers[2];
    pthread_t others[2];

    chaos.office = new_office();
    if (random_below(seed, 2) == 0)
        chaos.office->seat.spare_keep = 1000000 * (int64_t)(1 + random_below(seed, 5));
    chaos.jobs = test_new(JOBS, sizeof(job_t));
    atomic_store(&chaos.used, 0);
    atomic_store(&chaos.pushed, 0);
    atomic_store(&chaos.is_over, false);
    queue_init(&chaos.waiting);
    check(start_worker(chaos.office, true));
    others[0] = test_spawn(outside, NULL);
    others[1] = test_spawn(borrow_it, NULL);
    for (int i = 0; i < 2; i++)
        pushers[i] = test_spawn(push_some, (void *)(uintptr_t)(random_next(seed) | 1));
    if (random_below(seed, 3) == 0) {
        test_pause(random_below(seed, 2000000));
        seat_close(&chaos.office->seat); /* in the middle of it all */
    }
    test_join(pushers, 2);
    eventually(atomic_load(&chaos.office->served) ==
               atomic_load(&chaos.pushed)); /* without a push */
    close_office(chaos.office);
    check(atomic_load(&chaos.office->served) == atomic_load(&chaos.pushed));
    atomic_store(&chaos.is_over, true);
    test_join(others, 2);
    free(chaos.jobs);
}

static void everything_at_once(void)
{
    int64_t until = clock_now() + 2 * STRESS_NS;
    uint32_t seed = 29;

    for (int i = 0; i < 300 && clock_now() < until && atomic_load(&test_failures) == 0; i++)
        one_life(&seed);
}

int main(void)
{
    thread_setup((size_t)256 << 10, 4096);
    check(timer_setup());
    test_case("served_in_order", served_in_order);
    test_case("nested_goes_first", nested_goes_first);
    test_case("spare_serves_while_home_is_parked", spare_serves_while_home_is_parked);
    test_case("resuming_does_not_wait", resuming_does_not_wait);
    test_case("seat_is_taken_while_a_resumed_one_runs", seat_is_taken_while_a_resumed_one_runs);
    test_case("parking_wakes_a_spare", parking_wakes_a_spare);
    test_case("many_parked_at_once", many_parked_at_once);
    test_case("no_spare_no_parking", no_spare_no_parking);
    test_case("stuck_worker_is_given_up", stuck_worker_is_given_up);
    test_case("who_is_not_given_up", who_is_not_given_up);
    test_case("stuck_spare_is_given_up", stuck_spare_is_given_up);
    test_case("errands", errands);
    test_case("errand_takes_the_spare", errand_takes_the_spare);
    test_case("errand_parks", errand_parks);
    test_case("nested_in_a_hurry", nested_in_a_hurry);
    test_case("closing_serves_what_is_queued", closing_serves_what_is_queued);
    test_case("closing_with_a_stuck_worker", closing_with_a_stuck_worker);
    test_case("idle_spares_end", idle_spares_end);
    test_case("used_again", used_again);
    test_case("evicted", evicted);
    test_case("evicted_before_it_began", evicted_before_it_began);
    test_case("evicted_while_idle", evicted_while_idle);
    test_case("lent", lent);
    test_case("not_lent", not_lent);
    test_case("errand_while_lent", errand_while_lent);
    test_case("closed_while_lent", closed_while_lent);
    test_case("evicted_while_lent", evicted_while_lent);
    test_case("a_million_pushes", a_million_pushes);
    test_case("one_by_one", one_by_one);
    test_case("everything_at_once", everything_at_once);
    return test_end();
}
