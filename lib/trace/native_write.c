/* SPDX-License-Identifier: MIT */
/*
 * Writing the native format: see native.h for its layout.
 *
 * The sections are made in memory first, each compressed as soon as it is whole, since the table
 * in front of them tells their sizes and checksums.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "bytes.h"
#include "crc32c.h"
#include "lanes.h"
#include "native.h"
#include "pages.h"

#ifdef HAVE_ZSTD
#include <zstd.h>
#endif

/* Between zstd's default and its slow levels. */
#define COMPRESSION_LEVEL 9

const unsigned char native_magic[NATIVE_MAGIC_BYTES] = {0x89, 'L',  'T',  'R',
                                                        0x0d, 0x0a, 0x1a, 0x0a};

struct section {
    char tag[4];
    enum native_encoding encoding;
    unsigned char *bytes; /* as stored */
    size_t size;
    size_t capacity; /* what was allocated */
    size_t contents;
};

struct writer {
    const struct trace *trace;
    struct lanes lanes;
    size_t run_count;
    bool compress;
    struct section sections[NATIVE_SECTIONS_MAX];
    size_t section_count;
};

bool native_can_compress(void)
{
#ifdef HAVE_ZSTD
    return true;
#else
    return false;
#endif
}

/* -- Sections ---------------------------------------------------------------------------------- */

/* A new section with room for its contents, zeroed; NULL: out of memory. */
static unsigned char *add_section(struct writer *writer, const char *tag, size_t contents)
{
    assert(writer->section_count < NATIVE_SECTIONS_MAX);
    struct section *section = &writer->sections[writer->section_count];
    *section = (struct section){.size = contents, .capacity = contents, .contents = contents};
    memcpy(section->tag, tag, sizeof section->tag);
    section->bytes = pages_allocate(contents);
    if (section->bytes == NULL) {
        return NULL;
    }
    writer->section_count++;
    return section->bytes;
}

/* Compresses the section added last, unless it would not shrink or would exceed the limit. */
static int finish_section(struct writer *writer)
{
#ifdef HAVE_ZSTD
    struct section *section = &writer->sections[writer->section_count - 1];
    if (!writer->compress || section->contents == 0) {
        return 0;
    }
    size_t capacity = ZSTD_compressBound(section->contents);
    unsigned char *packed = pages_allocate(capacity);
    if (packed == NULL) {
        return -ENOMEM;
    }
    size_t size =
        ZSTD_compress(packed, capacity, section->bytes, section->contents, COMPRESSION_LEVEL);
    if (ZSTD_isError(size) || size >= section->contents ||
        section->contents > native_contents_max(size)) {
        pages_free(packed, capacity);
        return 0;
    }
    pages_free(section->bytes, section->capacity);
    section->bytes = packed;
    section->capacity = capacity;
    section->size = size;
    section->encoding = NATIVE_ZSTD;
#else
    (void)writer;
#endif
    return 0;
}

static int add_threads(struct writer *writer)
{
    const struct trace *trace = writer->trace;
    unsigned char *to = add_section(writer, "THRD", trace->thread_count * NATIVE_THREAD_BYTES);
    if (to == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < trace->thread_count; i++, to += NATIVE_THREAD_BYTES) {
        put_u32(to, trace->thread_ids[i]);
        put_u32(to + 4, (uint32_t)writer->lanes.lanes[i].op_count);
        put_u32(to + 8, (uint32_t)writer->lanes.lanes[i].edge_count);
        if (i < trace->thread_name_capacity) {
            memcpy(to + 12, trace->thread_names[i].text, TRACE_NAME_BYTES);
        }
    }
    return finish_section(writer);
}

static int add_ops(struct writer *writer)
{
    const struct lanes *lanes = &writer->lanes;
    unsigned char *to = add_section(writer, "OPS ", lanes->op_count * NATIVE_OP_BYTES);
    if (to == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < lanes->op_count; i++, to += NATIVE_OP_BYTES) {
        const struct lane_op *op = &lanes->ops[i];
        put_u64(to, op->size);
        put_u32(to + 8, op->slot);
        to[12] = op->kind;
        to[13] = op->alignment_log2;
        put_u16(to + 14, op->flags);
    }
    return finish_section(writer);
}

static int add_edges(struct writer *writer)
{
    const struct lanes *lanes = &writer->lanes;
    unsigned char *to = add_section(writer, "EDGE", lanes->edge_count * NATIVE_EDGE_BYTES);
    if (to == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < lanes->edge_count; i++, to += NATIVE_EDGE_BYTES) {
        put_u32(to, lanes->edges[i].op);
        put_u32(to + 4, lanes->edges[i].lane);
        put_u32(to + 8, lanes->edges[i].after);
    }
    return finish_section(writer);
}

/* The end of the run of one thread that begins at operation `begin`. */
static size_t run_end(const struct trace *trace, size_t begin)
{
    size_t end = begin + 1;
    while (end < trace->op_count && trace->ops[end].thread == trace->ops[begin].thread) {
        end++;
    }
    return end;
}

static int add_order(struct writer *writer)
{
    const struct trace *trace = writer->trace;
    for (size_t i = 0; i < trace->op_count; i = run_end(trace, i)) {
        writer->run_count++;
    }
    unsigned char *to = add_section(writer, "ORDR", writer->run_count * NATIVE_RUN_BYTES);
    if (to == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0, end; i < trace->op_count; i = end, to += NATIVE_RUN_BYTES) {
        end = run_end(trace, i);
        put_u32(to, trace->ops[i].thread);
        put_u32(to + 4, (uint32_t)(end - i));
    }
    return finish_section(writer);
}

