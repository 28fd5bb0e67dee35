/* SPDX-License-Identifier: MIT */
/*
 * What an instance has cached, and gives back: the cap, trimming, decay.
 *
 * The cap. `cached_total` counts what has been promised against max_cached_bytes: threads' leases, full magazines in
 * depots, blocks in the exact store, touched pages in free spans. It is raised before something becomes cached
 * and lowered after it has ceased to be, so the cached bytes never exceed the cap at any instant.
 */
#include "backend.h"
#include "cache.h"
#include "cache_check.h"
#include "fit.h"
#include "heaps.h"
#include "planned.h"
#include "thread_state.h"

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
        uint64_t before =
            atomic_fetch_sub_explicit(&instance->cached_total, bytes, memory_order_relaxed);
        cache_check_account(before, bytes);
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

void cache_release_regions(struct larder *instance)
{
    release_empty(instance, os_now_ms(), 0, true);
}

void cache_give_back_all(struct larder *instance)
{
    give_back_idle(instance, os_now_ms(), 0, 0);
    cache_release_regions(instance);
    planned_release_empty(instance);
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
