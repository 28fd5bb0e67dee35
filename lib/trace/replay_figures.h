/* SPDX-License-Identifier: MIT */
/*
 * What sections of a replay have shown, and the figures of a pass that follow. Private to replay*.c.
 *
 * All memory is there, and written to, before the first section, as it would be taken for the allocator's.
 */
#ifndef LARDER_TRACE_REPLAY_FIGURES_H
#define LARDER_TRACE_REPLAY_FIGURES_H

#include "replay.h"
#include "replay_crew.h"

/* One section (replay_lane.h): a pass, or several that followed one another. */
struct section_result {
    size_t passes;
    struct crew_figures crew; /* of all of them together, as the rest */
    uint64_t faults;
    uint64_t cpu_ns;
    uint64_t elapsed_ns; /* with what it takes to wake threads, as cpu_ns */
};

struct figures {
    struct section_result *sections;
    size_t count, most;
    uint64_t *sorted;                /* room for as many values */
    double busy[REPLAY_LANES_SHOWN]; /* shares, times passes; summed up */
    size_t busy_lanes, busy_passes;
};

/* Room for `most` sections. Returns 0 or -ENOMEM. */
int figures_open(struct figures *figures, size_t most);
void figures_close(struct figures *figures);

/* The shortest time of a pass so far. */
uint64_t figures_shortest_ns(const struct figures *figures);

/* Enters how busy a lane was in the last section that counts. */
void figures_add_busy(struct figures *figures, size_t lane, double share, size_t passes);

/*
 * Fills in what follows from the sections, without those that begin in the first third of the passes: times are medians over sections, of
 * one pass.
 */
void figures_sum_up(struct figures *figures, size_t ops_per_pass, struct replay_result *out);

#endif
