/* SPDX-License-Identifier: MIT */
/*
 * How the replays of `larder pick` share the time that is left: arithmetic only, no clock.
 *
 * Replays come in rounds, each cell (an allocator on a trace) once a round. There are two kinds: the main
 * cells, by which allocators are told apart, and those with pauses between passes, which sleep most
 * of their time and get a share of it only. Before every round it is worked out anew how many rounds
 * of each kind still fit, and how long replays may be in this one: the same time for all, so that a slow
 * allocator has fewer passes, and as much of it as lets the remaining rounds end in time. A machine
 * that is slower than the trials said (`slowness`) so gets shorter replays first, and fewer rounds only
 * where replays cannot be shorter.
 */
#ifndef LARDER_TOOLS_PICK_PACE_H
#define LARDER_TOOLS_PICK_PACE_H

#include <stdbool.h>
#include <stddef.h>

#define PACE_PASSES_LEAST 4
#define PACE_PASSES_MOST 2000

struct pace_cell {
    double start_ns; /* of a process, without its passes */
    double pass_ns;  /* of a pass, its pause included */
    bool with_gap;   /* not one of the main cells */
    unsigned passes; /* set by pace_round() */
};

struct pace {
    double left_ns;  /* until all rounds should have ended */
    double slowness; /* what a round took, over what it should have; 1 before the first */
    unsigned main_wanted, gap_wanted; /* rounds, this one and those after it */
    unsigned main_left, gap_left;     /* how many of them fit; set by pace_round() */
    bool main_began, gap_began;       /* a kind gets its first round, if any can be had */
};

/* What replaying all cells of a kind once, with `passes` each, should take. */
double pace_cost(const struct pace_cell *cells, size_t count, bool with_gap);

/* Plans the next round: sets main_left and gap_left (both 0: none more), and every cell's passes. */
void pace_round(struct pace *pace, struct pace_cell *cells, size_t count);

#endif
