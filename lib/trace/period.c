/* SPDX-License-Identifier: MIT */
/* What repeats in a trace: see period.h. */
#include "period.h"

#include <errno.h>
#include <string.h>

#include "address_map.h"
#include "pages.h"

#define RUN_SYMBOLS 12u    /* symbols of a run that votes */
#define CANDIDATES 48u     /* lengths that are tried */
#define WINDOW_MISSES 20u  /* one symbol in so many may differ */
#define SIZES_LEAST 2u     /* shortest period by sizes, */
#define SHAPE_LEAST 16u    /* and by shape: short ones are everywhere */
#define REPETITIONS_MIN 2u /* fewer are no repetition */

struct sequence {
    uint64_t *symbols;
    uint32_t *op;         /* by symbol: its operation of the trace */
    uint64_t *live_bytes; /* by symbol: of the thread's blocks, before it */
    size_t count, capacity;
};

struct candidate {
    uint32_t length;
    uint64_t weight;
};

/* The stretch of the sequence in which each symbol is, nearly always, that of `length` before. */
struct stretch {
    uint32_t length;
    size_t begin, end; /* with the first period, that nothing is compared with */
};

/* -- Symbols ------------------------------------------------------------------------------------- */

static uint32_t busiest_thread(const struct trace *trace, uint32_t *counts)
{
    uint32_t busiest = 0;
    for (size_t i = 0; i < trace->op_count; i++) {
        counts[trace->ops[i].thread]++;
    }
    for (uint32_t thread = 1; thread < trace->thread_count; thread++) {
        busiest = counts[thread] > counts[busiest] ? thread : busiest;
    }
    return busiest;
}

static uint64_t mix(uint64_t a, uint64_t b)
{
    uint64_t x = (a ^ (b + UINT64_C(0x9E3779B97F4A7C15))) * UINT64_C(0xBF58476D1CE4E5B9);
    return (x ^ (x >> 29)) * UINT64_C(0x94D049BB133111EB);
}

/* What is known of a live block. */
struct block_facts {
    uint64_t size;
    uint64_t born; /* allocations before it */
    bool counted;  /* the thread allocated it */
};

/* Both kinds of symbols of an operation, before the block's facts change. */
static uint64_t symbol_of(const struct trace_op *op, const struct block_facts *block,
                          uint64_t allocations, bool by_shape)
{
    bool fresh = op->kind == TRACE_ALLOCATE || op->kind == TRACE_CALLOC;
    if (by_shape) {
        return mix(op->kind, fresh ? 0 : allocations - block->born);
    }
    return mix(mix(op->kind, op->kind == TRACE_FREE ? block->size : op->size), op->alignment_log2);
}

static void fill(struct sequence *sequence, const struct trace *trace, uint32_t thread,
                 struct block_facts *blocks, bool by_shape)
{
    uint64_t live_bytes = 0, allocations = 0;
    for (size_t i = 0; i < trace->op_count; i++) {
        const struct trace_op *op = &trace->ops[i];
        if (op->kind == TRACE_THREAD_DONE) {
            continue;
        }
        struct block_facts *block = &blocks[op->block];
        if (op->thread == thread) {
            sequence->symbols[sequence->count] = symbol_of(op, block, allocations, by_shape);
            sequence->op[sequence->count] = (uint32_t)i;
            sequence->live_bytes[sequence->count++] = live_bytes;
        }
        if (op->kind <= TRACE_CALLOC) {
            block->born = allocations++;
            block->size = 0;
            block->counted = op->thread == thread;
        }
        live_bytes += block->counted ? op->size - block->size : 0;
        block->size = op->size;
    }
}

