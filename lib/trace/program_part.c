/* SPDX-License-Identifier: MIT */
/*
 * Taking a part of a trace and dealing it out to lanes: see program_part.h.
 *
 * A recorded thread has *lives*: from its first operation in the part to its end; an id that occurs
 * after that belongs to another thread. Each life gets the next lane, or with lanes_max shares one
 * in turn. The tail's operations go to the lane that touched the block last, unless its thread ends:
 * then to the lane of the part's last operation, which is there to the end.
 */
#include "program_part.h"

#include <errno.h>

#include "pages.h"

struct part_block {
    uint64_t size;
    uint32_t number; /* in the part, or PART_NONE: not live */
    uint32_t lane;   /* that touched it last */
    uint32_t setup_op;
    uint8_t alignment_log2;
    bool live;
    bool from_setup;
    bool changed; /* freed or resized since the setup */
};

struct taking {
    const struct trace *trace;
    const struct program_options *options;
    struct program *program;
    struct part *part;
    size_t end_op;
    struct part_block *blocks; /* by block of the trace */
    struct part_point *life;   /* by thread: its lane, and its operations so far there */
    struct part_point *before; /* by thread: last operation of the life before */
    uint64_t *idle_since_ns;   /* by lane, with PROGRAM_BY_TIMES */
    uint32_t *marks_seen;      /* by lane, with PROGRAM_BY_MARKS */
    uint64_t first_ns;
    size_t lanes_max;
    size_t lives;
    size_t mark; /* the next of the trace */
    uint32_t marks_passed;
    uint64_t live_bytes, live_blocks;
};

static int append(struct taking *taking, const struct trace_op *op)
{
    struct trace *trace = &taking->part->trace;
    if (pages_reserve(&trace->ops, sizeof *trace->ops, trace->op_count, &trace->op_capacity) != 0) {
        return -ENOMEM;
    }
    trace->ops[trace->op_count++] = *op;
    return 0;
}

static void count_live(struct taking *taking, uint64_t size)
{
    struct program *program = taking->program;
    taking->live_bytes += size;
    program->largest_bytes = size > program->largest_bytes ? size : program->largest_bytes;
    if (taking->live_bytes > program->peak_live_bytes) {
        program->peak_live_bytes = taking->live_bytes;
    }
    if (taking->live_blocks > program->peak_live_blocks) {
        program->peak_live_blocks = taking->live_blocks;
    }
}

/* -- Setup ------------------------------------------------------------------------------------- */

/* What is live when the part begins. */
static void walk_to_part(struct taking *taking)
{
    for (size_t i = 0; i < taking->options->first_op; i++) {
        const struct trace_op *op = &taking->trace->ops[i];
        if (op->kind == TRACE_THREAD_DONE) {
            continue;
        }
        struct part_block *block = &taking->blocks[op->block];
        block->live = op->kind != TRACE_FREE;
        block->size = op->size;
        if (op->kind != TRACE_REALLOCATE) {
            block->alignment_log2 = op->alignment_log2;
        }
    }
}

static int set_up(struct taking *taking)
{
    struct part *part = taking->part;
    walk_to_part(taking);
    for (uint32_t i = 0; i < taking->trace->block_count; i++) {
        struct part_block *block = &taking->blocks[i];
        block->number = PART_NONE;
        if (!block->live) {
            continue;
        }
        block->from_setup = true;
        block->number = part->trace.block_count++;
        block->lane = (uint32_t)part->lane_count;
        block->setup_op = (uint32_t)part->trace.op_count;
        const struct trace_op made = {.kind = TRACE_ALLOCATE,
                                      .size = block->size,
                                      .alignment_log2 = block->alignment_log2,
                                      .block = block->number,
                                      .thread = block->lane};
        taking->live_blocks++;
        count_live(taking, block->size);
        if (append(taking, &made) != 0) {
            return -ENOMEM;
        }
    }
    part->setup_count = part->trace.op_count;
    return 0;
}

