/*
 * interrupt - ending a request that runs: deadlines, dead owners, closed contexts.
 *
 * A parked request is woken. One that computes gets erlang.Interrupt as an asynchronous
 * exception, set by a spare thread of its own executor, because attaching lasts as long as
 * somebody holds that GIL. One that does not end within the grace period loses its thread:
 * a spare takes the seat, and the exception is sent again every grace period.
 *
 *   interrupt_request -> (errand) interrupt_deliver -> on_grace -> thread given up -> ...
 *
 * GIL: none held, but for interrupt_deliver.
 */
#ifndef EP_INTERRUPT_H
#define EP_INTERRUPT_H

#include "executor.h"

struct owner;

void interrupt_set_grace(int64_t ns);

/* Interrupts the token's request if it runs. */
void interrupt_request(uint64_t token);

/* Interrupts all running requests of an owner that died. */
void interrupt_owner(struct owner *owner);

/* Answers context_down to the running requests of a closed context and interrupts them. */
void interrupt_closed_context(struct context *context);

/* Interrupts what the context runs; false when nothing does. */
bool interrupt_running(struct context *context);

/* Serves a JOB_INTERRUPT; attaches. */
void interrupt_deliver(pyworker_t *self, job_t *job);

/* How long a request may stand in line, in ns; 0: until its deadline. */
void interrupt_set_patience(int64_t ns);

/* Sets the request's times; before it is published. */
void interrupt_set_deadline(request_t *request, int64_t deadline);

/* Sees to it that it is answered at its deadline; after it was admitted or put in line. */
void interrupt_at_deadline(request_t *request);

#endif
