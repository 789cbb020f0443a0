/*
 * serve - what an executor's thread does all day: take a node, do it, answer.
 */
#ifndef EP_SERVE_H
#define EP_SERVE_H

#include "executor.h"

/* Serves until the thread is to end; attached or not afterwards. True: it was given up. */
bool serve_all(pyworker_t *self);

#endif
