/*
 * names - a small set of strings shared by all interpreters: the packages that only
 * the main interpreter can load.
 *
 * Threads: any. Names are added for good; there are few.
 */
#ifndef EP_NAMES_H
#define EP_NAMES_H

#include <stdbool.h>

void names_add(const char *text);
bool names_has(const char *text);

/* Whether the package of a (dotted) module name is there; cheap while nothing is. */
bool names_has_package(const char *module);

/* How many there are; it only grows. */
unsigned names_count(void);

#endif
