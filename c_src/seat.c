#include "seat.h"

#define SPARE_KEEP_NS 2000000000

void seat_init(seat_t *seat, bool (*spawn)(seat_t *), void (*spawn_later)(seat_t *))
{
    pthread_mutex_init(&seat->lock, NULL);
    seat->spare_keep = SPARE_KEEP_NS;
    seat->spawn = spawn;
    seat->spawn_later = spawn_later;
    seat_open(seat);
}

void seat_open(seat_t *seat)
{
    pthread_mutex_lock(&seat->lock);
    queue_init(&seat->arriving);
    queue_init(&seat->nested);
    atomic_store(&seat->awake, 0);
    list_init(&seat->ready[0]);
    list_init(&seat->ready[1]);
    list_init(&seat->errands);
    seat->home = NULL;
    seat->idle = NULL;
    seat->all = NULL;
    seat->given_up = NULL;
    seat->active = 0;
    seat->workers = 0;
    seat->lost = 0;
    seat->is_closed = false;
    seat->is_ended = false;
    seat->only_nested = false;
    seat->wants_spare = false;
    seat->starts = 0;
    seat->starts_seen = 0;
    atomic_store(&seat->is_watched, false);
    pthread_mutex_unlock(&seat->lock);
}

static bool has_work(seat_t *seat)
{
    if (seat->ready[1].head != NULL || queue_has(&seat->nested))
        return true;
    return !seat->only_nested && (seat->ready[0].head != NULL || queue_has(&seat->arriving));
}

static bool home_serves(const seat_t *seat)
{
    return seat->home != NULL && !seat->home->is_parked;
}

static void wake(worker_t *worker)
{
    worker->is_idle = false;
    parker_notify(&worker->parker);
}

static bool wake_spare(seat_t *seat)
{
    worker_t *spare = seat->idle;

    if (spare == NULL)
        return false;
    seat->idle = spare->next;
    wake(spare);
    return true;
}

/* Lets a spare come; lock held. True: none is idle and one has to be made. */
static bool summon_spare(seat_t *seat)
{
    if (wake_spare(seat) || seat->wants_spare)
        return false;
    seat->wants_spare = true;
    return true;
}

static void drop_from_idle(seat_t *seat, worker_t *worker)
{
    worker_t **at = &seat->idle;

    while (*at != NULL && *at != worker)
        at = &(*at)->next;
    if (*at == worker)
        *at = worker->next;
    worker->is_idle = false;
}

/* Lets somebody look at the queues; lock held. True: nobody is there and a spare
 * has to be made. Keeps awake set: whoever comes will look. */
static bool wake_server(seat_t *seat)
{
    if (seat->active > 0)
        return false; /* looks when it ends or parks */
    if (home_serves(seat)) {
        if (seat->home->is_idle)
            wake(seat->home);
        return false;
    }
    return summon_spare(seat);
}

/* Says that nobody looks any more, unless something came in meanwhile; lock held.
 * True: something did, and the caller has to see to it. */
static bool fall_asleep(seat_t *seat)
{
    atomic_store(&seat->awake, 0);
    return has_work(seat) && atomic_exchange(&seat->awake, 1) == 0;
}

void seat_poke(seat_t *seat)
{
    bool spawn = false;

    if (atomic_load(&seat->awake) != 0 || atomic_exchange(&seat->awake, 1) != 0)
        return;
    pthread_mutex_lock(&seat->lock);
    spawn = wake_server(seat);
    pthread_mutex_unlock(&seat->lock);
    if (spawn)
        seat->spawn_later(seat);
}

bool seat_push(seat_t *seat, queue_node_t *node, bool nested)
{
    if (!queue_push(nested ? &seat->nested : &seat->arriving, node))
        return false;
    seat_poke(seat);
    return true;
}

bool seat_push_errand(seat_t *seat, queue_node_t *node)
{
    bool spawn = false;
    bool ok;

    pthread_mutex_lock(&seat->lock);
    ok = !seat->is_ended;
    if (ok) {
        list_append(&seat->errands, node);
        spawn = summon_spare(seat);
    }
    pthread_mutex_unlock(&seat->lock);
    if (spawn)
        seat->spawn_later(seat);
    return ok;
}

bool seat_watch(seat_t *seat)
{
    return !atomic_exchange(&seat->is_watched, true);
}

bool seat_hurry(seat_t *seat)
{
    queue_node_t *node;
    bool has_nested;
    bool spawn = false;

    pthread_mutex_lock(&seat->lock);
    atomic_store(&seat->is_watched, false);
    queue_take(&seat->nested, &seat->ready[1]);
    if (seat->starts == seat->starts_seen) {
        while ((node = list_pop(&seat->ready[1])) != NULL)
            list_append(&seat->errands, node);
        spawn = seat->errands.head != NULL && summon_spare(seat);
    }
    seat->starts_seen = seat->starts;
    has_nested = seat->ready[1].head != NULL && seat_watch(seat);
    pthread_mutex_unlock(&seat->lock);
    if (spawn)
        seat->spawn_later(seat);
    return has_nested;
}