/* -- Lanes ------------------------------------------------------------------------------------- */

/* How many lives there are in the part. */
static size_t count_lives(const struct taking *taking)
{
    size_t lives = 0;
    for (size_t i = taking->options->first_op; i < taking->end_op; i++) {
        const struct trace_op *op = &taking->trace->ops[i];
        struct part_point *life = &taking->life[op->thread];
        if (op->kind == TRACE_THREAD_DONE) {
            life->lane = PART_NONE;
        } else if (life->lane == PART_NONE) {
            life->lane = 0;
            lives++;
        }
    }
    for (size_t i = 0; i < taking->trace->thread_count; i++) {
        taking->life[i].lane = PART_NONE;
    }
    return lives;
}

/* The operation before the next one of the part; none at its beginning. */
static struct part_point point_before(const struct part *part)
{
    struct part_point none = {PART_NONE, 0};
    if (part->trace.op_count == part->setup_count) {
        return none;
    }
    uint32_t lane = part->trace.ops[part->trace.op_count - 1].thread;
    return (struct part_point){lane, part->lanes[lane].op_count - 1};
}

static void begin_life(struct taking *taking, uint32_t thread)
{
    struct part *part = taking->part;
    uint32_t number = (uint32_t)(taking->lives++ % part->lane_count);
    struct part_lane *lane = &part->lanes[number];
    if (lane->op_count == 0) {
        lane->thread = thread;
        lane->after = point_before(part);
        lane->follows = taking->before[thread];
    }
    lane->open++;
    taking->life[thread].lane = number;
}

static void end_life(struct taking *taking, uint32_t thread)
{
    struct part_point *life = &taking->life[thread];
    if (life->lane != PART_NONE) { /* else all that it did lies before the part */
        struct part_lane *lane = &taking->part->lanes[life->lane];
        taking->before[thread] = (struct part_point){life->lane, lane->op_count - 1};
        lane->open--;
        life->lane = PART_NONE;
    }
}

/* -- Pace -------------------------------------------------------------------------------------- */

static uint64_t time_of(const struct taking *taking, size_t i, uint32_t lane)
{
    const struct trace_time *time = &taking->trace->times[i];
    if (time->start_ns == 0) {
        return 0; /* not known */
    }
    uint64_t start = time->start_ns > taking->first_ns ? time->start_ns - taking->first_ns : 0;
    uint64_t idle_since = taking->idle_since_ns[lane];
    taking->idle_since_ns[lane] =
        time->end_ns > taking->first_ns ? time->end_ns - taking->first_ns : 0;
    return start >= idle_since && start - idle_since >= PROGRAM_PACE_NS ? start : 0;
}

static uint64_t mark_of(struct taking *taking, size_t i, uint32_t lane)
{
    const struct trace *trace = taking->trace;
    for (; taking->mark < trace->mark_count && trace->marks[taking->mark].op <= i; taking->mark++) {
        taking->marks_passed += trace->marks[taking->mark].op > taking->options->first_op;
    }
    if (taking->marks_seen[lane] == taking->marks_passed) {
        return 0;
    }
    taking->marks_seen[lane] = taking->marks_passed;
    return (uint64_t)taking->marks_passed * taking->options->mark_ms * 1000000u;
}

/* When the operation that was appended last may begin; it is operation `i` of the trace. */
static int set_pace(struct taking *taking, size_t i, uint32_t lane)
{
    struct part *part = taking->part;
    if (taking->options->pace == PROGRAM_AT_ONCE) {
        return 0;
    }
    while (part->pace_capacity < part->trace.op_count) {
        if (pages_reserve(&part->not_before_ns, sizeof *part->not_before_ns, part->pace_capacity,
                          &part->pace_capacity) != 0) {
            return -ENOMEM;
        }
    }
    uint64_t ns = taking->options->pace == PROGRAM_BY_TIMES ? time_of(taking, i, lane)
                                                            : mark_of(taking, i, lane);
    part->not_before_ns[part->trace.op_count - 1] = ns;
    taking->program->span_ns = ns > taking->program->span_ns ? ns : taking->program->span_ns;
    return 0;
}

