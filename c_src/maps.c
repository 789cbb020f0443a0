#include "maps.h"

enum { FLAT_MAX = 32 };

static bool build(ErlNifEnv *env, ERL_NIF_TERM *keys, ERL_NIF_TERM *values, size_t pairs,
                  ERL_NIF_TERM *out)
{
    const size_t flat = pairs < FLAT_MAX ? pairs : FLAT_MAX;
    size_t size = 0;

    if (!enif_make_map_from_arrays(env, keys, values, flat, out))
        return false;
    for (size_t i = flat; i < pairs; i++)
        (void)enif_make_map_put(env, *out, keys[i], values[i], out);
    return pairs == flat || (enif_get_map_size(env, *out, &size) && size == pairs);
}

/* The first key that occurs a second time. */
static ERL_NIF_TERM repeated_key(ErlNifEnv *env, const ERL_NIF_TERM *keys, size_t count)
{
    ERL_NIF_TERM seen = enif_make_new_map(env), value;
    size_t i = 0;

    for (; i + 1 < count && !enif_get_map_value(env, seen, keys[i], &value); i++)
        (void)enif_make_map_put(env, seen, keys[i], keys[i], &seen);
    return keys[i];
}

bool maps_from_arrays(ErlNifEnv *env, ERL_NIF_TERM *keys, ERL_NIF_TERM *values, size_t pairs,
                      ERL_NIF_TERM *out)
{
    if (build(env, keys, values, pairs, out))
        return true;
    *out = repeated_key(env, keys, pairs);
    return false;
}
