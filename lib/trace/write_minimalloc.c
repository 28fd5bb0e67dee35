/* SPDX-License-Identifier: MIT */
/*
 * MiniMalloc's CSV: id,lower,upper,size, a row for each block and for each size that it had.
 *
 * Time is the number of the operation in recorded order; lifetimes are half open, so a block that
 * is freed by operation N ends at N. Rows come in order of allocation. Source: the MiniMalloc
 * repository's README (Moffitt, "MiniMalloc: A Lightweight Memory Allocator for
 * Hardware-Accelerated Machine Learning", ASPLOS 2023).
 */
#include <errno.h>
#include <inttypes.h>

#include "pages.h"
#include "writer.h"

/* The end of what each operation gives a block: the operation that resizes or frees it. */
static uint32_t *find_ends(const struct trace *trace)
{
    size_t count = trace->op_count;
    uint32_t *ends = pages_allocate(count * sizeof *ends);
    uint32_t *last = pages_allocate(trace->block_count * sizeof *last);
    for (size_t i = 0; ends != NULL && last != NULL && i < count; i++) {
        const struct trace_op *op = &trace->ops[i];
        if (op->kind == TRACE_THREAD_DONE) {
            continue;
        }
        if (op->kind > TRACE_CALLOC) {
            ends[last[op->block]] = (uint32_t)i;
        }
        last[op->block] = (uint32_t)i;
    }
    if (last == NULL) {
        pages_free(ends, count * sizeof *ends);
        return NULL;
    }
    pages_free(last, trace->block_count * sizeof *last);
    return ends;
}

static int minimalloc_write(const struct trace *trace, struct sink *sink)
{
    uint32_t *ends = find_ends(trace);
    uint64_t id = 0;
    if (ends == NULL) {
        return -ENOMEM;
    }
    sink_print(sink, "id,lower,upper,size\n");
    for (size_t i = 0; i < trace->op_count; i++) {
        const struct trace_op *op = &trace->ops[i];
        if (op->kind > TRACE_REALLOCATE || op->size == 0) {
            continue;
        }
        size_t end = ends[i] > 0 ? ends[i] : trace->op_count;
        sink_print(sink, "%" PRIu64 ",%zu,%zu,%" PRIu64 "\n", id++, i, end, op->size);
    }
    pages_free(ends, trace->op_count * sizeof *ends);
    return 0;
}

const struct trace_writer trace_writer_minimalloc = {
    .name = "minimalloc",
    .extension = ".csv",
    .summary = "MiniMalloc's CSV: lifetimes and sizes, for planners",
    .carries = 0,
    .write = minimalloc_write,
};
