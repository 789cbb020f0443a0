/*
 * frames - the Python containers that a conversion to Erlang is inside of.
 *
 * An open container is a frame and a run of slots, one for each term it will hold. What
 * is in it is either ready at once or opens a frame on top; a frame whose slots are filled
 * becomes one term in the slots of the frame below.
 *
 * GIL: held. User code may run in frames_pop, when it gives up references, and nowhere else.
 */
#ifndef EP_FRAMES_H
#define EP_FRAMES_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <erl_nif.h>
#include <stdbool.h>
#include <stddef.h>

enum { FRAMES_FEW = 16, FRAMES_FEW_SLOTS = 64 };

typedef enum { FRAME_LIST, FRAME_TUPLE, FRAME_MAP } frame_kind_t;

typedef struct {
    frame_kind_t kind;
    bool owns;           /* an image made for this: `container` is a reference */
    bool is_frozen;      /* `items` are references in memory of the frame */
    PyObject *origin;    /* what was met here, container or not; kept by the frame below */
    PyObject *container; /* what is read */
    PyObject **items;    /* of a map: key, value, key, value; NULL: read `container` in place */
    size_t index, count; /* items done and to do; of a map two for each pair */
    size_t first;        /* slot of the first term; of a map all keys, then all values */
} frame_t;

typedef struct {
    frame_t *frames;
    size_t depth, frames_room;
    ERL_NIF_TERM *slots;
    size_t used, slots_room;
    size_t cycle_depth; /* where to search for a cycle next */
    size_t repeats_at;  /* frame that a cycle came back to, else SIZE_MAX: the path ends */
    frame_t few_frames[FRAMES_FEW];
    ERL_NIF_TERM few_slots[FRAMES_FEW_SLOTS];
} frames_t;

void frames_init(frames_t *frames);

/* Gives up what is still open. */
void frames_finish(frames_t *frames);

/*
 * Opens a frame for `container`, which stands for `origin` (borrowed, both the same or
 * not) and with `owns` is taken, if true is returned. False, *culprit borrowed: too deep, or an
 * object that contains itself; false, *culprit NULL, with an exception: memory is short.
 */
bool frames_push(frames_t *frames, frame_kind_t kind, PyObject *origin, PyObject *container,
                 bool owns, PyObject **culprit);

/* Slots for the top frame. False, nothing set: memory is short. */
bool frames_reserve(frames_t *frames, size_t count);

/* Copies the references of the top frame's list or dict into the frame, so that nobody can
 * change them; inside the container's critical section. False, nothing set: memory is short. */
bool frames_freeze(frames_t *frames);

void frames_pop(frames_t *frames);

/* Where the conversion stands, from the outside in, as a list; then `key`, unless 0. */
ERL_NIF_TERM frames_path(frames_t *frames, ErlNifEnv *env, ERL_NIF_TERM key);

static inline frame_t *frames_top(frames_t *frames)
{
    return &frames->frames[frames->depth - 1];
}

/* The frame's next item is done. */
static inline void frames_store(frames_t *frames, frame_t *frame, ERL_NIF_TERM term)
{
    const size_t i = frame->index++;

    if (frame->kind == FRAME_MAP)
        frames->slots[frame->first + i / 2 + (i % 2) * (frame->count / 2)] = term;
    else
        frames->slots[frame->first + i] = term;
}

#endif
