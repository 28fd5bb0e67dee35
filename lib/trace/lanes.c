/* SPDX-License-Identifier: MIT */
/*
 * From one order to an order for each thread: see lanes.h.
 *
 * One pass in recorded order fills the lanes, hands out slots, and finds the edges: per block it
 * knows the slot and who touched it last. As that order is one in which the operations did run,
 * every edge leads forward in it, so waiting along the edges cannot end in a circle. The edges
 * come out in recorded order, and a second pass sorts them by lane.
 */
#include "lanes.h"

#include <assert.h>
#include <errno.h>

#include "lane_clocks.h"
#include "pages.h"

#define NONE UINT32_MAX

struct block_state {
    uint32_t slot;
    uint32_t lane; /* that touched it last */
    uint32_t op;   /* with which of its operations */
};

/* An edge found, and the lane that waits. */
struct found_edge {
    struct lane_edge edge;
    uint32_t lane;
};

struct weaving {
    const struct trace *trace;
    struct lanes *lanes;
    struct block_state *blocks;
    uint32_t *free_slot; /* by lane: the first of its free slots, or NONE */
    uint32_t *next_slot; /* by slot: the next free one of the same lane */
    struct found_edge *found;
    size_t found_count, found_capacity;
    struct lane_clocks clocks;
};

/* Gives each lane its part of the arrays. */
static void lay_out(struct weaving *weaving)
{
    struct lanes *lanes = weaving->lanes;
    for (size_t i = 0; i < weaving->trace->op_count; i++) {
        lanes->lanes[weaving->trace->ops[i].thread].op_count++;
    }
    size_t start = 0;
    for (size_t i = 0; i < lanes->lane_count; i++) {
        lanes->lanes[i].ops = lanes->ops + start;
        lanes->lanes[i].recorded = lanes->recorded + start;
        start += lanes->lanes[i].op_count;
        lanes->lanes[i].op_count = 0; /* counts up again as the lane fills */
        weaving->free_slot[i] = NONE;
    }
}

static uint32_t take_slot(struct weaving *weaving, uint32_t lane)
{
    uint32_t slot = weaving->free_slot[lane];
    if (slot == NONE) {
        return weaving->lanes->slot_count++;
    }
    weaving->free_slot[lane] = weaving->next_slot[slot];
    return slot;
}

static void give_slot(struct weaving *weaving, uint32_t lane, uint32_t slot)
{
    weaving->next_slot[slot] = weaving->free_slot[lane];
    weaving->free_slot[lane] = slot;
}

/* Operation `op` of `lane` comes after what was last done to the block, by another lane. */
static int cross(struct weaving *weaving, uint32_t lane, uint32_t op,
                 const struct block_state *block)
{
    weaving->lanes->crossings++;
    if (lane_clocks_know(&weaving->clocks, lane, block->lane, block->op)) {
        return 0;
    }
    if (pages_reserve(&weaving->found, sizeof *weaving->found, weaving->found_count,
                      &weaving->found_capacity) != 0) {
        return -ENOMEM;
    }
    weaving->found[weaving->found_count++] = (struct found_edge){
        .edge = {.op = op, .lane = block->lane, .after = block->op}, .lane = lane};
    weaving->lanes->lanes[lane].ops[op].flags |= LANE_WAITS;
    weaving->lanes->lanes[block->lane].ops[block->op].flags |= LANE_SIGNALS;
    weaving->lanes->lanes[lane].edge_count++;
    return lane_clocks_wait(&weaving->clocks, lane, op, block->lane, block->op);
}

