/*
 * code - evaluates expressions and executes statements, compiled once per source.
 *
 * GIL: held.
 */
#ifndef EP_CODE_H
#define EP_CODE_H

#include "run_step.h"

/* Runs the request's source and sets its result. */
void code_run(run_t *run);

#endif
