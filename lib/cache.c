/* SPDX-License-Identifier: MIT */
/*
 * Instances: creation, the list of all, destruction, fork. What they hold and give back is in give_back.c.
 *
 * Fork. The handlers take every lock in the documented order, so that the child's copy is consistent.
 * The parent unlocks; the child, alone, resets them (and registers anew for the barrier of heap_lock.h). What other threads had in their magazines is lost to the child.
 */
#include "cache.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "backend.h"
#include "cache_check.h"
#include "debug.h"
#include "fit.h"
#include "heaps.h"
#include "meta.h"
#include "planned.h"
#include "poison.h"
#include "thread_state.h"

static struct {
    spinlock_t lock;
    struct larder *first; /* guarded by lock, newest first; orphans included */
    uint32_t last_id;     /* guarded by lock */
} registry = {.lock = SPINLOCK_OF(RANK_INSTANCES)};

static struct meta_pool larder_pool = META_POOL(struct larder);

/* ---- instances ---- */

struct larder *cache_next_instance(struct larder *previous)
{
    spinlock_lock(&registry.lock);
    struct larder *next = previous == NULL ? registry.first : previous->next;
    while (next != NULL && next->ending)
        next = next->next;
    if (next != NULL)
        next->visitors++;
    if (previous != NULL)
        previous->visitors--;
    spinlock_unlock(&registry.lock);
    return next;
}

bool cache_begin_visit(struct larder *instance, const struct thread_cache *cache)
{
    spinlock_lock(&registry.lock);
    /* relaxed: written before the instance leaves the registry, under whose lock it is read */
    struct larder *owner = atomic_load_explicit(
        &((struct thread_cache *)(uintptr_t)cache)->instance, memory_order_relaxed);
    bool there = owner == instance && !instance->ending;
    if (there)
        instance->visitors++;
    spinlock_unlock(&registry.lock);
    return there;
}

void cache_end_visit(struct larder *instance)
{
    spinlock_lock(&registry.lock);
    instance->visitors--;
    spinlock_unlock(&registry.lock);
}

/* Lets nobody visit the instance any more, and waits for those who do. */
static void end_visits(struct larder *instance)
{
    bool visited;
    do {
        spinlock_lock(&registry.lock);
        instance->ending = true;
        visited = instance->visitors != 0;
        spinlock_unlock(&registry.lock);
        if (visited)
            os_yield();
    } while (visited);
}

void cache_disown_heaps(const heap_lock_user_t *self)
{
    spinlock_lock(&registry.lock);
    for (struct larder *l = registry.first; l != NULL; l = l->next) {
        for (uint32_t i = 0; i < heaps_count(l); i++)
            heap_lock_disown(&heaps_at(l, i)->lock, self);
    }
    spinlock_unlock(&registry.lock);
}

static void registry_add(struct larder *instance)
{
    spinlock_lock(&registry.lock);
    instance->id = ++registry.last_id;
    instance->slot = instance->id % DIRECT_CACHES;
    instance->prev = NULL;
    instance->next = registry.first;
    if (registry.first != NULL)
        registry.first->prev = instance;
    registry.first = instance;
    spinlock_unlock(&registry.lock);
}

static void registry_remove(struct larder *instance)
{
    spinlock_lock(&registry.lock);
    if (instance->prev != NULL)
        instance->prev->next = instance->next;
    if (instance->next != NULL)
        instance->next->prev = instance->prev;
    if (registry.first == instance)
        registry.first = instance->next;
    spinlock_unlock(&registry.lock);
}

static size_t round_up(size_t value, size_t multiple)
{
    return (value + multiple - 1) & ~(multiple - 1);
}

/* Where in its span or backend allocation a block begins, and what follows it. */
static void set_edges(struct larder *instance)
{
    const larder_config_t *config = &instance->config;
    bool fit = policy_cuts_regions(config->policy);
    /* Under `fit` whatever precedes and follows a block is readable, unless it is poisoned; up to 64 bytes need no room
     * of their own. */
    size_t nothing = fit && !POISON_ACTIVE ? 64 : 0;
    size_t before = config->padding_before <= nothing ? 0 : config->padding_before;
    size_t after = config->padding_after <= nothing ? 0 : config->padding_after;
    if (before < config->redzone)
        before = config->redzone;
    if (after < config->redzone)
        after = config->redzone;
    size_t multiple = config->alignment;
    if (fit && multiple < UNIT)
        multiple = UNIT;
    if (fit && instance->capped && multiple < os_page_size())
        multiple = os_page_size();
    instance->front = round_up(before, multiple);
    instance->back = after;
}