static int add_marks(struct writer *writer)
{
    const struct trace *trace = writer->trace;
    if (trace->mark_count == 0) {
        return 0;
    }
    unsigned char *to = add_section(writer, "MARK", trace->mark_count * NATIVE_MARK_BYTES);
    if (to == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < trace->mark_count; i++, to += NATIVE_MARK_BYTES) {
        put_u32(to, trace->marks[i].op);
        memcpy(to + 4, trace->marks[i].name, TRACE_NAME_BYTES);
    }
    return finish_section(writer);
}

static int add_times(struct writer *writer)
{
    const struct lanes *lanes = &writer->lanes;
    const struct trace_time *times = writer->trace->times;
    if (times == NULL) {
        return 0;
    }
    unsigned char *to = add_section(writer, "TIME", lanes->op_count * NATIVE_TIME_BYTES);
    if (to == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < lanes->op_count; i++, to += NATIVE_TIME_BYTES) {
        put_u64(to, times[lanes->recorded[i]].start_ns);
        put_u64(to + 8, times[lanes->recorded[i]].end_ns);
    }
    return finish_section(writer);
}

static int add_labels(struct writer *writer)
{
    const struct trace *trace = writer->trace;
    if (trace->label_bytes == 0) {
        return 0;
    }
    unsigned char *to = add_section(writer, "meta", trace->label_bytes);
    if (to == NULL) {
        return -ENOMEM;
    }
    memcpy(to, trace->labels, trace->label_bytes);
    return finish_section(writer);
}

static int add_notes(struct writer *writer)
{
    const struct trace_notes *notes = &writer->trace->notes;
    const uint64_t counts[] = {
        notes->unknown_frees, notes->null_frees, notes->failed_allocations,
        notes->early_reuses,  notes->repaired,   notes->small_blocks,
    };
    unsigned char *to = add_section(writer, "note", NATIVE_NOTE_BYTES);
    if (to == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        put_u64(to + 8 * i, counts[i]);
    }
    return finish_section(writer);
}

/* -- The file ---------------------------------------------------------------------------------- */

static uint64_t aligned(uint64_t offset)
{
    return (offset + NATIVE_SECTION_ALIGNMENT - 1) & ~(uint64_t)(NATIVE_SECTION_ALIGNMENT - 1);
}

static void make_table(const struct writer *writer, unsigned char *to, uint64_t *file_bytes)
{
    uint64_t end = NATIVE_HEADER_BYTES + writer->section_count * NATIVE_ENTRY_BYTES;
    for (size_t i = 0; i < writer->section_count; i++, to += NATIVE_ENTRY_BYTES) {
        const struct section *section = &writer->sections[i];
        memcpy(to, section->tag, sizeof section->tag);
        put_u32(to + 4, (uint32_t)section->encoding);
        put_u64(to + 8, aligned(end));
        put_u64(to + 16, section->size);
        put_u64(to + 24, section->contents);
        put_u32(to + 32, crc32c(section->bytes, section->size));
        end = aligned(end) + section->size;
    }
    *file_bytes = end;
}

static void make_header(const struct writer *writer, unsigned char *to, const unsigned char *table,
                        size_t table_bytes, uint64_t file_bytes)
{
    const struct trace *trace = writer->trace;
    memcpy(to, native_magic, sizeof native_magic);
    put_u16(to + 8, 1);
    put_u16(to + 10, 0);
    put_u32(to + 12, (uint32_t)writer->section_count);
    put_u64(to + 16, file_bytes);
    put_u32(to + 24, (uint32_t)trace->thread_count);
    put_u32(to + 28, writer->lanes.slot_count);
    put_u32(to + 32, trace->block_count);
    put_u32(to + 36, (uint32_t)trace->op_count);
    put_u32(to + 40, (uint32_t)writer->lanes.edge_count);
    put_u32(to + 44, (uint32_t)trace->mark_count);
    put_u32(to + 48, (uint32_t)writer->run_count);
    put_u32(to + 52, 0);
    put_u32(to + 56, crc32c(table, table_bytes));
    put_u32(to + 60, crc32c(to, 60));
}

static void put_file(const struct writer *writer, struct sink *sink)
{
    static const unsigned char zeros[NATIVE_SECTION_ALIGNMENT];
    unsigned char header[NATIVE_HEADER_BYTES];
    unsigned char table[NATIVE_SECTIONS_MAX * NATIVE_ENTRY_BYTES] = {0};
    size_t table_bytes = writer->section_count * NATIVE_ENTRY_BYTES;
    uint64_t file_bytes;
    make_table(writer, table, &file_bytes);
    make_header(writer, header, table, table_bytes, file_bytes);
    sink_write(sink, header, sizeof header);
    sink_write(sink, table, table_bytes);
    uint64_t end = sizeof header + table_bytes;
    for (size_t i = 0; i < writer->section_count; i++) {
        const struct section *section = &writer->sections[i];
        sink_write(sink, zeros, (size_t)(aligned(end) - end));
        sink_write(sink, section->bytes, section->size);
        end = aligned(end) + section->size;
    }
}

int native_write(const struct trace *trace, bool compress, struct sink *sink)
{
    static int (*const parts[])(struct writer *) = {add_threads, add_ops,   add_edges,  add_order,
                                                    add_marks,   add_times, add_labels, add_notes};
    struct writer writer = {.trace = trace, .compress = compress};
    int result = lanes_build(trace, &writer.lanes);
    for (size_t i = 0; result == 0 && i < sizeof parts / sizeof parts[0]; i++) {
        result = parts[i](&writer);
    }
    if (result == 0) {
        put_file(&writer, sink);
    }
    for (size_t i = 0; i < writer.section_count; i++) {
        pages_free(writer.sections[i].bytes, writer.sections[i].capacity);
    }
    lanes_release(&writer.lanes);
    return result;
}
