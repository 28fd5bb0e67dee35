/* SPDX-License-Identifier: MIT */
/*
 * Which operations of other lanes a lane knows to be over: vector clocks (Mattern, "Virtual Time and
 * Global States of Distributed Systems", 1988), kept sparse and with their past.
 *
 * A lane learns when it waits: what it waits for is over, and so is all that the other lane knew
 * when it began that operation. Therefore each component of a clock keeps its earlier values, and
 * only components that ever changed exist.
 *
 * Clocks of many threads that all wait for each other grow with the square of the threads. Past a
 * budget in proportion to the number of operations, lanes learn only what they wait for themselves:
 * then some edges stay that could have been left out, which costs a little time in a replay.
 */
#ifndef LARDER_TRACE_LANE_CLOCKS_H
#define LARDER_TRACE_LANE_CLOCKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "address_map.h"

struct lane_fact;
struct lane_peer;

struct lane_clocks {
    uint32_t *first_peer; /* by lane: index into peers, or NONE */
    size_t lane_count;
    struct lane_peer *peers;
    size_t peer_count, peer_capacity;
    struct lane_fact *facts;
    size_t fact_count, fact_capacity;
    struct address_map peer_of; /* by pair of lanes */
    uint64_t steps_left, facts_max;
};

/* Returns 0 or -ENOMEM. */
int lane_clocks_begin(struct lane_clocks *clocks, size_t lane_count, size_t op_count);

/* Whether `lane`, at this moment, knows that operation `after` of lane `other` is over. */
bool lane_clocks_know(const struct lane_clocks *clocks, uint32_t lane, uint32_t other,
                      uint32_t after);

/*
 * Operation `op` of `lane` waits for operation `after` of `other`. To be called in an order in which
 * the operations could have run. Returns 0 or -ENOMEM.
 */
int lane_clocks_wait(struct lane_clocks *clocks, uint32_t lane, uint32_t op, uint32_t other,
                     uint32_t after);

void lane_clocks_end(struct lane_clocks *clocks);

#endif
