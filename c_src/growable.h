/*
 * growable - an array that starts in its owner and moves to the heap when full.
 *
 * The explicit stacks of the converters: most values need a handful of entries,
 * which cost no allocation; deep ones may need millions.
 */
#ifndef EP_GROWABLE_H
#define EP_GROWABLE_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/*
 * Room for `need` entries of `size` bytes: returns where `array` now is, *room updated,
 * or NULL (array untouched, still the caller's) when memory is short. `few` is the
 * array inside the owner, which is never freed; `used` entries are kept.
 */
static inline void *growable_reserve(void *array, void *few, size_t used, size_t *room, size_t need,
                                     size_t size)
{
    size_t wanted = *room * 2 > need ? *room * 2 : need;
    void *larger = NULL;

    if (need <= *room)
        return array;
    if (wanted > SIZE_MAX / size)
        return NULL;
    if (array == few) {
        larger = malloc(wanted * size);
        if (larger != NULL)
            memcpy(larger, few, used * size);
    } else {
        larger = realloc(array, wanted * size);
    }
    if (larger != NULL)
        *room = wanted;
    return larger;
}

static inline void growable_free(void *array, void *few)
{
    if (array != few)
        free(array);
}

#endif
