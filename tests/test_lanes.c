/* SPDX-License-Identifier: MIT */
/*
 * Traces by threads: every operation is in its lane, the edges are enough and none is too many, and
 * however the lanes run within them, blocks find their slots.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lanes.h"
#include "trace_support.h"

/* -- Random numbers that can be repeated --------------------------------------------------------- */

static uint64_t state;

static void seed_random(uint64_t seed)
{
    const char *given = getenv("LARDER_TEST_SEED");
    state = given != NULL ? strtoull(given, NULL, 10) : seed;
    printf("seed %llu\n", (unsigned long long)state);
    state = state * 2654435769u + 88172645463325252u;
}

static unsigned below(unsigned limit)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (unsigned)((state >> 20) % limit);
}

/* -- Traces ------------------------------------------------------------------------------------ */

/* `count` lines by `threads` threads over a few addresses, each line valid. */
static struct trace random_trace(unsigned threads, unsigned count)
{
    enum { ADDRESSES = 24 };
    bool live[ADDRESSES] = {false};
    FILE *file = fopen(path_of("r.txt"), "w");
    ck_assert_ptr_nonnull(file);
    for (unsigned i = 0; i < count; i++) {
        unsigned address = below(ADDRESSES), thread = below(threads);
        if (!live[address]) {
            fprintf(file, "%u: malloc 0x%x00 %u\n", thread, address + 1, below(100) + 1);
        } else if (below(3) == 0) {
            fprintf(file, "%u: realloc 0x%x00 0x%x00 %u\n", thread, address + 1, address + 1,
                    below(100) + 1);
            continue;
        } else {
            fprintf(file, "%u: free 0x%x00\n", thread, address + 1);
        }
        live[address] = !live[address];
    }
    fprintf(file, "%u: thread_done 0x0\n0: malloc 0x9900 1\n", below(threads));
    fclose(file);
    return must_read("r.txt");
}

static struct lanes must_build(const struct trace *trace)
{
    struct lanes lanes;
    ck_assert_int_eq(lanes_build(trace, &lanes), 0);
    return lanes;
}

/* -- Claims ------------------------------------------------------------------------------------ */

static void assert_complete(const struct trace *trace, const struct lanes *lanes)
{
    size_t seen = 0;
    ck_assert_uint_eq(lanes->lane_count, trace->thread_count);
    for (size_t l = 0; l < lanes->lane_count; l++) {
        const struct lane *lane = &lanes->lanes[l];
        for (size_t i = 0; i < lane->op_count; i++, seen++) {
            const struct trace_op *op = &trace->ops[lane->recorded[i]];
            ck_assert_uint_eq(op->thread, l);
            ck_assert(i == 0 || lane->recorded[i] > lane->recorded[i - 1]);
            ck_assert_uint_eq(op->size, lane->ops[i].size);
            ck_assert_int_eq(op->kind, lane->ops[i].kind);
            ck_assert_int_eq(op->alignment_log2, lane->ops[i].alignment_log2);
        }
    }
    ck_assert_uint_eq(seen, trace->op_count);
}

START_TEST(each_operation_is_in_its_lane)
{
    seed_random(1);
    for (unsigned round = 0; round < 50; round++) {
        struct trace trace = random_trace(1 + below(5), 1 + below(200));
        struct lanes lanes = must_build(&trace);
        assert_complete(&trace, &lanes);
        lanes_release(&lanes);
        trace_unload(&trace);
    }
}
END_TEST

START_TEST(one_thread_needs_no_edges_and_as_many_slots_as_are_live_at_once)
{
    struct trace trace = must_read_text("t.txt", "1: malloc 0x10 1\n1: malloc 0x20 2\n"
                                                 "1: free 0x10\n1: malloc 0x30 3\n1: free 0x30\n"
                                                 "1: free 0x20\n1: thread_done 0x0\n");
    struct lanes lanes = must_build(&trace);
    ck_assert_uint_eq(lanes.edge_count, 0);
    ck_assert_uint_eq(lanes.slot_count, 2);
    ck_assert_uint_eq(lanes.lanes[0].ops[3].slot, 0);
    ck_assert_uint_eq(lanes.lanes[0].ops[6].slot, LANE_NO_SLOT);
    lanes_release(&lanes);
    trace_unload(&trace);
}
END_TEST

