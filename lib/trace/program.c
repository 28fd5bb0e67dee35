/* SPDX-License-Identifier: MIT */
/*
 * From a part of a trace (program_part.h) and its lanes (lanes.h) to steps and slots: see
 * program.h.
 */
#include "program.h"

#include <assert.h>
#include <errno.h>

#include "lanes.h"
#include "pages.h"
#include "program_part.h"
#include "program_steps.h"

/* Pointers in two cache lines, which processors fetch together. */
#define SLOTS_TOGETHER (128 / (uint32_t)sizeof(void *))

static uint8_t kind_of(const struct lane_op *op)
{
    switch (op->kind) {
    case TRACE_FREE:
        return PROGRAM_FREE;
    case TRACE_REALLOCATE:
        return PROGRAM_REALLOCATE;
    default:
        return op->alignment_log2 > 0 ? PROGRAM_ALLOCATE_ALIGNED : PROGRAM_ALLOCATE;
    }
}

static void copy_ops(const struct lane *lane, struct program_op *out)
{
    for (size_t i = 0; i < lane->op_count; i++) {
        out[i] = (struct program_op){.size = lane->ops[i].size,
                                     .slot = lane->ops[i].slot,
                                     .kind = kind_of(&lane->ops[i]),
                                     .alignment_log2 = lane->ops[i].alignment_log2};
    }
}

/* Gives each lane cache lines of its own for the slots that it is the first to use. */
static int spread_slots(struct program *program, uint32_t slot_count)
{
    uint32_t *moved = pages_allocate(slot_count * sizeof *moved);
    uint32_t next = 0;
    if (moved == NULL) {
        return -ENOMEM;
    }
    for (size_t lane = 0; lane <= program->lane_count; lane++) {
        bool is_setup = lane == program->lane_count;
        const struct program_lane *from = &program->lanes[lane];
        struct program_op *ops =
            is_setup ? program->setup : program->ops + (from->ops - program->ops);
        size_t count = is_setup ? program->setup_count : from->op_count;
        for (size_t i = 0; i < count; i++) {
            uint32_t *to = &moved[ops[i].slot];
            *to = *to == 0 ? ++next : *to;
            ops[i].slot = *to - 1;
        }
        next = (next + SLOTS_TOGETHER - 1) / SLOTS_TOGETHER * SLOTS_TOGETHER;
    }
    program->slot_count = next;
    pages_free(moved, slot_count * sizeof *moved);
    return 0;
}

static const struct program_op *find_op(const struct program *program, const struct lanes *lanes,
                                        uint32_t lane, uint32_t recorded)
{
    const struct lane *in = &lanes->lanes[lane];
    size_t low = 0, high = in->op_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (in->recorded[middle] < recorded) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return &program->lanes[lane].ops[low];
}

static void fill_carries(struct program *program, const struct part *part,
                         const struct lanes *lanes)
{
    for (size_t i = 0; i < part->carry_count; i++) {
        const struct part_carry *carry = &part->carries[i];
        program->carries[i] = (struct program_carry){
            .from = find_op(program, lanes, part->trace.ops[carry->tail_op].thread, carry->tail_op)
                        ->slot,
            .to = program->setup[carry->setup_op].slot,
        };
    }
    program->carry_count = part->carry_count;
}

static void fill_lanes(struct program *program, const struct part *part, const struct lanes *lanes,
                       bool parallel)
{
    struct program_op *at = program->ops;
    for (uint32_t i = 0; i < program->lane_count; i++) {
        const struct lane *from = &lanes->lanes[i];
        copy_ops(from, at);
        program->lanes[i] = (struct program_lane){.ops = at,
                                                  .op_count = from->op_count,
                                                  .thread = part->lanes[i].thread,
                                                  .ends = parallel && part->lanes[i].open == 0};
        at += from->op_count;
        for (size_t op = 0; op < from->op_count; op++) {
            program->recorded[from->recorded[op] - part->setup_count] = i;
        }
    }
    copy_ops(&lanes->lanes[program->lane_count], program->setup);
}

static int allocate_arrays(struct program *program, const struct part *part)
{
    program->setup_count = part->setup_count;
    program->op_count = part->trace.op_count - part->setup_count;
    program->lane_count = part->lane_count;
    program->ops = pages_allocate(program->op_count * sizeof *program->ops);
    program->recorded = pages_allocate(program->op_count * sizeof *program->recorded);
    program->lanes = pages_allocate((program->lane_count + 1) * sizeof *program->lanes);
    program->setup = pages_allocate(program->setup_count * sizeof *program->setup);
    program->carries = pages_allocate(part->setup_count * sizeof *program->carries);
    return program->ops == NULL || program->recorded == NULL || program->lanes == NULL ||
                   program->setup == NULL || program->carries == NULL
               ? -ENOMEM
               : 0;
}

static int finish(struct program *program, const struct part *part, const struct lanes *lanes,
                  bool parallel)
{
    int result = allocate_arrays(program, part);
    if (result != 0) {
        return result;
    }
    fill_lanes(program, part, lanes, parallel);
    program->slot_count = lanes->slot_count;
    if (program->lane_count > 1) {
        result = spread_slots(program, lanes->slot_count);
    }
    fill_carries(program, part, lanes);
    return result == 0 ? program_build_steps(part, lanes, program) : result;
}

int program_build_with(const struct trace *trace, const struct program_options *options,
                       struct program *out)
{
    struct part part;
    struct lanes lanes = {0};
    *out = (struct program){0};
    int result = part_take(trace, options, out, &part);
    if (result == 0) {
        result = lanes_build(&part.trace, &lanes);
    }
    if (result == 0) {
        out->crossings = lanes.crossings;
        result = finish(out, &part, &lanes, options->parallel);
    }
    lanes_release(&lanes);
    part_release(&part);
    if (result != 0) {
        program_release(out);
    }
    return result;
}

int program_build(const struct trace *trace, struct program *out)
{
    const struct program_options serial = {0};
    return program_build_with(trace, &serial, out);
}

void program_release(struct program *program)
{
    pages_free(program->ops, program->op_count * sizeof *program->ops);
    pages_free(program->recorded, program->op_count * sizeof *program->recorded);
    pages_free(program->lanes, (program->lane_count + 1) * sizeof *program->lanes);
    pages_free(program->setup, program->setup_count * sizeof *program->setup);
    pages_free(program->carries, program->setup_count * sizeof *program->carries);
    pages_free(program->steps, program->step_capacity * sizeof *program->steps);
    pages_free(program->waits, program->wait_capacity * sizeof *program->waits);
    *program = (struct program){0};
}
