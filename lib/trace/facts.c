/* SPDX-License-Identifier: MIT */
/*
 * What can be said of a trace without running it, and the filter by size: both follow each block's
 * size.
 */
#include <errno.h>

#include "pages.h"
#include "threads.h"
#include "trace.h"

/* Sizes of live blocks while walking over a trace. */
struct walk {
    struct trace_facts facts;
    uint64_t live_bytes;
    uint64_t live_blocks;
    uint64_t *size_of; /* by block */
};

static void count_bytes(struct walk *walk, const struct trace_op *op)
{
    struct trace_facts *facts = &walk->facts;
    walk->size_of[op->block] = op->size;
    walk->live_bytes += op->size;
    facts->requested_bytes += op->size;
    facts->largest_bytes = op->size > facts->largest_bytes ? op->size : facts->largest_bytes;
    if (walk->live_bytes > facts->peak_live_bytes) {
        facts->peak_live_bytes = walk->live_bytes;
    }
    if (walk->live_blocks > facts->peak_live_blocks) {
        facts->peak_live_blocks = walk->live_blocks;
    }
}

static void count_op(struct walk *walk, const struct trace_op *op)
{
    switch (op->kind) {
    case TRACE_ALLOCATE:
    case TRACE_CALLOC:
        walk->facts.allocations++;
        walk->live_blocks++;
        count_bytes(walk, op);
        break;
    case TRACE_REALLOCATE:
        walk->facts.reallocations++;
        walk->live_bytes -= walk->size_of[op->block];
        count_bytes(walk, op);
        break;
    case TRACE_FREE:
        walk->facts.frees++;
        walk->live_blocks--;
        walk->live_bytes -= walk->size_of[op->block];
        break;
    default:
        break;
    }
}

int trace_get_facts(const struct trace *trace, struct trace_facts *out)
{
    struct walk walk = {.size_of = pages_allocate(trace->block_count * sizeof *walk.size_of)};
    if (walk.size_of == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < trace->op_count; i++) {
        count_op(&walk, &trace->ops[i]);
    }
    walk.facts.never_freed = walk.live_blocks;
    pages_free(walk.size_of, trace->block_count * sizeof *walk.size_of);
    *out = walk.facts;
    return 0;
}

/*
 * The operation under the filter, or false where it is dropped. `renamed`: by block, its new
 * number.
 */
static bool filter_op(struct trace *trace, struct trace_op *op, uint32_t *renamed,
                      uint32_t *block_count, uint64_t min_size)
{
    if (op->kind == TRACE_THREAD_DONE) {
        return true;
    }
    uint32_t *name = &renamed[op->block];
    bool was_kept = *name != TRACE_NO_BLOCK;
    bool is_kept = op->kind != TRACE_FREE && op->size >= min_size;
    if (!was_kept && !is_kept) {
        trace->notes.small_blocks += op->kind == TRACE_ALLOCATE || op->kind == TRACE_CALLOC;
        return false;
    }
    if (!was_kept) {
        *name = (*block_count)++;
        op->kind = op->kind == TRACE_REALLOCATE ? TRACE_ALLOCATE : op->kind;
    }
    op->block = *name;
    if (!is_kept) {
        *name = TRACE_NO_BLOCK;
        op->kind = TRACE_FREE;
        op->size = 0;
        op->alignment_log2 = 0;
    }
    return true;
}

int trace_filter_min_size(struct trace *trace, uint64_t min_size)
{
    size_t names_bytes = trace->block_count * sizeof(uint32_t);
    uint32_t *renamed = pages_allocate(names_bytes);
    if (renamed == NULL) {
        return -ENOMEM;
    }
    for (uint32_t block = 0; block < trace->block_count; block++) {
        renamed[block] = TRACE_NO_BLOCK;
    }
    uint32_t block_count = 0;
    size_t kept = 0, mark = 0;
    for (size_t i = 0; i < trace->op_count; i++) {
        struct trace_op op = trace->ops[i];
        for (; mark < trace->mark_count && trace->marks[mark].op <= i; mark++) {
            trace->marks[mark].op = (uint32_t)kept;
        }
        if (filter_op(trace, &op, renamed, &block_count, min_size)) {
            trace->ops[kept] = op;
            if (trace->times != NULL) {
                trace->times[kept] = trace->times[i];
            }
            kept++;
        }
    }
    pages_free(renamed, names_bytes);
    for (; mark < trace->mark_count; mark++) {
        trace->marks[mark].op = (uint32_t)kept;
    }
    trace->op_count = kept;
    trace->block_count = block_count;
    return threads_renumber(trace);
}
