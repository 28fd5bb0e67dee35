/* SPDX-License-Identifier: MIT */
/*
 * Reading traces: what each line becomes, what is dropped and counted, and what a repair does; what is
 * said of files that are no traces is in test_trace_refused.c. Traces are written to a temporary file,
 * as trace_load() reads files.
 */
#include <check.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "trace.h"

static char path[64];
static char why[512];

static void make_file(void)
{
    /* In memory where possible: some file systems flush a file that is written over, and the tests
     * do that thousands of times. */
    const char *directory = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(path, sizeof path, "%s/larder-test-trace-XXXXXX", directory);
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    close(fd);
    why[0] = '\0';
}

static void remove_file(void)
{
    unlink(path);
}

static void write_bytes(const void *bytes, size_t size)
{
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(bytes, 1, size, file), size);
    ck_assert_int_eq(fclose(file), 0);
}

static int load_text(const char *text, bool repair, struct trace *trace)
{
    struct trace_options options = {.repair = repair};
    write_bytes(text, strlen(text));
    return trace_load(path, &options, trace, why, sizeof why);
}

static struct trace must_load(const char *text)
{
    struct trace trace;
    ck_assert_msg(load_text(text, false, &trace) == 0, "%s", why);
    return trace;
}

static struct trace must_load_repaired(const char *text)
{
    struct trace trace;
    ck_assert_msg(load_text(text, true, &trace) == 0, "%s", why);
    return trace;
}

static void assert_op(const struct trace *trace, size_t index, enum trace_op_kind kind,
                      uint32_t block, uint64_t size)
{
    ck_assert_uint_lt(index, trace->op_count);
    ck_assert_int_eq(trace->ops[index].kind, kind);
    ck_assert_uint_eq(trace->ops[index].block, block);
    ck_assert_uint_eq(trace->ops[index].size, size);
}

static struct trace_facts facts_of(const struct trace *trace)
{
    struct trace_facts facts;
    ck_assert_int_eq(trace_get_facts(trace, &facts), 0);
    return facts;
}

/* -- Lines ------------------------------------------------------------------------------------- */

START_TEST(each_action_becomes_its_operation)
{
    struct trace trace = must_load("7: malloc 0x10 100\n"
                                   "8: calloc 0x20 3 50\n"
                                   "7: memalign 0x30 64 200\n"
                                   "8: realloc 0x40 0x10 120\n"
                                   "7: free 0x20\n"
                                   "8: thread_done 0x0\n");
    ck_assert_uint_eq(trace.op_count, 6);
    ck_assert_uint_eq(trace.block_count, 3);
    assert_op(&trace, 0, TRACE_ALLOCATE, 0, 100);
    assert_op(&trace, 1, TRACE_CALLOC, 1, 150);
    assert_op(&trace, 2, TRACE_ALLOCATE, 2, 200);
    ck_assert_int_eq(trace.ops[2].alignment_log2, 6);
    assert_op(&trace, 3, TRACE_REALLOCATE, 0, 120);
    assert_op(&trace, 4, TRACE_FREE, 1, 0);
    assert_op(&trace, 5, TRACE_THREAD_DONE, TRACE_NO_BLOCK, 0);
    ck_assert_uint_eq(trace.thread_count, 2);
    ck_assert_uint_eq(trace.thread_ids[trace.ops[3].thread], 8);
    ck_assert_ptr_null(trace.times);
    trace_unload(&trace);
}
END_TEST

START_TEST(times_and_present_bytes_are_read)
{
    struct trace trace = must_load("7: malloc 0x10 100 1000 1010\n"
                                   "7: realloc 0x40 0x10 120 1020 1030 64\n"
                                   "7: free 0x40 1040 1050 120\n"
                                   "7: thread_done 0x0 1060\n");
    ck_assert_uint_eq(trace.op_count, 4);
    ck_assert_ptr_nonnull(trace.times);
    ck_assert_uint_eq(trace.times[1].start_ns, 1020);
    ck_assert_uint_eq(trace.times[2].end_ns, 1050);
    ck_assert_uint_eq(trace.times[3].end_ns, 1060);
    trace_unload(&trace);
}
END_TEST

START_TEST(an_alignment_is_rounded_up_to_a_power_of_two_as_bionic_does)
{
    struct trace trace = must_load("1: memalign 0x10 48 1\n1: memalign 0x20 0 1\n");
    ck_assert_int_eq(trace.ops[0].alignment_log2, 6);
    ck_assert_int_eq(trace.ops[1].alignment_log2, 0);
    trace_unload(&trace);
}
END_TEST

