/* SPDX-License-Identifier: MIT */
/*
 * Theory
 *
 * An inference asks for the same large blocks in the same order, again and again. Recorded once, their lifetimes are
 * known, and so are places for all of them in one arena that is hardly larger than what is live at once (plan_best.c). From then on
 * a request is a comparison with the next step of the plan, a look whether its place is free, and a word.
 *
 * A stream is one sequence of inferences: a thread, between larder_plan_begin() and larder_plan_end(). It has an
 * arena of its own, a region that no heap knows, so nothing in it needs a lock. Plans are the instance's and do not change;
 * several streams may replay the same one, each in its own arena. A plan is found by its key, or, without one, by the size of the
 * first large request. What is not planned (unusual alignments, threads without a stream, and small blocks where they are many: see
 * planned_choose()) is `fit`.
 *
 * Nothing depends on the inference going as planned. A place is given out only after a look at everything that could still live there:
 *
 *   - As long as an inference began with nothing live in the arena and each step so far was placed where the plan says, what lies
 *     in a step's place are the blocks that lay there last (planned_record.c): a few words to look at.
 *   - Once a step was left out, or something older is live, the stream is careful: it looks at every word where the plan's
 *     blocks may begin, and at those of survivors, until the inference ends.
 *
 * A block is live as long as its first word says so. Only the stream's own thread makes a word live; whoever frees the
 * block makes it dead again (release), and the stream sees it dead (acquire) before it uses the place again. So
 * blocks may be freed by any thread at any time, and one that outlives its inference keeps its place.
 *
 * What does not fit the plan goes to `fit` and is counted: a larger request, one too many, one in a place that is still
 * taken. A smaller one is served from the place of the larger. One that matches a step further ahead skips those
 * between, or changes to another plan that began in the same way. The next inference begins at the plan's beginning. Where an inference
 * without a key has deviated much, the next ones are recorded, more each time that this was no help.
 *
 * Source: c10::CPUProfilingAllocator, with what it lacks: it throws on any deviation, forgets one of two holes of
 * equal size, and knows no alignment. TensorFlow Lite and ONNX Runtime plan as well, and plan anew or grow instead.
 */
#include "planned.h"

#include <errno.h>

#include "entry.h"
#include "fit.h"
#include "thread_state.h"

enum { LONGEST_BURST = 8, RECORDINGS_MOST = 256 };

/* Matches no request. */
static const struct plan_step nothing = {.size = SIZE_MAX};

/* ---- survivors ---- */

static bool is_live(const struct plan_stream *stream, uint32_t unit)
{
    /* acquire: pairs with the release in planned_put_plain() */
    uint32_t word = atomic_load_explicit(&stream->words[unit], memory_order_acquire);
    return word_kind(word) == WORD_LARGE_LIVE;
}

static void add_survivor(struct plan_stream *stream, uint32_t unit)
{
    for (uint32_t i = 0; i < stream->survivor_count; i++) {
        if (stream->survivors[i] == unit)
            return;
    }
    if (stream->survivor_count == SURVIVORS_MOST) {
        stream->lost = true;
    } else {
        stream->survivors[stream->survivor_count++] = unit;
    }
}

/* Of what the plan may have placed. */
static void collect_survivors(struct plan_stream *stream, const struct plan *plan)
{
    for (uint32_t i = 0; i < plan->start_count; i++) {
        if (is_live(stream, plan->starts[i]))
            add_survivor(stream, plan->starts[i]);
    }
}

/* Forgets survivors that are dead by now. False if more are live than are known. */
static bool check_survivors(struct plan_stream *stream)
{
    uint32_t kept = 0;
    if (stream->lost) { /* look at all of the arena */
        stream->survivor_count = 0;
        stream->lost = false;
        for (uint32_t unit = region_first_unit(); unit < stream->region->top; unit++) {
            if (is_live(stream, unit))
                add_survivor(stream, unit);
        }
    }
    for (uint32_t i = 0; i < stream->survivor_count; i++) {
        if (is_live(stream, stream->survivors[i]))
            stream->survivors[kept++] = stream->survivors[i];
    }
    stream->survivor_count = kept;
    return !stream->lost;
}

