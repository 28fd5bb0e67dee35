/* SPDX-License-Identifier: MIT */
/*
 * Reading the native format: see native.h for its layout.
 *
 * Nothing in a file is trusted: first the frame (sizes, offsets, checksums), in native_sections.c;
 * then, here, the contents. The operations are walked over in recorded order with a table of slots,
 * as a replay would, so what comes out keeps all promises of trace.h; the edges must lead forward in
 * that order, so nobody who replays by them waits for ever.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "address_map.h"
#include "bytes.h"
#include "labels.h"
#include "lanes.h"
#include "marks.h"
#include "native.h"
#include "native_sections.h"
#include "pages.h"

/* A thread while its operations are read. */
struct thread_state {
    uint32_t first_op; /* in OPS */
    uint32_t op_count;
    uint32_t next; /* operations of it that the walk has passed */
    uint32_t edge_count;
};

struct reading {
    struct native_file file;
    struct trace *out;
    struct native_section *threads_section, *ops, *edges, *order, *marks, *times;
    struct thread_state *threads;
    uint32_t *block_in; /* by slot; TRACE_NO_BLOCK: free */
    uint32_t *recorded; /* by operation of OPS: its place in recorded order */
};

static void *allocate_array(size_t count, size_t element_bytes)
{
    if (count > SIZE_MAX / 2 / element_bytes) {
        return NULL;
    }
    return pages_allocate(count * element_bytes);
}

/* "entry 17 (byte 272 of the contents): ..." */
static int fail_entry(struct reading *reading, const struct native_section *section, size_t index,
                      size_t entry_bytes, const char *reason)
{
    char text[192];
    snprintf(text, sizeof text, "entry %zu, byte %" PRIu64 " of the contents: %s", index,
             (uint64_t)index * entry_bytes, reason);
    return native_fail_section(&reading->file, section, text);
}

/* -- Threads ----------------------------------------------------------------------------------- */

static const char *read_thread(struct reading *reading, struct address_map *ids,
                               const unsigned char *bytes, size_t index)
{
    struct trace *trace = reading->out;
    uint64_t id = get_u32(bytes);
    trace->thread_ids[index] = (uint32_t)id;
    reading->threads[index].op_count = get_u32(bytes + 4);
    reading->threads[index].edge_count = get_u32(bytes + 8);
    if (reading->threads[index].op_count == 0) {
        return "a thread without operations";
    }
    if (id > INT32_MAX) {
        return "a thread id of 2^31 or more";
    }
    if (address_map_find(ids, id + 1) != NULL) {
        return "the thread id occurs twice";
    }
    if (bytes[12 + TRACE_NAME_BYTES - 1] != 0) {
        return "the name has no end";
    }
    if (address_map_insert(ids, id + 1) == NULL ||
        (bytes[12] != 0 && labels_name_thread(trace, index, (const char *)bytes + 12) != 0)) {
        return "out of memory";
    }
    return NULL;
}

static int read_threads(struct reading *reading)
{
    struct trace *trace = reading->out;
    size_t count = reading->file.counts.threads;
    trace->thread_ids = allocate_array(count, sizeof *trace->thread_ids);
    trace->thread_capacity = trace->thread_ids != NULL ? count : 0;
    reading->threads = allocate_array(count, sizeof *reading->threads);
    if (trace->thread_ids == NULL || reading->threads == NULL) {
        return native_fail_memory(&reading->file);
    }
    trace->thread_count = count;
    struct address_map ids = {0};
    const char *problem = NULL;
    uint64_t ops = 0, edges = 0;
    for (size_t i = 0; problem == NULL && i < count; i++) {
        problem = read_thread(reading, &ids,
                              reading->threads_section->contents + i * NATIVE_THREAD_BYTES, i);
        reading->threads[i].first_op = (uint32_t)ops;
        ops += reading->threads[i].op_count;
        edges += reading->threads[i].edge_count;
        if (problem == NULL &&
            (ops > reading->file.counts.ops || edges > reading->file.counts.edges)) {
            problem = "more operations or edges than the header says";
        }
        if (problem != NULL) {
            fail_entry(reading, reading->threads_section, i, NATIVE_THREAD_BYTES, problem);
        }
    }
    address_map_clear(&ids);
    if (problem == NULL &&
        (ops != reading->file.counts.ops || edges != reading->file.counts.edges)) {
        problem = "fewer operations or edges than the header says";
        native_fail_section(&reading->file, reading->threads_section, problem);
    }
    return problem == NULL ? 0 : -EINVAL;
}

