/* SPDX-License-Identifier: MIT */
/*
 * What blocks a trace has: sizes, alignments, lifetimes, how they cross threads, and what a cache by
 * exact sizes would come to hold for them.
 */
#ifndef LARDER_TRACE_CENSUS_H
#define LARDER_TRACE_CENSUS_H

#include <stddef.h>
#include <stdint.h>

#include "phases.h"
#include "trace.h"

/* Classes by powers of two: class 0 is 0, class N is from 2^(N-1) up to 2^N - 1. */
#define CENSUS_CLASSES 65

struct census {
    uint64_t size_counts[CENSUS_CLASSES]; /* allocations by size */
    uint64_t size_bytes[CENSUS_CLASSES];
    uint64_t distinct_sizes;
    uint64_t alignment_counts[64]; /* allocations by log2 of the alignment asked for; 0: none */
    uint64_t lifetime_ops[CENSUS_CLASSES]; /* freed blocks by operations from allocation to free */
    uint64_t lifetime_ns[CENSUS_CLASSES];  /* the same by time; 0 everywhere without times */
    uint64_t foreign_frees;                /* by another thread than the one that allocated */
    uint64_t foreign_reallocations;
    uint64_t first_ns, last_ns; /* of all times that are not 0 */
    /* A cache that gives a freed block to the next request of the same size and never lets go: for
     * each size, the most blocks that were live at once. */
    uint64_t exact_cache_bytes;
};

/* Returns 0 or -ENOMEM. */
int census_take(const struct trace *trace, struct census *out);

/*
 * Live bytes over time: the trace in `count` parts of the same number of operations, of each the
 * most that was live. Returns 0 or -ENOMEM.
 */
int census_live_bytes(const struct trace *trace, uint64_t *most, size_t count);

/* How alike inferences are, each compared with the one before. */
struct census_likeness {
    size_t identical; /* the same operations in the same order, with the same sizes */
    double least;     /* share of sizes that both allocate, of the more that one of them does */
    double median;
};

/* For two phases or more. Returns 0 or -ENOMEM. */
int census_compare(const struct trace *trace, const struct phases *phases,
                   struct census_likeness *out);

#endif
