/* SPDX-License-Identifier: MIT */
/*
 * Loops of a span heap: sequences of takes and puts that end where they began, recognised when they come again and
 * answered from a record instead of by a search.
 */
#ifndef LARDER_SPAN_LOOP_H
#define LARDER_SPAN_LOOP_H

#include "region.h"

struct span_heap;

enum {
    LOOP_ARENA = 8192, /* operations on record: 64 KiB if all are used; a multiple of 2 */
    LOOP_MAX = 64,
    LOOP_MAX_OUT = 1024, /* blocks that a loop may have out at once */
    /* for planning loops of up to about 4000 blocks; touched as far as needed */
    PLAN_SCRATCH = 336 * 1024
};

#define LOOP_PUT 0x80000000u

/* A take gave [start, start + length); a put took it back. */
struct loop_op {
    uint32_t start;
    uint32_t what; /* length, with LOOP_PUT for a put */
};

struct loop {
    uint32_t first, count; /* in the arena */
    bool used;             /* since the heap was frozen */
    bool ready;            /* every page of its places is known to be touched */
};

enum loop_mode { LOOP_RECORDING, LOOP_REPLAYING };

/* Guarded by the heap's lock. */
struct span_loops {
    struct span_heap *heap; /* that they are of; fixed */
    enum loop_mode mode;
    /* while replaying: the next operation and the bounds of the current loop; NULL before the first */
    const struct loop_op *expected, *begin, *end;
    struct loop *current;
    uint32_t skip,
        wait; /* loops to let pass before replaying again, and how many that will be next time */
    /* the record since the common state: all loops begin and end in it */
    struct region *region; /* the one region that all of it is about */
    uint64_t state; /* sum over what has been taken, less what has been put, since then; 0: back */
    int64_t out;    /* units taken less units put since then; below 0: something older was freed */
    uint32_t first, count; /* of the recording, in the arena */
    uint32_t loops_count;
    uint64_t plan_debt; /* comparisons made for plans that have not been paid off by replays */
    uint32_t highest;   /* unit behind all places of loops; 0: there are none */
    struct loop loops[LOOP_MAX];
    /* the first LOOP_ARENA; what follows the record is scratch memory for planning it, so that little is touched for little */
    _Alignas(16) struct loop_op ops[LOOP_ARENA + PLAN_SCRATCH / sizeof(struct loop_op)];
    void *pool_link;
};

/* PLAN_SCRATCH bytes at a multiple of 16, until the record grows. */
static inline char *span_loops_scratch(struct span_loops *loops)
{
    uint32_t end = loops->first + loops->count;
    return (char *)&loops->ops[end + end % 2];
}

/* NULL where there is no memory: the heap works without. */
struct span_loops *span_loops_get(struct span_heap *heap);
void span_loops_put(struct span_loops *loops);

void span_loops_fork_lock(void);
void span_loops_fork_unlock(void);
void span_loops_fork_child(void);

/* Finds the loop that goes on with this operation although the expected one does not; false: the heap must settle. */
bool span_loop_switch(struct span_loops *loops, uint32_t start, uint32_t what);

/* A whole loop has been replayed: it pays. The same one is expected again. */
void span_loop_complete(struct span_loops *loops);

/* After an operation that was expected. */
static inline void span_loop_advance(struct span_loops *loops)
{
    if (__builtin_expect(++loops->expected == loops->end, 0))
        span_loop_complete(loops);
}

/* While replaying: the place for a span of `length` units. False: the heap must settle and search. */
static inline bool span_loop_take(struct span_loops *loops, uint32_t length, uint32_t *start)
{
    if (__builtin_expect(loops->expected->what != length, 0)) {
        if (!span_loop_switch(loops, 0, length))
            return false;
    }
    *start = loops->expected->start;
    span_loop_advance(loops);
    return true;
}

/* While replaying: true if this put is the next thing that the loop does. */
static inline bool span_loop_put(struct span_loops *loops, uint32_t start, uint32_t length)
{
    const struct loop_op *expected = loops->expected;
    if (__builtin_expect(expected->start != start || expected->what != (length | LOOP_PUT), 0)) {
        if (!span_loop_switch(loops, start, length | LOOP_PUT))
            return false;
    }
    span_loop_advance(loops);
    return true;
}

/* Forgets everything, for instance because a region has gone. Recording begins anew. Not while replaying. */
void span_loop_forget(struct span_loops *loops);

/* While recording: something is done that need not be noted, since no loop goes through it. */
static inline void span_loop_pass(struct span_loops *loops)
{
    if ((loops->count | loops->loops_count) != 0)
        span_loop_forget(loops);
}

/* While recording: notes what the heap did. */
void span_loop_note(struct span_loops *loops, struct region *region, uint32_t start, uint32_t what);

/* The operations done since the heap was frozen, in the current round; the record goes on from there. */
uint32_t span_loop_unfreeze(struct span_loops *loops, const struct loop_op **ops);

/* Free pages from this unit on have been given back: loops with places there will have to touch them again. Not while replaying. */
void span_loop_note_discard(struct span_loops *loops, uint32_t unit);

/* Counts the pages of all loops as touched. Not while replaying. */
void span_loop_make_ready(struct span_loops *loops);

/* Replays again if nothing has happened since the common state. */
void span_loop_resume(struct span_loops *loops);

#endif
