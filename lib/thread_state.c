/* SPDX-License-Identifier: MIT */
/*
 * Theory
 *
 * A thread cache is written by its owner alone; the instance's list of them (guarded by instance->lock) is for
 * summing counters and asking for flushes. Cache records are type-stable, since a thread may still have a pointer
 * to the cache of an instance that was destroyed: it finds id 0 there, takes the slow path, and drops it.
 *
 * Asking for a flush: set flush_wanted, then id = 0. The owner's next call fails the id comparison, comes to
 * thread_cache_get(), sees the wish, flushes, and restores id. Both orders of the two stores are harmless: the
 * owner looks at the wish on every slow path.
 *
 * A cache is retired by larder_destroy() or by its thread's teardown, whichever gets there first under the registry lock, never by
 * both. cache->instance is cleared when larder_destroy() has done with the record (`retiring` meanwhile): the thread takes NULL as
 * leave to recycle it.
 */
#include "thread_state.h"

#include <pthread.h>

#include "fit.h"
#include "heaps.h"
#include "meta.h"
#include "planned.h"

enum {
    BORROW_STEP = 8 * 1024,
    BORROW_SHARE = 2 /* of what a thread has of its own, at most */
};

struct thread_cache no_thread_cache;
struct region no_region = {.base = UINTPTR_MAX};

LARDER_TLS struct thread_state thread_state = {
    .direct = {&no_thread_cache, &no_thread_cache, &no_thread_cache, &no_thread_cache,
               &no_thread_cache, &no_thread_cache, &no_thread_cache, &no_thread_cache},
    .hint = &no_region,
    .small_hint = &no_region,
};

static struct meta_pool cache_pool = META_POOL(struct thread_cache);
static spinlock_t registry =
    SPINLOCK_OF(RANK_CACHES); /* who retires a cache: its thread's teardown or larder_destroy() */

static pthread_key_t teardown_key;
static pthread_once_t teardown_once = PTHREAD_ONCE_INIT;
static bool teardown_usable;

static struct larder *instance_of(const struct thread_cache *cache)
{
    return atomic_load_explicit(&((struct thread_cache *)(uintptr_t)cache)->instance,
                                memory_order_relaxed);
}

static void forget_direct(const struct thread_cache *cache)
{
    for (int i = 0; i < DIRECT_CACHES; i++) {
        if (thread_state.direct[i] == cache)
            thread_state.direct[i] = &no_thread_cache;
    }
}

void thread_note_meeting(struct span_heap *heap, unsigned weight)
{
    struct thread_crowd *crowd = &thread_state.crowd;
    uint32_t now = os_now_ms();
    if (crowd->enough == 0)
        crowd->enough = CROWD_MEETINGS;
    if (crowd->heap != heap || os_is_idle(crowd->since_ms, now, CROWD_MS)) {
        crowd->heap = heap;
        crowd->meetings = 0;
        crowd->since_ms = now;
    }
    crowd->meetings += weight;
}

void thread_crowd_left(void)
{
    struct thread_crowd *crowd = &thread_state.crowd;
    crowd->heap = NULL;
    if (crowd->enough < CROWD_MOST_MEETINGS)
        crowd->enough *= 2;
}

static void add_ended(struct larder *instance, const struct thread_cache *cache)
{
    _Atomic uint64_t *sums = (_Atomic uint64_t *)&instance->ended;
    const _Atomic uint64_t *counters = (const _Atomic uint64_t *)&cache->counters;
    for (size_t i = 0; i < COUNTERS; i++) {
        uint64_t n =
            atomic_load_explicit((_Atomic uint64_t *)(uintptr_t)&counters[i], memory_order_relaxed);
        atomic_fetch_add_explicit(&sums[i], n, memory_order_relaxed);
    }
}

/* Out of the instance's list, its counts kept. instance->lock held. */
static void unlink_cache(struct larder *instance, struct thread_cache *cache)
{
    if (cache->prev != NULL)
        cache->prev->next = cache->next;
    if (cache->next != NULL)
        cache->next->prev = cache->prev;
    if (instance->thread_caches == cache)
        instance->thread_caches = cache->next;
    instance->thread_cache_count--;
    heaps_leave(cache);
    add_ended(instance, cache);
}

/* Spans of any whole number of units, without a cap to be accounted to, may go straight to the heap. */
static size_t span_limit(const struct larder *instance)
{
    if (!instance->plain || instance->capped || instance->heap.step != 1)
        return 0;
    if (instance->config.policy == LARDER_POLICY_PLANNED)
        return 0; /* recordings must see each of them */
    size_t limit = ((size_t)region_max_units() - 1) << UNIT_SHIFT;
    return limit < instance->config.max_cached_size ? limit : instance->config.max_cached_size;
}

