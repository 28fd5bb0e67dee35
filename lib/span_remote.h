/* SPDX-License-Identifier: MIT */
/*
 * Blocks on their way back to a heap that another thread has to itself.
 *
 * Theory. A pipeline's stages hand tensors on: one thread allocates, another frees. If the one that frees takes the heap's lock,
 * the other loses its bias, and each call moves the lock, the bins and the nodes from one processor to the other:
 * 400 ns a block. So while a heap is biased to a thread (heap_lock.h), whoever else frees a block of it only leaves a note, and
 * the owner puts what has been noted (drains) where it is about to take. What travels then is the block's word, and a
 * cache line for every 16 notes.
 *
 * A block that waits is in no owner's hands any more: its word is WORD_WAITING, set by a compare-and-swap before the note, so that a second
 * free finds it cached, whoever makes it. It is still used space to the heap, and its words are left alone, also where the heap
 * settles (span_settle.c). Its size is known from its words, as before.
 *
 * Blocks that come back in a stream do so in an order that depends on two threads' speed. There is no loop in it (span_loop.c), so
 * nothing is recorded then: looking for loops, and planning those that end by chance, was two thirds of what a block cost.
 *
 * Who drains. A take looks at every `interval`-th time, which adapts: as long as blocks come back as fast as they go out
 * every 32nd look is enough, and where one comes now and then each take looks, so that the heap does the same as
 * without notes. What counts is how many have been noted since the last look, not how many still wait: with a few blocks of some MiB on their way
 * nearly every drain is by a take that has found nothing free, and a look in between would find nothing and know of no stream. A take always
 * drains before it touches fresh pages, so waiting blocks never make a heap grow; and so does
 * everything that looks at the heap as a whole: statistics, budget, decay, trims, a fork, the end of the instance.
 * What is to be done at the end of a loop that ends with a drained put is done by the owner, too (span_heap_attend()).
 * Where the owner sleeps, notes pile up to REMOTE_SLOTS blocks and REMOTE_BYTES: beyond that the one that frees takes
 * the lock, drains, and if the owner has not drained since the last time that was so, the bias is lost.
 *
 * The notes are a ring of units, for blocks of the heap's first region, which is the only one unless a backend's
 * regions are small; others take the lock. `pushed` counts notes and bytes in one word, so a compare-and-swap on it reserves a place
 * and keeps both bounds; the note follows, and the drainer stops at a place that is reserved and still empty.
 * `drained` is written by whoever holds the heap's lock. A place is reused when `drained` has passed it: it has been emptied before.
 * (tests/model/remote.pml)
 *
 * Two threads that free a block in the same instant, one of them the owner under its lock, may both succeed, as with small blocks.
 * Then the note is found not to hold when it is drained, and is passed over.
 *
 * Source: mimalloc's and snmalloc's lists of blocks freed by others (D. Leijen et al., "Mimalloc: Free List Sharding in Action",
 * 2019; P. Lietar et al., "snmalloc", 2019), as a bounded ring.
 */
#ifndef LARDER_SPAN_REMOTE_H
#define LARDER_SPAN_REMOTE_H

#include "region.h"

enum {
    REMOTE_SLOTS = 256,
    REMOTE_BYTES = 32 << 20,
    REMOTE_LONGEST_INTERVAL = 32,
    REMOTE_WANTED = 1 << 16, /* more than any interval: the next take is to drain */
    REMOTE_STREAM = 8
};

/* The first word of a block that waits, but for its length. No other word of this kind has all bits of a generation in a heap with notes. */
#define WORD_WAITING (WORD(WORD_LARGE_CACHED) | WORD_GENERATION_MASK)

/* Notes and bytes, both modulo 2^32, in one word. */
static inline uint64_t remote_advance(uint64_t count, uint32_t bytes)
{
    return ((count >> 32) + 1) << 32 | (uint32_t)((uint32_t)count + bytes);
}

struct span_remote {
    /* fixed while a block of it is in use; written under the heap's lock */
    _Alignas(64) _Atomic(struct region *) region;
    /* by those who free */
    _Alignas(64) _Atomic uint64_t pushed;
    _Atomic uint64_t seen; /* `drained`, as one of them last read it */
    /* by whoever holds the heap's lock */
    _Alignas(64) _Atomic uint64_t drained;
    bool
        by_owner; /* a take has drained since notes last were too many; guarded by the heap's lock */
    /* by threads that take from the heap; that several may do it at once does no harm */
    _Atomic uint32_t interval; /* takes from one look to the next */
    _Atomic uint32_t looks;    /* takes since the last one; with REMOTE_WANTED */
    _Atomic uint32_t notes;    /* how many had been pushed then, modulo 2^32 */
    _Alignas(64) _Atomic uint32_t slots[REMOTE_SLOTS]; /* units; 0: empty */
};