/* -- Operations -------------------------------------------------------------------------------- */

/* Follows the block through the operation, and completes it. */
static void follow(struct taking *taking, struct trace_op *op)
{
    struct part_block *block = &taking->blocks[op->block];
    switch (op->kind) {
    case TRACE_FREE:
        op->size = block->size;
        taking->live_bytes -= block->size;
        taking->live_blocks--;
        block->live = false;
        block->changed = true;
        break;
    case TRACE_REALLOCATE:
        taking->live_bytes -= block->size;
        block->changed = true;
        block->size = op->size;
        count_live(taking, op->size);
        break;
    default:
        block->number = taking->part->trace.block_count++;
        block->live = true;
        block->size = op->size;
        taking->live_blocks++;
        count_live(taking, op->size);
        break;
    }
    block->lane = op->thread;
    op->block = block->number;
}

static int take_op(struct taking *taking, size_t i)
{
    struct trace_op op = taking->trace->ops[i];
    struct part *part = taking->part;
    uint32_t thread = op.thread;
    if (op.kind == TRACE_THREAD_DONE) {
        end_life(taking, thread);
        return 0;
    }
    if (taking->life[thread].lane == PART_NONE) {
        begin_life(taking, thread);
    }
    op.thread = taking->life[thread].lane;
    follow(taking, &op);
    if (append(taking, &op) != 0) {
        return -ENOMEM;
    }
    part->lanes[op.thread].op_count++;
    part->last_lane = op.thread;
    return set_pace(taking, i, op.thread);
}

/* -- Tail -------------------------------------------------------------------------------------- */

static int append_to_tail(struct taking *taking, const struct part_block *block, uint8_t kind,
                          uint32_t number, uint64_t size)
{
    struct part *part = taking->part;
    uint32_t lane = block->lane;
    if (part->lanes[lane].open == 0) {
        lane = part->last_lane;
    }
    const struct trace_op op = {.kind = kind,
                                .size = size,
                                .alignment_log2 = kind == TRACE_FREE ? 0 : block->alignment_log2,
                                .block = number,
                                .thread = lane};
    part->lanes[lane].op_count++;
    return append(taking, &op);
}

static int make_anew(struct taking *taking, const struct part_block *block)
{
    struct part *part = taking->part;
    uint64_t size = part->trace.ops[block->setup_op].size;
    if (pages_reserve(&part->carries, sizeof *part->carries, part->carry_count,
                      &part->carry_capacity) != 0) {
        return -ENOMEM;
    }
    part->carries[part->carry_count++] =
        (struct part_carry){.setup_op = block->setup_op, .tail_op = (uint32_t)part->trace.op_count};
    taking->program->added_allocates++;
    return append_to_tail(taking, block, TRACE_ALLOCATE, part->trace.block_count++, size);
}

static int add_tail(struct taking *taking)
{
    struct part *part = taking->part;
    int result = 0;
    part->tail = part->trace.op_count;
    for (size_t i = 0; i < part->lane_count; i++) {
        part->lanes[i].tail_op = part->lanes[i].op_count;
    }
    for (uint32_t i = 0; result == 0 && i < taking->trace->block_count; i++) {
        const struct part_block *block = &taking->blocks[i];
        if (block->live && (block->changed || !block->from_setup)) {
            taking->program->added_frees++;
            result = append_to_tail(taking, block, TRACE_FREE, block->number, block->size);
        }
    }
    for (uint32_t i = 0; result == 0 && i < taking->trace->block_count; i++) {
        const struct part_block *block = &taking->blocks[i];
        if (block->from_setup && block->changed) {
            result = make_anew(taking, block);
        }
    }
    return result;
}

/* -- All of it --------------------------------------------------------------------------------- */

