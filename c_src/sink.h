/*
 * sink - what Python tells Erlang without waiting: log records and finished spans.
 *
 * They are messages to one Erlang process (py_log). What it has not taken yet is counted in units of
 * about a KiB; beyond the bound reports are dropped and counted, so that neither a storm of
 * records nor a slow log fills the memory, and Python never waits.
 *
 * All of it is the VM's, not an interpreter's: what Erlang sets holds at once in every context.
 * Threads: any.
 */
#ifndef EP_SINK_H
#define EP_SINK_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <erl_nif.h>
#include <stdbool.h>
#include <stdint.h>

typedef enum { REPORT_LOG, REPORT_SPAN, REPORT_KINDS } report_kind_t;

/* ---- for Erlang ---- */

/* Reports go to that process from now on; at most so many units wait for it. */
void sink_open(const ErlNifPid *pid, int units);

/* The process is done with a report of so many units. */
void sink_taken(int units);

/* How many reports of a kind were dropped since the VM started. */
int64_t sink_dropped(report_kind_t kind);

/* Records below that level (a number of Python's logging) are not wanted. */
void sink_set_level(int wanted);

void sink_set_tracing(bool wanted);

/* ---- for Python; GIL held ---- */

/* _erlang.log_level() -> int */
PyObject *sink_log_level(PyObject *module, PyObject *unused);

/* _erlang.log_admits(level) -> bool: whether it makes sense to report a record; counts it as
 * dropped if there is no room. */
PyObject *sink_log_admits(PyObject *module, PyObject *number);

/* _erlang.is_tracing() -> bool */
PyObject *sink_is_tracing(PyObject *module, PyObject *unused);

/* _erlang.report(kind, units, term) -> bool: sends {py_report, log | span, Units, Term}; False if it
 * was dropped. Raises for wrong arguments only. */
PyObject *sink_report(PyObject *module, PyObject *arguments);

#endif