START_TEST(a_second_hand_over_that_the_first_implies_needs_no_edge)
{
    struct trace trace = must_read_text("t.txt", "1: malloc 0x10 1\n1: malloc 0x20 2\n"
                                                 "2: free 0x20\n2: free 0x10\n");
    struct lanes lanes = must_build(&trace);
    ck_assert_uint_eq(lanes.crossings, 2);
    ck_assert_uint_eq(lanes.edge_count, 1);
    const struct lane_edge *edge = &lanes.lanes[1].edges[0];
    ck_assert_uint_eq(edge->op, 0);
    ck_assert_uint_eq(edge->lane, 0);
    ck_assert_uint_eq(edge->after, 1);
    ck_assert_uint_eq(lanes.lanes[0].ops[1].flags, LANE_SIGNALS);
    ck_assert_uint_eq(lanes.lanes[0].ops[0].flags, 0);
    ck_assert_uint_eq(lanes.lanes[1].ops[0].flags, LANE_WAITS);
    ck_assert_uint_eq(lanes.lanes[1].ops[1].flags, 0);
    lanes_release(&lanes);
    trace_unload(&trace);
}
END_TEST

START_TEST(what_a_third_thread_waited_for_needs_no_edge)
{
    struct trace trace = must_read_text("t.txt", "1: malloc 0x10 1\n1: malloc 0x20 2\n"
                                                 "2: realloc 0x20 0x20 3\n2: malloc 0x30 4\n"
                                                 "3: free 0x30\n3: free 0x10\n");
    struct lanes lanes = must_build(&trace);
    ck_assert_uint_eq(lanes.crossings, 3);
    ck_assert_uint_eq(lanes.edge_count, 2);
    ck_assert_uint_eq(lanes.lanes[2].edge_count, 1);
    ck_assert_uint_eq(lanes.lanes[2].edges[0].lane, 1);
    lanes_release(&lanes);
    trace_unload(&trace);
}
END_TEST

START_TEST(what_a_third_thread_learnt_later_does_not_count)
{
    /* Thread 2 waits for thread 1 only after what thread 3 waits for. */
    struct trace trace = must_read_text("t.txt", "1: malloc 0x10 1\n1: malloc 0x20 2\n"
                                                 "2: malloc 0x30 4\n2: free 0x20\n"
                                                 "3: free 0x30\n3: free 0x10\n");
    struct lanes lanes = must_build(&trace);
    ck_assert_uint_eq(lanes.edge_count, 3);
    lanes_release(&lanes);
    trace_unload(&trace);
}
END_TEST

/* reaches[a * n + b]: b must come after a, by the lanes' own orders and all edges but `without`. */
static void close_over(const struct lanes *lanes, const struct lane_edge *without,
                       unsigned char *reaches)
{
    size_t n = lanes->op_count;
    memset(reaches, 0, n * n);
    /* Along recorded order every step leads forward, so going backwards each row is complete. */
    for (size_t l = 0; l < lanes->lane_count; l++) {
        const struct lane *lane = &lanes->lanes[l];
        for (size_t i = 1; i < lane->op_count; i++) {
            reaches[lane->recorded[i - 1] * n + lane->recorded[i]] = 1;
        }
        for (size_t e = 0; e < lane->edge_count; e++) {
            const struct lane_edge *edge = &lane->edges[e];
            if (edge != without) {
                size_t from = lanes->lanes[edge->lane].recorded[edge->after];
                reaches[from * n + lane->recorded[edge->op]] = 1;
            }
        }
    }
    for (size_t a = n; a-- > 0;) {
        for (size_t b = a + 1; b < n; b++) {
            if (reaches[a * n + b]) {
                for (size_t c = b + 1; c < n; c++) {
                    reaches[a * n + c] |= reaches[b * n + c];
                }
            }
        }
    }
}

static bool enough(const struct trace *trace, const unsigned char *reaches)
{
    size_t n = trace->op_count;
    size_t *last = calloc(trace->block_count, sizeof *last);
    bool all = true;
    ck_assert_ptr_nonnull(last);
    for (size_t i = 0; i < n; i++) {
        const struct trace_op *op = &trace->ops[i];
        if (op->kind == TRACE_THREAD_DONE) {
            continue;
        }
        if (op->kind != TRACE_ALLOCATE) {
            all = all && reaches[last[op->block] * n + i];
        }
        last[op->block] = i;
    }
    free(last);
    return all;
}

START_TEST(the_edges_are_enough_and_none_is_too_many)
{
    seed_random(2);
    for (unsigned round = 0; round < 40; round++) {
        struct trace trace = random_trace(2 + below(4), 2 + below(60));
        struct lanes lanes = must_build(&trace);
        unsigned char *reaches = malloc(trace.op_count * trace.op_count);
        ck_assert_ptr_nonnull(reaches);
        close_over(&lanes, NULL, reaches);
        ck_assert(enough(&trace, reaches));
        for (size_t e = 0; e < lanes.edge_count; e++) {
            close_over(&lanes, &lanes.edges[e], reaches);
            ck_assert(!enough(&trace, reaches));
        }
        free(reaches);
        lanes_release(&lanes);
        trace_unload(&trace);
    }
}
END_TEST

/* A lane's next operation, in a run of all lanes at once. */
struct runner {
    size_t next, edge;
};

