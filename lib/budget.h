/* SPDX-License-Identifier: MIT */
/*
 * The adaptive budget of an instance: how much touched free memory may wait in its heaps. The theory is in budget.c.
 */
#ifndef LARDER_BUDGET_H
#define LARDER_BUDGET_H

#include <stddef.h>
#include <stdint.h>

#include "patience.h"
#include "spinlock.h"

struct larder;

struct budget {
    spinlock_t lock;
    uint64_t peak;       /* bytes: the working set; guarded by lock, as all below */
    uint64_t credit;     /* bytes that may still be given back early */
    uint32_t operations; /* of the heaps, when there was reason for hope last; modulo 2^32 */
    struct patience patience;
};

/*
 * To be called when spans have been taken of which pages are fresh, before they are used: keeps the budget, and notes what is
 * held at its highest. No lock may be held.
 */
void budget_keep(struct larder *instance);

/*
 * A thread takes its blocks from another heap from now on, and has left one in which so many bytes are free: it will touch fresh
 * pages, for which as many of those may go. No lock may be held.
 */
void budget_note_move(struct larder *instance, uint64_t bytes);

/* How long memory has to be idle now before it is given back within a call. */
uint32_t budget_wait_ms(struct larder *instance, uint32_t now_ms);

/* `bytes` of idle memory have been given back: what is left is the working set. */
void budget_note_decay(struct larder *instance, uint32_t now_ms, uint64_t bytes);

#endif
