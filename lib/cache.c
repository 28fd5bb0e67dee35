/* SPDX-License-Identifier: MIT */
/*
 * Instances: creation, the list of all, trimming, decay, the cap, destruction, fork.
 *
 * The cap. `cached_total` counts what has been promised against max_cached_bytes: threads' leases, full magazines in
 * depots, blocks in the exact store, touched pages in free spans. It is raised before something becomes cached
 * and lowered after it has ceased to be, so the cached bytes never exceed the cap at any instant.
 *
 * Fork. The handlers take every lock in the documented order, so that the child's copy is consistent.
 * The parent unlocks; the child, alone, resets them (and registers anew for the barrier of heap_lock.h). What other threads had in their magazines is lost to the child.
 */
#include "cache.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "backend.h"
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

/* ---- the cap ---- */

void cache_raise_peak(_Atomic uint64_t *peak, uint64_t now)
{
    uint64_t before = atomic_load_explicit(peak, memory_order_relaxed);
    while (before < now && !atomic_compare_exchange_weak_explicit(
                               peak, &before, now, memory_order_relaxed, memory_order_relaxed)) {
    }
}

bool cache_reserve(struct larder *instance, uint64_t bytes)
{
    if (!instance->capped)
        return true;
    uint64_t cap = instance->config.max_cached_bytes;
    uint64_t total = atomic_load_explicit(&instance->cached_total, memory_order_relaxed);
    do {
        if (bytes > cap || total > cap - bytes)
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&instance->cached_total, &total, total + bytes,
                                                    memory_order_relaxed, memory_order_relaxed));
    cache_raise_peak(&instance->peak_cached_bytes, total + bytes);
    return true;
}

void cache_unreserve(struct larder *instance, uint64_t bytes)
{
    if (instance->capped) {
        atomic_fetch_sub_explicit(&instance->cached_total, bytes, memory_order_relaxed);
    }
}

/* ---- figures ---- */

/*
 * The hit path does not count frees: what a thread put into its own magazines is what it took from them, and what is
 * there now, less what came into them in other ways.
 */
static uint64_t frees_on_hit_path(const struct larder *instance, const uint64_t sums[COUNTERS],
                                  uint64_t in_magazines)
{
    if (!policy_cuts_regions(instance->config.policy))
        return 0;
    return sums[COUNTER(allocations)] - sums[COUNTER(slow_allocations)] + in_magazines -
           sums[COUNTER(blocks_moved)];
}

void cache_sum_counters(struct larder *instance, uint64_t sums[COUNTERS])
{
    uint64_t in_magazines = 0;
    spinlock_lock(&instance->lock);
    const struct counters *sources[] = {&instance->ended, &instance->late.counters};
    for (size_t i = 0; i < COUNTERS; i++) {
        sums[i] = 0;
        for (int s = 0; s < 2; s++) {
            sums[i] += atomic_load_explicit((_Atomic uint64_t *)(uintptr_t)sources[s] + i,
                                            memory_order_relaxed);
        }
    }
    for (struct thread_cache *cache = instance->thread_caches; cache != NULL; cache = cache->next) {
        for (size_t i = 0; i < COUNTERS; i++) {
            sums[i] += atomic_load_explicit((_Atomic uint64_t *)&cache->counters + i,
                                            memory_order_relaxed);
        }
        in_magazines += thread_cache_blocks(cache);
    }
    spinlock_unlock(&instance->lock);
    sums[COUNTER(frees)] += frees_on_hit_path(instance, sums, in_magazines);
}

void cache_note_record(struct larder *instance, uint64_t size)
{
    uint64_t live =
        atomic_fetch_add_explicit(&instance->record_live_bytes, size, memory_order_relaxed) + size;
    if ((int64_t)live > 0)
        cache_raise_peak(&instance->peak_record_live_bytes, live);
}

uint64_t cache_thread_bytes(struct larder *instance)
{
    uint64_t bytes = 0;
    spinlock_lock(&instance->lock);
    for (struct thread_cache *cache = instance->thread_caches; cache != NULL; cache = cache->next) {
        bytes += thread_cache_bytes(cache);
    }
    spinlock_unlock(&instance->lock);
    return bytes;
}

static uint64_t free_span_bytes(struct larder *instance)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < heaps_count(instance); i++)
        bytes += span_heap_free_bytes(heaps_at(instance, i));
    return bytes;
}

static uint64_t free_arena_bytes(struct larder *instance)
{
    struct planned_figures figures = {0};
    planned_add_figures(instance, &figures);
    return figures.free_bytes;
}

uint64_t cache_cached_bytes(struct larder *instance)
{
    uint64_t bytes = cache_thread_bytes(instance) + free_span_bytes(instance) +
                     free_arena_bytes(instance) + fit_spare_bytes(instance) +
                     atomic_load_explicit(&instance->depot_bytes, memory_order_relaxed) +
                     quarantine_bytes(instance) +
                     atomic_load_explicit(&instance->exact.bytes, memory_order_relaxed);
    if (instance
            ->capped) { /* the parts are read one after another, a block may be seen in two of them */
        uint64_t total = atomic_load_explicit(&instance->cached_total, memory_order_relaxed);
        if (bytes > total)
            bytes = total;
    }
    return bytes;
}

/* ---- giving back ---- */

