/* SPDX-License-Identifier: MIT */
/*
 * Streams and their arenas: where they come from, what they cost, how they are given back.
 *
 * An arena is a region that no span heap knows of: its unit words are the truth about its blocks, as everywhere, but they are
 * changed without a lock (planned.h). Who wants to look at all of an arena walks over the words.
 *
 * A stream that is between two inferences can be trimmed: its state says so meanwhile, and its thread waits for the end. Pages that no live
 * block lies in go back to the kernel, or the whole arena where a backend cannot do that and nothing is live.
 */
#include "planned.h"

#include <errno.h>
#include <string.h>

#include "fit.h"
#include "meta.h"
#include "thread_state.h"

static struct meta_pool planned_pool = META_POOL(struct planned);
static struct meta_pool stream_pool = META_POOL(struct plan_stream);

int planned_init(struct larder *instance)
{
    if (instance->config.policy != LARDER_POLICY_PLANNED)
        return 0;
    struct planned *planned = meta_pool_get(&planned_pool);
    if (planned == NULL)
        return -ENOMEM;
    memset(planned, 0, sizeof *planned);
    spinlock_set_rank(&planned->lock, RANK_PLANNED);
    instance->planned = planned;
    return 0;
}

struct plan_stream *planned_stream_get(struct planned *planned, struct larder *instance)
{
    spinlock_lock(&planned->lock);
    struct plan_stream *stream = planned->streams;
    while (stream != NULL && stream->owned)
        stream = stream->next_stream;
    if (stream != NULL)
        stream->owned = true;
    spinlock_unlock(&planned->lock);
    if (stream != NULL)
        return stream;
    stream = meta_pool_get(&stream_pool);
    if (stream == NULL)
        return NULL;
    memset(stream, 0, sizeof *stream);
    stream->instance = instance;
    stream->owned = true;
    spinlock_lock(&planned->lock);
    stream->next_stream = planned->streams;
    planned->streams = stream;
    spinlock_unlock(&planned->lock);
    return stream;
}

/* ---- arenas ---- */

/* The next live block from *unit on; false if there is none. */
static bool next_live(const struct region *region, uint32_t *unit, uint32_t end, uint32_t *length)
{
    for (; *unit < end; (*unit)++) {
        /* acquire: pairs with the release in planned_put_plain(): what is dead may be given back */
        uint32_t word = atomic_load_explicit(&region->words[*unit], memory_order_acquire);
        if (word_kind(word) == WORD_LARGE_LIVE) {
            *length = word & WORD_INDEX_MASK;
            return true;
        }
    }
    return false;
}

static bool is_empty(const struct region *region, uint32_t end)
{
    uint32_t unit = region_first_unit(), length;
    return !next_live(region, &unit, end, &length);
}

/* Takes a region out of service: released now, or once nothing in it is live any more. */
static void retire(struct planned *planned, struct region *region)
{
    if (is_empty(region, region->top)) {
        region_release(region);
        return;
    }
    spinlock_lock(&planned->lock);
    region->next = planned->retired;
    planned->retired = region;
    spinlock_unlock(&planned->lock);
}

static uint64_t bytes_to(uint32_t end_unit)
{
    return (uint64_t)end_unit << UNIT_SHIFT;
}

/* Reserves what the arena may come to cache against the cap; false if that is too much. */
static bool reserve_to(struct plan_stream *stream, uint32_t end_unit)
{
    uint64_t wanted = bytes_to(end_unit);
    if (!stream->instance->capped || stream->reserved >= wanted)
        return true;
    if (!cache_reserve(stream->instance, wanted - stream->reserved))
        return false;
    stream->reserved = wanted;
    return true;
}

static struct region *arena_create(struct plan_stream *stream, uint32_t end_unit)
{
    struct larder *instance = stream->instance;
    struct region *region = region_create(&instance->heap, end_unit - region_first_unit());
    if (region == NULL)
        return NULL;
    region->arena = stream;
    region->instance_id = 0; /* the heap's short ways are not for its blocks */
    return region;
}

