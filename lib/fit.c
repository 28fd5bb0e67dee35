/* SPDX-License-Identifier: MIT */
/*
 * Theory
 *
 * Two kinds of blocks, by size:
 *   - up to SIZE_CLASS_LIMIT: of a class, cut from runs (spans of equal blocks); states in the run;
 *   - above: a span of as many units as needed; taken from and given to the heap at once.
 * The first go through the thread's magazines and the depot, and their runs lie in a heap of their own (small_heap): a
 * block that waits in a magazine would otherwise stand in the middle of a hole that a large block needs. (Measured 2026-11
 * on MNASNet: peak RSS over peak live 1.27 with one heap, 1.07 with two.)
 *
 * What is cached outside the heap stays small: a thread holds at most its lease (56 KiB, and up to twice that from what
 * all have in common, which is 56 KiB a processor), the depots together DEPOT_BASE plus a 64th of what is in use. Beyond that, magazines are emptied into runs. Runs without a block in use are spares of their
 * class until their memory is wanted: by another class that would otherwise make the heap much larger than runs in use have been at once (fit_magazines.c), by the
 * budget, a trim, or the decay.
 *
 * The cap (only if the instance has one): leases, full magazines and the heap's free pages are each reserved
 * against cached_total before they come to be. With a cap, spans are whole pages, so that a span can
 * always be discarded completely when nothing may be kept.
 *
 * States: live to cached by plain load and store of the thread that frees. Two threads that free the same block at
 * the same instant can both succeed; checks=strict uses a compare-and-swap instead. Spans are verified again
 * under the heap's lock, so a double free there is always caught while the block is cached.
 */
#include "fit.h"

#include "fit_tiers.h"
#include "planned.h"
#include "poison.h"
#include "thread_state.h"

/* ---- set-up ---- */

static uint32_t heap_step(const struct larder *instance)
{
    uint32_t step = 1;
    if (instance->config.alignment > UNIT)
        step = (uint32_t)(instance->config.alignment >> UNIT_SHIFT);
    uint32_t page = (uint32_t)(os_page_size() >> UNIT_SHIFT);
    if (instance->capped && step < page)
        step = page;
    return step;
}

static uint32_t round_units(const struct larder *instance, size_t bytes)
{
    uint32_t step = instance->heap.step;
    uint32_t units = (uint32_t)((bytes + UNIT - 1) >> UNIT_SHIFT);
    return (units + step - 1) & ~(step - 1);
}

/*
 * Blocks a run: enough to make runs of about 8 KiB, at least 2, at most what a record has states for. Those below a unit come in eights, and
 * their size is a multiple of 64: they fill whole units.
 */
static uint32_t blocks_per_run(size_t block_size)
{
    size_t blocks = 8192 / block_size;
    if (block_size < UNIT) {
        blocks &= ~(size_t)7;
        return (uint32_t)(blocks < RUN_MAX_TINY_BLOCKS ? blocks : RUN_MAX_TINY_BLOCKS);
    }
    if (blocks < 4)
        blocks = block_size <= 4096 ? 4 : 2;
    return (uint32_t)(blocks < RUN_MAX_BLOCKS ? blocks : RUN_MAX_BLOCKS);
}

void fit_init(struct larder *instance)
{
    span_heap_init(&instance->heap, instance, heap_step(instance), (uint32_t)instance->front);
    span_heap_init(&instance->small_heap, instance, heap_step(instance), (uint32_t)instance->front);
    if (instance->plain && !instance->capped && instance->config.policy == LARDER_POLICY_FIT)
        instance->heap.loops = span_loops_get(&instance->heap);
    for (unsigned c = 0; c < instance->class_count; c++) {
        struct depot *depot = &instance->depots[c];
        size_t size = size_class_size(c, instance->class_shift);
        depot->run_blocks = blocks_per_run(size);
        depot->run_units = round_units(instance, size * depot->run_blocks);
        if (depot->run_units < RUN_MIN_UNITS)
            depot->run_units = RUN_MIN_UNITS;
        spinlock_set_rank(&depot->lock, RANK_DEPOT);
        depot->block_size = (uint32_t)size;
        depot->record_size = (uint32_t)run_record_size(size);
    }
}

