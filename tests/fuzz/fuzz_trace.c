/* SPDX-License-Identifier: MIT */
/*
 * A libFuzzer harness for the readers of traces: whatever the bytes, reading them ends, and what
 * was read keeps the promises of trace.h, goes through everything that a tool does with it, and
 * comes back from the native format the same.
 *
 * FUZZ_FORMAT names the format; without it the bytes tell, and gzip and zstd are unpacked. The native
 * format's checksums are made to fit first, or no change would get past them.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bytes.h"
#include "census.h"
#include "crc32c.h"
#include "lanes.h"
#include "marks.h"
#include "native.h"
#include "phases.h"
#include "trace.h"
#include "writer.h"

#define require(condition)                                                                         \
    ((condition)                                                                                   \
         ? (void)0                                                                                 \
         : (fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition), abort()))

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A file in memory, and a path to open it by. */
struct memory_file {
    int fd;
    char path[64];
};

static void open_file(struct memory_file *file, const void *bytes, size_t size)
{
    file->fd = memfd_create("fuzz", 0);
    require(file->fd >= 0);
    require(write(file->fd, bytes, size) == (ssize_t)size);
    snprintf(file->path, sizeof file->path, "/proc/self/fd/%d", file->fd);
}

static int load(const struct memory_file *file, const char *format, struct trace *trace)
{
    struct trace_options options = {.from = format, .repair = true};
    char why[512] = "";
    require(lseek(file->fd, 0, SEEK_SET) == 0);
    int result = trace_load(file->path, &options, trace, why, sizeof why);
    require(result <= 0);
    require((result == 0) == (why[0] == '\0'));
    require(strchr(why, '\n') == NULL);
    return result;
}

static void check_lifetimes(const struct trace *trace)
{
    enum { UNBORN, LIVE, GONE };
    unsigned char *states = calloc(trace->block_count + (size_t)1, 1);
    uint32_t born = 0, threads = 0;
    require(states != NULL);
    for (size_t i = 0; i < trace->op_count; i++) {
        const struct trace_op *op = &trace->ops[i];
        require(op->thread <= threads && op->thread < trace->thread_count);
        threads += op->thread == threads;
        require(op->kind <= TRACE_THREAD_DONE);
        require(op->size <= INT64_MAX);
        if (op->kind == TRACE_THREAD_DONE) {
            require(op->block == TRACE_NO_BLOCK);
            continue;
        }
        require(op->block < trace->block_count);
        if (op->kind <= TRACE_CALLOC) {
            require(op->block == born || trace->notes.repaired > 0);
            require(states[op->block] == UNBORN);
            born++;
            states[op->block] = LIVE;
        } else {
            require(states[op->block] == LIVE);
            states[op->block] = op->kind == TRACE_FREE ? GONE : LIVE;
        }
    }
    require(born == trace->block_count);
    for (size_t i = 0; i < trace->mark_count; i++) {
        require(trace->marks[i].op <= trace->op_count);
        require(i == 0 || trace->marks[i].op >= trace->marks[i - 1].op);
    }
    free(states);
}

static void write_to(const struct trace_writer *writer, const struct trace *trace, FILE *file)
{
    struct sink *sink;
    require(sink_open(&sink, file, SINK_PLAIN) == 0);
    require(writer->write(trace, sink) == 0);
    require(sink_close(sink) == 0);
}

/* Writes the trace in a format, reads it back, and compares what must be the same. */
static void round_trip(const struct trace_writer *writer, const struct trace *trace)
{
    char *bytes;
    size_t size;
    FILE *file = open_memstream(&bytes, &size);
    struct memory_file again;
    struct trace back;
    require(file != NULL);
    write_to(writer, trace, file);
    fclose(file);
    open_file(&again, bytes, size);
    require(load(&again, writer == &trace_writer_android ? "android" : "ltr", &back) == 0);
    require(back.op_count == trace->op_count);
    require(back.block_count == trace->block_count);
    require(back.thread_count == trace->thread_count);
    for (size_t i = 0; i < trace->op_count; i++) {
        const struct trace_op *a = &trace->ops[i], *b = &back.ops[i];
        require(a->size == b->size && a->thread == b->thread && a->kind == b->kind);
        require(a->block == b->block || trace->notes.repaired > 0);
    }
    trace_unload(&back);
    close(again.fd);
    free(bytes);
}

