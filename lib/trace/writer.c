/* SPDX-License-Identifier: MIT */
/* The table of formats to write, and of what can get lost: see writer.h. */
#include "writer.h"

#include <string.h>

#include "native.h"

const struct trace_writer *const trace_writers[] = {
    &trace_writer_native,     &trace_writer_native_raw, &trace_writer_android,
    &trace_writer_minimalloc, &trace_writer_perfetto,
};
const size_t trace_writer_count = sizeof trace_writers / sizeof trace_writers[0];

static int write_native(const struct trace *trace, struct sink *sink)
{
    return native_write(trace, true, sink);
}

static int write_native_raw(const struct trace *trace, struct sink *sink)
{
    return native_write(trace, false, sink);
}

const struct trace_writer trace_writer_native = {
    .name = "ltr",
    .extension = ".ltr",
    .summary = "larder's own format: everything, ready for replays",
    .carries = ~0u,
    .write = write_native,
};

const struct trace_writer trace_writer_native_raw = {
    .name = "ltr-raw",
    .extension = ".raw.ltr",
    .summary = "the same, not compressed: can be used where it is mapped",
    .carries = ~0u,
    .write = write_native_raw,
};

const struct trace_writer *trace_writer_named(const char *name)
{
    for (size_t i = 0; i < trace_writer_count; i++) {
        if (strcmp(trace_writers[i]->name, name) == 0) {
            return trace_writers[i];
        }
    }
    return NULL;
}

static bool ends_in(const char *path, size_t length, const char *ending)
{
    size_t ending_length = strlen(ending);
    return length > ending_length &&
           memcmp(path + length - ending_length, ending, ending_length) == 0;
}

const struct trace_writer *trace_writer_for(const char *path)
{
    size_t length = strlen(path);
    if (ends_in(path, length, ".gz")) {
        length -= 3;
    } else if (ends_in(path, length, ".zst")) {
        length -= 4;
    }
    /* From the last: ".raw.ltr" comes before ".ltr". */
    for (size_t i = trace_writer_count; i-- > 0;) {
        if (ends_in(path, length, trace_writers[i]->extension)) {
            return trace_writers[i];
        }
    }
    return NULL;
}

static unsigned features_of(const struct trace_op *op)
{
    unsigned features = 0;
    bool plain = op->kind == TRACE_ALLOCATE;
    if (op->alignment_log2 > 0) {
        features |= plain ? TRACE_HAS_ALIGNMENTS : TRACE_HAS_ODD_ALIGNMENTS;
    }
    if (op->size == 0 && op->kind <= TRACE_REALLOCATE) {
        features |= TRACE_HAS_EMPTY_BLOCKS;
    }
    switch (op->kind) {
    case TRACE_CALLOC:
        return features | TRACE_HAS_ZEROED;
    case TRACE_REALLOCATE:
        return features | TRACE_HAS_REALLOCATIONS;
    case TRACE_THREAD_DONE:
        return features | TRACE_HAS_THREAD_ENDS;
    default:
        return features;
    }
}

unsigned trace_features(const struct trace *trace)
{
    unsigned features = 0;
    size_t frees = 0;
    for (size_t i = 0; i < trace->op_count; i++) {
        features |= features_of(&trace->ops[i]);
        frees += trace->ops[i].kind == TRACE_FREE;
    }
    for (size_t i = 0; i < trace->thread_count && i < trace->thread_name_capacity; i++) {
        features |= trace->thread_names[i].text[0] != '\0' ? TRACE_HAS_THREAD_NAMES : 0u;
    }
    features |= trace->thread_count > 1 ? TRACE_HAS_THREADS : 0u;
    features |= trace->times != NULL ? TRACE_HAS_TIMES : 0u;
    features |= trace->mark_count > 0 ? TRACE_HAS_MARKS : 0u;
    features |= trace->label_bytes > 0 ? TRACE_HAS_LABELS : 0u;
    features |= frees < trace->block_count ? TRACE_HAS_NEVER_FREED : 0u;
    return features;
}

const char *trace_feature_loss(unsigned feature)
{
    switch (feature) {
    case TRACE_HAS_THREADS:
        return "threads: all operations become one thread's";
    case TRACE_HAS_ALIGNMENTS:
        return "alignments: dropped";
    case TRACE_HAS_ODD_ALIGNMENTS:
        return "alignments of zeroed or reallocated blocks: dropped";
    case TRACE_HAS_ZEROED:
        return "which blocks were wanted zeroed: dropped";
    case TRACE_HAS_REALLOCATIONS:
        return "reallocations: each becomes a free and an allocation";
    case TRACE_HAS_THREAD_ENDS:
        return "ends of threads: dropped";
    case TRACE_HAS_TIMES:
        return "times: dropped";
    case TRACE_HAS_MARKS:
        return "marks: dropped";
    case TRACE_HAS_THREAD_NAMES:
        return "names of threads: dropped";
    case TRACE_HAS_LABELS:
        return "labels: dropped";
    case TRACE_HAS_EMPTY_BLOCKS:
        return "blocks of 0 bytes: dropped";
    default:
        return "that blocks are never freed: they end with the trace";
    }
}

static enum sink_packing packing_of(const char *path)
{
    size_t length = strlen(path);
    if (length > 3 && strcmp(path + length - 3, ".gz") == 0)
        return SINK_GZIP;
    return length > 4 && strcmp(path + length - 4, ".zst") == 0 ? SINK_ZSTD : SINK_PLAIN;
}

int trace_write(const struct trace *trace, const struct trace_writer *writer, FILE *file,
                const char *path)
{
    struct sink *sink;
    int result = sink_open(&sink, file, packing_of(path));
    if (result != 0)
        return result;
    result = writer->write(trace, sink);
    int closed = sink_close(sink);
    return result != 0 ? result : closed;
}
