/* SPDX-License-Identifier: MIT */
/*
 * Cutting lanes into steps: see program_steps.h.
 *
 * First every operation that some lane waits for is noted, as a step has to end there. Then the
 * steps are cut lane by lane; waits name operations as long as the other lanes' steps are not
 * known, and are translated at the end.
 *
 * What a lane waits for: the edges of its blocks, and before its first operation what was recorded
 * right before that, so that threads start in the recorded order. The tail begins when all lanes are
 * through: the lane of the part's last operation (the *closing* lane) waits for all others, ends a
 * step without operations, and those that have a part in the tail wait for that step.
 */
#include "program_steps.h"

#include <assert.h>
#include <errno.h>

#include "pages.h"

/* In place of an operation's number: the closing lane's step that says that all are through. */
#define ALL_THROUGH UINT32_MAX

struct cutting {
    const struct part *part;
    const struct lanes *lanes;
    struct program *program;
    unsigned char *awaited; /* by operation, one lane after the other: some lane waits for it */
    struct program_lane *lane;
    uint32_t index; /* of that lane */
    uint32_t step_begin;
    uint32_t now;           /* where the lane is, in recorded order */
    uint32_t closing_steps; /* of the closing lane, ALL_THROUGH included */
};

static bool has_tail(const struct cutting *cutting)
{
    return cutting->program->lane_count > 1 && cutting->part->tail < cutting->part->trace.op_count;
}

/* Edges from the setup are none: it is over before a pass begins. The tail has its own waits. */
static bool counts(const struct cutting *cutting, uint32_t lane, const struct lane_edge *edge)
{
    return edge->lane != cutting->part->lane_count && edge->op < cutting->part->lanes[lane].tail_op;
}

static void note(struct cutting *cutting, uint32_t lane, uint32_t op)
{
    if (lane != PART_NONE) {
        size_t base = (size_t)(cutting->program->lanes[lane].ops - cutting->program->ops);
        cutting->awaited[base + op] = 1;
    }
}

static void note_awaited(struct cutting *cutting)
{
    for (uint32_t lane = 0; lane < cutting->program->lane_count; lane++) {
        const struct part_lane *about = &cutting->part->lanes[lane];
        const struct lane *from = &cutting->lanes->lanes[lane];
        for (size_t i = 0; i < from->edge_count; i++) {
            if (counts(cutting, lane, &from->edges[i])) {
                note(cutting, from->edges[i].lane, from->edges[i].after);
            }
        }
        note(cutting, about->after.lane, about->after.op);
        note(cutting, about->follows.lane, about->follows.op);
        if (has_tail(cutting)) {
            note(cutting, lane, about->tail_op - 1);
        }
    }
}

/* Where the operation stands in recorded order; behind a lane's last: at the very end. */
static uint32_t recorded_at(const struct cutting *cutting, uint32_t lane, uint32_t op)
{
    const struct lane *in = &cutting->lanes->lanes[lane];
    return op < in->op_count ? in->recorded[op] : UINT32_MAX;
}

/* -- Steps of one lane ------------------------------------------------------------------------- */

static int end_step(struct cutting *cutting, uint32_t end, bool awaited, uint64_t not_before_ns)
{
    struct program *program = cutting->program;
    if (pages_reserve(&program->steps, sizeof *program->steps, program->step_count,
                      &program->step_capacity) != 0) {
        return -ENOMEM;
    }
    program->steps[program->step_count++] = (struct program_step){.not_before_ns = not_before_ns,
                                                                  .waits_end = program->wait_count,
                                                                  .end = end,
                                                                  .awaited = awaited};
    cutting->lane->step_count++;
    cutting->step_begin = end;
    return 0;
}

/* The step being cut waits for operation `after` of `lane`. */
static int add_wait(struct cutting *cutting, uint32_t lane, uint32_t after)
{
    struct program *program = cutting->program;
    if (lane == PART_NONE || lane == cutting->index) {
        return 0; /* the lane's own order is enough */
    }
    assert(after == ALL_THROUGH || recorded_at(cutting, lane, after) < cutting->now);
    if (pages_reserve(&program->waits, sizeof *program->waits, program->wait_count,
                      &program->wait_capacity) != 0) {
        return -ENOMEM;
    }
    program->waits[program->wait_count++] = (struct program_wait){.lane = lane, .steps = after};
    return 0;
}

/* The closing lane waits for all others. */
static int close_lanes(struct cutting *cutting, uint32_t op)
{
    for (uint32_t lane = 0; lane < cutting->program->lane_count; lane++) {
        if (add_wait(cutting, lane, cutting->part->lanes[lane].tail_op - 1) != 0) {
            return -ENOMEM;
        }
    }
    cutting->closing_steps = (uint32_t)cutting->lane->step_count + 1;
    return end_step(cutting, op, true, 0);
}

