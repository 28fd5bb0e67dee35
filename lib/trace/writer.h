/* SPDX-License-Identifier: MIT */
/*
 * The formats that traces are written to, and what each of them cannot carry. Adding one is a file
 * and a row in writer.c.
 */
#ifndef LARDER_TRACE_WRITER_H
#define LARDER_TRACE_WRITER_H

#include <stdbool.h>

#include "sink.h"
#include "trace.h"

/* What a trace may hold beside blocks with a size and a lifetime. */
enum trace_feature {
    TRACE_HAS_THREADS = 1 << 0, /* more than one */
    TRACE_HAS_ALIGNMENTS = 1 << 1,
    TRACE_HAS_ODD_ALIGNMENTS = 1 << 2, /* of zeroed or reallocated blocks */
    TRACE_HAS_ZEROED = 1 << 3,
    TRACE_HAS_REALLOCATIONS = 1 << 4,
    TRACE_HAS_THREAD_ENDS = 1 << 5,
    TRACE_HAS_TIMES = 1 << 6,
    TRACE_HAS_MARKS = 1 << 7,
    TRACE_HAS_THREAD_NAMES = 1 << 8,
    TRACE_HAS_LABELS = 1 << 9,
    TRACE_HAS_EMPTY_BLOCKS = 1 << 10, /* of 0 bytes */
    TRACE_HAS_NEVER_FREED = 1 << 11,
    TRACE_FEATURE_COUNT = 12
};

struct trace_writer {
    const char *name;
    const char *extension; /* with its dot */
    const char *summary;
    unsigned carries; /* trace_feature bits */
    /* Returns 0 or -ENOMEM; what becomes of the bytes, sink_close() tells. */
    int (*write)(const struct trace *trace, struct sink *sink);
};

extern const struct trace_writer *const trace_writers[];
extern const size_t trace_writer_count;

extern const struct trace_writer trace_writer_native, trace_writer_native_raw, trace_writer_android,
    trace_writer_minimalloc, trace_writer_perfetto;

/* By the name, or by the ending of a path before .gz and .zst; NULL: none. */
const struct trace_writer *trace_writer_named(const char *name);
const struct trace_writer *trace_writer_for(const char *path);

/*
 * Writes to a file, packed as the ending of `path` says (.gz, .zst). Returns 0 or a negative errno, -ENOTSUP where this
 * build lacks the library for it.
 */
int trace_write(const struct trace *trace, const struct trace_writer *writer, FILE *file,
                const char *path);

/* Which features the trace has. */
unsigned trace_features(const struct trace *trace);

/* What a format that does not carry the one feature makes of it, such as "the threads: ...". */
const char *trace_feature_loss(unsigned feature);

#endif
