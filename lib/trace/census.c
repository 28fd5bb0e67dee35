/* SPDX-License-Identifier: MIT */
/* Counting over a trace, a pass for each question: see census.h. */
#include "census.h"

#include <errno.h>

#include "address_map.h"
#include "measure.h"
#include "pages.h"
#include "stable_sort.h"

struct block_facts {
    uint64_t size;
    uint32_t born; /* operation */
    uint32_t thread;
};

struct counting {
    const struct trace *trace;
    struct census *census;
    struct block_facts *blocks;
    struct address_map sizes; /* by size + 1: live now, and most at once */
};

static unsigned class_of(uint64_t value)
{
    unsigned class = 0;
    for (; value > 0; value /= 2) {
        class ++;
    }
    return class;
}

/* One more, or one less, live block of that size. */
static int count_size(struct counting *counting, uint64_t size, bool more)
{
    struct address_entry *entry = address_map_find(&counting->sizes, size + 1);
    if (entry == NULL) {
        entry = address_map_insert(&counting->sizes, size + 1);
        if (entry == NULL) {
            return -ENOMEM;
        }
        entry->first = 0;
        entry->last = 0;
        counting->census->distinct_sizes++;
    }
    entry->first += more ? 1u : UINT32_MAX; /* minus one */
    if (entry->first > entry->last && more) {
        entry->last = entry->first;
        counting->census->exact_cache_bytes += size;
    }
    return 0;
}

static void count_free(struct counting *counting, size_t index)
{
    const struct trace_op *op = &counting->trace->ops[index];
    const struct block_facts *block = &counting->blocks[op->block];
    struct census *census = counting->census;
    census->foreign_frees += block->thread != op->thread;
    census->lifetime_ops[class_of(index - block->born)]++;
    if (counting->trace->times != NULL) {
        uint64_t from = counting->trace->times[block->born].end_ns;
        uint64_t to = counting->trace->times[index].start_ns;
        census->lifetime_ns[class_of(to > from ? to - from : 0)]++;
    }
}

static void count_allocation(struct counting *counting, size_t index)
{
    const struct trace_op *op = &counting->trace->ops[index];
    struct census *census = counting->census;
    unsigned class = class_of(op->size);
    census->size_counts[class]++;
    census->size_bytes[class] += op->size;
    census->alignment_counts[op->alignment_log2 % 64]++;
    counting->blocks[op->block] =
        (struct block_facts){.born = (uint32_t)index, .thread = op->thread};
}

static int count_op(struct counting *counting, size_t index)
{
    const struct trace_op *op = &counting->trace->ops[index];
    if (op->kind == TRACE_THREAD_DONE) {
        return 0;
    }
    struct block_facts *block = &counting->blocks[op->block];
    int result = 0;
    if (op->kind <= TRACE_CALLOC) {
        count_allocation(counting, index);
    } else {
        result = count_size(counting, block->size, false);
    }
    if (op->kind == TRACE_FREE) {
        count_free(counting, index);
        return result;
    }
    if (op->kind == TRACE_REALLOCATE) {
        counting->census->foreign_reallocations += block->thread != op->thread;
    }
    block->size = op->size;
    return result == 0 ? count_size(counting, op->size, true) : result;
}

static void count_times(const struct trace *trace, struct census *census)
{
    census->first_ns = UINT64_MAX;
    for (size_t i = 0; trace->times != NULL && i < trace->op_count; i++) {
        uint64_t start = trace->times[i].start_ns, end = trace->times[i].end_ns;
        uint64_t first = start > 0 ? start : end;
        if (first > 0 && first < census->first_ns) {
            census->first_ns = first;
        }
        census->last_ns = end > census->last_ns ? end : census->last_ns;
    }
    if (census->first_ns == UINT64_MAX) {
        census->first_ns = 0;
    }
}

int census_take(const struct trace *trace, struct census *out)
{
    *out = (struct census){.first_ns = 0};
    struct counting counting = {
        .trace = trace,
        .census = out,
        .blocks = pages_allocate(trace->block_count * sizeof *counting.blocks),
    };
    int result = counting.blocks != NULL ? 0 : -ENOMEM;
    for (size_t i = 0; result == 0 && i < trace->op_count; i++) {
        result = count_op(&counting, i);
    }
    count_times(trace, out);
    pages_free(counting.blocks, trace->block_count * sizeof *counting.blocks);
    address_map_clear(&counting.sizes);
    return result;
}