/* ---- blocks ---- */

/* Makes a class block live, for a request of `size` bytes. */
static void *mark_live(const struct larder *instance, struct round round, unsigned c, size_t size)
{
    word_t *word = &round.state->word;
    uint32_t generation = (word_load(word) + STATE_GENERATION_ONE) & STATE_GENERATION_MASK;
    word_store(word, STATE_LIVE | generation | (uint32_t)size);
    poison_live(round.ptr, instance->depots[c].block_size);
    return round.ptr;
}

static void *alloc_class(struct larder *instance, struct thread_cache *cache, unsigned c,
                         size_t size)
{
    struct round round;
    if (!cache->shared && fit_take_round(instance, cache, c, &round))
        return mark_live(instance, round, c, size);
    /* No magazine for this thread: a single block straight from a run. */
    while (depot_take_blocks(&instance->depots[c], NULL, &round, 1) == 0) {
        if (!fit_run_create(instance, cache, c))
            return NULL;
    }
    return mark_live(instance, round, c, size);
}

/* Notes what the caller asked for; the block. */
static void *finish_large(struct taken_span taken, uint32_t units, size_t size)
{
    word_store(&taken.region->words[taken.start + 1], (uint32_t)(span_bytes(units) - size));
    void *block = region_address(taken.region, taken.start);
    poison_live(block, span_bytes(units));
    return block;
}

void *fit_finish_span(struct larder *instance, struct thread_cache *cache, struct taken_span taken,
                      size_t size, size_t *written)
{
    uint32_t units = (uint32_t)((size + UNIT - 1) >> UNIT_SHIFT);
    count_alloc(cache, size); /* before, so that the heap sees the peak */
    if (taken.region != NULL) {
        cache->live_told += size;
        if (!fit_make_usable(taken.region->heap, taken, units)) {
            taken.region = NULL;
            cache->live_told -= size; /* the put in it has told nothing */
            span_heap_note_live(cache->heap, -(int64_t)size);
        }
    } else {
        taken = fit_take_span(cache->heap, cache, units, 0, WORD(WORD_LARGE_LIVE));
    }
    if (taken.region == NULL) {
        count_add(cache, &cache->counters.allocations, UINT64_MAX);
        count_add(cache, &cache->counters.allocated_bytes, 0 - (uint64_t)size);
        return NULL;
    }
    if (taken.fresh_pages != 0)
        fit_note_fresh(instance, cache);
    count_add(cache, &cache->counters.slow_allocations, 1);
    *written = size;
    if (taken.fresh_pages != 0 && instance->backend_reserves) {
        size_t touched = span_bytes(word_load(&taken.region->words[taken.start + 1]));
        *written = touched < size ? touched : size;
    }
    return finish_large(taken, units, size);
}

bool fit_free_span(struct thread_cache *cache, struct region *region, uint32_t start, uint32_t word)
{
    uint32_t units = word & WORD_INDEX_MASK;
    size_t size = span_bytes(units) - word_load(&region->words[start + 1]);
    count_free(cache, size);
    poison_cached(region_address(region, start), span_bytes(units));
    if (__builtin_expect(fit_put_span(cache, region, start, units, word), 1)) {
        count_add(cache, &cache->counters.slow_frees, 1);
        return true;
    }
    count_add(cache, &cache->counters.frees, UINT64_MAX);
    count_add(cache, &cache->counters.freed_bytes, 0 - (uint64_t)size);
    return false;
}

static void *alloc_large(struct larder *instance, struct thread_cache *cache, size_t total,
                         size_t size, size_t alignment)
{
    uint32_t units = round_units(instance, total);
    if (units < 2)
        units = 2;
    struct taken_span taken =
        fit_take_span(cache->heap, cache, units, alignment, WORD(WORD_LARGE_LIVE));
    if (taken.region == NULL)
        return NULL;
    if (taken.fresh_pages != 0)
        fit_note_fresh(instance, cache);
    return finish_large(taken, units, size);
}

