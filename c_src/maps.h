/*
 * maps - Erlang maps from arrays, on any thread.
 *
 * enif_make_map_from_arrays builds big maps in memory that only schedulers have: elsewhere
 * more than 128 pairs end the VM before OTP 27.3 (erlang/otp#8208), and above 32 it
 * overlooks equal keys (erlang/otp#10975). So the first 32 pairs are made with it and the
 * others put one by one.
 */
#ifndef EP_MAPS_H
#define EP_MAPS_H

#include <erl_nif.h>
#include <stdbool.h>
#include <stddef.h>

/* False if two keys are equal; *out is then one of them. The arrays stay the caller's. */
bool maps_from_arrays(ErlNifEnv *env, ERL_NIF_TERM *keys, ERL_NIF_TERM *values, size_t pairs,
                      ERL_NIF_TERM *out);

#endif