bool planned_arena_ready(struct plan_stream *stream, uint32_t end_unit)
{
    struct planned *planned = stream->instance->planned;
    struct region *region = stream->region;
    if (!reserve_to(stream, end_unit))
        return false;
    if (region == NULL || end_unit > region_end_unit(region)) {
        struct region *larger = arena_create(stream, end_unit);
        if (larger == NULL)
            return false;
        spinlock_lock(&planned->lock);
        stream->region = larger;
        stream->touched_end = 0;
        spinlock_unlock(&planned->lock);
        if (region != NULL)
            retire(planned, region);
        region = larger;
        stream->survivor_count = 0;
        stream->lost = false;
    }
    if (region_commit(region, end_unit) != 0)
        return false;
    spinlock_lock(&planned->lock);
    if (end_unit > region->top)
        region->top = end_unit;
    if (end_unit > stream->touched_end)
        stream->touched_end = end_unit;
    spinlock_unlock(&planned->lock);
    stream->words = region->words;
    stream->base = region_address(region, 0);
    return true;
}

/* ---- giving back ---- */

/* Discards whole pages in [from, to) units; returns the bytes. */
static size_t discard_between(struct larder *instance, const struct region *region, uint32_t from,
                              uint32_t to)
{
    size_t page = os_page_size();
    size_t begin = ((size_t)bytes_to(from) + page - 1) & ~(page - 1);
    size_t end = (size_t)bytes_to(to) & ~(page - 1);
    if (end <= begin || backend_discard(instance, region_address(region, 0) + begin, end - begin))
        return 0;
    return end - begin;
}

/* Gives back what no live block of an arena lies in. *kept_end: where the last of them ends. */
static size_t discard_dead(struct larder *instance, const struct region *region, uint32_t end,
                           uint32_t *kept_end)
{
    uint32_t from = region_first_unit(), unit = from, length;
    size_t bytes = 0;
    *kept_end = 0;
    /* the end is a page's, as nothing lies behind it */
    uint32_t page_units = (uint32_t)(os_page_size() >> UNIT_SHIFT);
    end = (end + page_units - 1) & ~(page_units - 1);
    while (next_live(region, &unit, end, &length)) {
        bytes += discard_between(instance, region, from, unit);
        unit += length;
        from = *kept_end = unit;
    }
    return bytes + discard_between(instance, region, from, end);
}

static size_t trim_stream(struct plan_stream *stream)
{
    struct larder *instance = stream->instance;
    struct region *region = stream->region;
    uint32_t kept_end = stream->touched_end;
    size_t bytes = 0;
    if (backend_can_discard(instance)) {
        bytes = discard_dead(instance, region, stream->touched_end, &kept_end);
    } else if (is_empty(region, region->top)) {
        bytes = (size_t)bytes_to(stream->touched_end);
        kept_end = 0;
        stream->region = NULL;
        region_release(region);
    }
    if (kept_end == 0) {
        cache_unreserve(instance, stream->reserved);
        stream->reserved = 0;
    }
    stream->touched_end = kept_end;
    return bytes;
}

/* An idle stream with something to give back, marked as being trimmed, after `after` in the list (NULL: from its beginning). */
static struct plan_stream *claim_idle(struct planned *planned, struct plan_stream *after,
                                      uint32_t now_ms, uint32_t idle_ms)
{
    spinlock_lock(&planned->lock);
    struct plan_stream *stream = after == NULL ? planned->streams : after->next_stream;
    while (stream != NULL && (stream->state != STREAM_IDLE || stream->touched_end == 0 ||
                              !os_is_idle(stream->idle_since, now_ms, idle_ms))) {
        stream = stream->next_stream;
    }
    if (stream != NULL)
        stream->state = STREAM_TRIMMED;
    spinlock_unlock(&planned->lock);
    return stream;
}

/* Releases retired regions in which nothing is live any more. */
static void release_retired(struct planned *planned)
{
    for (;;) {
        spinlock_lock(&planned->lock);
        struct region **at = &planned->retired;
        while (*at != NULL && !is_empty(*at, (*at)->top))
            at = &(*at)->next;
        struct region *region = *at;
        if (region != NULL)
            *at = region->next;
        spinlock_unlock(&planned->lock);
        if (region == NULL)
            return;
        region_release(region);
    }
}

size_t planned_give_back(struct larder *instance, uint32_t now_ms, uint32_t idle_ms)
{
    struct planned *planned = instance->planned;
    if (planned == NULL)
        return 0;
    size_t bytes = 0;
    struct plan_stream *stream = NULL;
    release_retired(planned);
    while ((stream = claim_idle(planned, stream, now_ms, idle_ms)) != NULL) {
        bytes += trim_stream(stream);
        spinlock_lock(&planned->lock);
        stream->state = STREAM_IDLE;
        spinlock_unlock(&planned->lock);
    }
    atomic_fetch_add_explicit(&instance->given_back_bytes, bytes, memory_order_relaxed);
    return bytes;
}