/* True if a live block begins at `unit` that reaches into the step's place. */
static bool reaches(const struct plan_stream *stream, uint32_t unit, const struct plan_step *step)
{
    if (unit >= step->start + step->units)
        return false;
    uint32_t word = atomic_load_explicit(&stream->words[unit], memory_order_acquire);
    return word_kind(word) == WORD_LARGE_LIVE && unit + (word & WORD_INDEX_MASK) > step->start;
}

static bool is_free_carefully(const struct plan_stream *stream, const struct plan_step *step)
{
    const struct plan *plan = stream->plan;
    for (uint32_t i = 0; i < plan->start_count && plan->starts[i] < step->start + step->units;
         i++) {
        if (reaches(stream, plan->starts[i], step))
            return false;
    }
    for (uint32_t i = 0; i < stream->survivor_count; i++) {
        if (reaches(stream, stream->survivors[i], step))
            return false;
    }
    return true;
}

/* ---- plans ---- */

/* The plan goes into use. Lock held. */
static struct plan *use(struct planned *planned, struct plan *plan)
{
    if (plan != NULL) {
        plan->uses++;
        plan->last_used = planned->rounds;
    }
    return plan;
}

static struct plan *find_by_key(struct planned *planned, uint64_t key)
{
    spinlock_lock(&planned->lock);
    struct plan *plan = planned->plans;
    while (plan != NULL && plan->key != key)
        plan = plan->next;
    use(planned, plan);
    spinlock_unlock(&planned->lock);
    return plan;
}

/* The plan that begins with a request of that size; else, if `larger_too`, the least of those that begin with up to twice as much. */
static struct plan *find_by_first(struct planned *planned, size_t size, bool larger_too)
{
    struct plan *best = NULL;
    spinlock_lock(&planned->lock);
    for (struct plan *plan = planned->plans; plan != NULL; plan = plan->next) {
        size_t first = plan->steps[0].size;
        bool fits = first == size || (larger_too && first > size && first / 2 <= size);
        if (plan->key == 0 && fits && (best == NULL || first < best->steps[0].size))
            best = plan;
    }
    use(planned, best);
    spinlock_unlock(&planned->lock);
    return best;
}

/* Another plan that begins as the stream's has so far, and goes on with `size`. */
static struct plan *find_by_beginning(struct planned *planned, const struct plan *current,
                                      uint32_t done, size_t size)
{
    spinlock_lock(&planned->lock);
    struct plan *plan = planned->plans;
    for (; plan != NULL; plan = plan->next) {
        if (plan == current || plan->key != current->key || plan->count <= done ||
            plan->steps[done].size != size)
            continue;
        uint32_t k = 0;
        while (k < done && plan->steps[k].size == current->steps[k].size)
            k++;
        if (k == done)
            break;
    }
    use(planned, plan);
    spinlock_unlock(&planned->lock);
    return plan;
}

static void set_plan(struct plan_stream *stream, struct plan *plan, uint32_t done)
{
    stream->plan = plan;
    planned_set_above(stream, plan->above);
    stream->conflicts = plan->conflicts;
    stream->next = &plan->steps[done];
    uint64_t live = plan->live_bytes;
    span_heap_note_live(&stream->instance->heap, (int64_t)(live - stream->told_live));
    stream->told_live = live;
}

static void drop_plan(struct plan_stream *stream)
{
    struct planned *planned = stream->instance->planned;
    struct plan *plan = stream->plan;
    stream->plan = NULL;
    stream->next = &nothing;
    planned_set_above(stream, stream->instance->class_limit);
    if (plan == NULL)
        return;
    spinlock_lock(&planned->lock);
    plan->uses--;
    spinlock_unlock(&planned->lock);
}

/* Begins to replay a plan that has been put into use. */
static void start_plan(struct plan_stream *stream, struct plan *plan)
{
    bool ready = planned_arena_ready(stream, plan->end_unit) && check_survivors(stream);
    set_plan(stream, plan, 0);
    stream->careful = stream->survivor_count != 0;
    if (!ready) {
        drop_plan(stream); /* all of this inference is for `fit` */
    }
}

/* The first request tells which plan it is, or that this is something new. */
static void choose(struct plan_stream *stream, size_t total)
{
    struct planned *planned = stream->instance->planned;
    stream->choosing = false;
    bool may_record = stream->recordings < RECORDINGS_MOST;
    if (stream->record_next != 0 && may_record) {
        stream->record_next--;
        if (planned_record_begin(stream, 0))
            return;
    }
    struct plan *plan = find_by_first(planned, total, stream->burst == 0 || !may_record);
    if (plan != NULL) {
        start_plan(stream, plan);
    } else if (may_record) {
        (void)planned_record_begin(stream, 0);
    }
}

