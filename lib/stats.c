/* SPDX-License-Identifier: MIT */
/*
 * Statistics: collected when asked for, from thread counters and from the tiers under their locks. One table names
 * every field for both kinds of output.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "fit.h"
#include "heaps.h"
#include "planned.h"

static uint64_t relaxed(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit((_Atomic uint64_t *)(uintptr_t)counter, memory_order_relaxed);
}

static void collect_counters(struct larder *instance, larder_stats_t *stats)
{
    union {
        uint64_t sums[COUNTERS];
        struct {
            uint64_t allocations, frees, allocated_bytes, freed_bytes, span_allocations, span_frees,
                span_allocated_bytes, span_freed_bytes, slow_allocations, slow_frees, blocks_moved,
                miss_cold, miss_size, failures, foreign_frees;
        } is;
    } all;
    _Static_assert(sizeof all.sums == sizeof all.is, "one name a counter");
    cache_sum_counters(instance, all.sums);
    stats->allocations = all.is.allocations + all.is.span_allocations;
    stats->frees = all.is.frees + all.is.span_frees;
    if (stats->frees > stats->allocations)
        stats->frees = stats->allocations; /* of a moment later */
    stats->live_blocks = stats->allocations - stats->frees;
    stats->allocated_bytes = all.is.allocated_bytes + all.is.span_allocated_bytes;
    stats->live_bytes = stats->allocated_bytes - all.is.freed_bytes - all.is.span_freed_bytes;
    stats->thread_hits = all.is.allocations - all.is.slow_allocations;
    stats->miss_cold = all.is.miss_cold;
    stats->miss_size = all.is.miss_size;
    stats->hits = stats->allocations - all.is.miss_cold - all.is.miss_size;
    /* hits put and take one block each; everything else is in blocks_moved */
    stats->cached_blocks =
        all.is.blocks_moved + (all.is.frees - all.is.slow_frees) - stats->thread_hits;
    stats->failures = all.is.failures;
    stats->foreign_frees = all.is.foreign_frees;
}

static void collect_depots(struct larder *instance, larder_stats_t *stats)
{
    for (unsigned c = 0; c < instance->class_count; c++) {
        struct depot *depot = &instance->depots[c];
        spinlock_lock(&depot->lock);
        stats->depot_exchanges += depot->exchanges;
        stats->lock_acquisitions += spinlock_acquisitions(&depot->lock) - 1;
        stats->lock_contended += spinlock_contended(&depot->lock);
        for (const struct magazine *full = atomic_load_explicit(&depot->full, memory_order_relaxed);
             full != NULL; full = full->next) {
            stats->cached_blocks += full->count;
        }
        spinlock_uncount(&depot->lock); /* looking does not count */
        spinlock_unlock(&depot->lock);
    }
}

static void collect_threads(struct larder *instance, larder_stats_t *stats)
{
    stats->thread_cached_bytes = cache_thread_bytes(instance);
    spinlock_lock(&instance->lock);
    stats->metadata_bytes += instance->thread_cache_count * sizeof(struct thread_cache);
    spinlock_unlock(&instance->lock);
}

static void collect_heaps(struct larder *instance, larder_stats_t *stats)
{
    struct span_heap_figures figures = {0};
    for (uint32_t i = 0; i < heaps_count(instance); i++)
        span_heap_add_figures(heaps_at(instance, i), &figures);
    stats->largest_free_span = figures.largest_free;
    stats->metadata_bytes += figures.metadata_bytes;
    stats->free_committed_bytes = figures.free_bytes;
    stats->held_bytes = figures.used_bytes + figures.free_bytes;
    stats->reserved_bytes = figures.reserved_bytes;
    stats->regions = figures.regions;
    stats->peak_live_bytes = relaxed(&instance->peak_live_bytes);
    stats->peak_held_bytes = relaxed(&instance->peak_held_bytes);
    stats->peak_cached_bytes = figures.peak_free_bytes;
    struct planned_figures arenas = {0};
    planned_add_figures(instance, &arenas);
    stats->free_committed_bytes += arenas.free_bytes;
    stats->held_bytes += arenas.used_bytes + arenas.free_bytes;
    stats->reserved_bytes += arenas.reserved_bytes;
    stats->regions += arenas.regions;
    stats->metadata_bytes += arenas.metadata_bytes;
    stats->plans = arenas.plans;
    if (instance->planned != NULL) {
        stats->plan_hits = relaxed(&instance->planned->hits);
        stats->plan_deviations = relaxed(&instance->planned->deviations);
    }
    stats->splits = figures.splits;
    stats->coalesces = figures.coalesces;
    stats->given_back_bytes = figures.given_back_bytes;
    stats->lock_acquisitions += figures.lock_acquisitions;
    stats->lock_contended += figures.lock_contended;
}

