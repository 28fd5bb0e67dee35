/* SPDX-License-Identifier: MIT */
/*
 * From an inference to a plan.
 *
 * While an inference is recorded, `fit` serves it. Its large requests are noted where they come in, on the stream's own
 * thread, and their ends where they are freed, on any thread, under planned->lock. What is still live when the inference ends
 * has its place for itself in the plan: it will be there when the next one begins.
 *
 * A recording should not cost more memory than the plan that comes of it, so what is freed meanwhile goes back to
 * the kernel at once (planned_after_put): a page fault for each page of the first inference, instead of a
 * footprint that stands above the arena's for good.
 *
 * Conflicts. In an inference that goes as planned, what must be dead before a step's place is used are the blocks that lay
 * there last, unit by unit: these were checked against those before them when they were placed. They are found by painting
 * each step's number onto its units, in order.
 */
#include "planned.h"

#include <string.h>

#include "fit_tiers.h"
#include "plan_check.h"
#include "plan_search.h"
#include "plan_sort.h"

enum {
    SEARCH_MOST = 4096,   /* requests; above, greedy alone */
    SEARCH_NODES = 20000, /* about 20 ms */
    EFFORT = 8000000      /* about 10 ms, and what one order takes */
};

struct plan_recording {
    uint64_t key;
    uint32_t clock, count, live_count;
    struct plan_request requests[PLAN_REQUESTS_MOST];
    uint32_t live[PLAN_REQUESTS_MOST]; /* requests that have not been freed */
    uint32_t small_count;              /* requests that classes could serve: at most half */
};

/* ---- recording ---- */

bool planned_record_begin(struct plan_stream *stream, uint64_t key)
{
    struct planned *planned = stream->instance->planned;
    struct plan_recording *recording = os_map(sizeof *recording);
    if (recording == NULL)
        return false;
    recording->key = key;
    stream->recordings++;
    atomic_fetch_add_explicit(&planned->recordings, 1, memory_order_relaxed);
    spinlock_lock(&planned->lock);
    stream->recording = recording;
    spinlock_unlock(&planned->lock);
    planned_set_above(stream, PLANNED_ABOVE);
    return true;
}

void planned_record_end(struct plan_stream *stream, bool keep)
{
    struct planned *planned = stream->instance->planned;
    struct plan_recording *recording = stream->recording;
    spinlock_lock(&planned->lock);
    stream->recording = NULL;
    spinlock_unlock(&planned->lock);
    atomic_fetch_sub_explicit(&planned->recordings, 1, memory_order_relaxed);
    for (uint32_t i = 0; i < recording->live_count; i++) {
        struct plan_request *request = &recording->requests[recording->live[i]];
        request->begin = 0;
        request->end = recording->clock + 1;
    }
    struct plan *plan = NULL;
    size_t above;
    uint32_t count =
        planned_choose(stream->instance, recording->requests, NULL, recording->count, &above);
    if (keep && count != 0)
        plan = planned_make(recording->key, above, recording->requests, NULL, count);
    os_unmap(recording, sizeof *recording);
    if (plan != NULL)
        planned_publish(planned, plan);
}

void planned_note_taken(struct thread_cache *cache, const void *ptr, size_t size, size_t alignment)
{
    struct plan_stream *stream = cache->stream;
    struct plan_recording *recording = stream->recording;
    struct larder *instance = stream->instance;
    size_t total = size + instance->front + instance->back;
    if (recording == NULL || !planned_takes(instance, PLANNED_ABOVE, total, alignment))
        return;
    bool small = total <= instance->class_limit;
    spinlock_lock(&instance->planned->lock);
    if (recording->count < PLAN_REQUESTS_MOST &&
        (!small || recording->small_count < PLAN_REQUESTS_MOST / 2)) {
        recording->small_count += small;
        recording->live[recording->live_count++] = recording->count;
        recording->requests[recording->count++] = (struct plan_request){
            .address = os_untagged(ptr) - instance->front,
            .size = total,
            .begin = recording->clock++,
            .alignment = (uint32_t)alignment,
        };
    }
    spinlock_unlock(&instance->planned->lock);
}