/* -- Operations in recorded order ---------------------------------------------------------------- */

/* What is wrong with an operation by itself, or NULL. */
static const char *check_op(const struct reading *reading, const unsigned char *bytes)
{
    uint8_t kind = bytes[12];
    bool sized = kind <= TRACE_REALLOCATE;
    if (kind > TRACE_THREAD_DONE) {
        return "an unknown kind of operation";
    }
    if (get_u64(bytes) > (sized ? (uint64_t)INT64_MAX : 0)) {
        return sized ? "a size of 2^63 bytes or more" : "a size where none belongs";
    }
    if (bytes[13] > (sized ? NATIVE_ALIGNMENT_LOG2_MAX : 0)) {
        return sized ? "an alignment above 2^30" : "an alignment where none belongs";
    }
    if (get_u16(bytes + 14) > (LANE_WAITS | LANE_SIGNALS)) {
        return "unknown flags";
    }
    if (kind == TRACE_THREAD_DONE ? get_u32(bytes + 8) != LANE_NO_SLOT
                                  : get_u32(bytes + 8) >= reading->file.counts.slots) {
        return "a slot that there is not";
    }
    return NULL;
}

/* The block that the operation is about, by its slot; NULL in *problem where the slot is right. */
static uint32_t follow_slot(struct reading *reading, uint8_t kind, uint32_t slot,
                            const char **problem)
{
    if (kind == TRACE_THREAD_DONE) {
        return TRACE_NO_BLOCK;
    }
    uint32_t *block_in = &reading->block_in[slot];
    uint32_t block = *block_in;
    if (kind == TRACE_ALLOCATE || kind == TRACE_CALLOC) {
        if (block != TRACE_NO_BLOCK) {
            *problem = "an allocation into a slot that is in use";
            return 0;
        }
        block = reading->out->block_count++;
        *block_in = block;
    } else if (block == TRACE_NO_BLOCK) {
        *problem = "its slot holds no block";
    } else if (kind == TRACE_FREE) {
        *block_in = TRACE_NO_BLOCK;
    }
    return block;
}

/* Appends the thread's next operation to the trace. */
static int read_op(struct reading *reading, uint32_t thread)
{
    struct trace *trace = reading->out;
    struct thread_state *state = &reading->threads[thread];
    size_t index = (size_t)state->first_op + state->next++;
    const unsigned char *bytes = reading->ops->contents + index * NATIVE_OP_BYTES;
    const char *problem = check_op(reading, bytes);
    uint32_t block = 0;
    if (problem == NULL) {
        block = follow_slot(reading, bytes[12], get_u32(bytes + 8), &problem);
    }
    if (problem != NULL) {
        return fail_entry(reading, reading->ops, index, NATIVE_OP_BYTES, problem);
    }
    reading->recorded[index] = (uint32_t)trace->op_count;
    if (trace->times != NULL) {
        const unsigned char *time = reading->times->contents + index * NATIVE_TIME_BYTES;
        trace->times[trace->op_count] =
            (struct trace_time){.start_ns = get_u64(time), .end_ns = get_u64(time + 8)};
    }
    trace->ops[trace->op_count++] = (struct trace_op){
        .size = get_u64(bytes),
        .block = block,
        .thread = thread,
        .kind = bytes[12],
        .alignment_log2 = bytes[13],
    };
    return 0;
}

