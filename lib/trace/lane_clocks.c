/* SPDX-License-Identifier: MIT */
/* Sparse vector clocks with their past: see lane_clocks.h. */
#include "lane_clocks.h"

#include <errno.h>

#include "pages.h"

#define NONE UINT32_MAX

/* Budget: facts kept and steps taken, for each operation of the trace and in all. */
#define FACTS_PER_OP 4u
#define STEPS_PER_OP 64u
#define AT_LEAST 1000000u

/* From operation `op` of the lane on, the first `known` operations of the peer are over. */
struct lane_fact {
    uint32_t op;
    uint32_t known;
    uint32_t previous; /* the fact before about the same peer, or NONE */
};

struct lane_peer {
    uint32_t lane;
    uint32_t newest; /* fact */
    uint32_t next;   /* the lane's next peer, or NONE */
};

int lane_clocks_begin(struct lane_clocks *clocks, size_t lane_count, size_t op_count)
{
    *clocks = (struct lane_clocks){
        .lane_count = lane_count,
        .steps_left = (uint64_t)op_count * STEPS_PER_OP + AT_LEAST,
        .facts_max = (uint64_t)op_count * FACTS_PER_OP + AT_LEAST,
    };
    clocks->first_peer = pages_allocate(lane_count * sizeof *clocks->first_peer);
    if (clocks->first_peer == NULL) {
        return -ENOMEM;
    }
    for (size_t lane = 0; lane < lane_count; lane++) {
        clocks->first_peer[lane] = NONE;
    }
    return 0;
}

static uint64_t pair_of(uint32_t lane, uint32_t other)
{
    return ((uint64_t)lane << 32 | other) + 1;
}

bool lane_clocks_know(const struct lane_clocks *clocks, uint32_t lane, uint32_t other,
                      uint32_t after)
{
    const struct address_entry *entry = address_map_find(&clocks->peer_of, pair_of(lane, other));
    return entry != NULL && clocks->facts[clocks->peers[entry->first].newest].known > after;
}

static int add_peer(struct lane_clocks *clocks, uint32_t lane, uint32_t other)
{
    if (pages_reserve(&clocks->peers, sizeof *clocks->peers, clocks->peer_count,
                      &clocks->peer_capacity) != 0) {
        return -ENOMEM;
    }
    struct address_entry *entry = address_map_insert(&clocks->peer_of, pair_of(lane, other));
    if (entry == NULL) {
        return -ENOMEM;
    }
    entry->first = (uint32_t)clocks->peer_count;
    clocks->peers[clocks->peer_count++] =
        (struct lane_peer){.lane = other, .newest = NONE, .next = clocks->first_peer[lane]};
    clocks->first_peer[lane] = entry->first;
    return 0;
}

/* From its operation `op` on, `lane` knows that the first `known` operations of `other` are over. */
static int learn(struct lane_clocks *clocks, uint32_t lane, uint32_t op, uint32_t other,
                 uint32_t known)
{
    const struct address_entry *entry = address_map_find(&clocks->peer_of, pair_of(lane, other));
    if (entry != NULL && clocks->facts[clocks->peers[entry->first].newest].known >= known) {
        return 0;
    }
    if (clocks->fact_count >= NONE) {
        return -ENOMEM; /* what is learnt directly: a fact at most for each operation */
    }
    if (pages_reserve(&clocks->facts, sizeof *clocks->facts, clocks->fact_count,
                      &clocks->fact_capacity) != 0 ||
        (entry == NULL && add_peer(clocks, lane, other) != 0)) {
        return -ENOMEM;
    }
    struct lane_peer *peer =
        entry == NULL ? &clocks->peers[clocks->peer_count - 1] : &clocks->peers[entry->first];
    clocks->facts[clocks->fact_count] =
        (struct lane_fact){.op = op, .known = known, .previous = peer->newest};
    peer->newest = (uint32_t)clocks->fact_count++;
    return 0;
}

static bool within_budget(struct lane_clocks *clocks)
{
    if (clocks->steps_left == 0 || clocks->fact_count >= clocks->facts_max) {
        return false;
    }
    clocks->steps_left--;
    return true;
}

/* What a lane knew of the peer when its operation `op` began; 0: nothing, or too long ago. */
static uint32_t known_at(struct lane_clocks *clocks, const struct lane_peer *peer, uint32_t op)
{
    uint32_t fact = peer->newest;
    while (fact != NONE && clocks->facts[fact].op > op) {
        if (!within_budget(clocks)) {
            return 0;
        }
        fact = clocks->facts[fact].previous;
    }
    return fact == NONE ? 0 : clocks->facts[fact].known;
}

int lane_clocks_wait(struct lane_clocks *clocks, uint32_t lane, uint32_t op, uint32_t other,
                     uint32_t after)
{
    int result = learn(clocks, lane, op, other, after + 1);
    for (uint32_t i = clocks->first_peer[other]; result == 0 && i != NONE;) {
        if (!within_budget(clocks)) {
            break;
        }
        struct lane_peer peer = clocks->peers[i]; /* a copy: learning may move the array */
        uint32_t known = peer.lane == lane ? 0 : known_at(clocks, &peer, after);
        if (known > 0) {
            result = learn(clocks, lane, op, peer.lane, known);
        }
        i = peer.next;
    }
    return result;
}

void lane_clocks_end(struct lane_clocks *clocks)
{
    pages_free(clocks->first_peer, clocks->lane_count * sizeof *clocks->first_peer);
    pages_free(clocks->peers, clocks->peer_capacity * sizeof *clocks->peers);
    pages_free(clocks->facts, clocks->fact_capacity * sizeof *clocks->facts);
    address_map_clear(&clocks->peer_of);
    *clocks = (struct lane_clocks){0};
}