/* Where the live request at that address stands in the list of live ones, or UINT32_MAX. */
static uint32_t find_live(const struct plan_recording *recording, uintptr_t address)
{
    for (uint32_t i = 0; i < recording->live_count; i++) {
        if (recording->requests[recording->live[i]].address == address)
            return i;
    }
    return UINT32_MAX;
}

void planned_note_freed(struct larder *instance, const void *base)
{
    struct planned *planned = instance->planned;
    if (atomic_load_explicit(&planned->recordings, memory_order_relaxed) == 0)
        return;
    spinlock_lock(&planned->lock);
    for (struct plan_stream *stream = planned->streams; stream != NULL;
         stream = stream->next_stream) {
        struct plan_recording *recording = stream->recording;
        uint32_t at = recording != NULL ? find_live(recording, os_untagged(base)) : UINT32_MAX;
        if (at == UINT32_MAX)
            continue;
        recording->requests[recording->live[at]].end = recording->clock++;
        recording->live[at] = recording->live[--recording->live_count];
        break;
    }
    spinlock_unlock(&planned->lock);
}

void planned_note_resized(struct larder *instance, const void *ptr, size_t size)
{
    struct planned *planned = instance->planned;
    if (atomic_load_explicit(&planned->recordings, memory_order_relaxed) == 0)
        return;
    size_t total = size + instance->front + instance->back;
    spinlock_lock(&planned->lock);
    for (struct plan_stream *stream = planned->streams; stream != NULL;
         stream = stream->next_stream) {
        struct plan_recording *recording = stream->recording;
        uint32_t at = recording != NULL ? find_live(recording, os_untagged(ptr) - instance->front)
                                        : UINT32_MAX;
        if (at != UINT32_MAX && recording->requests[recording->live[at]].size < total)
            recording->requests[recording->live[at]].size = total;
    }
    spinlock_unlock(&planned->lock);
}

void planned_after_put(struct larder *instance)
{
    if (atomic_load_explicit(&instance->planned->recordings, memory_order_relaxed) == 0)
        return;
    cache_unreserve(instance, span_heap_purge(&instance->heap, os_now_ms(), 0, 0));
}

/* ---- planning ---- */

/*
 * Requests that classes could serve are planned only where they are few: what lies in their magazines and runs (up to 160 KiB for 10 KiB of
 * live blocks) is then more than what their steps cost, 60 bytes each. A plan without a key is found by its first request, which has to be one that
 * a stream looks at before it has a plan.
 */
uint32_t planned_choose(const struct larder *instance, struct plan_request *requests,
                        uint64_t *offsets, uint32_t count, size_t *above)
{
    uint32_t large = 0, small, first = count, kept = 0;
    for (uint32_t k = count; k-- > 0;) {
        if (requests[k].size > instance->class_limit) {
            large++;
            first = k;
        }
    }
    small = count - first - large;
    *above = small <= large && small < PLAN_REQUESTS_MOST / 2 ? (size_t)PLANNED_ABOVE
                                                              : instance->class_limit;
    for (uint32_t k = first; k < count; k++) {
        if (requests[k].size <= *above)
            continue;
        requests[kept] = requests[k];
        if (offsets != NULL)
            offsets[kept] = offsets[k];
        kept++;
    }
    if (kept == large)
        *above = instance->class_limit;
    return kept;
}

static uint32_t units_of(size_t size)
{
    return (uint32_t)((size + UNIT - 1) >> UNIT_SHIFT);
}

/* Takes offsets (bytes) that somebody else has computed; false if they are not sound here. */
static bool take_offsets(struct plan_item *items, const uint64_t *offsets, uint32_t count,
                         void *scratch)
{
    for (uint32_t i = 0; i < count; i++) {
        if (offsets[i] % UNIT != 0)
            return false;
        items[i].offset = offsets[i] / UNIT;
    }
    return plan_check(items, count, UINT64_MAX, scratch).fault == PLAN_FINE;
}