START_TEST(empty_lines_and_carriage_returns_are_accepted)
{
    struct trace trace = must_load("\r\n1: malloc 0x10 5\r\n\n1: free 0x10");
    ck_assert_uint_eq(trace.op_count, 2);
    trace_unload(&trace);
}
END_TEST

/* -- What is dropped --------------------------------------------------------------------------- */

START_TEST(frees_of_null_and_of_older_blocks_are_dropped_and_counted)
{
    struct trace trace = must_load("1: free 0x0\n1: free 0x99\n1: malloc 0x10 5\n1: free 0x10\n"
                                   "1: free 0x10\n");
    ck_assert_uint_eq(trace.op_count, 2);
    ck_assert_uint_eq(trace.notes.null_frees, 1);
    ck_assert_uint_eq(trace.notes.unknown_frees, 2);
    trace_unload(&trace);
}
END_TEST

START_TEST(failed_allocations_are_dropped_and_counted)
{
    struct trace trace = must_load("1: malloc 0x0 5\n1: malloc 0x10 6\n1: realloc 0x0 0x10 7\n"
                                   "1: free 0x10\n");
    ck_assert_uint_eq(trace.op_count, 2);
    assert_op(&trace, 1, TRACE_FREE, 0, 0); /* a failed realloc left its block alone */
    ck_assert_uint_eq(trace.notes.failed_allocations, 2);
    trace_unload(&trace);
}
END_TEST

START_TEST(realloc_of_null_or_of_an_older_block_allocates)
{
    struct trace trace = must_load("1: realloc 0x10 0x0 5\n1: realloc 0x20 0x99 6\n");
    assert_op(&trace, 0, TRACE_ALLOCATE, 0, 5);
    assert_op(&trace, 1, TRACE_ALLOCATE, 1, 6);
    ck_assert_uint_eq(trace.notes.unknown_frees, 1);
    trace_unload(&trace);
}
END_TEST

START_TEST(realloc_to_nothing_frees)
{
    struct trace trace = must_load("1: malloc 0x10 5\n1: realloc 0x0 0x10 0\n1: malloc 0x10 6\n");
    assert_op(&trace, 1, TRACE_FREE, 0, 0);
    assert_op(&trace, 2, TRACE_ALLOCATE, 1, 6);
    ck_assert_uint_eq(trace.notes.early_reuses, 0);
    trace_unload(&trace);
}
END_TEST

/* -- Early reuse ------------------------------------------------------------------------------- */

static const char reused_early[] = "1: malloc 0x10 100\n"
                                   "2: malloc 0x10 40\n"
                                   "1: free 0x10\n"
                                   "2: free 0x10\n";

START_TEST(early_reuse_is_counted_and_the_older_block_freed_first)
{
    struct trace trace = must_load(reused_early);
    ck_assert_uint_eq(trace.notes.early_reuses, 1);
    ck_assert_uint_eq(trace.notes.repaired, 0);
    assert_op(&trace, 2, TRACE_FREE, 0, 0);
    assert_op(&trace, 3, TRACE_FREE, 1, 0);
    ck_assert_uint_eq(facts_of(&trace).peak_live_bytes, 140);
    trace_unload(&trace);
}
END_TEST

START_TEST(repair_moves_the_free_to_before_the_reuse)
{
    struct trace trace = must_load_repaired(reused_early);
    ck_assert_uint_eq(trace.notes.early_reuses, 1);
    ck_assert_uint_eq(trace.notes.repaired, 1);
    assert_op(&trace, 0, TRACE_ALLOCATE, 0, 100);
    assert_op(&trace, 1, TRACE_FREE, 0, 0);
    assert_op(&trace, 2, TRACE_ALLOCATE, 1, 40);
    ck_assert_uint_eq(facts_of(&trace).peak_live_bytes, 100);
    trace_unload(&trace);
}
END_TEST

START_TEST(repair_moves_times_and_resizes_along)
{
    struct trace trace = must_load_repaired("1: malloc 0x10 100 1 2\n"
                                            "2: malloc 0x10 40 3 4\n"
                                            "1: realloc 0x10 0x10 110 5 6\n"
                                            "1: realloc 0x50 0x10 120 7 8\n"
                                            "1: free 0x50 9 10\n");
    assert_op(&trace, 1, TRACE_REALLOCATE, 0, 110);
    assert_op(&trace, 2, TRACE_REALLOCATE, 0, 120);
    ck_assert_uint_eq(trace.times[2].start_ns, 7);
    assert_op(&trace, 3, TRACE_ALLOCATE, 1, 40);
    ck_assert_uint_eq(trace.times[3].start_ns, 3);
    assert_op(&trace, 4, TRACE_FREE, 0, 0);
    trace_unload(&trace);
}
END_TEST