/* One run of the recorded order. `appeared`: threads that have had a run before. */
static int read_run(struct reading *reading, size_t index, uint32_t *appeared)
{
    const unsigned char *bytes = reading->order->contents + index * NATIVE_RUN_BYTES;
    uint32_t thread = get_u32(bytes), count = get_u32(bytes + 4);
    const char *problem = NULL;
    if (thread > *appeared || thread >= reading->file.counts.threads) {
        problem = "a thread before its turn: threads are numbered as they appear";
    } else if (count == 0 ||
               count > reading->threads[thread].op_count - reading->threads[thread].next) {
        problem = "a run of no operations, or of more than the thread has left";
    }
    if (problem != NULL) {
        return fail_entry(reading, reading->order, index, NATIVE_RUN_BYTES, problem);
    }
    *appeared += thread == *appeared;
    int result = 0;
    for (uint32_t i = 0; result == 0 && i < count; i++) {
        result = read_op(reading, thread);
    }
    return result;
}

static int allocate_ops(struct reading *reading)
{
    struct trace *trace = reading->out;
    size_t count = reading->file.counts.ops, slots = reading->file.counts.slots;
    trace->ops = allocate_array(count, sizeof *trace->ops);
    trace->op_capacity = trace->ops != NULL ? count : 0;
    if (reading->times != NULL) {
        trace->times = allocate_array(count, sizeof *trace->times);
        trace->time_capacity = trace->times != NULL ? count : 0;
    }
    reading->block_in = allocate_array(slots, sizeof *reading->block_in);
    reading->recorded = allocate_array(count, sizeof *reading->recorded);
    if (trace->ops == NULL || (reading->times != NULL && trace->times == NULL) ||
        reading->block_in == NULL || reading->recorded == NULL) {
        return native_fail_memory(&reading->file);
    }
    memset(reading->block_in, 0xff, slots * sizeof *reading->block_in);
    return 0;
}

static int read_ops(struct reading *reading)
{
    const struct native_counts *counts = &reading->file.counts;
    uint32_t appeared = 0;
    int result = allocate_ops(reading);
    for (size_t i = 0; result == 0 && i < counts->runs; i++) {
        result = read_run(reading, i, &appeared);
    }
    if (result == 0 && reading->out->op_count != counts->ops) {
        return native_fail_section(&reading->file, reading->order,
                                   "the runs end before the operations do");
    }
    if (result == 0 && reading->out->block_count != counts->blocks) {
        return native_fail_section(&reading->file, reading->ops,
                                   "another number of allocations than the header says");
    }
    return result;
}

/* -- Edges ------------------------------------------------------------------------------------- */

/* `least`: the first operation of the thread that may still wait. */
static const char *check_edge(const struct reading *reading, uint32_t thread, uint32_t least,
                              const unsigned char *bytes)
{
    const struct thread_state *state = &reading->threads[thread];
    uint32_t op = get_u32(bytes), other = get_u32(bytes + 4), after = get_u32(bytes + 8);
    if (op < least || op >= state->op_count) {
        return "the operations that wait do not ascend, or there is no such operation";
    }
    if (other >= reading->file.counts.threads || other == thread ||
        after >= reading->threads[other].op_count) {
        return "it waits for an operation that there is not, or for its own thread";
    }
    size_t waiting = (size_t)state->first_op + op;
    size_t awaited = (size_t)reading->threads[other].first_op + after;
    if (reading->recorded[awaited] > reading->recorded[waiting]) {
        return "it waits for an operation that was recorded later";
    }
    const unsigned char *ops = reading->ops->contents;
    if ((get_u16(ops + waiting * NATIVE_OP_BYTES + 14) & LANE_WAITS) == 0 ||
        (get_u16(ops + awaited * NATIVE_OP_BYTES + 14) & LANE_SIGNALS) == 0) {
        return "its operations have no flags that say so";
    }
    return NULL;
}

static int read_edges(struct reading *reading)
{
    size_t index = 0;
    for (uint32_t thread = 0; thread < reading->file.counts.threads; thread++) {
        uint32_t least = 0;
        for (uint32_t i = 0; i < reading->threads[thread].edge_count; i++, index++) {
            const unsigned char *bytes = reading->edges->contents + index * NATIVE_EDGE_BYTES;
            const char *problem = check_edge(reading, thread, least, bytes);
            if (problem != NULL) {
                return fail_entry(reading, reading->edges, index, NATIVE_EDGE_BYTES, problem);
            }
            least = get_u32(bytes) + 1;
        }
    }
    return 0;
}

/* -- What may be missing ------------------------------------------------------------------------- */

