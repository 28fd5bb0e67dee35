/* SPDX-License-Identifier: MIT */
/*
 * Theory
 *
 * An inference repeats the same few hundred takes and puts of large spans, and the heap, being
 * deterministic, gives the same places each time. Searching, splitting and coalescing for the hundredth time finds
 * out nothing new. So the heap's operations are recorded, and when they have led back to the state in which the record
 * began, the record is a loop: from that state, the same requests in the same order may get the same places without a
 * look at the bins. The places are those that best fit chose, or better ones (span_plan.c).
 *
 * What makes a loop valid is checked, not assumed: every take in it is put again in it, and every put is of a take
 * in it (`is_closed`). Then whatever was free before the loop is free after it, and the places were disjoint when
 * they were recorded. `state`, a sum of hashes of what is out, only says when to look.
 *
 * While loops are replayed the heap is frozen in the common state: bins and nodes stay as they are, only the words of the
 * blocks handed out change. The first operation that the loop does not expect, and whatever else needs the
 * true heap (another kind of operation, a purge, statistics), makes it settle (span_settle.c): the words of free spans are
 * restored and what is out at the moment is cut out of them. The recording then goes on from the
 * common state with the operations of the broken round, so a variant of the inference becomes a loop of its own;
 * up to LOOP_MAX of them are kept, all from one common state. When the operation at hand is not the expected one but another
 * loop has the same beginning and goes on with it, that one becomes the current.
 *
 * Settling costs time in proportion to what is out. A heap that settles without having completed a loop waits for twice as many
 * loops as the last time before it replays again, so two threads that interleave at random pay little.
 *
 * Source: this is what c10::CPUProfilingAllocator and static memory planners do ahead of time, done while running, with
 * a way back.
 */
#include "span_loop.h"

#include <string.h>

#include "meta.h"
#include "span_bins.h"

enum {
    LONGEST_WAIT = 256,
    PAY = 32 /* comparisons of the planner that an operation answered by a loop is worth */
};

static struct meta_pool loops_pool = META_POOL(struct span_loops);

static void drop_loops(struct span_loops *loops)
{
    loops->loops_count = 0;
    if (loops->highest != 0) {
        loops->highest = 0;
        span_heap_tell_use(loops->heap);
    }
}

/* The record begins in the common state, where it now is. */
static void record_anew(struct span_loops *loops)
{
    loops->count = 0;
    loops->state = 0;
    loops->out = 0;
}

void span_loop_forget(struct span_loops *loops)
{
    loops->mode = LOOP_RECORDING;
    loops->current = NULL;
    loops->region = NULL;
    loops->first = 0;
    record_anew(loops);
    drop_loops(loops);
}

struct span_loops *span_loops_get(struct span_heap *heap)
{
    struct span_loops *loops = meta_pool_get(&loops_pool);
    if (loops == NULL)
        return NULL;
    loops->heap = heap;
    loops->highest = 0;
    span_loop_forget(loops);
    loops->skip = loops->wait = 0;
    loops->plan_debt = 0;
    return loops;
}

void span_loops_put(struct span_loops *loops)
{
    meta_pool_put(&loops_pool, loops);
}

void span_loops_fork_lock(void)
{
    spinlock_lock(&loops_pool.lock);
}

void span_loops_fork_unlock(void)
{
    spinlock_unlock(&loops_pool.lock);
}

void span_loops_fork_child(void)
{
    spinlock_reset(&loops_pool.lock);
}

static uint64_t hash_span(uint32_t start, uint32_t length)
{
    uint64_t hash = ((uint64_t)length << 32 | start) * UINT64_C(0x9E3779B97F4A7C15);
    hash ^= hash >> 29;
    return hash * UINT64_C(0xBF58476D1CE4E5B9);
}

/*
 * Every take is put later, every put is of an earlier take, and not too much is out at once. A put looks back to its take,
 * once for each new loop.
 */
static bool is_closed(const struct loop_op *ops, uint32_t count)
{
    uint32_t takes = 0, matched = 0;
    for (uint32_t i = 0; i < count; i++) {
        if ((ops[i].what & LOOP_PUT) == 0) {
            if (++takes - matched > LOOP_MAX_OUT)
                return false;
            continue;
        }
        uint32_t j = i;
        /* the latest take at this place; a put in between would have been met first */
        while (j > 0 && ops[j - 1].start != ops[i].start)
            j--;
        if (j == 0 || ops[j - 1].what != (ops[i].what & ~LOOP_PUT))
            return false;
        matched++;
    }
    return takes == matched;
}

static bool is_same(const struct loop_op *op, uint32_t start, uint32_t what)
{
    return op->what == what && ((what & LOOP_PUT) == 0 || op->start == start);
}