static int make_sequence(struct sequence *sequence, const struct trace *trace, bool by_shape)
{
    uint32_t *counts = pages_allocate(trace->thread_count * sizeof *counts);
    struct block_facts *blocks = pages_allocate(trace->block_count * sizeof *blocks);
    int result = -ENOMEM;
    *sequence = (struct sequence){0};
    if (counts != NULL && blocks != NULL) {
        uint32_t thread = busiest_thread(trace, counts);
        sequence->capacity = counts[thread];
        sequence->symbols = pages_allocate(sequence->capacity * sizeof *sequence->symbols);
        sequence->op = pages_allocate(sequence->capacity * sizeof *sequence->op);
        sequence->live_bytes = pages_allocate(sequence->capacity * sizeof *sequence->live_bytes);
        if (sequence->symbols != NULL && sequence->op != NULL && sequence->live_bytes != NULL) {
            fill(sequence, trace, thread, blocks, by_shape);
            result = 0;
        }
    }
    pages_free(counts, trace->thread_count * sizeof *counts);
    pages_free(blocks, trace->block_count * sizeof *blocks);
    return result;
}

static void release_sequence(struct sequence *sequence)
{
    pages_free(sequence->symbols, sequence->capacity * sizeof *sequence->symbols);
    pages_free(sequence->op, sequence->capacity * sizeof *sequence->op);
    pages_free(sequence->live_bytes, sequence->capacity * sizeof *sequence->live_bytes);
}

/* -- Votes --------------------------------------------------------------------------------------- */

static uint64_t run_hash(const struct sequence *sequence, size_t last)
{
    uint64_t hash = 0;
    for (size_t i = last + 1 - RUN_SYMBOLS; i <= last; i++) {
        hash = mix(hash, sequence->symbols[i]);
    }
    return hash | 1; /* 0 is no key */
}

static int vote_once(struct address_map *votes, uint64_t distance)
{
    struct address_entry *entry = address_map_find(votes, distance);
    if (entry == NULL) {
        entry = address_map_insert(votes, distance);
        if (entry == NULL) {
            return -ENOMEM;
        }
        entry->first = 0;
    }
    entry->first++;
    return 0;
}

/* Each run votes for its distance from the same run before. */
static int vote(const struct sequence *sequence, struct address_map *votes)
{
    struct address_map seen = {0};
    int result = 0;
    for (size_t i = RUN_SYMBOLS - 1; result == 0 && i < sequence->count; i++) {
        uint64_t hash = run_hash(sequence, i);
        struct address_entry *entry = address_map_find(&seen, hash);
        if (entry != NULL) {
            result = vote_once(votes, i - entry->first);
        } else {
            entry = address_map_insert(&seen, hash);
        }
        if (entry == NULL) {
            result = -ENOMEM;
        } else {
            entry->first = (uint32_t)i;
        }
    }
    address_map_clear(&seen);
    return result;
}

/* The lengths with most votes, each counted as long as it is: few runs tell two layers apart. */
static size_t elect(const struct address_map *votes, size_t least, struct candidate *candidates)
{
    size_t count = 0;
    for (size_t i = 0; i < votes->capacity; i++) {
        const struct address_entry *entry = &votes->entries[i];
        if (entry->address < least) {
            continue;
        }
        struct candidate new = {.length = (uint32_t)entry->address,
                                .weight = entry->address * entry->first};
        size_t at = count < CANDIDATES ? count++ : CANDIDATES;
        for (; at > 0 && candidates[at - 1].weight < new.weight; at--) {
            if (at < CANDIDATES) {
                candidates[at] = candidates[at - 1];
            }
        }
        if (at < CANDIDATES) {
            candidates[at] = new;
        }
    }
    return count;
}

/* -- The choice ---------------------------------------------------------------------------------- */

/* The longest stretch that repeats with this length. */
static struct stretch measure(const struct sequence *sequence, uint32_t length)
{
    const uint64_t *symbols = sequence->symbols;
    struct stretch best = {.length = length};
    size_t misses = 0, begin = length, allowed = length / WINDOW_MISSES;
    for (size_t i = length; i < sequence->count; i++) {
        misses += symbols[i] != symbols[i - length];
        if (i >= begin + length) {
            misses -= symbols[i - length] != symbols[i - 2 * (size_t)length];
        }
        if (misses > allowed) {
            begin = i + 1;
            misses = 0;
        } else if (i + 1 - begin > best.end - best.begin) {
            best.begin = begin;
            best.end = i + 1;
        }
    }
    return best;
}