static inline bool remote_has_room(uint64_t pushed, uint64_t drained, uint32_t bytes)
{
    uint32_t waiting = (uint32_t)(pushed >> 32) - (uint32_t)(drained >> 32);
    uint32_t waiting_bytes = (uint32_t)pushed - (uint32_t)drained;
    return waiting < REMOTE_SLOTS && waiting_bytes < REMOTE_BYTES &&
           bytes <= REMOTE_BYTES - waiting_bytes;
}

/* Leaves a note of a block of so many bytes; false where there are too many. */
static inline bool span_remote_push(struct span_remote *remote, uint32_t start, size_t bytes)
{
    if (bytes > REMOTE_BYTES)
        return false;
    uint64_t pushed = atomic_load_explicit(&remote->pushed, memory_order_relaxed);
    do {
        /* acquire, both: pair with the releases of `seen` below and of `drained` in the drainer, so that the place is empty */
        uint64_t drained = atomic_load_explicit(&remote->seen, memory_order_acquire);
        if (!remote_has_room(pushed, drained, (uint32_t)bytes)) {
            drained = atomic_load_explicit(&remote->drained, memory_order_acquire);
            atomic_store_explicit(&remote->seen, drained, memory_order_release);
            if (!remote_has_room(pushed, drained, (uint32_t)bytes))
                return false;
        }
    } while (!atomic_compare_exchange_weak_explicit(&remote->pushed, &pushed,
                                                    remote_advance(pushed, (uint32_t)bytes),
                                                    memory_order_relaxed, memory_order_relaxed));
    /* release: pairs with the acquire of the drainer: the block is free */
    atomic_store_explicit(&remote->slots[(pushed >> 32) % REMOTE_SLOTS], start,
                          memory_order_release);
    return true;
}

/* Bytes, as asked for, of the blocks that wait. */
static inline uint32_t span_remote_bytes(const struct span_remote *remote)
{
    struct span_remote *r = (struct span_remote *)(uintptr_t)remote;
    return (uint32_t)atomic_load_explicit(&r->pushed, memory_order_relaxed) -
           (uint32_t)atomic_load_explicit(&r->drained, memory_order_relaxed);
}

/* How many wait, places reserved included. */
static inline uint32_t span_remote_count(const struct span_remote *remote)
{
    struct span_remote *r = (struct span_remote *)(uintptr_t)remote;
    return (uint32_t)(atomic_load_explicit(&r->pushed, memory_order_relaxed) >> 32) -
           (uint32_t)(atomic_load_explicit(&r->drained, memory_order_relaxed) >> 32);
}

/*
 * Every `interval` takes: the more notes have come since the last time, whoever has drained them, the more seldom it is worth a look.
 */
static inline void span_remote_adapt(struct span_remote *remote, uint32_t interval)
{
    uint32_t notes = (uint32_t)(atomic_load_explicit(&remote->pushed, memory_order_relaxed) >> 32);
    uint32_t count = notes - atomic_load_explicit(&remote->notes, memory_order_relaxed);
    atomic_store_explicit(&remote->notes, notes, memory_order_relaxed);
    uint32_t next = count == 0 || count * 4 < interval ? interval / 2 : interval * 2;
    if (next == 0)
        next = 1;
    if (next > REMOTE_LONGEST_INTERVAL)
        next = REMOTE_LONGEST_INTERVAL;
    if (next != interval)
        atomic_store_explicit(&remote->interval, next, memory_order_relaxed);
}

/* For a thread about to take: whether it should drain first. */
static inline bool span_remote_is_due(struct span_remote *remote)
{
    uint32_t looks = atomic_load_explicit(&remote->looks, memory_order_relaxed) + 1;
    uint32_t interval = atomic_load_explicit(&remote->interval, memory_order_relaxed);
    bool look = looks >= interval, wanted = (looks & REMOTE_WANTED) != 0;
    atomic_store_explicit(&remote->looks,
                          wanted ? looks - REMOTE_WANTED
                          : look ? 0
                                 : looks,
                          memory_order_relaxed);
    if (__builtin_expect(!look, 1))
        return false;
    if (!wanted)
        span_remote_adapt(remote, interval);
    return span_remote_count(remote) != 0;
}

/* Blocks have been coming back in numbers: in an order that never comes again. */
static inline bool span_remote_is_stream(const struct span_remote *remote)
{
    return atomic_load_explicit(&((struct span_remote *)(uintptr_t)remote)->interval,
                                memory_order_relaxed) >= REMOTE_STREAM;
}

/* The next take is to drain. */
static inline void span_remote_want(struct span_remote *remote)
{
    uint32_t looks = atomic_load_explicit(&remote->looks, memory_order_relaxed);
    atomic_store_explicit(&remote->looks, looks | REMOTE_WANTED, memory_order_relaxed);
}

/* In the child of a fork: what others had reserved and not noted is passed over. */
void span_remote_fork_child(struct span_remote *remote);

#endif