/* Begins a new recording from the common state, behind the loops. */
static void restart(struct span_loops *loops)
{
    loops->first += loops->count;
    record_anew(loops);
    if (loops->loops_count ==
        LOOP_MAX) { /* no place for another: the oldest knowledge goes, all of it */
        loops->first = 0;
        drop_loops(loops);
    }
}

/* Room for one more operation on record; the loops may have to go. */
static bool make_room(struct span_loops *loops)
{
    if (loops->first + loops->count < LOOP_ARENA)
        return true;
    if (loops->first == 0)
        return false;
    memmove(loops->ops, &loops->ops[loops->first], loops->count * sizeof *loops->ops);
    loops->first = 0;
    drop_loops(loops);
    return true;
}

/* The operation `done` of a loop, which is ready, is the next. */
static void expect(struct span_loops *loops, struct loop *loop, uint32_t done)
{
    loop->used = true;
    loops->current = loop;
    loops->begin = &loops->ops[loop->first];
    loops->expected = loops->begin + done;
    loops->end = loops->begin + loop->count;
}

void span_loop_complete(struct span_loops *loops)
{
    uint64_t pay = (uint64_t)(loops->end - loops->begin) * PAY;
    loops->plan_debt -= pay < loops->plan_debt ? pay : loops->plan_debt;
    loops->expected = loops->begin;
    loops->wait = 0;
    if (loops->heap->purge_waits)
        span_heap_want_attention(loops->heap);
}

static void make_ready(struct span_loops *loops, struct loop *loop)
{
    if (loop->ready)
        return;
    span_heap_touch_loop(loops->heap, &loops->ops[loop->first], loop->count);
    loop->ready = true;
}

void span_loop_make_ready(struct span_loops *loops)
{
    for (uint32_t i = 0; i < loops->loops_count; i++)
        make_ready(loops, &loops->loops[i]);
}

/* Takes up replaying in the common state. The first operation finds its loop, and makes it ready if need be. */
static void replay(struct span_loops *loops)
{
    static const struct loop_op nothing;
    loops->mode = LOOP_REPLAYING;
    for (uint32_t i = 0; i < loops->loops_count; i++)
        loops->loops[i].used = false;
    struct loop *latest = &loops->loops[loops->loops_count - 1];
    if (latest->ready) {
        expect(loops, latest, 0);
        return;
    }
    loops->current = latest;
    loops->begin = loops->expected = &nothing; /* as no operation is */
    loops->end = loops->begin + 1;
}

void span_loop_resume(struct span_loops *loops)
{
    if (loops->mode == LOOP_RECORDING && loops->count == 0 && loops->loops_count != 0 &&
        loops->skip == 0 && loops->heap->detached == 0) {
        replay(loops);
    }
}

/* How many operations, from the first on, are the same requests, answered with puts of the same takes; the places may differ. */
static uint32_t shared_shape(const struct loop_op *ops, const struct loop_op *others,
                             uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (ops[i].what != others[i].what)
            return i;
        if ((ops[i].what & LOOP_PUT) == 0)
            continue;
        uint32_t j = i;
        bool here, there;
        do { /* both loops are closed: there is a take */
            j--;
            here = ops[j].start == ops[i].start;
            there = others[j].start == others[i].start;
        } while (!here && !there);
        if (here != there)
            return i;
    }
    return count;
}

/* The loop that begins most like the recording, and how much of it. */
static const struct loop *find_sibling(const struct span_loops *loops, uint32_t *shared)
{
    const struct loop_op *ops = &loops->ops[loops->first];
    const struct loop *sibling = NULL;
    *shared = 0;
    for (uint32_t i = 0; i < loops->loops_count; i++) {
        const struct loop *loop = &loops->loops[i];
        uint32_t limit = loop->count < loops->count ? loop->count : loops->count;
        uint32_t same = shared_shape(ops, &loops->ops[loop->first], limit);
        if (same > *shared) {
            *shared = same;
            sibling = loop;
        }
    }
    return sibling;
}

/* The unit behind the highest place. */
static uint32_t end_of(const struct loop_op *ops, uint32_t count)
{
    uint32_t end = 0;
    for (uint32_t i = 0; i < count; i++) {
        if ((ops[i].what & LOOP_PUT) == 0 && ops[i].start + ops[i].what > end)
            end = ops[i].start + ops[i].what;
    }
    return end;
}

/*
 * Chooses places for the recording. The operations that it has in common with another loop must be in the same places, or
 * the heap could not change from one to the other when they part. Otherwise there is a plan only if the recorded places end
 * higher than other loops' anyway: where shapes never come again, planning each would cost and save nothing.
 */
