/* SPDX-License-Identifier: MIT */
/*
 * The loops that perform operations. A pass is one call of such a loop, or one for each step of a
 * lane. Private to replay*.c.
 *
 * A timed loop exists once for each kind of touching, so that nothing is decided in it: it holds a
 * switch, a slot, the call, and the reads and writes of `touch`. That much is the harness's own cost. The
 * loops that count or check instead are never timed.
 */
#ifndef LARDER_TRACE_REPLAY_KERNEL_H
#define LARDER_TRACE_REPLAY_KERNEL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "allocator.h"
#include "program.h"
#include "replay.h"

/* What was found wrong with a block, by the checking loop. */
struct replay_fault {
    const char *what;
    uint64_t size;     /* of the block */
    uint64_t at;       /* offset of the first byte that is wrong */
    unsigned expected; /* the bytes */
    unsigned found;
};

/* What the loops that are not timed share between the threads of a replay. */
struct replay_tally {
    _Atomic uint64_t live_bytes;
    _Atomic uint64_t peak_live_bytes;
    _Atomic uint64_t checked_blocks;
    _Atomic bool faulty; /* who sets it first fills `fault` */
    struct replay_fault fault;
};

/* What a slot's block is, for those loops. Guarded as its slot is: by the order of operations. */
struct replay_slot {
    uint64_t size;
    uint64_t stamp; /* which contents it was given: another at each allocation */
};

/* Where a loop works: one copy of a program. */
struct replay_view {
    const struct allocator *allocator;
    void **slots;
    size_t page_size;
    enum replay_touch touch; /* for the loops that are not made for one kind */
    bool read_before_free;
    struct replay_slot *about; /* by slot; only for the loops that are not timed */
    struct replay_tally *tally;
};

/* Performs operations; returns how many before one that failed, else `count`. */
typedef size_t replay_kernel(const struct replay_view *view, const struct program_op *ops,
                             size_t count);

/* The timed loop for this kind of touching. */
replay_kernel *replay_kernel_for(enum replay_touch touch, bool read_before_free);

/* Touches as the view says, and counts live bytes. */
replay_kernel replay_kernel_counting;

/*
 * Fills each block with contents of its own, and looks whether they are still there before the
 * block is freed, before it is resized and after; and whether aligned blocks are.
 */
replay_kernel replay_kernel_checking;

#endif