void seat_close(seat_t *seat)
{
    pthread_mutex_lock(&seat->lock);
    seat->is_closed = true;
    queue_close(&seat->nested, &seat->ready[1]);
    queue_close(&seat->arriving, &seat->ready[0]);
    atomic_store(&seat->awake, 1);
    while (wake_spare(seat))
        continue;
    if (seat->home != NULL && seat->home->is_idle)
        wake(seat->home);
    pthread_mutex_unlock(&seat->lock);
}

static worker_t *find_serving(worker_t *worker, queue_node_t *node)
{
    while (worker != NULL && worker->current != node)
        worker = worker->sibling;
    return worker;
}

worker_t *seat_find(seat_t *seat, queue_node_t *node)
{
    worker_t *worker = find_serving(seat->all, node);

    return worker != NULL ? worker : find_serving(seat->given_up, node);
}

size_t seat_waiting(seat_t *seat)
{
    const queue_node_t *chains[] = {seat->ready[0].head, seat->ready[1].head, seat->errands.head,
                                    queue_peek(&seat->arriving), queue_peek(&seat->nested)};
    size_t count = 0;

    for (size_t i = 0; i < sizeof(chains) / sizeof(*chains); i++)
        for (const queue_node_t *node = chains[i]; node != NULL; node = node->next)
            count++;
    return count;
}

static bool unlink_sibling(worker_t **at, worker_t *worker)
{
    while (*at != NULL && *at != worker)
        at = &(*at)->sibling;
    if (*at == NULL)
        return false;
    *at = worker->sibling;
    return true;
}

/* The worker gives up its part; lock held. */
static void retire(seat_t *seat, worker_t *worker)
{
    if (unlink_sibling(&seat->all, worker))
        seat->workers--;
    if (seat->home == worker)
        seat->home = NULL;
    if (seat->is_closed && seat->home != NULL && seat->home->is_idle)
        wake(seat->home); /* it waits for all others to be gone */
}

bool seat_abandon(seat_t *seat, queue_node_t *node)
{
    worker_t *worker;
    bool spawn = false;
    bool found;

    pthread_mutex_lock(&seat->lock);
    worker = find_serving(seat->all, node);
    found = worker != NULL && !worker->is_parked && !worker->is_guest;
    if (found) {
        worker->is_lost = true;
        if (!worker->is_errand)
            seat->active--;
        retire(seat, worker);
        worker->sibling = seat->given_up;
        seat->given_up = worker;
        seat->lost++;
        atomic_store(&seat->awake, 1);
        spawn = wake_server(seat);
    }
    pthread_mutex_unlock(&seat->lock);
    if (spawn)
        seat->spawn_later(seat);
    return found;
}

/* Nothing runs, is parked or waits; lock held. */
static bool is_quiet(seat_t *seat)
{
    for (const worker_t *worker = seat->all; worker != NULL; worker = worker->sibling)
        if (worker->current != NULL)
            return false;
    return seat->active == 0 && seat->errands.head == NULL && !has_work(seat);
}

bool seat_lend(seat_t *seat, worker_t *guest, queue_node_t *node, bool (*began)(worker_t *, void *),
               void *argument)
{
    bool ok;

    pthread_mutex_lock(&seat->lock);
    ok = home_serves(seat) && !seat->is_closed && !seat->only_nested && is_quiet(seat) &&
         guest->current == NULL && began(guest, argument);
    if (ok) {
        *guest = (worker_t){.seat = seat, .current = node, .sibling = seat->all, .is_guest = true};
        seat->all = guest;
        seat->workers++;
        seat->active++;
        seat->starts++;
        atomic_store(&seat->awake, 1); /* seat_take_back looks */
    }
    pthread_mutex_unlock(&seat->lock);
    return ok;
}

void seat_take_back(worker_t *guest, void (*ended)(worker_t *))
{
    seat_t *seat = guest->seat;
    bool spawn = false;

    pthread_mutex_lock(&seat->lock);
    ended(guest);
    guest->current = NULL;
    if (guest->is_lost) {
        unlink_sibling(&seat->given_up, guest);
        seat->lost--;
    } else {
        seat->active--;
        retire(seat, guest);
        if (seat->active == 0 && (has_work(seat) || fall_asleep(seat)))
            spawn = wake_server(seat);
    }
    pthread_mutex_unlock(&seat->lock);
    if (spawn)
        seat->spawn_later(seat);
}