/* What has to be waited for before the lane's operation `op`. *edge: the lane's next edge. */
static int add_waits(struct cutting *cutting, uint32_t op, size_t *edge)
{
    const struct part_lane *about = &cutting->part->lanes[cutting->index];
    const struct lane *from = &cutting->lanes->lanes[cutting->index];
    int result = 0;
    if (op == 0) {
        result = add_wait(cutting, about->after.lane, about->after.op);
        result = result == 0 ? add_wait(cutting, about->follows.lane, about->follows.op) : result;
    }
    if (*edge < from->edge_count && from->edges[*edge].op == op) {
        const struct lane_edge *found = &from->edges[(*edge)++];
        if (result == 0 && counts(cutting, cutting->index, found)) {
            result = add_wait(cutting, found->lane, found->after);
        }
    }
    if (result == 0 && op == about->tail_op && has_tail(cutting)) {
        result = add_wait(cutting, cutting->part->last_lane, ALL_THROUGH);
    }
    return result;
}

static uint64_t not_before(const struct cutting *cutting, uint32_t op)
{
    size_t recorded = recorded_at(cutting, cutting->index, op);
    return cutting->part->not_before_ns != NULL && recorded < cutting->part->tail
               ? cutting->part->not_before_ns[recorded]
               : 0;
}

static int cut_lane(struct cutting *cutting)
{
    const struct part_lane *about = &cutting->part->lanes[cutting->index];
    bool closing = has_tail(cutting) && cutting->index == cutting->part->last_lane;
    size_t base = (size_t)(cutting->lane->ops - cutting->program->ops);
    size_t edge = 0;
    uint64_t ns = 0;
    int result = 0;
    cutting->step_begin = 0;
    cutting->lane->first_wait = cutting->program->wait_count;
    for (uint32_t op = 0; result == 0 && op < about->op_count; op++) {
        cutting->now = recorded_at(cutting, cutting->index, op);
        if (closing && op == about->tail_op) {
            result = close_lanes(cutting, op);
        }
        size_t waits = cutting->program->wait_count;
        result = result == 0 ? add_waits(cutting, op, &edge) : result;
        uint64_t next_ns = not_before(cutting, op);
        if (op > cutting->step_begin && (next_ns > 0 || cutting->program->wait_count > waits) &&
            result == 0) {
            /* The waits just added belong to the step that begins here. */
            size_t added = cutting->program->wait_count - waits;
            cutting->program->wait_count = waits;
            result = end_step(cutting, op, false, ns);
            cutting->program->wait_count += added;
            ns = 0;
        }
        ns = next_ns > 0 ? next_ns : ns;
        if (result == 0 && cutting->awaited[base + op]) {
            result = end_step(cutting, op + 1, true, ns);
            ns = 0;
        }
    }
    if (result == 0 && cutting->step_begin < about->op_count) {
        result = end_step(cutting, about->op_count, false, ns);
    }
    if (result == 0 && closing && about->tail_op == about->op_count) {
        cutting->now = recorded_at(cutting, cutting->index, about->op_count);
        result = close_lanes(cutting, about->op_count);
    }
    return result;
}

/* -- Waits for steps --------------------------------------------------------------------------- */

/* How many steps of the lane are over when its operation `op` is. */
static uint32_t steps_until(const struct program_lane *lane, uint32_t op)
{
    size_t low = 0, high = lane->step_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (lane->steps[middle].end <= op) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    assert(lane->steps[low].end == op + 1 && lane->steps[low].awaited);
    return (uint32_t)low + 1;
}

static void translate_waits(struct cutting *cutting)
{
    struct program *program = cutting->program;
    const struct program_step *steps = program->steps;
    for (size_t i = 0; i < program->lane_count; i++) {
        program->lanes[i].steps = steps;
        steps += program->lanes[i].step_count;
    }
    for (size_t i = 0; i < program->wait_count; i++) {
        struct program_wait *wait = &program->waits[i];
        wait->steps = wait->steps == ALL_THROUGH
                          ? cutting->closing_steps
                          : steps_until(&program->lanes[wait->lane], wait->steps);
    }
    for (size_t i = 0; i < program->lane_count; i++) {
        const struct part_point *after = &cutting->part->lanes[i].after;
        struct program_lane *lane = &program->lanes[i];
        if (lane->ends && after->lane != PART_NONE) {
            lane->starts_later = true;
            lane->start = (struct program_wait){
                after->lane, steps_until(&program->lanes[after->lane], after->op)};
        }
    }
}

int program_build_steps(const struct part *part, const struct lanes *lanes, struct program *program)
{
    struct cutting cutting = {.part = part, .lanes = lanes, .program = program};
    cutting.awaited = pages_allocate(program->op_count);
    if (cutting.awaited == NULL) {
        return -ENOMEM;
    }
    note_awaited(&cutting);
    int result = 0;
    for (uint32_t i = 0; result == 0 && i < program->lane_count; i++) {
        cutting.index = i;
        cutting.lane = &program->lanes[i];
        result = cut_lane(&cutting);
    }
    if (result == 0) {
        translate_waits(&cutting);
    }
    pages_free(cutting.awaited, program->op_count);
    return result;
}
