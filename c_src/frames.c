#include "frames.h"

#include "convert.h"
#include "growable.h"
#include "pycompat.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_MAX_STEPS = 1000, CYCLES_FROM = 8 /* depth of the first search for a cycle */ };

void frames_init(frames_t *frames)
{
    frames->frames = frames->few_frames;
    frames->slots = frames->few_slots;
    frames->depth = frames->used = 0;
    frames->frames_room = FRAMES_FEW;
    frames->slots_room = FRAMES_FEW_SLOTS;
    frames->cycle_depth = CYCLES_FROM;
    frames->repeats_at = SIZE_MAX;
}

void frames_finish(frames_t *frames)
{
    while (frames->depth > 0)
        frames_pop(frames);
    growable_free(frames->frames, frames->few_frames);
    growable_free(frames->slots, frames->few_slots);
}

/*
 * Whether no object is met twice on the path. A cycle makes the path longer without end, so it
 * is enough to look at depths that double. Fails like frames_push.
 */
static bool check_cycle(frames_t *frames, PyObject **culprit)
{
    size_t room = 1, at = 0;
    size_t *table = NULL;
    bool found = false;

    while (room < frames->depth * 2)
        room *= 2;
    table = calloc(room, sizeof *table);
    if (table == NULL) {
        PyErr_NoMemory();
        return false;
    }
    for (size_t i = 0; i < frames->depth && !found; i++) {
        PyObject *origin = frames->frames[i].origin;

        at = ((uintptr_t)origin >> 4) * UINT32_C(0x9e3779b1) % room;
        while (table[at] != 0 && frames->frames[table[at] - 1].origin != origin)
            at = (at + 1) % room;
        found = table[at] != 0;
        table[at] = i + 1;
        if (found) {
            *culprit = origin;
            frames->repeats_at = i;
        }
    }
    free(table);
    frames->cycle_depth = frames->depth * 2;
    return !found;
}

bool frames_push(frames_t *frames, frame_kind_t kind, PyObject *origin, PyObject *container,
                 bool owns, PyObject **culprit)
{
    frame_t *moved = NULL, *frame = NULL;

    *culprit = NULL;
    if (frames->depth >= CONVERT_DEPTH_MAX) {
        *culprit = origin;
        return false;
    }
    if (frames->depth >= frames->cycle_depth && !check_cycle(frames, culprit))
        return false;
    moved = growable_reserve(frames->frames, frames->few_frames, frames->depth,
                             &frames->frames_room, frames->depth + 1, sizeof *moved);
    if (moved == NULL) {
        PyErr_NoMemory();
        return false;
    }
    frames->frames = moved;
    frame = &moved[frames->depth++];
    memset(frame, 0, sizeof *frame);
    frame->kind = kind;
    frame->origin = origin;
    frame->container = container;
    frame->owns = owns;
    frame->first = frames->used;
    return true;
}

bool frames_reserve(frames_t *frames, size_t count)
{
    ERL_NIF_TERM *slots =
        growable_reserve(frames->slots, frames->few_slots, frames->used, &frames->slots_room,
                         frames->used + count, sizeof *slots);

    if (slots == NULL)
        return false;
    frames->slots = slots;
    frames->used += count;
    frames_top(frames)->count = count;
    return true;
}

static void copy_list(frame_t *frame)
{
    for (size_t i = 0; i < frame->count; i++)
        frame->items[i] = Py_NewRef(PyList_GET_ITEM(frame->container, (Py_ssize_t)i));
}

static void copy_dict(frame_t *frame)
{
    Py_ssize_t position = 0;
    PyObject *key = NULL, *value = NULL;
    size_t i = 0;

    while (i < frame->count && PyDict_Next(frame->container, &position, &key, &value)) {
        frame->items[i++] = Py_NewRef(key);
        frame->items[i++] = Py_NewRef(value);
    }
}

bool frames_freeze(frames_t *frames)
{
    frame_t *frame = frames_top(frames);

    frame->items = malloc(frame->count * sizeof(PyObject *));
    if (frame->items == NULL)
        return false;
    if (frame->kind == FRAME_MAP)
        copy_dict(frame);
    else
        copy_list(frame);
    frame->is_frozen = true;
    return true;
}

/* The frame is gone before user code can run in what it gives up. */
void frames_pop(frames_t *frames)
{
    const frame_t frame = frames->frames[--frames->depth];

    frames->used = frame.first;
    for (size_t i = 0; frame.is_frozen && i < frame.count; i++)
        Py_DECREF(frame.items[i]);
    if (frame.is_frozen)
        free(frame.items);
    if (frame.owns)
        Py_DECREF(frame.container);
}

ERL_NIF_TERM frames_path(frames_t *frames, ErlNifEnv *env, ERL_NIF_TERM key)
{
    ERL_NIF_TERM steps[PATH_MAX_STEPS + 1];
    unsigned count = 0;

    for (size_t i = 0; i < frames->depth && i < frames->repeats_at && count < PATH_MAX_STEPS; i++) {
        const frame_t *frame = &frames->frames[i];

        if (frame->index >= frame->count || (frame->kind == FRAME_MAP && frame->index % 2 == 0))
            break; /* the container itself, or a key */
        if (frame->kind == FRAME_MAP)
            steps[count++] = enif_make_copy(env, frames->slots[frame->first + frame->index / 2]);
        else
            steps[count++] = enif_make_uint64(env, frame->index + 1);
    }
    if (key != 0)
        steps[count++] = enif_make_copy(env, key);
    return enif_make_list_from_array(env, steps, count);
}
