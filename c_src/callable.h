/*
 * callable - finds what a call names: a function of a module, of the caller's namespace, a method of
 * the object behind a handle. What a pair of atoms named before is found again without a search.
 *
 * GIL: held.
 */
#ifndef EP_CALLABLE_H
#define EP_CALLABLE_H

#include "run_step.h"

/* What is to be called; new. NULL with run->result set. */
PyObject *callable_find(run_t *run);

/* Lets go of what is remembered for the thread. */
void callable_forget_all(pyworker_t *self);

#endif
