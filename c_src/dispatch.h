/*
 * dispatch - how a request gets from admission to an executor, and its one answer.
 *
 * The VM's one semaphore is here. Whoever frees a slot starts the next in line on its
 * own thread: a scheduler, an executor's thread, it does not matter.
 */
#ifndef EP_DISPATCH_H
#define EP_DISPATCH_H

#include "request.h"
#include "slots.h"

#include <erl_nif.h>

bool dispatch_setup(int64_t max_concurrent);

slots_t *dispatch_slots(void);

/* Takes a slot for the request (true), or puts it in line (false): then it is handed over later. */
bool dispatch_admit(request_t *request);

/* Gives a slot back and starts the next in line. */
void dispatch_free_slot(void);

/* Gives the slot of a request back, once, if it has one, and starts the next in line. */
void dispatch_drop_slot(request_t *request, uint64_t token);

/* The context of the main interpreter that dispatch_forward sends to; kept. */
void dispatch_set_main(struct context *context);

/* Passes a request that was not run on to the main interpreter. False: there is no way there. */
bool dispatch_forward(request_t *request);

/* Hands an admitted request over; answers it itself when the executor is closed. */
void dispatch_request(request_t *request);

/* {overloaded, Current, Max}: the reason of one that was not admitted in time. */
ERL_NIF_TERM dispatch_overloaded(ErlNifEnv *env);

/* Answers context_down to a request that was not run, and ends it. The caller calls
 * slots_advance. */
void dispatch_refuse(request_t *request);

/* {error, Reason} */
ERL_NIF_TERM dispatch_error(ErlNifEnv *env, ERL_NIF_TERM reason);

/* Whether somebody still wants the request's answer. */
bool dispatch_is_wanted(queue_node_t *node);

/* Sends result, which lives in env, if nobody answered yet. */
void dispatch_answer(request_t *request, ErlNifEnv *env, ERL_NIF_TERM result);

#endif