static void use(const struct trace *trace)
{
    static uint64_t columns[16];
    struct trace_facts facts;
    struct census census;
    struct census_likeness likeness;
    struct phases phases;
    struct lanes lanes;
    require(trace_get_facts(trace, &facts) == 0);
    require(census_take(trace, &census) == 0);
    require(census_live_bytes(trace, columns, 16) == 0);
    require(lanes_build(trace, &lanes) == 0);
    require(lanes.edge_count <= lanes.crossings && lanes.slot_count <= trace->block_count);
    lanes_release(&lanes);
    require(phases_find(trace, &phases) == 0);
    for (size_t i = 0; i < phases.count; i++) {
        require(phases.phases[i].begin < phases.phases[i].end);
        require(phases.phases[i].end <= trace->op_count);
        require(i == 0 || phases.phases[i].begin >= phases.phases[i - 1].end);
    }
    if (phases.count > 1) {
        require(census_compare(trace, &phases, &likeness) == 0);
    }
    phases_release(&phases);
    FILE *nowhere = fopen("/dev/null", "w");
    require(nowhere != NULL);
    write_to(&trace_writer_perfetto, trace, nowhere);
    write_to(&trace_writer_minimalloc, trace, nowhere);
    fclose(nowhere);
    round_trip(&trace_writer_native_raw, trace);
    if ((trace_features(trace) & TRACE_HAS_ODD_ALIGNMENTS) == 0) {
        round_trip(&trace_writer_android, trace);
    }
}

/* Makes the lengths and checksums of a native file fit what is there. */
static void fit_native(uint8_t *bytes, size_t size)
{
    if (size < NATIVE_HEADER_BYTES) {
        return;
    }
    uint32_t count = get_u32(bytes + 12) % 16;
    size_t table_end = NATIVE_HEADER_BYTES + (size_t)count * NATIVE_ENTRY_BYTES;
    if (table_end > size) {
        return;
    }
    memcpy(bytes, native_magic, sizeof native_magic);
    put_u32(bytes + 12, count);
    put_u64(bytes + 16, size);
    for (uint32_t i = 0; i < count; i++) {
        uint8_t *entry = bytes + NATIVE_HEADER_BYTES + (size_t)i * NATIVE_ENTRY_BYTES;
        uint64_t offset = get_u64(entry + 8), stored = get_u64(entry + 16);
        if (offset <= size && stored <= size - offset) {
            put_u32(entry + 32, crc32c(bytes + offset, (size_t)stored));
        }
    }
    put_u32(bytes + 56, crc32c(bytes + NATIVE_HEADER_BYTES, table_end - NATIVE_HEADER_BYTES));
    put_u32(bytes + 60, crc32c(bytes, 60));
}

#ifdef FUZZ_FORMAT
static const char *const format = FUZZ_FORMAT;
#else
static const char *const format = NULL;
#endif

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct memory_file file;
    struct trace trace;
    uint8_t *copy = malloc(size + 1);
    require(copy != NULL);
    memcpy(copy, data, size);
    if (format != NULL && strcmp(format, "ltr") == 0) {
        fit_native(copy, size);
    }
    open_file(&file, copy, size);
    if (load(&file, format, &trace) == 0) {
        check_lifetimes(&trace);
        use(&trace);
        require(trace_filter_min_size(&trace, 100) == 0);
        if (trace.block_count > 0) {
            use(&trace);
        }
        trace_unload(&trace);
    }
    close(file.fd);
    free(copy);
    return 0;
}