static void cache_init(struct thread_cache *cache, struct larder *instance)
{
    for (size_t i = 0; i < COUNTERS; i++) {
        atomic_store_explicit(&((_Atomic uint64_t *)&cache->counters)[i], 0, memory_order_relaxed);
    }
    cache->class_limit = instance->plain ? instance->class_limit : 0;
    cache->span_limit = span_limit(instance);
    cache->puts = 0;
    cache->stream = cache->own_stream = NULL;
    cache->hit_path = instance->plain && policy_cuts_regions(instance->config.policy);
    cache->shared = false;
    cache->live_told = 0;
    cache->lease = instance->capped ? 0 : instance->config.thread_cached_bytes;
    atomic_store_explicit(&cache->room, cache->lease, memory_order_relaxed);
    atomic_store_explicit(&cache->flush_wanted, false, memory_order_relaxed);
    cache->sweep = 0;
    cache->allotted_bins = 0;
    atomic_store_explicit(&cache->instance, instance, memory_order_relaxed);
    cache->exact = instance->config.policy == LARDER_POLICY_EXACT ? exact_table_get() : NULL;
    for (unsigned c = 0; c < SIZE_CLASS_MAX_COUNT; c++) {
        struct bin *bin = &cache->bins[c];
        bin->allotted = 0;
        bin_clear(bin);
        bin->bytes = instance->depots[c].block_size;
        bin->capacity = magazine_capacity(bin->bytes);
        bin->reciprocal =
            bin->bytes < UNIT && bin->bytes != 0 ? (65535 + bin->bytes) / bin->bytes : 0;
    }
    uint32_t id = cache->hit_path ? instance->id : 0;
    atomic_store_explicit(&cache->id, id, memory_order_relaxed);
}

static struct thread_cache *cache_create(struct larder *instance)
{
    struct thread_cache *cache = meta_pool_get(&cache_pool);
    if (cache == NULL)
        return NULL;
    cache_init(cache, instance);
    cache->next_of_thread = thread_state.caches;
    thread_state.caches = cache;
    spinlock_lock(&instance->lock);
    cache->prev = NULL;
    cache->next = instance->thread_caches;
    if (cache->next != NULL)
        cache->next->prev = cache;
    instance->thread_caches = cache;
    instance->thread_cache_count++;
    heaps_join(cache, &instance->heap);
    spinlock_unlock(&instance->lock);
    return cache;
}

/* Takes the own cache away from its instance, which is returned if it still exists: then nobody else will retire it. */
static struct larder *cache_detach(struct thread_cache *cache)
{
    for (;;) {
        spinlock_lock(&registry);
        bool retiring = cache->retiring;
        struct larder *instance = instance_of(cache);
        if (!retiring)
            atomic_store_explicit(&cache->instance, NULL, memory_order_relaxed);
        spinlock_unlock(&registry);
        if (!retiring)
            return instance;
        os_yield(); /* larder_destroy() is flushing it */
    }
}

static void cache_retire(struct larder *instance, struct thread_cache *cache)
{
    thread_cache_flush(instance, cache);
    planned_thread_ends(cache);
    atomic_store_explicit(&cache->id, 0, memory_order_relaxed);
    spinlock_lock(&instance->lock);
    unlink_cache(instance, cache);
    spinlock_unlock(&instance->lock);
    if (cache->exact != NULL)
        exact_table_put(cache->exact);
    cache->exact = NULL;
}

static void teardown(void *unused)
{
    (void)unused;
    thread_state.phase = THREAD_ENDED;
    for (int i = 0; i < DIRECT_CACHES; i++)
        thread_state.direct[i] = &no_thread_cache;
    while (thread_state.caches != NULL) {
        struct thread_cache *cache = thread_state.caches;
        thread_state.caches = cache->next_of_thread;
        struct larder *instance = cache_detach(cache);
        if (instance != NULL) {
            cache_retire(instance, cache);
        }
        meta_pool_put(&cache_pool, cache);
    }
    cache_disown_heaps(&thread_state.lock_user); /* also of instances that it has only looked at */
}

static void make_key(void)
{
    os_barrier_prepare();
    teardown_usable = pthread_key_create(&teardown_key, teardown) == 0;
}