int census_live_bytes(const struct trace *trace, uint64_t *most, size_t count)
{
    uint64_t *size_of = pages_allocate(trace->block_count * sizeof *size_of);
    uint64_t live = 0;
    size_t next = 0;
    if (size_of == NULL) {
        return -ENOMEM;
    }
    for (size_t part = 0; part < count; part++) {
        /* 128 bits are not everywhere; operations x parts stay far below 2^64. */
        size_t end = (size_t)((uint64_t)trace->op_count * (part + 1) / count);
        most[part] = live;
        for (; next < end; next++) {
            const struct trace_op *op = &trace->ops[next];
            if (op->kind != TRACE_THREAD_DONE) {
                live = live - size_of[op->block] + op->size;
                size_of[op->block] = op->size;
                most[part] = live > most[part] ? live : most[part];
            }
        }
    }
    pages_free(size_of, trace->block_count * sizeof *size_of);
    return 0;
}

/* -- Likeness ------------------------------------------------------------------------------------ */

static bool are_identical(const struct trace *trace, const struct phase *a, const struct phase *b)
{
    if (a->end - a->begin != b->end - b->begin) {
        return false;
    }
    for (uint32_t i = 0; i < a->end - a->begin; i++) {
        const struct trace_op *left = &trace->ops[a->begin + i];
        const struct trace_op *right = &trace->ops[b->begin + i];
        if (left->kind != right->kind || left->size != right->size ||
            left->alignment_log2 != right->alignment_log2) {
            return false;
        }
    }
    return true;
}

/* The sizes that the phase asks for, sorted; returns how many. */
static size_t sort_sizes(const struct trace *trace, const struct phase *phase,
                         struct sort_entry *sizes, int *result)
{
    size_t count = 0;
    for (uint32_t i = phase->begin; i < phase->end; i++) {
        if (trace->ops[i].kind <= TRACE_REALLOCATE) {
            sizes[count++].key = trace->ops[i].size;
        }
    }
    *result = stable_sort(sizes, count);
    return count;
}

static size_t count_common(const struct sort_entry *a, size_t a_count, const struct sort_entry *b,
                           size_t b_count)
{
    size_t common = 0;
    for (size_t i = 0, j = 0; i < a_count && j < b_count;) {
        if (a[i].key == b[j].key) {
            common++;
        }
        bool a_first = a[i].key <= b[j].key, b_first = b[j].key <= a[i].key;
        i += a_first;
        j += b_first;
    }
    return common;
}

/* Shares as parts of a million, so that measure_median() can sort them. */
#define WHOLE 1000000u

static int share_in_common(const struct trace *trace, const struct phase *a, const struct phase *b,
                           struct sort_entry *sizes, uint64_t *share)
{
    int result;
    size_t a_count = sort_sizes(trace, a, sizes, &result);
    if (result != 0) {
        return result;
    }
    size_t b_count = sort_sizes(trace, b, sizes + a_count, &result);
    size_t more = a_count > b_count ? a_count : b_count;
    if (result == 0) {
        size_t common = count_common(sizes, a_count, sizes + a_count, b_count);
        *share = more == 0 ? WHOLE : (uint64_t)common * WHOLE / more;
    }
    return result;
}

int census_compare(const struct trace *trace, const struct phases *phases,
                   struct census_likeness *out)
{
    size_t pairs = phases->count - 1;
    struct sort_entry *sizes = pages_allocate(trace->op_count * sizeof *sizes);
    uint64_t *shares = pages_allocate(pairs * sizeof *shares);
    int result = sizes != NULL && shares != NULL ? 0 : -ENOMEM;
    uint64_t least = WHOLE;
    *out = (struct census_likeness){.identical = 0};
    for (size_t i = 0; result == 0 && i < pairs; i++) {
        const struct phase *before = &phases->phases[i];
        out->identical += are_identical(trace, before, before + 1);
        result = share_in_common(trace, before, before + 1, sizes, &shares[i]);
        least = shares[i] < least ? shares[i] : least;
    }
    if (result == 0) {
        out->least = (double)least / WHOLE;
        out->median = measure_median(shares, pairs) / WHOLE;
    }
    pages_free(sizes, trace->op_count * sizeof *sizes);
    pages_free(shares, pairs * sizeof *shares);
    return result;
}
