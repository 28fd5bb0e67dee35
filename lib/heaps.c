/* SPDX-License-Identifier: MIT */
/*
 * Theory
 *
 * One heap of large blocks holds least: what one thread frees, the next one takes, and a sequence of takes and puts is seen
 * whole, so that it can be planned. Its lock costs nothing as long as threads come one after another, and little when they
 * meet now and then, as an engine's threads do, which compute between two blocks. Threads that do nothing but allocate are
 * much slower together than one of them alone, since the heap's lines travel between CPUs with each call, and a sequence
 * mixed with another one never repeats.
 *
 * So there is one heap until threads are seen to be in each other's way: a thread that wants to take, has to wait for
 * the lock (or to take its bias away) and finds that somebody else took last, has met that one. Who has met others
 * CROWD_MEETINGS times within CROWD_MS moves to the heap with the fewest threads, a new one if all have some. There it soon
 * has the lock's bias and loops of its own. What it has taken before goes back to where it came from: a block's region names its heap, and a
 * put goes there, whoever makes it. Waiting at puts is no evidence, since moving would not help: a producer, whose blocks
 * another thread frees, stays where it is. Each move of a thread doubles the meetings that it needs for the next.
 *
 * (Measured 2026-11 on two virtual CPUs, each meeting weighed as heap_lock_enter_slow() does: two threads with nothing but pairs of
 * 1.5 MiB meet 23 times a millisecond each; four that replay the recorded threads of an engine, without its computing, once in
 * a millisecond or two, and heaps of their own cost those up to half of their peak and save no time.)
 *
 * What a heap has on record of repeated sequences is forgotten when a thread leaves it: it may be of both. And what is free in it
 * then may be given back for what the thread goes on to take elsewhere.
 *
 * What the heaps hold together is bounded as before: the budget (budget.c) sums them, without their locks, and takes back from the one with most
 * free memory; decay and trims visit all. (When the budget took each heap's lock to look, each of 16 threads that began took the
 * bias from each of the others, again and again: 5000 times within 0.1 s.) Statistics sum them. A heap lives as long as its instance, is left to
 * others by threads that end, and costs some 100 KiB of address space and what of its tables is used.
 *
 * Only where blocks go straight to the heap (thread_cache.span_limit): a cap, checks and plans take longer ways, under which the lock
 * is not what costs.
 *
 * Which threads use which heap is guarded by instance->lock. Heaps are added at the end, under it, and never go, so they may
 * be visited without.
 *
 * Source: arenas of P.-H. Kamp's and J. Evans' mallocs, chosen by contention as in W. Gloger's ptmalloc.
 */
#include "heaps.h"

#include "meta.h"
#include "thread_state.h"

static struct meta_pool heap_pool = META_POOL(struct span_heap);

void heaps_join(struct thread_cache *cache, struct span_heap *heap)
{
    cache->heap = heap;
    heap->users++;
}

void heaps_leave(struct thread_cache *cache)
{
    cache->heap->users--;
}

static struct span_heap *create(struct larder *instance)
{
    struct span_heap *heap = meta_pool_get(&heap_pool);
    if (heap == NULL)
        return NULL;
    span_heap_init(heap, instance, instance->heap.step, instance->heap.front);
    heap->loops = span_loops_get(heap);
    return heap;
}

static void discard(struct span_heap *heap)
{
    if (heap->loops != NULL)
        span_loops_put(heap->loops);
    meta_pool_put(&heap_pool, heap);
}

/* instance->lock is held. */
static void install(struct larder *instance, struct span_heap *heap)
{
    uint32_t count = atomic_load_explicit(&instance->more_heaps_count, memory_order_relaxed);
    instance->more_heaps[count] = heap;
    /* release: pairs with the acquire in heaps_count() */
    atomic_store_explicit(&instance->more_heaps_count, count + 1, memory_order_release);
}

/* The heap of large blocks with the fewest threads. instance->lock is held. */
static struct span_heap *least_used(struct larder *instance)
{
    struct span_heap *least = &instance->heap;
    for (uint32_t i = 2; i < heaps_count(instance); i++) {
        if (heaps_at(instance, i)->users < least->users)
            least = heaps_at(instance, i);
    }
    return least;
}

/* True if the thread is better off there; one that is alone is not. */
static bool is_better(const struct span_heap *heap, const struct thread_cache *cache)
{
    return heap->users + 1 < cache->heap->users;
}

/* Nobody uses a new one. */
static bool wants_another(struct larder *instance, const struct thread_cache *cache)
{
    return cache->heap->users > 1 && least_used(instance)->users != 0 &&
           heaps_count(instance) - 2 < MORE_HEAPS;
}

void heaps_move(struct thread_cache *cache)
{
    struct larder *instance = atomic_load_explicit(&cache->instance, memory_order_relaxed);
    thread_crowd_left();
    spinlock_lock(&instance->lock);
    bool wanted = wants_another(instance, cache);
    spinlock_unlock(&instance->lock);
    struct span_heap *another = wanted ? create(instance) : NULL;
    spinlock_lock(&instance->lock);
    if (another != NULL && wants_another(instance, cache)) {
        install(instance, another);
        another = NULL;
    }
    struct span_heap *least = least_used(instance), *left = cache->heap;
    bool moves = is_better(least, cache);
    if (moves) {
        heaps_leave(cache);
        heaps_join(cache, least);
    }
    spinlock_unlock(&instance->lock);
    if (another != NULL) /* another thread was faster */
        discard(another);
    if (moves)
        budget_note_move(instance, span_heap_part(left));
}

void heaps_end(struct larder *instance)
{
    if (instance->heap.loops != NULL)
        span_loops_put(instance->heap.loops);
    for (uint32_t i = 2; i < heaps_count(instance); i++)
        discard(heaps_at(instance, i));
}

void heaps_fork_lock(void)
{
    spinlock_lock(&heap_pool.lock);
}

void heaps_fork_unlock(void)
{
    spinlock_unlock(&heap_pool.lock);
}

void heaps_fork_child(void)
{
    spinlock_reset(&heap_pool.lock);
}