static void collect(struct larder *instance, larder_stats_t *stats)
{
    stats->version = LARDER_STATS_VERSION;
    collect_counters(instance, stats);
    collect_depots(instance, stats);
    collect_threads(instance, stats);
    collect_heaps(instance, stats);
    stats->depot_cached_bytes = relaxed(&instance->depot_bytes) + fit_spare_bytes(instance) +
                                relaxed(&instance->exact.bytes) + quarantine_bytes(instance);
    stats->cached_blocks += relaxed(&instance->exact.blocks) + quarantine_blocks(instance);
    stats->cached_bytes = cache_cached_bytes(instance);
    stats->metadata_bytes += sizeof(struct larder) + relaxed(&instance->magazine_bytes) +
                             quarantine_metadata_bytes(instance);
    uint64_t block_bytes = relaxed(&instance->block_bytes);
    stats->regions += relaxed(&instance->block_records);
    stats->metadata_bytes += relaxed(&instance->block_records) * sizeof(struct block_record);
    stats->held_bytes += block_bytes + stats->metadata_bytes;
    stats->peak_held_bytes += stats->metadata_bytes;
    uint64_t peak_block_bytes = relaxed(&instance->peak_block_bytes);
    stats->peak_held_bytes += peak_block_bytes;
    if (stats->held_bytes > stats->peak_held_bytes) /* within a page that had been begun */
        stats->peak_held_bytes = stats->held_bytes;
    uint64_t others = stats->live_bytes + stats->thread_cached_bytes + stats->depot_cached_bytes +
                      stats->free_committed_bytes + stats->metadata_bytes;
    stats->rounding_bytes = stats->held_bytes > others ? stats->held_bytes - others : 0;
    stats->peak_live_bytes += relaxed(&instance->peak_record_live_bytes);
    if (stats->live_bytes > stats->peak_live_bytes)
        stats->peak_live_bytes = stats->live_bytes;
    if (instance->capped)
        stats->peak_cached_bytes = 0; /* the cap's accounts know better */
    stats->peak_cached_bytes += relaxed(&instance->peak_cached_bytes);
    if (stats->cached_bytes > stats->peak_cached_bytes)
        stats->peak_cached_bytes = stats->cached_bytes;
    stats->backend_allocations = relaxed(&instance->backend_allocations);
    stats->backend_frees = relaxed(&instance->backend_frees);
    stats->backend_discards = relaxed(&instance->backend_discards);
    stats->backend_failures = relaxed(&instance->backend_failures);
    stats->given_back_bytes += relaxed(&instance->given_back_bytes);
    stats->trims = relaxed(&instance->trims);
    stats->errors = relaxed(&instance->errors);
    stats->refused_bytes = relaxed(&instance->refused_bytes);
}

int larder_stats_get(const larder_t *larder, larder_stats_t *stats)
{
    if (larder == NULL || stats == NULL)
        return -EINVAL;
    size_t size = stats->struct_size;
    if (size < offsetof(larder_stats_t, live_blocks))
        return -EINVAL;
    if (size > sizeof *stats)
        size = sizeof *stats;
    larder_stats_t full = {.struct_size = size};
    collect((struct larder *)(uintptr_t)larder, &full);
    memcpy(stats, &full, size);
    return 0;
}