START_TEST(a_chain_of_early_reuses_is_repaired_in_order)
{
    struct trace trace = must_load_repaired("1: malloc 0x10 1\n2: malloc 0x10 2\n3: malloc 0x10 3\n"
                                            "1: free 0x10\n2: free 0x10\n3: free 0x10\n");
    ck_assert_uint_eq(trace.notes.repaired, 2);
    for (uint32_t block = 0; block < 3; block++) {
        assert_op(&trace, 2 * block, TRACE_ALLOCATE, block, block + 1);
        assert_op(&trace, 2 * block + 1, TRACE_FREE, block, 0);
    }
    trace_unload(&trace);
}
END_TEST

/* Each block: one allocation, then reallocations, then at most one free. */
static void assert_lifetimes(const struct trace *trace)
{
    enum { UNBORN, LIVE, FREED };
    unsigned char *state = calloc(trace->block_count + 1, 1);
    ck_assert_ptr_nonnull(state);
    bool holds = true;
    /* One assertion for all: Check notes each of them in a file. */
    for (size_t i = 0; i < trace->op_count && holds; i++) {
        const struct trace_op *op = &trace->ops[i];
        bool begins = op->kind == TRACE_ALLOCATE || op->kind == TRACE_CALLOC;
        holds = op->thread < trace->thread_count;
        if (op->kind != TRACE_THREAD_DONE && holds) {
            holds = op->block < trace->block_count && state[op->block] == (begins ? UNBORN : LIVE);
        }
        if (op->kind != TRACE_THREAD_DONE && holds) {
            state[op->block] = op->kind == TRACE_FREE ? FREED : LIVE;
        }
    }
    free(state);
    ck_assert_msg(holds, "a block's operations are not in order");
}

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 16;
}

/* Nonsense over a few addresses, so that every kind of early reuse meets every other. */
static void write_nonsense(uint32_t seed, unsigned lines)
{
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    fprintf(file, "1: malloc 0x10 1\n");
    for (unsigned i = 0; i < lines; i++) {
        unsigned address = next_random(&seed) % 6 * 16, old = next_random(&seed) % 6 * 16;
        unsigned size = next_random(&seed) % 3000, thread = next_random(&seed) % 4;
        switch (next_random(&seed) % 3) {
        case 0:
            fprintf(file, "%u: malloc 0x%x %u\n", thread, address, size);
            break;
        case 1:
            fprintf(file, "%u: realloc 0x%x 0x%x %u\n", thread, address, old, size);
            break;
        default:
            fprintf(file, "%u: free 0x%x\n", thread, address);
            break;
        }
    }
    ck_assert_int_eq(fclose(file), 0);
}

START_TEST(lifetimes_hold_for_any_order_of_lines_repaired_or_not)
{
    for (uint32_t seed = 1; seed <= 200; seed++) {
        for (int repair = 0; repair < 2; repair++) {
            struct trace_options options = {.repair = repair};
            struct trace trace;
            write_nonsense(seed, 300);
            ck_assert_msg(trace_load(path, &options, &trace, why, sizeof why) == 0,
                          "seed %" PRIu32 ": %s", seed, why);
            assert_lifetimes(&trace);
            ck_assert_uint_le(trace.notes.repaired, trace.notes.early_reuses);
            ck_assert_int_eq(trace_filter_min_size(&trace, 1500), 0);
            assert_lifetimes(&trace);
            trace_unload(&trace);
        }
    }
}
END_TEST

/* -- Filter and facts -------------------------------------------------------------------------- */

START_TEST(the_filter_follows_blocks_across_the_limit)
{
    struct trace trace = must_load("1: malloc 0x10 10\n"        /* too small */
                                   "1: malloc 0x20 100\n"       /* kept */
                                   "1: realloc 0x10 0x10 200\n" /* grown: an allocation */
                                   "1: realloc 0x20 0x20 20\n"  /* shrunk: a free */
                                   "1: realloc 0x10 0x30 5\n"   /* of an older block: dropped */
                                   "1: free 0x20\n"             /* dropped */
                                   "1: free 0x10\n");
    ck_assert_int_eq(trace_filter_min_size(&trace, 100), 0);
    ck_assert_uint_eq(trace.op_count, 4);
    ck_assert_uint_eq(trace.block_count, 2);
    assert_op(&trace, 0, TRACE_ALLOCATE, 0, 100);
    assert_op(&trace, 1, TRACE_ALLOCATE, 1, 200);
    assert_op(&trace, 2, TRACE_FREE, 0, 0);
    assert_op(&trace, 3, TRACE_FREE, 1, 0);
    ck_assert_uint_eq(trace.notes.small_blocks, 2);
    trace_unload(&trace);
}
END_TEST