static void plan_loop(struct span_loops *loops, const struct loop *sibling, uint32_t shared)
{
    struct loop_op *ops = &loops->ops[loops->first];
    const struct loop_op *others = sibling != NULL ? &loops->ops[sibling->first] : NULL;
    bool must = others != NULL && memcmp(ops, others, shared * sizeof *ops) != 0;
    uint32_t end = end_of(ops, loops->count);
    if ((must || end > loops->highest) &&
        span_heap_plan(loops->heap, ops, loops->count, others, shared, must ? UINT32_MAX : end))
        end = end_of(ops, loops->count);
    if (end > loops->highest) {
        loops->highest = end;
        span_heap_tell_use(loops->heap);
    }
}

static void close_loop(struct span_loops *loops)
{
    if (!is_closed(&loops->ops[loops->first], loops->count)) {
        /* something older was freed and its place taken again: the present state is as good as any other */
        span_loop_forget(loops);
        return;
    }
    if (loops->heap->detached != 0) { /* spans are missing that are free in the common state */
        record_anew(loops);
        return;
    }
    uint32_t shared;
    const struct loop *sibling = find_sibling(loops, &shared);
    if (sibling != NULL && shared == loops->count && shared == sibling->count) {
        /* known; one that was broken and went on with other places is no new one */
        record_anew(loops);
    } else {
        plan_loop(loops, sibling, shared);
        loops->loops[loops->loops_count++] =
            (struct loop){loops->first, loops->count, false, false};
        restart(loops);
        span_heap_want_attention(loops->heap);
        /* relaxed: a hint */
        atomic_store_explicit(&loops->heap->new_loops, true, memory_order_relaxed);
    }
    if (loops->skip != 0) {
        loops->skip--;
    } else if (loops->loops_count != 0) {
        replay(loops);
    }
}

void span_loop_note(struct span_loops *loops, struct region *region, uint32_t start, uint32_t what)
{
    if (loops->region == NULL)
        loops->region = region;
    if (loops->region != region || !make_room(loops)) {
        span_loop_forget(loops);
        return;
    }
    loops->ops[loops->first + loops->count++] = (struct loop_op){start, what};
    uint64_t hash = hash_span(start, what & ~LOOP_PUT);
    loops->state += (what & LOOP_PUT) != 0 ? 0 - hash : hash;
    loops->out += (what & LOOP_PUT) != 0 ? -(int64_t)(what & ~LOOP_PUT) : (int64_t)what;
    if (loops->out < 0) {
        /* the common state cannot come again as it was; one with less in use is a better beginning */
        span_loop_forget(loops);
    } else if (loops->state == 0) {
        close_loop(loops);
    }
}

__attribute__((noinline)) bool span_loop_switch(struct span_loops *loops, uint32_t start,
                                                uint32_t what)
{
    const struct loop_op *prefix = loops->begin;
    uint32_t done = (uint32_t)(loops->expected - prefix);
    uint32_t from =
        (uint32_t)(loops->current - loops->loops) + 1; /* variants tend to come in turn */
    for (uint32_t i = 0; i < loops->loops_count; i++) {
        struct loop *loop = &loops->loops[(from + i) % loops->loops_count];
        const struct loop_op *ops = &loops->ops[loop->first];
        if (loop->count <= done || !is_same(&ops[done], start, what))
            continue;
        if (memcmp(ops, prefix, done * sizeof *ops) != 0)
            continue;
        make_ready(loops, loop);
        expect(loops, loop, done);
        return true;
    }
    return false;
}

void span_loop_note_discard(struct span_loops *loops, uint32_t unit)
{
    for (uint32_t i = 0; i < loops->loops_count && unit < loops->highest; i++)
        loops->loops[i].ready = false;
}

uint32_t span_loop_unfreeze(struct span_loops *loops, const struct loop_op **ops)
{
    uint32_t done = (uint32_t)(loops->expected - loops->begin);
    if (done != 0) { /* broken in the middle */
        loops->skip = loops->wait;
        if (loops->wait < LONGEST_WAIT)
            loops->wait = loops->wait == 0 ? 1 : loops->wait * 2;
        if (loops->first + done >= LOOP_ARENA) { /* no room behind the loops */
            loops->first = 0;
            drop_loops(loops);
        }
        memmove(&loops->ops[loops->first], loops->begin, done * sizeof *loops->begin);
    }
    record_anew(loops);
    loops->count = done;
    for (uint32_t i = 0; i < done; i++) {
        const struct loop_op *op = &loops->ops[loops->first + i];
        uint64_t hash = hash_span(op->start, op->what & ~LOOP_PUT);
        loops->state += (op->what & LOOP_PUT) != 0 ? 0 - hash : hash;
        loops->out +=
            (op->what & LOOP_PUT) != 0 ? -(int64_t)(op->what & ~LOOP_PUT) : (int64_t)op->what;
    }
    loops->mode = LOOP_RECORDING;
    *ops = &loops->ops[loops->first];
    return done;
}