static void push_idle(seat_t *seat, worker_t *worker)
{
    worker->is_idle = true;
    if (seat->home != worker) {
        worker->next = seat->idle;
        seat->idle = worker;
    }
}

bool worker_enter(worker_t *worker, seat_t *seat, bool is_home)
{
    bool ok;

    worker->seat = seat;
    worker->next = NULL;
    worker->current = NULL;
    worker->is_errand = false;
    worker->is_idle = false;
    worker->spins = false;
    worker->is_parked = false;
    worker->is_lost = false;
    parker_init(&worker->parker);
    spin_init(&worker->spin);
    pthread_mutex_lock(&seat->lock);
    seat->wants_spare = false;
    ok = !seat->is_ended;
    if (ok) {
        worker->sibling = seat->all;
        seat->all = worker;
        seat->workers++;
        if (is_home)
            seat->home = worker;
        push_idle(seat, worker); /* a wake-up before the thread runs is remembered */
    }
    pthread_mutex_unlock(&seat->lock);
    if (!ok)
        parker_finish(&worker->parker);
    return ok;
}

void worker_leave(worker_t *worker)
{
    seat_t *seat = worker->seat;

    pthread_mutex_lock(&seat->lock);
    if (worker->is_idle)
        drop_from_idle(seat, worker);
    if (worker->is_lost) {
        unlink_sibling(&seat->given_up, worker);
        seat->lost--;
    } else {
        retire(seat, worker);
    }
    pthread_mutex_unlock(&seat->lock);
    parker_finish(&worker->parker);
}

static queue_node_t *pop_request(seat_t *seat)
{
    queue_node_t *node;

    if (queue_has(&seat->nested))
        queue_take(&seat->nested, &seat->ready[1]);
    node = list_pop(&seat->ready[1]);
    if (node != NULL || seat->only_nested)
        return node;
    if (seat->ready[0].head == NULL)
        queue_take(&seat->arriving, &seat->ready[0]);
    return list_pop(&seat->ready[0]);
}

/* Takes the next request for a worker that may start one, if the seat is free. A worker
 * that found none says so only when it will sleep. */
static queue_node_t *take_request(seat_t *seat, bool will_sleep)
{
    queue_node_t *node;

    if (seat->active > 0)
        return NULL;
    do {
        node = pop_request(seat);
    } while (node == NULL && will_sleep && fall_asleep(seat));
    if (node != NULL) {
        seat->active++;
        seat->starts++;
        atomic_store_explicit(&seat->awake, 1, memory_order_relaxed);
    }
    return node;
}

/* One worker of seat_evict; lock held. */
static void evict(seat_t *seat, worker_t *worker, bool (*has_begun)(queue_node_t *node))
{
    retire(seat, worker);
    worker->is_lost = true;
    worker->sibling = seat->given_up;
    seat->given_up = worker;
    seat->lost++;
    if (worker->current != NULL && !has_begun(worker->current)) {
        list_prepend(&seat->ready[1], worker->current);
        worker->current = NULL;
    }
    if (worker->is_idle)
        wake(worker); /* ends, if what it works in lets it */
}

void seat_evict(seat_t *seat, bool (*has_begun)(queue_node_t *node))
{
    pthread_mutex_lock(&seat->lock);
    seat->idle = NULL;
    while (seat->all != NULL)
        evict(seat, seat->all, has_begun);
    seat->active = 0;
    seat->only_nested = true;
    atomic_store(&seat->awake, 1); /* for the home worker that is to come */
    pthread_mutex_unlock(&seat->lock);
}

void seat_admit_all(seat_t *seat)
{
    pthread_mutex_lock(&seat->lock);
    seat->only_nested = false;
    atomic_store(&seat->awake, 0);
    pthread_mutex_unlock(&seat->lock);
    seat_poke(seat);
}

bool worker_has(worker_t *worker, const queue_node_t *node)
{
    bool answer;

    pthread_mutex_lock(&worker->seat->lock);
    answer = worker->current == node;
    pthread_mutex_unlock(&worker->seat->lock);
    return answer;
}

/* Whether the worker is the one who starts requests; lock held. */
static bool is_server(worker_t *worker)
{
    seat_t *seat = worker->seat;

    return seat->home == worker || !home_serves(seat);
}

/* A spare leaves requests to the home worker when that one is there. */
static queue_node_t *take_as_spare(worker_t *worker, bool will_sleep)
{
    seat_t *seat = worker->seat;

    if (seat->home == NULL)
        seat->home = worker; /* its home was lost */
    if (is_server(worker))
        return take_request(seat, will_sleep);
    if (seat->active == 0 && (has_work(seat) || fall_asleep(seat)) && seat->home->is_idle)
        wake(seat->home);
    return NULL;
}