/* ---- requests ---- */

void planned_set_above(struct plan_stream *stream, size_t above)
{
    stream->above = above;
    stream->cache->class_limit = stream->instance->plain ? above : 0;
}

bool planned_takes(const struct larder *instance, size_t above, size_t total, size_t alignment)
{
    size_t most = instance->front == 0 ? os_page_size() : instance->config.alignment;
    return total > above && alignment <= (most > UNIT ? most : UNIT) &&
           total >> UNIT_SHIFT < region_max_units() / 2;
}

/* The step that a request means; NULL: none. */
static const struct plan_step *match(struct plan_stream *stream, size_t total)
{
    const struct plan_step *next = stream->next;
    const struct plan_step *end = &stream->plan->steps[stream->plan->count];
    if (next->size == total)
        return next;
    uint32_t done = (uint32_t)(next - stream->plan->steps);
    struct plan *other = find_by_beginning(stream->instance->planned, stream->plan, done, total);
    if (other != NULL) {
        collect_survivors(stream, stream->plan);
        drop_plan(stream);
        set_plan(stream, other, done);
        stream->careful = stream->switched = true;
        if (!planned_arena_ready(stream, other->end_unit) || stream->lost) {
            drop_plan(stream);
            return NULL;
        }
        return stream->next;
    }
    for (const struct plan_step *step = next; step < end && step < next + PLAN_LOOK_AHEAD; step++) {
        if (step->size == total) {
            stream->skipped += (uint32_t)(step - next);
            stream->careful = true;
            return step;
        }
    }
    return next < end && total < next->size ? next : NULL;
}

static void *deviate(struct plan_stream *stream)
{
    stream->deviations++;
    return NULL;
}

void *planned_request(struct thread_cache *cache, size_t size, size_t alignment)
{
    struct plan_stream *stream = cache->stream;
    struct larder *instance = stream->instance;
    size_t total = size + instance->front + instance->back;
    if (!planned_takes(instance, stream->above, total, alignment))
        return NULL;
    if (stream->choosing)
        choose(stream, total);
    if (stream->recording != NULL)
        return NULL;
    if (stream->plan == NULL)
        return deviate(stream);
    const struct plan_step *step = match(stream, total);
    if (step == NULL)
        return deviate(stream);
    bool aligned = (((size_t)step->start << UNIT_SHIFT) & (alignment - 1)) == 0;
    bool is_free =
        stream->careful ? is_free_carefully(stream, step) : planned_is_free(stream, step);
    if (!aligned || !is_free) {
        stream->next = step + 1;
        stream->skipped++;
        stream->careful = true;
        return deviate(stream);
    }
    cache->live_told += size; /* the heap knows the plan's peak */
    return planned_place(stream, step, total, size) + instance->front;
}

bool planned_claim(word_t *word, uint32_t *value, bool strict)
{
    uint32_t live = *value, claimed = live | WORD_GENERATION_ONE;
    *value = claimed;
    if (!strict) {
        word_store(word, claimed);
        return true;
    }
    /* relaxed: it is the put that publishes */
    return atomic_compare_exchange_strong_explicit(word, &live, claimed, memory_order_relaxed,
                                                   memory_order_relaxed);
}

bool planned_put(struct thread_cache *cache, struct region *region, uint32_t start, uint32_t word,
                 bool strict)
{
    uint32_t units = word & WORD_INDEX_MASK;
    size_t size = ((size_t)units << UNIT_SHIFT) - word_load(&region->words[start + 1]);
    poison_cached(region_address(region, start), (size_t)units << UNIT_SHIFT);
    if (strict) {
        uint32_t dead = WORD(WORD_LARGE_CACHED) | (word & WORD_GENERATION_MASK);
        if (!atomic_compare_exchange_strong_explicit(&region->words[start], &word, dead,
                                                     memory_order_release, memory_order_relaxed))
            return false;
    } else {
        planned_put_plain(&region->words[start], word);
    }
    count_free(cache, size);
    if (!cache->shared)
        cache->live_told -= size;
    return true;
}

/* ---- inferences ---- */