static int set_backend(struct larder *instance)
{
    const larder_backend_t *backend = instance->config.backend;
    if (backend == NULL) {
        backend = policy_cuts_regions(instance->config.policy) ? larder_backend_mmap()
                                                               : larder_backend_system();
    }
    int error = backend_copy(&instance->backend, backend);
    instance->config.backend = &instance->backend;
    instance->backend_reserves = backend_is_mmap(&instance->backend);
    return error;
}

/* As much for each processor as a thread has of its own: so many can be at work at once. */
static size_t common_bytes(const larder_config_t *config)
{
    unsigned processors = os_processors();
    if (processors > COMMON_ROOM_PROCESSORS)
        processors = COMMON_ROOM_PROCESSORS;
    size_t bytes;
    return __builtin_mul_overflow(config->thread_cached_bytes, processors, &bytes) ? SIZE_MAX
                                                                                   : bytes;
}

static int instance_init(struct larder *instance, const char *name, const larder_config_t *config)
{
    memset(instance, 0, sizeof *instance);
    instance->config = *config;
    strncpy(instance->name, name != NULL ? name : "larder", sizeof instance->name - 1);
    int error = set_backend(instance);
    if (error != 0)
        return error;
    instance->capped = config->max_cached_bytes < LARDER_ADAPTIVE;
    instance->balanced =
        config->max_cached_bytes == LARDER_ADAPTIVE && backend_can_discard(instance);
    instance->class_shift = (unsigned)__builtin_ctzll(config->alignment);
    if (instance->class_shift < SIZE_CLASS_STEP_SHIFT)
        instance->class_shift = SIZE_CLASS_STEP_SHIFT;
    instance->class_count = size_class_of(SIZE_CLASS_LIMIT, instance->class_shift) + 1;
    for (size_t step = 0; step < SIZE_CLASS_STEPS; step++) {
        size_t size = step << SIZE_CLASS_STEP_SHIFT;
        instance->bin_offsets[step] = bin_offset(size_class_of(size, instance->class_shift));
    }
    instance->class_limit = SIZE_CLASS_LIMIT;
    spinlock_set_rank(&instance->lock, RANK_INSTANCE);
    spinlock_set_rank(&instance->budget.lock, RANK_BUDGET);
    set_edges(instance);
    instance->plain = instance->front == 0 && instance->back == 0 && config->fill < 0 &&
                      config->checks == LARDER_CHECKS_DEFAULT && config->quarantine_bytes == 0 &&
                      policy_cuts_regions(config->policy);
    fit_init(instance);
    instance->common_bytes = common_bytes(config);
    atomic_store_explicit(&instance->common_room, instance->common_bytes, memory_order_relaxed);
    if (config->policy == LARDER_POLICY_EXACT)
        error = exact_init(&instance->exact);
    if (error == 0)
        error = planned_init(instance);
    if (error == 0)
        error = quarantine_init(instance);
    instance->late.shared = true;
    instance->late.heap = &instance->heap;
    atomic_store_explicit(&instance->late.instance, instance, memory_order_relaxed);
    atomic_store_explicit(&instance->last_tick_ms, os_now_ms(), memory_order_relaxed);
    return error;
}

static void arm_fork_handlers(void)
{
    pthread_atfork(cache_fork_prepare, cache_fork_parent, cache_fork_child);
}

struct larder *cache_create_instance(const char *name, const larder_config_t *config)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, arm_fork_handlers);
    struct larder *instance = NULL;
    int error = allocation_map_prepare();
    if (error == 0) {
        instance = meta_pool_get(&larder_pool);
        error = instance != NULL ? instance_init(instance, name, config) : -ENOMEM;
    }
    if (error != 0) {
        if (instance != NULL)
            meta_pool_put(&larder_pool, instance);
        errno = -error;
        return NULL;
    }
    registry_add(instance);
    return instance;
}

static size_t cache_live_blocks(struct larder *instance)
{
    union {
        uint64_t sums[COUNTERS];
        struct {
            uint64_t allocations, frees, allocated_bytes, freed_bytes, span_allocations, span_frees;
        } is;
    } all;
    cache_sum_counters(instance, all.sums);
    return (size_t)(all.is.allocations - all.is.frees + all.is.span_allocations -
                    all.is.span_frees);
}

static void instance_end(struct larder *instance)
{
    planned_end(instance);
    cache_release_regions(instance);
    cache_check_end(instance);
    registry_remove(instance);
    heaps_end(instance);
    meta_pool_put(&larder_pool, instance);
}