static struct stretch choose(const struct sequence *sequence, const struct candidate *candidates,
                             size_t count)
{
    struct stretch all[CANDIDATES], chosen = {0};
    size_t longest = 0;
    for (size_t i = 0; i < count; i++) {
        all[i] = measure(sequence, candidates[i].length);
        size_t length = all[i].end - all[i].begin;
        longest = length > longest ? length : longest;
    }
    for (size_t i = 0; i < count; i++) {
        size_t length = all[i].end - all[i].begin;
        if (length > 0 && length >= longest - longest / 10 &&
            (chosen.length == 0 || all[i].length < chosen.length)) {
            chosen = all[i];
        }
    }
    if (chosen.length > 0) {
        chosen.begin -= chosen.length;
    }
    return chosen;
}

/* Where in a period the fewest bytes are live: over as many periods for each place, since many a
 * trace's live bytes grow. */
static size_t find_start(const struct sequence *sequence, const struct stretch *stretch)
{
    size_t periods = (stretch->end - stretch->begin) / stretch->length;
    size_t best = stretch->begin;
    double least = -1;
    for (size_t offset = 0; offset < stretch->length; offset++) {
        double sum = 0;
        for (size_t i = 0; i + 1 < periods; i++) {
            sum += (double)sequence->live_bytes[stretch->begin + offset + i * stretch->length];
        }
        if (least < 0 || sum < least) {
            least = sum;
            best = stretch->begin + offset;
        }
    }
    return best;
}

static int add_phases(const struct trace *trace, const struct sequence *sequence,
                      const struct stretch *stretch, struct phases *out)
{
    size_t start = find_start(sequence, stretch);
    size_t count = (stretch->end - start) / stretch->length;
    int result = 0;
    if (count < REPETITIONS_MIN) {
        return 0;
    }
    for (size_t i = 0; result == 0 && i < count; i++) {
        size_t next = start + (i + 1) * stretch->length;
        size_t end = next < sequence->count ? sequence->op[next] : trace->op_count;
        if (i + 1 == count && next > 0) {
            end = sequence->op[next - 1] + (size_t)1; /* nothing that comes behind it */
        }
        result = phases_add(out, sequence->op[start + i * stretch->length], end);
    }
    return result;
}

static int find_by(const struct trace *trace, bool by_shape, struct phases *out)
{
    struct sequence sequence;
    struct address_map votes = {0};
    struct candidate candidates[CANDIDATES];
    int result = make_sequence(&sequence, trace, by_shape);
    if (result == 0 && sequence.count >= 2 * RUN_SYMBOLS) {
        result = vote(&sequence, &votes);
    }
    if (result == 0) {
        size_t count = elect(&votes, by_shape ? SHAPE_LEAST : SIZES_LEAST, candidates);
        struct stretch stretch = choose(&sequence, candidates, count);
        if (stretch.length > 0) {
            result = add_phases(trace, &sequence, &stretch, out);
        }
    }
    address_map_clear(&votes);
    release_sequence(&sequence);
    return result;
}

/* How much of the trace the phases cover. */
static size_t covered(const struct phases *phases)
{
    return phases->count == 0 ? 0 : phases->phases[phases->count - 1].end - phases->phases[0].begin;
}

/*
 * Whether what repeats in shape is the better answer: it covers far more, or it shows that what
 * repeats by sizes is several inferences of a set of inputs that came again.
 */
static bool shape_wins(const struct phases *by_size, const struct phases *by_shape)
{
    if (covered(by_shape) > 2 * covered(by_size)) {
        return true;
    }
    if (by_size->count == 0 || by_shape->count <= by_size->count ||
        covered(by_shape) < covered(by_size) - covered(by_size) / 10) {
        return false;
    }
    uint32_t size_length = by_size->phases[0].end - by_size->phases[0].begin;
    uint32_t shape_length = by_shape->phases[0].end - by_shape->phases[0].begin;
    return size_length % shape_length == 0;
}

int period_find(const struct trace *trace, struct phases *out)
{
    struct phases by_shape = {0};
    int result = find_by(trace, false, out);
    if (result == 0) {
        result = find_by(trace, true, &by_shape);
    }
    if (shape_wins(out, &by_shape)) {
        struct phases swap = *out;
        *out = by_shape;
        by_shape = swap;
    }
    phases_release(&by_shape);
    return result;
}
