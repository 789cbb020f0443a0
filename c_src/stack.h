/*
 * stack - a second stack for threads whose own is small.
 *
 * A scheduler of the VM has 1 MB, Python code needs what our threads have: up to 3.13 its recursion checks
 * count calls, not bytes, and some recursions are not checked in any version (a chain of iterators). Each thread that asks gets one such stack, mapped at first use, with a guard page at its
 * end, which stays as long as the process.
 *
 * Where we do not know how to change stacks (not x86-64 or AArch64), there is none.
 */
#ifndef EP_STACK_H
#define EP_STACK_H

#include <stdbool.h>
#include <stddef.h>

/* Makes the calling thread's second stack of so many bytes, once. False: none is to be had. */
bool stack_prepare(size_t size);

/* Calls body(argument) on it, after stack_prepare; not from there. */
void stack_call(void (*body)(void *), void *argument);

/* Where it is, after stack_prepare: its lowest byte, and its size. */
void *stack_lowest(size_t *size);

#endif
