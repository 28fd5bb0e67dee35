/* SPDX-License-Identifier: MIT */
/*
 * A recorded sequence of allocations: the data model that formats are read into and that replays,
 * statistics and converters work on.
 *
 * A trace is an array of operations in recorded order. Addresses are gone: each lifetime of an
 * allocation is a *block*, numbered from 0 in order of allocation and never reused, so an
 * operation on a block needs no lookup and two lifetimes at one address cannot be mistaken for
 * each other. Threads are numbered from 0 in order of appearance; their recorded ids are kept.
 *
 * Invariants after trace_load():
 *   - a block's operations are, in this order: one allocation, any number of reallocations, at most
 *     one free;
 *   - block < block_count and thread < thread_count for every operation (thread_done has no block);
 *   - marks ascend by op, and op <= op_count for each of them.
 */
#ifndef LARDER_TRACE_TRACE_H
#define LARDER_TRACE_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum trace_op_kind {
    TRACE_ALLOCATE,
    TRACE_CALLOC,     /* an allocation that the program wanted zeroed; size is count x size */
    TRACE_REALLOCATE, /* the block keeps its number, whatever its address became */
    TRACE_FREE,
    TRACE_THREAD_DONE
};

#define TRACE_NO_BLOCK UINT32_MAX

struct trace_op {
    uint64_t size;          /* requested, of allocations and reallocations; else 0 */
    uint32_t block;         /* TRACE_NO_BLOCK for thread_done */
    uint32_t thread;        /* index into trace.thread_ids */
    uint8_t kind;           /* enum trace_op_kind */
    uint8_t alignment_log2; /* of an aligned allocation; 0: the allocator's own */
};

/* When the program was inside the call, on the recorder's clock. */
struct trace_time {
    uint64_t start_ns;
    uint64_t end_ns;
};

/* Room for a name, its NUL byte included. */
#define TRACE_NAME_BYTES 28

/*
 * A point in the recorded order that the program gave a name to: "inference 3" is the beginning of
 * one, "end" the end of the last. Made and read by marks.h; what they tell of inferences, phases.h
 * says.
 */
struct trace_mark {
    uint32_t op; /* stands before this operation; op_count: behind the last */
    char name[TRACE_NAME_BYTES];
};

struct trace_thread_name {
    char text[TRACE_NAME_BYTES]; /* empty: not known */
};

/* What reading the file had to drop or mend, so that a report can say so. */
struct trace_notes {
    uint64_t unknown_frees;      /* dropped: of blocks live before the recording began */
    uint64_t null_frees;         /* dropped: free(NULL) */
    uint64_t failed_allocations; /* dropped: the recorded call returned NULL */
    uint64_t early_reuses;       /* an address handed out again before its free was recorded */
    uint64_t repaired;           /* of these, put right: operations moved to before the reuse */
    uint64_t small_blocks;       /* dropped by trace_filter_min_size() */
};

struct trace {
    struct trace_op *ops;
    struct trace_time *times; /* one for each op, or NULL: the file has none */
    size_t op_count;
    size_t op_capacity;
    size_t time_capacity;
    uint32_t *thread_ids;
    size_t thread_count;
    size_t thread_capacity;
    struct trace_thread_name *thread_names; /* by thread, or NULL: the file has none (labels.h) */
    size_t thread_name_capacity;
    struct trace_mark *marks; /* ascending by op */
    size_t mark_count;
    size_t mark_capacity;
    char *labels; /* lines "KEY=VALUE\n": engine, version, settings (labels.h); or NULL */
    size_t label_bytes;
    size_t label_capacity;
    uint32_t block_count;
    const char *format; /* name of the format it was read from */
    struct trace_notes notes;
};

struct trace_facts {
    uint64_t allocations; /* of any kind, without reallocations */
    uint64_t reallocations;
    uint64_t frees;
    uint64_t never_freed; /* blocks still live at the end */
    uint64_t peak_live_bytes;
    uint64_t peak_live_blocks;
    uint64_t largest_bytes;
    uint64_t requested_bytes; /* sum over allocations and reallocations */
};

struct trace_options {
    const char *from; /* name of the format (format.h), or NULL: what the file looks like */
    bool repair;      /* move the late free of a reused address to before the reuse */
};

/*
 * Reads a trace from a file ("-": standard input) in any of the formats of format.c, plain or
 * compressed with gzip or zstd, and the
 * marks in the file NAME.marks beside NAME.txt where a text format has nowhere to put them. Returns 0, or a negative errno with one line in `why` that names file, line, reason and what to do;
 * `out` is then empty. `options` NULL: none set.
 */
int trace_load(const char *path, const struct trace_options *options, struct trace *out, char *why,
               size_t why_size);

/* Releases what trace_load() made. */
void trace_unload(struct trace *trace);

/*
 * Drops blocks while they are smaller than `min_size`, with their frees: a reallocation across the
 * limit becomes an allocation or a free. Blocks and threads are renumbered. Returns 0 or -ENOMEM.
 */
int trace_filter_min_size(struct trace *trace, uint64_t min_size);

/* Computes the facts. Returns 0 or -ENOMEM. */
int trace_get_facts(const struct trace *trace, struct trace_facts *out);

#endif
