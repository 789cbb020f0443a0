/*
 * embed - a Python for the programs here: the engine's converters in an interpreter that has
 * `_erlang` with its types and nothing else, no VM and no executors.
 *
 * Counts what Python allocates, and makes one allocation fail: the n-th from embed_fail_at on, of
 * those that Python, the engine (see CMakeLists.txt) and enif's stand-in ask for in this thread.
 *
 * GIL: held, but where said otherwise. What cannot go on ends the program.
 */
#ifndef EP_TEST_EMBED_H
#define EP_TEST_EMBED_H

#include "interp.h"
#include "module.h"

#include <stdbool.h>

/* Starts Python; attached afterwards. Without `hooks` none of the below. */
module_state_t *embed_start(bool hooks);

/* An attribute of a module that is found in this folder; a new reference. */
PyObject *embed_fetch(const char *module, const char *name);

/* The interpreter to which handles belong. */
interp_t *embed_interp(void);

/* Python's blocks of memory, relative to the start. Any thread. */
long embed_count_blocks(void);

/* 0: none fails. With `onwards` all later ones fail too. Any thread, for itself. */
void embed_fail_at(long n, bool onwards);

/* Whether it came to that. */
bool embed_has_failed(void);

/* Whether the allocation to be made now fails. */
bool embed_fails(void);

/* Says what happened and aborts unless ok. */
void embed_insist(bool ok, const char *what);

#endif