static bool may_run(const struct lanes *lanes, const struct runner *runners, size_t l)
{
    const struct lane *lane = &lanes->lanes[l];
    const struct runner *runner = &runners[l];
    if (runner->edge < lane->edge_count && lane->edges[runner->edge].op == runner->next) {
        const struct lane_edge *edge = &lane->edges[runner->edge];
        return runners[edge->lane].next > edge->after;
    }
    return true;
}

static void run_next(const struct trace *trace, const struct lanes *lanes, struct runner *runner,
                     size_t l, uint32_t *block_in)
{
    const struct lane *lane = &lanes->lanes[l];
    const struct lane_op *op = &lane->ops[runner->next];
    if (op->kind != TRACE_THREAD_DONE) {
        ck_assert_uint_lt(op->slot, lanes->slot_count);
        uint32_t block = trace->ops[lane->recorded[runner->next]].block;
        bool fresh = op->kind == TRACE_ALLOCATE;
        ck_assert_uint_eq(block_in[op->slot], fresh ? TRACE_NO_BLOCK : block);
        block_in[op->slot] = op->kind == TRACE_FREE ? TRACE_NO_BLOCK : block;
    }
    bool waited = (op->flags & LANE_WAITS) != 0;
    ck_assert(waited ==
              (runner->edge < lane->edge_count && lane->edges[runner->edge].op == runner->next));
    runner->edge += waited;
    runner->next++;
}

/* Runs the lanes in a random order that the edges allow. */
static void run_anyhow(const struct trace *trace, const struct lanes *lanes)
{
    struct runner *runners = calloc(lanes->lane_count, sizeof *runners);
    uint32_t *block_in = malloc((lanes->slot_count + (size_t)1) * sizeof *block_in);
    ck_assert(runners != NULL && block_in != NULL);
    memset(block_in, 0xff, lanes->slot_count * sizeof *block_in);
    for (size_t done = 0; done < lanes->op_count;) {
        size_t l = below((unsigned)lanes->lane_count), tried = 0;
        while (runners[l].next == lanes->lanes[l].op_count || !may_run(lanes, runners, l)) {
            l = (l + 1) % lanes->lane_count;
            ck_assert_msg(++tried <= lanes->lane_count, "no lane can go on");
        }
        /* Far ahead at times, as a thread does that is never interrupted. */
        for (unsigned steps = 1 + below(8); steps > 0; steps--) {
            if (runners[l].next < lanes->lanes[l].op_count && may_run(lanes, runners, l)) {
                run_next(trace, lanes, &runners[l], l, block_in);
                done++;
            }
        }
    }
    free(runners);
    free(block_in);
}

START_TEST(in_any_order_within_the_edges_each_block_finds_its_slot)
{
    seed_random(3);
    for (unsigned round = 0; round < 60; round++) {
        struct trace trace = random_trace(1 + below(6), 1 + below(400));
        struct lanes lanes = must_build(&trace);
        for (unsigned i = 0; i < 5; i++) {
            run_anyhow(&trace, &lanes);
        }
        lanes_release(&lanes);
        trace_unload(&trace);
    }
}
END_TEST

START_TEST(many_threads_that_all_wait_for_each_other_stay_within_the_budget)
{
    /* 3,000 threads hand one block on for 20 rounds: whole clocks would hold 9 million components,
     * many times over. */
    enum { THREADS = 3000, ROUNDS = 20 };
    FILE *file = fopen(path_of("t.txt"), "w");
    ck_assert_ptr_nonnull(file);
    fputs("0: malloc 0x10 1\n", file);
    for (unsigned i = 1; i < THREADS * ROUNDS; i++) {
        fprintf(file, "%u: realloc 0x10 0x10 %u\n", i % THREADS, i);
    }
    fclose(file);
    struct trace trace = must_read("t.txt");
    struct lanes lanes = must_build(&trace);
    ck_assert_uint_eq(lanes.edge_count, THREADS * ROUNDS - 1);
    lanes_release(&lanes);
    trace_unload(&trace);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("lanes");
    TCase *lanes = add_file_claims(suite, "lanes");
    tcase_add_test(lanes, each_operation_is_in_its_lane);
    tcase_add_test(lanes, one_thread_needs_no_edges_and_as_many_slots_as_are_live_at_once);
    tcase_add_test(lanes, in_any_order_within_the_edges_each_block_finds_its_slot);
    TCase *edges = add_file_claims(suite, "edges");
    tcase_add_test(edges, a_second_hand_over_that_the_first_implies_needs_no_edge);
    tcase_add_test(edges, what_a_third_thread_waited_for_needs_no_edge);
    tcase_add_test(edges, what_a_third_thread_learnt_later_does_not_count);
    tcase_add_test(edges, the_edges_are_enough_and_none_is_too_many);
    tcase_add_test(edges, many_threads_that_all_wait_for_each_other_stay_within_the_budget);
    return run_file_suite(suite);
}
