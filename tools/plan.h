/* SPDX-License-Identifier: MIT */
/* What the files of `larder plan` share: the blocks to be planned, and how to draw them. */
#ifndef LARDER_TOOLS_PLAN_H
#define LARDER_TOOLS_PLAN_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "plan_layout.h"
#include "plan_search.h"

/*
 * Blocks, in order of request. Items have sizes in units, rounded up.
 */
struct plan_blocks {
    struct plan_item *items;
    uint64_t *sizes; /* bytes, as asked for */
    char **names;    /* of a CSV file's blocks; NULL: they have none */
    uint64_t *
        times; /* what the items' times stand for, where a CSV file's do not fit into them; else NULL */
    uint32_t count, capacity, time_count;
    uint64_t unit; /* bytes */
    bool is_csv;
    uint64_t left_out; /* blocks below the minimum size */
};

struct plan_input_options {
    uint64_t alignment; /* of every block; 0: 64 for a trace, 1 for a CSV file */
    uint64_t min_size;
    unsigned inference; /* of a trace with marks, from 1; 0: all of it */
};

/* Reads a trace or a CSV file ("-": standard input, a trace). Returns 0, or a negative errno and a line in `why`. */
int plan_input_read(const char *path, const struct plan_input_options *options,
                    struct plan_blocks *out, char *why, size_t why_size);

void plan_blocks_release(struct plan_blocks *blocks);

struct plan_limits {
    uint64_t capacity; /* bytes: a plan within is good enough; 0: as low as can be */
    unsigned seconds;  /* 0: only greedily */
};

struct plan_end {
    struct plan_outcome outcome; /* units */
    double seconds;
    bool interrupted; /* by Ctrl-C */
};

/* Sets the items' offsets. Ctrl-C ends the search, with the best plan so far. Returns 0 or -ENOMEM. */
int plan_pieces(struct plan_blocks *blocks, const struct plan_limits *limits, struct plan_end *end);

/* Draws a plan as SVG: time from left to right, addresses from bottom to top. */
void plan_draw(FILE *out, const char *title, const struct plan_blocks *blocks,
               const struct plan_outcome *outcome);

#endif