static int take_all(struct taking *taking)
{
    struct part *part = taking->part;
    int result = set_up(taking);
    for (size_t i = taking->options->first_op; result == 0 && i < taking->end_op; i++) {
        result = take_op(taking, i);
    }
    if (result != 0) {
        return result;
    }
    if (part->trace.op_count == part->setup_count) {
        return -EINVAL;
    }
    result = add_tail(taking);
    part->trace.thread_count = part->lane_count + 1;
    return result;
}

/* The earliest time in the part: that from which all others count. */
static void find_first_time(struct taking *taking)
{
    taking->first_ns = UINT64_MAX;
    for (size_t i = taking->options->first_op; i < taking->end_op; i++) {
        uint64_t start = taking->trace->times[i].start_ns;
        if (start > 0 && start < taking->first_ns) {
            taking->first_ns = start;
        }
    }
}

/* Decides how many lanes there are. A serial program is one lane for all lives. */
static int make_lanes(struct taking *taking)
{
    struct part *part = taking->part;
    const struct program_options *options = taking->options;
    size_t threads = taking->trace->thread_count;
    for (size_t i = 0; i < threads; i++) {
        taking->life[i].lane = PART_NONE;
        taking->before[i].lane = PART_NONE;
    }
    taking->program->thread_count = count_lives(taking);
    size_t lanes = options->parallel ? taking->program->thread_count : 1;
    if (options->lanes_max > 0 && lanes > options->lanes_max) {
        lanes = options->lanes_max;
    }
    lanes = lanes > 0 ? lanes : 1;
    part->lanes = pages_allocate(lanes * sizeof *part->lanes);
    part->lane_capacity = lanes;
    part->lane_count = lanes;
    if (options->pace == PROGRAM_BY_TIMES) {
        taking->idle_since_ns = pages_allocate(lanes * sizeof *taking->idle_since_ns);
        find_first_time(taking);
    } else if (options->pace == PROGRAM_BY_MARKS) {
        taking->marks_seen = pages_allocate(lanes * sizeof *taking->marks_seen);
    }
    return part->lanes == NULL ||
                   (options->pace == PROGRAM_BY_TIMES && taking->idle_since_ns == NULL) ||
                   (options->pace == PROGRAM_BY_MARKS && taking->marks_seen == NULL)
               ? -ENOMEM
               : 0;
}

int part_take(const struct trace *trace, const struct program_options *options,
              struct program *program, struct part *out)
{
    size_t blocks_bytes = trace->block_count * sizeof(struct part_block);
    size_t threads_bytes = trace->thread_count * sizeof(struct part_point);
    *out = (struct part){0};
    struct taking taking = {
        .trace = trace,
        .options = options,
        .program = program,
        .part = out,
        .end_op = options->end_op > 0 ? options->end_op : trace->op_count,
        .blocks = pages_allocate(blocks_bytes),
        .life = pages_allocate(threads_bytes),
        .before = pages_allocate(threads_bytes),
    };
    int result = -ENOMEM;
    if (taking.blocks != NULL && taking.life != NULL && taking.before != NULL) {
        result = make_lanes(&taking);
        result = result == 0 ? take_all(&taking) : result;
    }
    pages_free(taking.blocks, blocks_bytes);
    pages_free(taking.life, threads_bytes);
    pages_free(taking.before, threads_bytes);
    pages_free(taking.idle_since_ns, out->lane_capacity * sizeof *taking.idle_since_ns);
    pages_free(taking.marks_seen, out->lane_capacity * sizeof *taking.marks_seen);
    return result;
}

void part_release(struct part *part)
{
    pages_free(part->trace.ops, part->trace.op_capacity * sizeof *part->trace.ops);
    pages_free(part->lanes, part->lane_capacity * sizeof *part->lanes);
    pages_free(part->not_before_ns, part->pace_capacity * sizeof *part->not_before_ns);
    pages_free(part->carries, part->carry_capacity * sizeof *part->carries);
    *part = (struct part){0};
}