/* Frees pages and blocks that have been idle for `idle_ms` until `keep` bytes are left in free spans and store. */
static size_t give_back_idle(struct larder *instance, uint32_t now_ms, uint32_t idle_ms,
                             uint64_t keep)
{
    size_t bytes = 0;
    for (uint32_t i = heaps_count(instance); i-- > 0;) { /* large blocks first */
        struct span_heap *heap = heaps_at(instance, i);
        uint64_t others = keep != 0 ? free_span_bytes(instance) - span_heap_free_bytes(heap) : 0;
        bytes += span_heap_purge(heap, now_ms, idle_ms, keep > others ? keep - others : 0);
    }
    cache_unreserve(instance, bytes);
    return bytes + exact_evict(instance, now_ms, idle_ms, keep);
}

static size_t release_empty(struct larder *instance, uint32_t now_ms, uint32_t idle_ms,
                            bool reserved_too)
{
    size_t bytes = 0;
    for (uint32_t i = 0; i < heaps_count(instance); i++)
        bytes += span_heap_release_empty(heaps_at(instance, i), now_ms, idle_ms, reserved_too);
    cache_unreserve(instance, bytes);
    return bytes;
}

/* The same, oldest first as far as is known: what has been idle for long, then for a while, then all. */
static void give_back_oldest(struct larder *instance, uint64_t keep)
{
    uint32_t decay = instance->config.decay_ms < INT32_MAX ? instance->config.decay_ms : INT32_MAX;
    uint32_t ages[] = {decay, decay / 8, 0}, now = os_now_ms();
    for (int i = 0; i < 3; i++) {
        uint64_t kept = free_span_bytes(instance) +
                        atomic_load_explicit(&instance->exact.bytes, memory_order_relaxed);
        if (kept <= keep)
            return;
        give_back_idle(instance, now, ages[i], keep);
    }
}

void cache_evict(struct larder *instance, uint64_t bytes)
{
    uint64_t kept = free_span_bytes(instance) +
                    atomic_load_explicit(&instance->exact.bytes, memory_order_relaxed);
    give_back_oldest(instance, kept > bytes ? kept - bytes : 0);
}

size_t cache_trim(struct larder *instance, size_t bytes)
{
    atomic_fetch_add_explicit(&instance->trims, 1, memory_order_relaxed);
    if (quarantine_bytes(instance) > bytes)
        quarantine_empty(instance);
    if (cache_cached_bytes(instance) > bytes) {
        thread_caches_want_flush(instance);
        (void)thread_cache_get(instance); /* flushes the caller's own */
        fit_drain_depots(instance);
        uint64_t others = cache_thread_bytes(instance);
        give_back_oldest(instance, bytes > others ? bytes - others : 0);
    }
    if (bytes == 0 || !backend_can_discard(instance)) {
        release_empty(instance, os_now_ms(), 0, bytes == 0);
    }
    if (instance->planned != NULL && cache_cached_bytes(instance) > bytes)
        planned_give_back(instance, os_now_ms(), 0);
    return (size_t)cache_cached_bytes(instance);
}

void cache_trim_all(void)
{
    for (struct larder *instance = cache_next_instance(NULL); instance != NULL;
         instance = cache_next_instance(instance)) {
        cache_trim(instance, 0);
    }
}

/* Gives back what has been idle for `idle_ms`. */
static size_t tick(struct larder *instance, uint32_t now_ms, uint32_t idle_ms)
{
    atomic_store_explicit(&instance->last_tick_ms, now_ms, memory_order_relaxed);
    size_t idle_bytes = fit_reap_depots(instance, now_ms, instance->config.decay_ms);
    size_t bytes = give_back_idle(instance, now_ms, idle_ms, 0);
    if (idle_bytes != 0) /* in the heap only since now, but idle for as long */
        bytes += (size_t)span_heap_purge_highest(&instance->small_heap, idle_bytes);
    if (bytes != 0)
        budget_note_decay(instance, now_ms, bytes);
    bytes += planned_give_back(instance, now_ms, idle_ms);
    return bytes + release_empty(instance, now_ms, idle_ms, false);
}

size_t cache_tick(struct larder *instance)
{
    uint32_t decay = instance->config.decay_ms;
    return decay > INT32_MAX ? 0 : tick(instance, os_now_ms(), decay);
}

void cache_tick_if_due(struct larder *instance, uint32_t now_ms)
{
    uint32_t decay = instance->config.decay_ms;
    uint32_t last = atomic_load_explicit(&instance->last_tick_ms, memory_order_relaxed);
    if (decay > INT32_MAX || !os_is_idle(last, now_ms, decay / 4 + 1))
        return;
    /* one of several threads that get here does it */
    if (atomic_compare_exchange_strong_explicit(&instance->last_tick_ms, &last, now_ms,
                                                memory_order_relaxed, memory_order_relaxed)) {
        tick(instance, now_ms, budget_wait_ms(instance, now_ms));
    }
}

void cache_attend(struct span_heap *heap)
{
    struct larder *instance = heap->instance;
    bool purge_waits = span_heap_attend(heap);
    budget_keep(instance);
    if (purge_waits && instance->config.decay_ms <= INT32_MAX) {
        uint32_t now_ms = os_now_ms();
        tick(instance, now_ms, budget_wait_ms(instance, now_ms));
    }
}

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
    atomic_store_explicit(&instance->common_room, config->thread_cached_bytes,
                          memory_order_relaxed);
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
    release_empty(instance, os_now_ms(), 0, true);
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
    uint32_t now = os_now_ms();
    give_back_idle(instance, now, 0, 0);
    release_empty(instance, now, 0, true);
    planned_release_empty(instance);
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

void cache_orphan_freed(struct larder *instance)
{
    uint32_t now = os_now_ms();
    fit_release_spares(instance);
    give_back_idle(instance, now, 0, 0);
    release_empty(instance, now, 0, true);
    planned_release_empty(instance);
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
    witness_look_again();
}