/* Lets the thread have its stream, waiting for whoever trims it. */
static void enter(struct plan_stream *stream)
{
    struct planned *planned = stream->instance->planned;
    for (;;) {
        spinlock_lock(&planned->lock);
        bool idle = stream->state == STREAM_IDLE;
        if (idle) {
            stream->state = STREAM_IN_ROUND;
            planned->rounds++;
        }
        spinlock_unlock(&planned->lock);
        if (idle)
            return;
        os_yield();
    }
}

static void leave(struct plan_stream *stream)
{
    struct planned *planned = stream->instance->planned;
    spinlock_lock(&planned->lock);
    stream->state = STREAM_IDLE;
    stream->idle_since = os_now_ms();
    spinlock_unlock(&planned->lock);
}

int larder_plan_begin(larder_t *larder, uint64_t key)
{
    if (larder == NULL)
        return -EINVAL;
    struct planned *planned = larder->planned;
    if (planned == NULL)
        return -ENOTSUP;
    struct thread_cache *cache = thread_cache_of(larder);
    if (cache->shared)
        return -EAGAIN;
    if (cache->stream != NULL)
        return -EBUSY;
    if (cache->own_stream == NULL)
        cache->own_stream = planned_stream_get(planned, larder);
    struct plan_stream *stream = cache->own_stream;
    if (stream == NULL)
        return -ENOMEM;
    enter(stream);
    stream->next = &nothing;
    stream->plan = NULL;
    stream->cache = cache;
    planned_set_above(stream, larder->class_limit);
    stream->careful = stream->switched = false;
    stream->skipped = stream->deviations = 0;
    stream->told_live = 0;
    stream->choosing = key == 0;
    if (key != 0) {
        struct plan *plan = find_by_key(planned, key);
        if (plan != NULL) {
            start_plan(stream, plan);
        } else if (!planned_record_begin(stream, key)) {
            leave(stream);
            return -ENOMEM;
        }
    }
    cache->stream = stream;
    return 0;
}

/* What the inference that ends now has shown. */
static void take_stock(struct plan_stream *stream)
{
    struct planned *planned = stream->instance->planned;
    const struct plan *plan = stream->plan;
    if (plan != NULL) {
        uint32_t done = (uint32_t)(stream->next - plan->steps);
        uint64_t hits = done - stream->skipped;
        collect_survivors(stream, plan);
        atomic_fetch_add_explicit(&planned->hits, hits, memory_order_relaxed);
        if (plan->key == 0 && !stream->switched &&
            stream->deviations + stream->skipped > plan->count / 4) {
            stream->burst = stream->burst == 0              ? 1
                            : stream->burst < LONGEST_BURST ? 2 * stream->burst
                                                            : LONGEST_BURST;
            stream->record_next = stream->burst;
        }
    }
    atomic_fetch_add_explicit(&planned->deviations, stream->deviations, memory_order_relaxed);
    span_heap_note_live(&stream->instance->heap, -(int64_t)stream->told_live);
    stream->told_live = 0;
}

static void end_round(struct thread_cache *cache, bool keep)
{
    struct plan_stream *stream = cache->stream;
    cache->stream = NULL;
    if (stream->recording != NULL) {
        struct larder *instance = stream->instance;
        planned_record_end(stream, keep);
        /* the heap has served one inference and may not be needed again: its tables go, too */
        cache_unreserve(instance, span_heap_release_empty(&instance->heap, os_now_ms(), 0, true));
    }
    take_stock(stream);
    drop_plan(stream);
    leave(stream);
}

int larder_plan_end(larder_t *larder)
{
    if (larder == NULL)
        return -EINVAL;
    if (larder->planned == NULL)
        return -ENOTSUP;
    struct thread_cache *cache = thread_cache_of(larder);
    if (cache->stream == NULL)
        return -EINVAL;
    end_round(cache, true);
    cache_tick_if_due(larder, os_now_ms());
    return 0;
}

void planned_thread_ends(struct thread_cache *cache)
{
    struct plan_stream *stream = cache->own_stream;
    if (stream == NULL)
        return;
    if (cache->stream != NULL)
        end_round(cache, false);
    struct planned *planned = stream->instance->planned;
    spinlock_lock(&planned->lock);
    stream->owned = false;
    spinlock_unlock(&planned->lock);
    cache->own_stream = NULL;
}
