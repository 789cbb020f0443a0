/*
 * atoms - every atom the library itself uses, made once at load.
 *
 * One list: add a line and `atom_<name>` exists. Atoms are VM-wide and never
 * collected, so plain globals are right here.
 */
#ifndef EP_ATOMS_H
#define EP_ATOMS_H

#include <erl_nif.h>

#define ATOMS(X)                                                                                   \
    X(ok)                                                                                          \
    X(error)                                                                                       \
    X(true)                                                                                        \
    X(false)                                                                                       \
    X(none)                                                                                        \
    X(nil)                                                                                         \
    X(undefined)                                                                                   \
    X(nan)                                                                                         \
    X(infinity)                                                                                    \
    X(neg_infinity)                                                                                \
    X(buffer)                                                                                      \
    X(bytes)                                                                                       \
    X(badarg)                                                                                      \
    X(unconvertible)                                                                               \
    X(improper_list)                                                                               \
    X(bitstring)                                                                                   \
    X(ndarray)                                                                                     \
    X(bad_ndarray)                                                                                 \
    X(needs_numpy)                                                                                 \
    X(invalid_utf8)                                                                                \
    X(unhashable_key)                                                                              \
    X(duplicate_key)                                                                               \
    X(unsupported_term)                                                                            \
    X(too_deep)                                                                                    \
    X(bad_name)                                                                                    \
    X(other_interpreter)                                                                           \
    X(timeout)                                                                                     \
    X(interrupted)                                                                                 \
    X(cancelled)                                                                                   \
    X(closed)                                                                                      \
    X(overloaded)                                                                                  \
    X(context_down)                                                                                \
    X(stop_iteration)                                                                              \
    X(system_limit)                                                                                \
    X(waiting)                                                                                     \
    X(queued)                                                                                      \
    X(running)                                                                                     \
    X(ended)                                                                                       \
    X(foreign)                                                                                     \
    X(replied)                                                                                     \
    X(normal)                                                                                      \
    X(inline_overrun)                                                                              \
    X(not_running)                                                                                 \
    X(line)                                                                                        \
    X(file)                                                                                        \
    X(function)                                                                                    \
    X(source)                                                                                      \
    X(text)                                                                                        \
    X(py_response)                                                                                 \
    X(py_elsewhere)                                                                                \
    X(py_main)                                                                                     \
    X(py_opened)                                                                                   \
    X(py_event)                                                                                    \
    X(py_callback)                                                                                 \
    X(main)                                                                                        \
    X(replaced)                                                                                    \
    X(multi_executor)                                                                              \
    X(free_threaded)                                                                               \
    X(subinterp)                                                                                   \
    X(owngil)                                                                                      \
    X(worker)                                                                                      \
    X(gil_enabled)                                                                                 \
    X(left_behind)                                                                                 \
    X(thread_given_up)                                                                             \
    X(crashed)                                                                                     \
    X(stopping)                                                                                    \
    X(locals)                                                                                      \
    X(call)                                                                                        \
    X(state)                                                                                       \
    X(system)                                                                                      \
    X(kwargs)                                                                                      \
    X(more)                                                                                        \
    X(done)                                                                                        \
    X(py_callback_cancel)                                                                          \
    X(py_replaced)                                                                                 \
    X(placing)                                                                                     \
    X(py_report)                                                                                   \
    X(log)                                                                                         \
    X(span)

#define X(name) extern ERL_NIF_TERM atom_##name;
ATOMS(X)
#undef X

void atoms_init(ErlNifEnv *env);

#endif