/* The class that serves `total` bytes at `alignment`, or -1; none above `limit`. */
static int class_for(const struct larder *instance, size_t limit, size_t total, size_t alignment)
{
    if (total > limit)
        return -1;
    unsigned c = size_class_of(total, instance->class_shift);
    if (alignment <= instance->config.alignment)
        return (int)c;
    if (alignment > UNIT)
        return -1;
    while (c < instance->class_count && instance->depots[c].block_size % alignment != 0)
        c++;
    return c < instance->class_count ? (int)c : -1;
}

void *fit_alloc(struct larder *instance, struct thread_cache *cache, size_t size, size_t alignment,
                bool *too_large)
{
    size_t front = instance->front;
    size_t total = size + front + instance->back;
    *too_large = alignment > MAP_GRANULE || (total + alignment) >> UNIT_SHIFT >= region_max_units();
    if (*too_large)
        return NULL;
    /* an over-aligned address behind a front needs a span that starts askew: no class can have it */
    bool askew = front != 0 && alignment > instance->config.alignment;
    size_t limit =
        cache->stream != NULL ? planned_class_limit(cache->stream) : instance->class_limit;
    int c = askew ? -1 : class_for(instance, limit, total, alignment);
    char *block = c >= 0 ? alloc_class(instance, cache, (unsigned)c, size)
                         : alloc_large(instance, cache, total, size, alignment);
    return block != NULL ? block + front : NULL;
}

/* The state of the block of a run that begins at `base`, or NULL. `word` is that of base's unit. */
static struct block_state *find_state(const struct region *region, uint32_t word, uintptr_t base)
{
    struct block_state *state = region_state(region, word);
    uint32_t beyond = (uint32_t)base - state->address;
    uint32_t size = region->instance->depots[word_class(word)].block_size;
    if (beyond >= size && size < UNIT && beyond < UNIT)
        state += beyond / size;
    return state->address == (uint32_t)base ? state : NULL;
}

bool fit_find(struct region *region, uintptr_t address, struct fit_block *block, const char **state)
{
    size_t offset;
    struct larder *instance = region->instance;
    *state = "interior";
    if (!region_contains(region, address - instance->front, &offset))
        return false;
    block->region = region;
    block->base = (char *)(address - instance->front);
    block->word = &region->words[offset >> UNIT_SHIFT];
    block->value = word_load(block->word);
    block->is_large = word_kind(block->value) != WORD_RUN;
    if (!block->is_large) {
        struct block_state *found = find_state(region, block->value, (uintptr_t)block->base);
        if (found == NULL)
            return false;
        block->size_class = (unsigned)word_class(block->value);
        block->bytes = instance->depots[block->size_class].block_size;
        block->word = &found->word;
        block->value = word_load(&found->word);
        block->size = block->value & STATE_SIZE_MASK;
        *state = state_is_live(block->value) ? "live" : "cached";
        return true;
    }
    if ((offset & (UNIT - 1)) != 0)
        return false;
    switch (word_kind(block->value)) {
    case WORD_LARGE_LIVE:
        if (region->arena != NULL && planned_is_claimed(block->value)) {
            block->value = WORD(WORD_LARGE_CACHED);
            block->bytes = block->size = 0;
            *state = "cached";
            return true;
        }
        block->bytes = span_bytes(block->value & WORD_INDEX_MASK);
        block->size = block->bytes - word_load(block->word + 1);
        *state = "live";
        return true;
    case WORD_FREE:
    case WORD_LARGE_CACHED:
        block->bytes = block->size = 0;
        *state = "cached";
        return true;
    default:
        return false;
    }
}

/* A class block, live to cached. */
static bool mark_cached(const struct fit_block *block, bool strict)
{
    uint32_t cached = block->value & STATE_GENERATION_MASK;
    if (strict) {
        uint32_t value = block->value;
        return atomic_compare_exchange_strong_explicit(block->word, &value, cached,
                                                       memory_order_relaxed, memory_order_relaxed);
    }
    word_store(block->word, cached);
    return true;
}

/* A large block of no arena; false if it is not live any more. */
static bool free_large(struct larder *instance, struct thread_cache *cache,
                       const struct fit_block *block)
{
    uint32_t start = (uint32_t)(block->word - block->region->words);
    if (instance->planned != NULL)
        planned_note_freed(instance, block->base);
    if (!fit_free_span(cache, block->region, start, block->value))
        return false;
    if (instance->planned != NULL)
        planned_after_put(instance);
    count_add(cache, &cache->counters.slow_frees, UINT64_MAX); /* the caller counts it */
    return true;
}