void planned_release_empty(struct larder *instance)
{
    struct planned *planned = instance->planned;
    if (planned == NULL)
        return;
    planned_give_back(instance, os_now_ms(), 0);
    for (struct plan_stream *stream = planned->streams; stream != NULL;
         stream = stream->next_stream) {
        spinlock_lock(&planned->lock);
        struct region *region = stream->region;
        if (region != NULL && stream->state == STREAM_IDLE && is_empty(region, region->top)) {
            stream->region = NULL;
            stream->touched_end = 0;
        } else {
            region = NULL;
        }
        spinlock_unlock(&planned->lock);
        if (region != NULL)
            region_release(region);
    }
}

void planned_end(struct larder *instance)
{
    struct planned *planned = instance->planned;
    if (planned == NULL)
        return;
    planned_release_empty(instance);
    while (planned->plans != NULL) {
        struct plan *plan = planned->plans;
        planned->plans = plan->next;
        planned_unmap(plan);
    }
    while (planned->streams != NULL) {
        struct plan_stream *stream = planned->streams;
        planned->streams = stream->next_stream;
        meta_pool_put(&stream_pool, stream);
    }
    instance->planned = NULL;
    meta_pool_put(&planned_pool, planned);
}

/* ---- figures ---- */

static void add_region(const struct region *region, uint32_t touched_end,
                       struct planned_figures *figures)
{
    uint64_t used = 0;
    uint32_t unit = region_first_unit(), length;
    while (next_live(region, &unit, region->top, &length)) {
        used += bytes_to(length);
        unit += length;
    }
    uint64_t touched =
        touched_end > region_first_unit() ? bytes_to(touched_end - region_first_unit()) : 0;
    figures->used_bytes += used;
    figures->free_bytes += touched > used ? touched - used : 0;
    figures->reserved_bytes += bytes_to(region->units);
    figures->metadata_bytes += region_metadata_bytes(region);
    figures->regions++;
}

void planned_add_figures(struct larder *instance, struct planned_figures *figures)
{
    struct planned *planned = instance->planned;
    if (planned == NULL)
        return;
    figures->metadata_bytes += sizeof *planned;
    spinlock_lock(&planned->lock);
    for (const struct plan_stream *stream = planned->streams; stream != NULL;
         stream = stream->next_stream) {
        figures->metadata_bytes += sizeof *stream;
        if (stream->region != NULL && stream->state != STREAM_TRIMMED)
            add_region(stream->region, stream->touched_end, figures);
    }
    for (const struct region *region = planned->retired; region != NULL; region = region->next)
        add_region(region, region->top, figures);
    for (const struct plan *plan = planned->plans; plan != NULL; plan = plan->next) {
        figures->metadata_bytes += plan->map_bytes;
        figures->plans++;
    }
    spinlock_unlock(&planned->lock);
}

int planned_walk(struct larder *instance, larder_walk_fn *fn, void *context)
{
    struct planned *planned = instance->planned;
    int stop = 0;
    if (planned == NULL)
        return 0;
    spinlock_lock(&planned->lock);
    for (struct plan_stream *stream = planned->streams; stream != NULL && stop == 0;
         stream = stream->next_stream) {
        if (stream->region != NULL && stream->state != STREAM_TRIMMED)
            stop = fit_walk_region(stream->region, fn, context);
    }
    for (struct region *region = planned->retired; region != NULL && stop == 0;
         region = region->next)
        stop = fit_walk_region(region, fn, context);
    spinlock_unlock(&planned->lock);
    return stop;
}

/* ---- fork ---- */

void planned_fork_lock(struct larder *instance)
{
    if (instance->planned != NULL)
        spinlock_lock(&instance->planned->lock);
}

void planned_fork_unlock(struct larder *instance)
{
    if (instance->planned != NULL)
        spinlock_unlock(&instance->planned->lock);
}

/* Streams of other threads stay as they are, owned by nobody who could use them; their blocks can be freed. */
void planned_fork_child(struct larder *instance, const struct plan_stream *own)
{
    struct planned *planned = instance->planned;
    if (planned == NULL)
        return;
    spinlock_reset(&planned->lock);
    for (struct plan_stream *stream = planned->streams; stream != NULL;
         stream = stream->next_stream) {
        if (stream == own || stream->recording == NULL)
            continue;
        stream->recording = NULL;
        atomic_fetch_sub_explicit(&planned->recordings, 1, memory_order_relaxed);
    }
}