/* Takes what the worker may serve now; one that will sleep and gets nothing is entered
 * among the idle; lock held. *spawn is set when a spare has to be made for further errands:
 * any of them may have to wait for the next. */
static queue_node_t *take_locked(worker_t *worker, bool will_sleep, bool *spawn)
{
    seat_t *seat = worker->seat;
    queue_node_t *node;

    if (worker->is_idle)
        drop_from_idle(seat, worker);
    worker->is_errand = (seat->home != worker || seat->is_closed) && seat->errands.head != NULL;
    if (worker->is_errand)
        node = list_pop(&seat->errands);
    else if (seat->home == worker)
        node = take_request(seat, will_sleep);
    else
        node = take_as_spare(worker, will_sleep);
    if (worker->is_errand && seat->errands.head != NULL && summon_spare(seat))
        *spawn = true;
    worker->current = node;
    if (node == NULL && will_sleep)
        push_idle(seat, worker);
    return node;
}

queue_node_t *worker_next(worker_t *worker, void (*ended)(worker_t *), bool *ends)
{
    seat_t *seat = worker->seat;
    queue_node_t *node = NULL;
    bool spawn = false;

    pthread_mutex_lock(&seat->lock);
    if (worker->current != NULL) {
        if (ended != NULL)
            ended(worker);
        worker->current = NULL;
        if (!worker->is_lost && !worker->is_errand)
            seat->active--;
    }
    *ends = worker->is_lost;
    worker->spins = seat->home == worker;
    if (!worker->is_lost)
        node = take_locked(worker, false, &spawn);
    pthread_mutex_unlock(&seat->lock);
    if (spawn)
        seat->spawn_later(seat);
    return node;
}

/* Whether an idle worker that found nothing is to end; lock held. */
static bool is_done(worker_t *worker, bool waited_long)
{
    seat_t *seat = worker->seat;

    if (worker == seat->home)
        return seat->is_closed && seat->workers == 1;
    return seat->is_closed || (waited_long && home_serves(seat));
}

static bool has_arrivals(void *argument)
{
    worker_t *worker = argument;

    return queue_has(&worker->seat->arriving) || queue_has(&worker->seat->nested);
}

/* What came while the worker spun, or NULL with the worker entered among the idle. */
static queue_node_t *spin_and_take(worker_t *worker, bool *spawn)
{
    seat_t *seat = worker->seat;

    if (worker->spins)
        spin_until(&worker->spin, has_arrivals, worker);
    pthread_mutex_lock(&seat->lock);
    return worker->is_lost ? NULL : take_locked(worker, true, spawn);
}

queue_node_t *worker_wait(worker_t *worker)
{
    seat_t *seat = worker->seat;
    queue_node_t *node;
    bool notified = true;
    bool spawn = false;

    node = spin_and_take(worker, &spawn);
    while (node == NULL && !worker->is_lost && !is_done(worker, !notified)) {
        int64_t start = clock_now();
        int64_t due = worker == seat->home ? CLOCK_NEVER : start + seat->spare_keep;

        pthread_mutex_unlock(&seat->lock);
        notified = parker_wait(&worker->parker, due);
        spin_learn(&worker->spin, &worker->parker, start, notified);
        pthread_mutex_lock(&seat->lock);
        if (!worker->is_lost)
            node = take_locked(worker, true, &spawn);
    }
    if (node == NULL) {
        drop_from_idle(seat, worker);
        if (worker == seat->home)
            seat->is_ended = true;
    }
    pthread_mutex_unlock(&seat->lock);
    if (spawn)
        seat->spawn_later(seat);
    return node;
}

bool worker_park(worker_t *worker)
{
    seat_t *seat = worker->seat;
    bool home_stays;
    bool spawn = false;

    /* Somebody must be there to serve what the wait itself may depend on. */
    pthread_mutex_lock(&seat->lock);
    home_stays = home_serves(seat) && seat->home != worker;
    if (!home_stays && seat->idle == NULL) {
        pthread_mutex_unlock(&seat->lock);
        if (!seat->spawn(seat))
            return false;
        pthread_mutex_lock(&seat->lock);
    }
    worker->is_parked = true;
    if (!worker->is_errand && !worker->is_lost)
        seat->active--;
    if (seat->active == 0 && (has_work(seat) || fall_asleep(seat)))
        spawn = wake_server(seat);
    pthread_mutex_unlock(&seat->lock);
    if (spawn)
        seat->spawn_later(seat);
    return true;
}

void worker_resume(worker_t *worker)
{
    seat_t *seat = worker->seat;

    pthread_mutex_lock(&seat->lock);
    worker->is_parked = false;
    if (!worker->is_errand && !worker->is_lost) {
        seat->active++;
        atomic_store(&seat->awake, 1);
    }
    pthread_mutex_unlock(&seat->lock);
}