/* Computes the offsets, in units; false where there is no memory. */
static bool compute_offsets(struct plan_item *items, const uint64_t *offsets, uint32_t count)
{
    const struct plan_search_limits limits = {.nodes = SEARCH_NODES};
    size_t search = count <= SEARCH_MOST ? plan_search_scratch_bytes(count) : 0;
    size_t bytes = search > plan_scratch_bytes(count) ? search : plan_scratch_bytes(count);
    if (bytes < plan_check_scratch_bytes(count))
        bytes = plan_check_scratch_bytes(count);
    void *scratch = os_map(bytes);
    if (scratch == NULL)
        return false;
    if (offsets != NULL && take_offsets(items, offsets, count, scratch)) {
        os_unmap(scratch, bytes);
        return true;
    }
    if (search != 0) {
        plan_best(items, count, EFFORT, 0, &limits, scratch);
    } else {
        plan_greedy(items, count, NULL, 0, EFFORT, scratch);
    }
    bool sound = plan_check(items, count, UINT64_MAX, scratch).fault == PLAN_FINE;
    os_unmap(scratch, bytes);
    return sound;
}

/* Places for all parts of a plan, in one mapping; each step meets at most five conflicts on average, see add_conflicts(). */
static struct plan *plan_map(uint32_t count)
{
    size_t n = (size_t)count + 1;
    size_t steps = sizeof(struct plan), conflicts = steps + n * sizeof(struct plan_step);
    size_t lifetimes = conflicts + 5 * n * sizeof(struct plan_conflict);
    size_t starts = lifetimes + n * sizeof(struct plan_lifetime);
    size_t bytes = starts + n * sizeof(uint32_t);
    char *memory = os_map(bytes);
    if (memory == NULL)
        return NULL;
    struct plan *plan = (struct plan *)(void *)memory;
    plan->count = count;
    plan->steps = (struct plan_step *)(void *)(memory + steps);
    plan->conflicts = (struct plan_conflict *)(void *)(memory + conflicts);
    plan->lifetimes = (struct plan_lifetime *)(void *)(memory + lifetimes);
    plan->starts = (uint32_t *)(void *)(memory + starts);
    plan->map_bytes = bytes;
    return plan;
}

void planned_unmap(struct plan *plan)
{
    os_unmap(plan, plan->map_bytes);
}

/* Adds the place of step `below` to what step `k` must find dead, once. */
static void add_conflict(struct plan *plan, struct plan_step *step, uint32_t start)
{
    struct plan_conflict *list = &plan->conflicts[step->first_conflict];
    for (uint32_t i = 0; i < step->conflicts; i++) {
        if (list[i].unit == start)
            return;
    }
    list[step->conflicts++] =
        (struct plan_conflict){start, step->start > start ? step->start - start : 0};
}

/*
 * `paint` has a word for each unit. A step repaints some runs of equal numbers whole, and at most two in part, so of five runs met
 * on average, three were made by steps (itself, and what it left of one below at either side) and two are met in part.
 */
static void add_conflicts(struct plan *plan, uint32_t *paint, uint32_t first_unit)
{
    uint32_t used = 0;
    for (uint32_t k = 0; k < plan->count; k++) {
        struct plan_step *step = &plan->steps[k];
        uint32_t last = 0;
        step->first_conflict = used;
        for (uint32_t u = step->start; u < step->start + step->units; u++) {
            uint32_t below = paint[u - first_unit];
            if (below != 0 && below != last)
                add_conflict(plan, step, plan->steps[below - 1].start);
            last = below;
            paint[u - first_unit] = k + 1;
        }
        used += step->conflicts;
    }
}

static void add_starts(struct plan *plan, uint64_t *keys, uint32_t *order)
{
    for (uint32_t k = 0; k < plan->count; k++)
        keys[k] = plan->steps[k].start;
    plan_sort(order, keys, plan->count);
    for (uint32_t i = 0; i < plan->count; i++) {
        uint32_t start = plan->steps[order[i]].start;
        if (plan->start_count == 0 || plan->starts[plan->start_count - 1] != start)
            plan->starts[plan->start_count++] = start;
    }
}

/* The most that is live at once, in bytes as asked for. */
static uint64_t live_peak(const struct plan_request *requests, struct plan_item *items,
                          uint32_t count, void *scratch)
{
    for (uint32_t k = 0; k < count; k++)
        items[k].size = requests[k].size;
    return plan_lower_bound(items, count, scratch);
}