static int read_marks(struct reading *reading)
{
    for (size_t i = 0; reading->marks != NULL && i < reading->file.counts.marks; i++) {
        const unsigned char *bytes = reading->marks->contents + i * NATIVE_MARK_BYTES;
        const struct trace *trace = reading->out;
        uint32_t op = get_u32(bytes);
        uint32_t least = i > 0 ? trace->marks[i - 1].op : 0;
        if (op < least || op > trace->op_count || bytes[NATIVE_MARK_BYTES - 1] != 0) {
            return fail_entry(reading, reading->marks, i, NATIVE_MARK_BYTES,
                              "the marks do not ascend, or point behind the trace, or a name has "
                              "no end");
        }
        if (marks_add(reading->out, op, (const char *)bytes + 4) != 0) {
            return native_fail_memory(&reading->file);
        }
    }
    return 0;
}

static int read_labels(struct reading *reading)
{
    const struct native_section *section = native_find_section(&reading->file, "meta");
    size_t offset = 0;
    if (section == NULL) {
        return 0;
    }
    int result = labels_parse(reading->out, (const char *)section->contents,
                              (size_t)section->contents_bytes, &offset);
    if (result == -EINVAL) {
        char text[96];
        snprintf(text, sizeof text, "byte %zu of the contents: not a line KEY=VALUE", offset);
        return native_fail_section(&reading->file, section, text);
    }
    return result == 0 ? 0 : native_fail_memory(&reading->file);
}

static int read_notes(struct reading *reading)
{
    const struct native_section *section = native_find_section(&reading->file, "note");
    struct trace_notes *notes = &reading->out->notes;
    uint64_t *const counts[] = {
        &notes->unknown_frees, &notes->null_frees, &notes->failed_allocations,
        &notes->early_reuses,  &notes->repaired,   &notes->small_blocks,
    };
    if (section == NULL) {
        return 0;
    }
    if (section->contents_bytes < NATIVE_NOTE_BYTES) {
        return native_fail_section(&reading->file, section, "shorter than 48 bytes");
    }
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        *counts[i] = get_u64(section->contents + 8 * i);
    }
    return 0;
}

/* Finds the sections that the counts in the header tell the sizes of. */
static int find_sections(struct reading *reading)
{
    struct native_file *file = &reading->file;
    const struct native_counts *counts = &file->counts;
    const struct {
        const char *tag;
        struct native_section **out;
        uint64_t bytes;
        bool required;
    } wanted[] = {
        {"THRD", &reading->threads_section, (uint64_t)counts->threads * NATIVE_THREAD_BYTES, true},
        {"OPS ", &reading->ops, (uint64_t)counts->ops * NATIVE_OP_BYTES, true},
        {"EDGE", &reading->edges, (uint64_t)counts->edges * NATIVE_EDGE_BYTES, true},
        {"ORDR", &reading->order, (uint64_t)counts->runs * NATIVE_RUN_BYTES, true},
        {"MARK", &reading->marks, (uint64_t)counts->marks * NATIVE_MARK_BYTES, counts->marks > 0},
        {"TIME", &reading->times, (uint64_t)counts->ops * NATIVE_TIME_BYTES, false},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        int result = native_find_sized(file, wanted[i].tag, wanted[i].bytes, wanted[i].required,
                                       wanted[i].out);
        if (result != 0) {
            return result;
        }
    }
    return native_refuse_unknown(file);
}

int native_read(struct input *input, struct trace *out, char *why, size_t why_size)
{
    static int (*const steps[])(struct reading *) = {
        find_sections, read_threads, read_ops, read_edges, read_marks, read_labels, read_notes};
    struct reading reading = {.out = out};
    int result = native_file_open(&reading.file, input, why, why_size);
    for (size_t i = 0; result == 0 && i < sizeof steps / sizeof steps[0]; i++) {
        result = steps[i](&reading);
    }
    out->format = "ltr";
    pages_free(reading.threads, reading.file.counts.threads * sizeof *reading.threads);
    pages_free(reading.block_in, reading.file.counts.slots * sizeof *reading.block_in);
    pages_free(reading.recorded, reading.file.counts.ops * sizeof *reading.recorded);
    native_file_close(&reading.file);
    return result;
}