static bool thread_activate(void)
{
    if (thread_state.phase == THREAD_ACTIVE)
        return true;
    if (thread_state.phase == THREAD_ENDED)
        return false;
    pthread_once(&teardown_once, make_key);
    if (!teardown_usable || pthread_setspecific(teardown_key, &thread_state) != 0)
        return false;
    thread_state.phase = THREAD_ACTIVE;
    return true;
}

/* Recycles caches of instances that are gone. */
static void drop_dead(void)
{
    struct thread_cache **at = &thread_state.caches;
    while (*at != NULL) {
        struct thread_cache *cache = *at;
        spinlock_lock(&registry);
        bool dead = instance_of(cache) == NULL;
        spinlock_unlock(&registry);
        if (!dead) {
            at = &cache->next_of_thread;
            continue;
        }
        *at = cache->next_of_thread;
        forget_direct(cache);
        meta_pool_put(&cache_pool, cache);
    }
}

static struct thread_cache *cache_find(const struct larder *instance)
{
    struct thread_cache *cache = thread_state.caches;
    while (cache != NULL && instance_of(cache) != instance)
        cache = cache->next_of_thread;
    return cache;
}

/* A wish that comes while id is being restored is seen by one side or the other: both store, then load. */
static void restore_hit_path(struct thread_cache *cache, const struct larder *instance)
{
    if (!cache->hit_path)
        return;
    atomic_store(&cache->id, instance->id);
    if (atomic_load(&cache->flush_wanted))
        atomic_store(&cache->id, 0);
}

__attribute__((noinline)) struct thread_cache *thread_cache_get(struct larder *instance)
{
    if (thread_state.phase != THREAD_ACTIVE && !thread_activate())
        return &instance->late;
    if (atomic_load_explicit(&instance->orphaned, memory_order_relaxed))
        return &instance->late;
    struct thread_cache *cache = thread_state.direct[instance->slot];
    if (instance_of(cache) != instance)
        cache = cache_find(instance);
    if (cache == NULL) {
        drop_dead();
        cache = cache_create(instance);
        if (cache == NULL)
            return &instance->late;
    }
    thread_state.direct[instance->slot] = cache;
    if (atomic_load(&cache->flush_wanted)) {
        atomic_store(&cache->flush_wanted, false);
        thread_cache_flush(instance, cache);
        restore_hit_path(cache, instance);
    }
    return cache;
}

uint64_t thread_cache_bytes(const struct thread_cache *cache)
{
    if (cache->exact != NULL) {
        size_t lease = atomic_load_explicit(&((struct thread_cache *)(uintptr_t)cache)->lease,
                                            memory_order_relaxed);
        size_t room = thread_cache_room(cache);
        return lease > room ? lease - room : 0;
    }
    uint64_t bytes = 0;
    for (unsigned c = 0; c < SIZE_CLASS_MAX_COUNT; c++)
        bytes += (uint64_t)bin_count_of_other_thread(&cache->bins[c]) * cache->bins[c].bytes;
    return bytes;
}

uint64_t thread_cache_blocks(const struct thread_cache *cache)
{
    uint64_t blocks = 0;
    for (unsigned c = 0; c < SIZE_CLASS_MAX_COUNT; c++)
        blocks += bin_count_of_other_thread(&cache->bins[c]);
    return blocks;
}

/* `bytes` for the lease from the instance's cap. */
static bool lease_under_cap(struct larder *instance, struct thread_cache *cache, size_t bytes)
{
    size_t bound = instance->config.thread_cached_bytes;
    if (cache->lease + bytes > bound || !cache_reserve(instance, bytes))
        return false;
    cache->lease += bytes;
    return true;
}

/* At least `bytes` for the lease from the common room; how many. 0: there are not so many, or the thread has had its part. */
static size_t borrow(struct larder *instance, struct thread_cache *cache, size_t bytes)
{
    size_t own = instance->config.thread_cached_bytes, borrowed = cache->lease - own;
    size_t part = own <= SIZE_MAX / BORROW_SHARE ? BORROW_SHARE * own - borrowed : 0;
    size_t left = atomic_load_explicit(&instance->common_room, memory_order_relaxed), taken;
    do {
        size_t most = left < part ? left : part;
        if (most < bytes || cache->exact != NULL)
            return 0;
        taken = bytes > BORROW_STEP ? bytes : most < BORROW_STEP ? most : BORROW_STEP;
    } while (!atomic_compare_exchange_weak_explicit(&instance->common_room, &left, left - taken,
                                                    memory_order_relaxed, memory_order_relaxed));
    cache->lease += taken;
    return taken;
}