/* A class block that is cached. */
static void free_round(struct larder *instance, struct thread_cache *cache,
                       const struct fit_block *block)
{
    count_free(cache, block->size);
    poison_cached(block->base, block->bytes); /* nobody else can get it before the next lines */
    unsigned c = block->size_class;
    struct round round = {block->base, fit_state_of(block)};
    if (!fit_put_round(instance, cache, c, round))
        fit_give_rounds(instance, c, &round, 1);
}

bool fit_free(struct larder *instance, struct thread_cache *cache, const struct fit_block *block,
              bool strict)
{
    struct region *region = block->region;
    if (block->is_large && region->arena != NULL)
        return planned_put(cache, region, (uint32_t)(block->word - region->words), block->value,
                           strict);
    if (block->is_large)
        return free_large(instance, cache, block);
    if (!mark_cached(block, strict))
        return false;
    free_round(instance, cache, block);
    return true;
}

bool fit_claim(struct fit_block *block, bool strict)
{
    if (!block->is_large)
        return mark_cached(block, strict);
    if (block->region->arena != NULL)
        return planned_claim(block->word, &block->value, strict);
    uint32_t value = block->value, claimed = WORD(WORD_LARGE_CACHED) | (value & WORD_INDEX_MASK);
    block->value = claimed;
    /* relaxed: whoever gets the span next gets it from the heap, under its lock */
    return atomic_compare_exchange_strong_explicit(block->word, &value, claimed,
                                                   memory_order_relaxed, memory_order_relaxed);
}

void fit_free_claimed(struct larder *instance, struct thread_cache *cache,
                      const struct fit_block *block)
{
    if (block->is_large)
        (void)fit_free(instance, cache, block, false); /* by the word that claim left */
    else
        free_round(instance, cache, block);
}

void fit_resize(struct larder *instance, const struct fit_block *block, size_t size)
{
    (void)instance;
    if (block->is_large) {
        word_store(block->word + 1, (uint32_t)(block->bytes - size));
    } else {
        word_store(block->word, (block->value & ~STATE_SIZE_MASK) | (uint32_t)size);
    }
}

size_t fit_good_size(const struct larder *instance, size_t size)
{
    size_t total = size + instance->front + instance->back;
    if ((total >> UNIT_SHIFT) >= region_max_units())
        return 0;
    int c = class_for(instance, instance->class_limit, total, instance->config.alignment);
    size_t bytes =
        c >= 0 ? instance->depots[c].block_size : span_bytes(round_units(instance, total));
    return bytes - instance->front - instance->back;
}

int fit_walk_region(struct region *region, larder_walk_fn *fn, void *context)
{
    size_t front = region->instance->front;
    struct fit_block block;
    const char *state;
    for (uint32_t unit = region_first_unit(); unit < region->top;) {
        uint32_t value = word_load(&region->words[unit]);
        uintptr_t address = (uintptr_t)region_address(region, unit) + front;
        if (word_kind(value) == WORD_RUN) {
            const struct run *run = run_of_first(region_state(region, value));
            for (uint32_t i = 0; i < run->blocks; i++, address += run->block_size) {
                if (!state_is_live(word_load(&run->states[i].word)))
                    continue;
                if (!fit_find(region, address, &block, &state))
                    continue;
                int stop = fn(context, (void *)address, block.size);
                if (stop != 0)
                    return stop;
            }
            unit += run->length;
            continue;
        }
        bool found = fit_find(region, address, &block, &state);
        if (found && fit_is_live(&block)) {
            int stop = fn(context, (void *)address, block.size);
            if (stop != 0)
                return stop;
        }
        if (word_kind(value) == WORD_FREE) {
            unit += region->spans[value & WORD_INDEX_MASK].length;
        } else if (word_kind(value) == WORD_LARGE_CACHED) {
            unit += (value & WORD_INDEX_MASK) != 0 ? value & WORD_INDEX_MASK : 1;
        } else {
            unit += found && block.bytes >= UNIT ? (uint32_t)(block.bytes >> UNIT_SHIFT) : 1;
        }
    }
    return 0;
}
