/* SPDX-License-Identifier: MIT */
/*
 * The span heaps of an instance: one for small blocks, and one for large blocks until threads are in each other's way.
 * The theory is in heaps.c.
 */
#ifndef LARDER_HEAPS_H
#define LARDER_HEAPS_H

#include "cache.h"

/* How many there are; it only grows. What is at 0 is the one for small blocks, at 1 the first for large ones. */
static inline uint32_t heaps_count(const struct larder *instance)
{
    /* acquire: pairs with the release in install(): the heap is there */
    return 2 + atomic_load_explicit(&((struct larder *)(uintptr_t)instance)->more_heaps_count,
                                    memory_order_acquire);
}

static inline struct span_heap *heaps_at(struct larder *instance, uint32_t i)
{
    return i == 0 ? &instance->small_heap : i == 1 ? &instance->heap : instance->more_heaps[i - 2];
}

/* A thread begins or ends to take its large blocks from a heap; instance->lock is held. */
void heaps_join(struct thread_cache *cache, struct span_heap *heap);
void heaps_leave(struct thread_cache *cache);

/* The thread has met others in its heap so often that it goes to another, if there is a better one. No lock may be held. */
void heaps_move(struct thread_cache *cache);

/* Gives up what the heaps have beside the instance; nobody may be inside. */
void heaps_end(struct larder *instance);

void heaps_fork_lock(void);
void heaps_fork_unlock(void);
void heaps_fork_child(void);

#endif