static void fill_steps(struct plan *plan, const struct plan_request *requests,
                       const struct plan_item *items)
{
    uint32_t first = region_first_unit();
    for (uint32_t k = 0; k < plan->count; k++) {
        struct plan_step *step = &plan->steps[k];
        step->size = requests[k].size;
        step->start = first + (uint32_t)items[k].offset;
        step->units = (uint32_t)items[k].size;
        plan->lifetimes[k] =
            (struct plan_lifetime){requests[k].begin, requests[k].end, requests[k].alignment};
        if (step->start + step->units > plan->end_unit)
            plan->end_unit = step->start + step->units;
    }
    plan->steps[plan->count].size = SIZE_MAX;
}

/* All but the plan's own memory, which is in `work`: room for items, and for what the parts need one after another. */
static bool plan_fill(struct plan *plan, const struct plan_request *requests,
                      const uint64_t *offsets, char *work)
{
    uint32_t count = plan->count, first = region_first_unit();
    struct plan_item *items = (struct plan_item *)(void *)work;
    char *rest = work + (((count + (size_t)1) * sizeof *items + 63) & ~(size_t)63);
    for (uint32_t k = 0; k < count; k++) {
        uint32_t alignment = requests[k].alignment >> UNIT_SHIFT;
        items[k] = (struct plan_item){.begin = requests[k].begin,
                                      .end = requests[k].end,
                                      .size = units_of(requests[k].size),
                                      .alignment = alignment > 1 ? alignment : 1};
    }
    if (!compute_offsets(items, offsets, count) ||
        plan_peak(items, count) > region_max_units() - first)
        return false;
    fill_steps(plan, requests, items);
    plan->live_bytes = live_peak(requests, items, count, rest);
    uint64_t *keys = (uint64_t *)(void *)rest;
    add_starts(plan, keys, (uint32_t *)(void *)(keys + count));
    size_t paint_bytes = (plan->end_unit - first) * sizeof(uint32_t);
    uint32_t *paint = os_map(paint_bytes);
    if (paint == NULL)
        return false;
    add_conflicts(plan, paint, first);
    os_unmap(paint, paint_bytes);
    return true;
}

struct plan *planned_make(uint64_t key, size_t above, const struct plan_request *requests,
                          const uint64_t *offsets, uint32_t count)
{
    size_t work_bytes =
        (count + (size_t)2) * sizeof(struct plan_item) + 64 + plan_scratch_bytes(count);
    char *work = os_map(work_bytes);
    struct plan *plan = work != NULL ? plan_map(count) : NULL;
    if (plan != NULL) {
        plan->key = key;
        plan->above = above;
        if (!plan_fill(plan, requests, offsets, work)) {
            planned_unmap(plan);
            plan = NULL;
        }
    }
    if (work != NULL)
        os_unmap(work, work_bytes);
    return plan;
}

/* ---- the plans of an instance ---- */

static bool is_same(const struct plan *a, const struct plan *b)
{
    if (a->key != b->key || a->count != b->count || a->end_unit < b->end_unit)
        return false;
    for (uint32_t k = 0; k < a->count; k++) {
        if (a->steps[k].size != b->steps[k].size)
            return false;
    }
    return true;
}

/* Unlinks the plan that has not been used for longest and is not in use; NULL if all are. Lock held. */
static struct plan *evict(struct planned *planned)
{
    struct plan **oldest = NULL;
    for (struct plan **at = &planned->plans; *at != NULL; at = &(*at)->next) {
        if ((*at)->uses == 0 && (oldest == NULL || (*at)->last_used < (*oldest)->last_used))
            oldest = at;
    }
    if (oldest == NULL)
        return NULL;
    struct plan *plan = *oldest;
    *oldest = plan->next;
    planned->plan_count--;
    return plan;
}

void planned_publish(struct planned *planned, struct plan *plan)
{
    struct plan *dropped = NULL;
    spinlock_lock(&planned->lock);
    for (const struct plan *other = planned->plans; other != NULL; other = other->next) {
        if (is_same(plan, other))
            dropped = plan;
    }
    if (dropped == NULL && planned->plan_count >= PLANS_MOST) {
        dropped = evict(planned);
        if (dropped == NULL)
            dropped = plan;
    }
    if (dropped != plan) {
        plan->last_used = planned->rounds;
        plan->next = planned->plans;
        planned->plans = plan;
        planned->plan_count++;
    }
    spinlock_unlock(&planned->lock);
    if (dropped != NULL)
        planned_unmap(dropped);
}