/* The lease as it is at first. Nothing may be in the cache. */
static void end_lease(struct larder *instance, struct thread_cache *cache)
{
    size_t lease = cache->lease, own = instance->capped ? 0 : instance->config.thread_cached_bytes;
    if (instance->capped) {
        cache_unreserve(instance, lease);
    } else if (lease > own) {
        atomic_fetch_add_explicit(&instance->common_room, lease - own, memory_order_relaxed);
    } else {
        return;
    }
    cache->lease = own;
    atomic_store_explicit(&cache->room, own, memory_order_relaxed);
}

bool thread_cache_take(struct thread_cache *cache, size_t bytes)
{
    size_t room = thread_cache_room(cache);
    if (room < bytes) {
        struct larder *instance = instance_of(cache);
        if (cache->shared)
            return false;
        if (!instance->capped) {
            room += borrow(instance, cache, bytes - room);
        } else if (lease_under_cap(instance, cache, bytes)) {
            room += bytes;
        }
        if (room < bytes)
            return false;
    }
    atomic_store_explicit(&cache->room, room - bytes, memory_order_relaxed);
    return true;
}

void thread_cache_flush(struct larder *instance, struct thread_cache *cache)
{
    if (instance->config.policy == LARDER_POLICY_EXACT) {
        exact_flush(instance, cache);
    } else {
        fit_flush(instance, cache);
    }
    end_lease(instance, cache);
}

void thread_state_flush(struct larder *instance)
{
    for (struct thread_cache *cache = thread_state.caches; cache != NULL;
         cache = cache->next_of_thread) {
        struct larder *owner = instance_of(cache);
        if (owner == NULL || (instance != NULL && owner != instance))
            continue;
        /* another thread may be destroying it: then that one flushes the cache */
        if (cache_begin_visit(owner, cache)) {
            thread_cache_flush(owner, cache);
            cache_end_visit(owner);
        }
    }
}

void thread_caches_drop(struct larder *instance)
{
    for (;;) {
        spinlock_lock(&instance->lock);
        struct thread_cache *cache = instance->thread_caches;
        spinlock_unlock(&instance->lock);
        if (cache == NULL)
            return;
        spinlock_lock(&registry);
        bool ours = instance_of(cache) == instance;
        cache->retiring = ours;
        spinlock_unlock(&registry);
        if (!ours) {
            os_yield(); /* its thread is just ending and will unlink it */
            continue;
        }
        cache_retire(instance, cache);
        /* only now may its thread recycle it */
        spinlock_lock(&registry);
        cache->retiring = false;
        atomic_store_explicit(&cache->instance, NULL, memory_order_relaxed);
        spinlock_unlock(&registry);
    }
}

void thread_caches_want_flush(struct larder *instance)
{
    spinlock_lock(&instance->lock);
    for (struct thread_cache *cache = instance->thread_caches; cache != NULL; cache = cache->next) {
        atomic_store(&cache->flush_wanted, true);
        atomic_store(&cache->id, 0);
    }
    spinlock_unlock(&instance->lock);
}

void thread_caches_fork_child(struct larder *instance)
{
    struct thread_cache *mine = cache_find(instance);
    planned_fork_child(instance, mine != NULL ? mine->own_stream : NULL);
    /* What other threads had in their magazines is lost to the child: the magazines may be torn. The records stay
     * linked for their counters; only the own cache goes on. */
    for (uint32_t i = 1; i < heaps_count(instance); i++)
        heaps_at(instance, i)->users = 0;
    size_t own = instance->config.thread_cached_bytes, lease = mine != NULL ? mine->lease : 0;
    atomic_store_explicit(&instance->common_room,
                          instance->common_bytes - (lease > own ? lease - own : 0),
                          memory_order_relaxed);
    for (struct thread_cache *cache = instance->thread_caches; cache != NULL; cache = cache->next) {
        heaps_join(cache, cache == mine ? cache->heap : &instance->heap);
        if (cache == mine)
            continue;
        uint64_t lost = thread_cache_blocks(cache);
        count_add(cache, &cache->counters.blocks_moved, 0 - lost);
        for (unsigned c = 0; c < SIZE_CLASS_MAX_COUNT; c++) {
            bin_clear(&cache->bins[c]);
        }
        if (cache->exact != NULL)
            *cache->exact = (struct exact_table){0};
    }
}

void thread_state_fork_lock(void)
{
    spinlock_lock(&registry);
    spinlock_lock(&cache_pool.lock);
}

void thread_state_fork_unlock(void)
{
    spinlock_unlock(&cache_pool.lock);
    spinlock_unlock(&registry);
}

void thread_state_fork_child(void)
{
    spinlock_reset(&registry);
    spinlock_reset(&cache_pool.lock);
}