size_t cache_destroy_instance(struct larder *instance)
{
    end_visits(instance);
    quarantine_end(instance);
    atomic_store_explicit(&instance->orphaned, true, memory_order_relaxed);
    thread_caches_drop(instance);
    fit_drain_depots(instance);
    cache_give_back_all(instance);
    size_t live = cache_live_blocks(instance);
    if (live != 0)
        debug_report_leaks(instance, live);
    if (live == 0) {
        instance_end(instance);
    } else {
        atomic_store_explicit(&instance->orphans, live, memory_order_relaxed);
    }
    return live;
}

void cache_orphan_allocated(struct larder *instance)
{
    /* relaxed: the caller has a block of it, so it does not end meanwhile */
    atomic_fetch_add_explicit(&instance->orphans, 1, memory_order_relaxed);
}

void cache_orphan_freed(struct larder *instance)
{
    fit_release_spares(instance);
    cache_give_back_all(instance);
    /* acq_rel: the last one sees everything that the others did to the instance before it ends it */
    if (atomic_fetch_sub_explicit(&instance->orphans, 1, memory_order_acq_rel) == 1) {
        instance_end(instance);
    }
}

/* ---- fork ---- */

void cache_fork_prepare(void)
{
    witness_look_away();
    thread_state_fork_lock();
    spinlock_lock(&registry.lock);
    for (struct larder *l = registry.first; l != NULL; l = l->next) {
        spinlock_lock(&l->lock);
        for (unsigned c = 0; c < l->class_count; c++)
            spinlock_lock(&l->depots[c].lock);
        exact_fork_lock(&l->exact);
        spinlock_lock(&l->quarantine.lock);
        planned_fork_lock(l);
        for (uint32_t i = 0; i < heaps_count(l); i++)
            span_heap_lock_for_fork(heaps_at(l, i));
        for (struct region *r = l->small_heap.regions; r != NULL; r = r->next) {
            spinlock_lock(&r->runs_lock);
        }
    }
    allocation_map_fork_lock();
    spinlock_lock(&larder_pool.lock);
    region_fork_lock();
    heaps_fork_lock();
    span_loops_fork_lock();
    exact_tables_fork_lock();
    block_fork_lock();
    magazine_fork_lock();
    meta_fork_lock();
}

void cache_fork_parent(void)
{
    meta_fork_unlock();
    magazine_fork_unlock();
    block_fork_unlock();
    exact_tables_fork_unlock();
    span_loops_fork_unlock();
    heaps_fork_unlock();
    region_fork_unlock();
    spinlock_unlock(&larder_pool.lock);
    allocation_map_fork_unlock();
    for (struct larder *l = registry.first; l != NULL; l = l->next) {
        for (struct region *r = l->small_heap.regions; r != NULL; r = r->next) {
            spinlock_unlock(&r->runs_lock);
        }
        for (uint32_t i = 0; i < heaps_count(l); i++)
            heap_lock_leave(&heaps_at(l, i)->lock);
        planned_fork_unlock(l);
        spinlock_unlock(&l->quarantine.lock);
        exact_fork_unlock(&l->exact);
        for (unsigned c = 0; c < l->class_count; c++)
            spinlock_unlock(&l->depots[c].lock);
        spinlock_unlock(&l->lock);
    }
    spinlock_unlock(&registry.lock);
    thread_state_fork_unlock();
    witness_look_again();
}

void cache_fork_child(void)
{
    os_barrier_prepare();
    meta_fork_child();
    magazine_fork_child();
    block_fork_child();
    region_fork_child();
    heaps_fork_child();
    span_loops_fork_child();
    exact_tables_fork_child();
    spinlock_reset(&larder_pool.lock);
    allocation_map_fork_child();
    for (struct larder *l = registry.first; l != NULL; l = l->next) {
        for (struct region *r = l->small_heap.regions; r != NULL; r = r->next) {
            spinlock_reset(&r->runs_lock);
        }
        for (uint32_t i = 0; i < heaps_count(l); i++) {
            heap_lock_reset(&heaps_at(l, i)->lock);
            span_remote_fork_child(&heaps_at(l, i)->remote);
        }
        exact_fork_child(&l->exact);
        spinlock_reset(&l->quarantine.lock);
        for (unsigned c = 0; c < l->class_count; c++)
            spinlock_reset(&l->depots[c].lock);
        spinlock_reset(&l->budget.lock);
        spinlock_reset(&l->lock);
        l->visitors = 0; /* they were other threads */
        thread_caches_fork_child(l);
    }
    spinlock_reset(&registry.lock);
    thread_state_fork_child();
    cache_check_forked();
    witness_look_again();
}
