/* SPDX-License-Identifier: MIT */
/*
 * Android's memory_replay text, as format_android.c reads it.
 *
 * A trace has no addresses, so they are made up: each live block has a slot, the lowest free one
 * when it was allocated, and an address for each slot. So no two live blocks share an address, and
 * reading the text back gives the same operations. Slots are as far apart as the largest block is
 * long, where the address space has room for that: then blocks do not overlap either, and
 * alignments hold.
 */
#include <errno.h>
#include <inttypes.h>

#include "pages.h"
#include "writer.h"

#define ADDRESS_MAX (UINT64_C(1) << 47)

struct addresses {
    const struct trace *trace;
    uint32_t *slot_of;    /* by block */
    uint32_t *free_slots; /* a stack */
    size_t free_count;
    uint32_t slot_count;
    uint64_t stride;
};

static uint64_t choose_stride(const struct trace *trace)
{
    uint64_t stride = 16, largest = 0, live = 0, most = 1;
    for (size_t i = 0; i < trace->op_count; i++) {
        const struct trace_op *op = &trace->ops[i];
        uint64_t alignment = UINT64_C(1) << op->alignment_log2;
        largest = op->size > largest ? op->size : largest;
        stride = alignment > stride ? alignment : stride;
        live += op->kind <= TRACE_CALLOC;
        live -= op->kind == TRACE_FREE;
        most = live > most ? live : most;
    }
    while (stride < largest && stride < ADDRESS_MAX) {
        stride *= 2;
    }
    while (stride > 16 && stride > ADDRESS_MAX / (most + 1)) {
        stride /= 2;
    }
    return stride;
}

/* The address of the operation's block, which it begins or ends to have. */
static uint64_t address_of(struct addresses *addresses, const struct trace_op *op)
{
    uint32_t *slot = &addresses->slot_of[op->block];
    if (op->kind <= TRACE_CALLOC) {
        *slot = addresses->free_count > 0 ? addresses->free_slots[--addresses->free_count]
                                          : addresses->slot_count++;
    } else if (op->kind == TRACE_FREE) {
        addresses->free_slots[addresses->free_count++] = *slot;
    }
    return (*slot + UINT64_C(1)) * addresses->stride;
}

static void write_op(struct addresses *addresses, const struct trace_op *op, struct sink *sink)
{
    uint32_t thread = addresses->trace->thread_ids[op->thread];
    if (op->kind == TRACE_THREAD_DONE) {
        sink_print(sink, "%" PRIu32 ": thread_done 0x0", thread);
        return;
    }
    uint64_t address = address_of(addresses, op);
    switch (op->kind) {
    case TRACE_CALLOC:
        sink_print(sink, "%" PRIu32 ": calloc 0x%" PRIx64 " 1 %" PRIu64, thread, address, op->size);
        break;
    case TRACE_REALLOCATE:
        sink_print(sink, "%" PRIu32 ": realloc 0x%" PRIx64 " 0x%" PRIx64 " %" PRIu64, thread,
                   address, address, op->size);
        break;
    case TRACE_FREE:
        sink_print(sink, "%" PRIu32 ": free 0x%" PRIx64, thread, address);
        break;
    default:
        if (op->alignment_log2 > 0) {
            sink_print(sink, "%" PRIu32 ": memalign 0x%" PRIx64 " %" PRIu64 " %" PRIu64, thread,
                       address, UINT64_C(1) << op->alignment_log2, op->size);
        } else {
            sink_print(sink, "%" PRIu32 ": malloc 0x%" PRIx64 " %" PRIu64, thread, address,
                       op->size);
        }
        break;
    }
}

static void write_time(const struct trace *trace, size_t index, struct sink *sink)
{
    if (trace->times == NULL) {
        return;
    }
    const struct trace_time *time = &trace->times[index];
    if (trace->ops[index].kind == TRACE_THREAD_DONE) {
        sink_print(sink, " %" PRIu64, time->end_ns);
    } else {
        sink_print(sink, " %" PRIu64 " %" PRIu64, time->start_ns, time->end_ns);
    }
}

static int android_write(const struct trace *trace, struct sink *sink)
{
    size_t table_bytes = trace->block_count * sizeof(uint32_t);
    struct addresses addresses = {
        .trace = trace,
        .slot_of = pages_allocate(table_bytes),
        .free_slots = pages_allocate(table_bytes),
        .stride = choose_stride(trace),
    };
    bool enough = addresses.slot_of != NULL && addresses.free_slots != NULL;
    for (size_t i = 0; enough && i < trace->op_count; i++) {
        write_op(&addresses, &trace->ops[i], sink);
        write_time(trace, i, sink);
        sink_write(sink, "\n", 1);
    }
    pages_free(addresses.slot_of, table_bytes);
    pages_free(addresses.free_slots, table_bytes);
    return enough ? 0 : -ENOMEM;
}

const struct trace_writer trace_writer_android = {
    .name = "android",
    .extension = ".txt",
    .summary = "Android's memory_replay text, with the marks in a file beside it",
    .carries = TRACE_HAS_THREADS | TRACE_HAS_ALIGNMENTS | TRACE_HAS_ZEROED |
               TRACE_HAS_REALLOCATIONS | TRACE_HAS_THREAD_ENDS | TRACE_HAS_TIMES | TRACE_HAS_MARKS |
               TRACE_HAS_EMPTY_BLOCKS | TRACE_HAS_NEVER_FREED,
    .write = android_write,
};