#define FIELD(name)                                                                                \
    {                                                                                              \
#name, offsetof(larder_stats_t, name)                                                      \
    }
static const struct field {
    const char *name;
    size_t offset;
} fields[] = {
    FIELD(live_blocks),
    FIELD(live_bytes),
    FIELD(rounding_bytes),
    FIELD(cached_blocks),
    FIELD(cached_bytes),
    FIELD(thread_cached_bytes),
    FIELD(depot_cached_bytes),
    FIELD(free_committed_bytes),
    FIELD(metadata_bytes),
    FIELD(held_bytes),
    FIELD(reserved_bytes),
    FIELD(largest_free_span),
    FIELD(regions),
    FIELD(peak_live_bytes),
    FIELD(peak_held_bytes),
    FIELD(peak_cached_bytes),
    FIELD(allocations),
    FIELD(frees),
    FIELD(allocated_bytes),
    FIELD(hits),
    FIELD(thread_hits),
    FIELD(miss_cold),
    FIELD(miss_size),
    FIELD(failures),
    FIELD(depot_exchanges),
    FIELD(lock_acquisitions),
    FIELD(lock_contended),
    FIELD(backend_allocations),
    FIELD(backend_frees),
    FIELD(backend_discards),
    FIELD(backend_failures),
    FIELD(splits),
    FIELD(coalesces),
    FIELD(given_back_bytes),
    FIELD(trims),
    FIELD(foreign_frees),
    FIELD(errors),
    FIELD(refused_bytes),
    FIELD(plan_hits),
    FIELD(plan_deviations),
    FIELD(plans),
};
enum { FIELDS = sizeof fields / sizeof *fields };

static uint64_t value_of(const larder_stats_t *stats, int i)
{
    uint64_t value;
    memcpy(&value, (const char *)stats + fields[i].offset, sizeof value);
    return value;
}

int larder_stats_print(const larder_t *larder, FILE *out)
{
    larder_stats_t stats = {.struct_size = sizeof stats};
    int error = larder_stats_get(larder, &stats);
    if (error != 0)
        return error;
    if (fprintf(out, "larder %s, instance %s\n", larder_version(), larder_name(larder)) < 0)
        return -EIO;
    for (int i = 0; i < FIELDS; i++) {
        if (fprintf(out, "  %-22s %" PRIu64 "\n", fields[i].name, value_of(&stats, i)) < 0)
            return -EIO;
    }
    return 0;
}

/* A name is the caller's text: quotes, backslashes and control characters are escaped. */
static int print_json_string(const char *text, FILE *out)
{
    if (fputc('"', out) == EOF)
        return -EIO;
    for (; *text != '\0'; text++) {
        unsigned char byte = (unsigned char)*text;
        int written = byte == '"' || byte == '\\' ? fprintf(out, "\\%c", byte)
                      : byte < 0x20               ? fprintf(out, "\\u%04x", byte)
                                                  : fprintf(out, "%c", byte);
        if (written < 0)
            return -EIO;
    }
    return fputc('"', out) == EOF ? -EIO : 0;
}

int larder_stats_print_json(const larder_t *larder, FILE *out)
{
    larder_stats_t stats = {.struct_size = sizeof stats};
    int error = larder_stats_get(larder, &stats);
    if (error != 0)
        return error;
    if (fprintf(out, "{\"larder\":\"%s\",\"version\":%u,\"instance\":", larder_version(),
                stats.version) < 0) {
        return -EIO;
    }
    error = print_json_string(larder_name(larder), out);
    if (error != 0)
        return error;
    for (int i = 0; i < FIELDS; i++) {
        if (fprintf(out, ",\"%s\":%" PRIu64, fields[i].name, value_of(&stats, i)) < 0)
            return -EIO;
    }
    return fprintf(out, "}\n") < 0 ? -EIO : 0;
}