static int add_op(struct weaving *weaving, size_t index)
{
    const struct trace_op *op = &weaving->trace->ops[index];
    struct lane *lane = &weaving->lanes->lanes[op->thread];
    uint32_t at = (uint32_t)lane->op_count++;
    lane->recorded[at] = (uint32_t)index;
    lane->ops[at] = (struct lane_op){.size = op->size,
                                     .slot = LANE_NO_SLOT,
                                     .kind = op->kind,
                                     .alignment_log2 = op->alignment_log2};
    if (op->kind == TRACE_THREAD_DONE) {
        return 0;
    }
    struct block_state *block = &weaving->blocks[op->block];
    int result = 0;
    if (op->kind == TRACE_ALLOCATE || op->kind == TRACE_CALLOC) {
        block->slot = take_slot(weaving, op->thread);
    } else if (block->lane != op->thread) {
        result = cross(weaving, op->thread, at, block);
    }
    lane->ops[at].slot = block->slot;
    block->lane = op->thread;
    block->op = at;
    if (op->kind == TRACE_FREE) {
        give_slot(weaving, op->thread, block->slot);
    }
    return result;
}

/* Puts the edges found into their lanes; within a lane their order is right already. */
static int sort_edges(struct weaving *weaving)
{
    struct lanes *lanes = weaving->lanes;
    lanes->edge_count = weaving->found_count;
    lanes->edges = pages_allocate(lanes->edge_count * sizeof *lanes->edges);
    if (lanes->edges == NULL) {
        return -ENOMEM;
    }
    size_t start = 0;
    for (size_t i = 0; i < lanes->lane_count; i++) {
        lanes->lanes[i].edges = lanes->edges + start;
        start += lanes->lanes[i].edge_count;
        lanes->lanes[i].edge_count = 0;
    }
    for (size_t i = 0; i < weaving->found_count; i++) {
        struct lane *lane = &lanes->lanes[weaving->found[i].lane];
        lane->edges[lane->edge_count++] = weaving->found[i].edge;
    }
    return 0;
}

static int weave(struct weaving *weaving)
{
    int result =
        lane_clocks_begin(&weaving->clocks, weaving->lanes->lane_count, weaving->trace->op_count);
    if (result != 0) {
        return result;
    }
    lay_out(weaving);
    for (size_t i = 0; result == 0 && i < weaving->trace->op_count; i++) {
        result = add_op(weaving, i);
    }
    lane_clocks_end(&weaving->clocks);
    return result == 0 ? sort_edges(weaving) : result;
}

int lanes_build(const struct trace *trace, struct lanes *out)
{
    size_t ops = trace->op_count, blocks = trace->block_count, threads = trace->thread_count;
    *out = (struct lanes){.lane_count = threads, .op_count = ops};
    out->lanes = pages_allocate(threads * sizeof *out->lanes);
    out->ops = pages_allocate(ops * sizeof *out->ops);
    out->recorded = pages_allocate(ops * sizeof *out->recorded);
    struct weaving weaving = {
        .trace = trace,
        .lanes = out,
        .blocks = pages_allocate(blocks * sizeof *weaving.blocks),
        .free_slot = pages_allocate(threads * sizeof *weaving.free_slot),
        .next_slot = pages_allocate(blocks * sizeof *weaving.next_slot),
    };
    bool enough = out->lanes != NULL && out->ops != NULL && out->recorded != NULL &&
                  weaving.blocks != NULL && weaving.free_slot != NULL && weaving.next_slot != NULL;
    int result = enough ? weave(&weaving) : -ENOMEM;
    pages_free(weaving.blocks, blocks * sizeof *weaving.blocks);
    pages_free(weaving.free_slot, threads * sizeof *weaving.free_slot);
    pages_free(weaving.next_slot, blocks * sizeof *weaving.next_slot);
    pages_free(weaving.found, weaving.found_capacity * sizeof *weaving.found);
    if (result != 0) {
        lanes_release(out);
    }
    return result;
}

void lanes_release(struct lanes *lanes)
{
    pages_free(lanes->lanes, lanes->lane_count * sizeof *lanes->lanes);
    pages_free(lanes->ops, lanes->op_count * sizeof *lanes->ops);
    pages_free(lanes->recorded, lanes->op_count * sizeof *lanes->recorded);
    pages_free(lanes->edges, lanes->edge_count * sizeof *lanes->edges);
    *lanes = (struct lanes){0};
}