START_TEST(facts_count_live_bytes_as_requested)
{
    struct trace trace = must_load("1: malloc 0x10 100\n1: malloc 0x20 50\n1: free 0x10\n"
                                   "1: realloc 0x20 0x20 140\n1: malloc 0x30 1\n1: free 0x30\n");
    struct trace_facts facts = facts_of(&trace);
    ck_assert_uint_eq(facts.allocations, 3);
    ck_assert_uint_eq(facts.reallocations, 1);
    ck_assert_uint_eq(facts.frees, 2);
    ck_assert_uint_eq(facts.never_freed, 1);
    ck_assert_uint_eq(facts.peak_live_bytes, 150);
    ck_assert_uint_eq(facts.peak_live_blocks, 2);
    ck_assert_uint_eq(facts.largest_bytes, 140);
    trace_unload(&trace);
}
END_TEST

/* -- Long ones -------------------------------------------------------------------------------- */

START_TEST(lines_across_the_read_buffer_stay_whole)
{
    FILE *file = fopen(path, "w");
    struct trace trace;
    for (unsigned i = 1; i <= 50000; i++) {
        fprintf(file, "1: malloc 0x%x %u\n", i * 16, i);
    }
    ck_assert_int_eq(fclose(file), 0);
    ck_assert_int_eq(trace_load(path, NULL, &trace, why, sizeof why), 0);
    ck_assert_uint_eq(trace.op_count, 50000);
    unsigned right = 0;
    while (right < 50000 && trace.ops[right].size == right + 1) {
        right++;
    }
    ck_assert_uint_eq(right, 50000);
    trace_unload(&trace);
}
END_TEST

START_TEST(each_address_is_found_again_among_thousands)
{
    enum { COUNT = 3000, ROUNDS = 100000 };
    static unsigned address[COUNT];
    uint32_t seed = 1;
    struct trace trace;
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    for (unsigned i = 0; i < ROUNDS; i++) {
        unsigned chosen = next_random(&seed) % COUNT;
        if (address[chosen] != 0) {
            fprintf(file, "1: free 0x%x\n", address[chosen]);
            address[chosen] = 0;
        } else {
            /* of its own: the low digits name the block, the high ones its life */
            address[chosen] = ((i + 1) * COUNT + chosen) * 8;
            fprintf(file, "1: malloc 0x%x 8\n", address[chosen]);
        }
    }
    ck_assert_int_eq(fclose(file), 0);
    ck_assert_int_eq(trace_load(path, NULL, &trace, why, sizeof why), 0);
    ck_assert_uint_eq(trace.op_count, ROUNDS);
    ck_assert_uint_eq(trace.notes.unknown_frees, 0);
    ck_assert_uint_eq(trace.notes.early_reuses, 0);
    assert_lifetimes(&trace);
    trace_unload(&trace);
}
END_TEST

static TCase *claims(Suite *suite, const char *name)
{
    TCase *tcase = tcase_create(name);
    tcase_add_checked_fixture(tcase, make_file, remove_file);
    tcase_set_timeout(tcase, 60);
    suite_add_tcase(suite, tcase);
    return tcase;
}

int main(void)
{
    Suite *suite = suite_create("trace");
    TCase *lines = claims(suite, "lines");
    tcase_add_test(lines, each_action_becomes_its_operation);
    tcase_add_test(lines, times_and_present_bytes_are_read);
    tcase_add_test(lines, an_alignment_is_rounded_up_to_a_power_of_two_as_bionic_does);
    tcase_add_test(lines, empty_lines_and_carriage_returns_are_accepted);
    tcase_add_test(lines, lines_across_the_read_buffer_stay_whole);
    tcase_add_test(lines, each_address_is_found_again_among_thousands);

    TCase *dropped = claims(suite, "dropped");
    tcase_add_test(dropped, frees_of_null_and_of_older_blocks_are_dropped_and_counted);
    tcase_add_test(dropped, failed_allocations_are_dropped_and_counted);
    tcase_add_test(dropped, realloc_of_null_or_of_an_older_block_allocates);
    tcase_add_test(dropped, realloc_to_nothing_frees);

    TCase *reuse = claims(suite, "reuse");
    tcase_add_test(reuse, early_reuse_is_counted_and_the_older_block_freed_first);
    tcase_add_test(reuse, repair_moves_the_free_to_before_the_reuse);
    tcase_add_test(reuse, repair_moves_times_and_resizes_along);
    tcase_add_test(reuse, a_chain_of_early_reuses_is_repaired_in_order);
    tcase_add_test(reuse, lifetimes_hold_for_any_order_of_lines_repaired_or_not);

    TCase *facts = claims(suite, "facts");
    tcase_add_test(facts, the_filter_follows_blocks_across_the_limit);
    tcase_add_test(facts, facts_count_live_bytes_as_requested);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
