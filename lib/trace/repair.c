/* SPDX-License-Identifier: MIT */
/*
 * Reordering in linear time: the moves are linked into one list for each place they go to, then the
 * operations are copied in their new order.
 */
#include "repair.h"

#include <assert.h>
#include <errno.h>

#include "pages.h"

#define NONE UINT32_MAX

struct reordering {
    struct trace *trace;      /* its marks are moved in place */
    struct trace_op *ops;     /* in the new order */
    struct trace_time *times; /* NULL: the trace has none */
    size_t count;
    uint32_t *first; /* by operation: the first move to before it, or NONE */
    uint32_t *next;  /* by move: the next move to the same place, or NONE */
    uint8_t *moved;  /* by operation */
};

static void emit(struct reordering *order, size_t index)
{
    order->ops[order->count] = order->trace->ops[index];
    if (order->times != NULL) {
        order->times[order->count] = order->trace->times[index];
    }
    order->count++;
}

static void link_moves(struct reordering *order, const struct repair_move *moves, size_t move_count)
{
    for (size_t i = 0; i < order->trace->op_count; i++) {
        order->first[i] = NONE;
    }
    /* From the last to the first, each in front: the lists ascend. */
    for (size_t m = move_count; m-- > 0;) {
        assert(moves[m].to < moves[m].from);
        order->next[m] = order->first[moves[m].to];
        order->first[moves[m].to] = (uint32_t)m;
        order->moved[moves[m].from] = 1;
    }
}

/* Marks stay between the operations that stay: `from` is the next place in the old order. */
static size_t move_marks(struct reordering *order, size_t mark, size_t from)
{
    struct trace *trace = order->trace;
    for (; mark < trace->mark_count && trace->marks[mark].op <= from; mark++) {
        trace->marks[mark].op = (uint32_t)order->count;
    }
    return mark;
}

static void copy_in_order(struct reordering *order, const struct repair_move *moves)
{
    size_t mark = 0;
    for (size_t i = 0; i < order->trace->op_count; i++) {
        mark = move_marks(order, mark, i);
        if (order->moved[i]) {
            assert(order->first[i] == NONE);
            continue;
        }
        for (uint32_t m = order->first[i]; m != NONE; m = order->next[m]) {
            emit(order, moves[m].from);
        }
        emit(order, i);
    }
    (void)move_marks(order, mark, SIZE_MAX);
    assert(order->count == order->trace->op_count);
}

int repair_apply(struct trace *trace, const struct repair_move *moves, size_t move_count)
{
    size_t count = trace->op_count;
    struct reordering order = {
        .trace = trace,
        .ops = pages_allocate(count * sizeof *order.ops),
        .times = trace->times != NULL ? pages_allocate(count * sizeof *order.times) : NULL,
        .first = pages_allocate(count * sizeof *order.first),
        .next = pages_allocate(move_count * sizeof *order.next),
        .moved = pages_allocate(count),
    };
    bool enough = order.ops != NULL && (order.times != NULL || trace->times == NULL) &&
                  order.first != NULL && order.next != NULL && order.moved != NULL;
    if (enough) {
        link_moves(&order, moves, move_count);
        copy_in_order(&order, moves);
        pages_free(trace->ops, trace->op_capacity * sizeof *trace->ops);
        pages_free(trace->times, trace->time_capacity * sizeof *trace->times);
        trace->ops = order.ops;
        trace->op_capacity = count;
        trace->times = order.times;
        trace->time_capacity = order.times != NULL ? count : 0;
    } else {
        pages_free(order.ops, count * sizeof *order.ops);
        pages_free(order.times, count * sizeof *order.times);
    }
    pages_free(order.first, count * sizeof *order.first);
    pages_free(order.next, move_count * sizeof *order.next);
    pages_free(order.moved, count);
    return enough ? 0 : -ENOMEM;
}
