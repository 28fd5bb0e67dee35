/* SPDX-License-Identifier: MIT */
/* Inferences: found by marks, or as what repeats; and how alike they are. */
#include <stdio.h>
#include <stdlib.h>

#include "census.h"
#include "phases.h"
#include "trace_support.h"

static struct phases must_find(const struct trace *trace)
{
    struct phases phases;
    ck_assert_int_eq(phases_find(trace, &phases), 0);
    return phases;
}

static void assert_phase(const struct phases *phases, size_t index, uint32_t begin, uint32_t end)
{
    ck_assert_uint_lt(index, phases->count);
    ck_assert_uint_eq(phases->phases[index].begin, begin);
    ck_assert_uint_eq(phases->phases[index].end, end);
}

static const char six_lines[] = "1: malloc 0x10 1\n1: free 0x10\n1: malloc 0x10 2\n"
                                "1: free 0x10\n1: malloc 0x10 3\n1: free 0x10\n";

START_TEST(a_mark_begins_an_inference_and_ends_the_one_before)
{
    write_text("t.marks", "1 inference 0\n2 other\n3 inference 1\n5 end\n");
    struct trace trace = must_read_text("t.txt", six_lines);
    struct phases phases = must_find(&trace);
    ck_assert_int_eq(phases.source, PHASES_MARKS);
    ck_assert_uint_eq(phases.count, 2);
    assert_phase(&phases, 0, 1, 3);
    assert_phase(&phases, 1, 3, 5);
    phases_release(&phases);
    trace_unload(&trace);
}
END_TEST

START_TEST(without_an_end_the_last_inference_reaches_to_the_end_of_the_trace)
{
    write_text("t.marks", "0 inference\n4 inference\n4 inference\n");
    struct trace trace = must_read_text("t.txt", six_lines);
    struct phases phases = must_find(&trace);
    ck_assert_uint_eq(phases.count, 2); /* the one in between is empty */
    assert_phase(&phases, 0, 0, 4);
    assert_phase(&phases, 1, 4, 6);
    phases_release(&phases);
    trace_unload(&trace);
}
END_TEST

START_TEST(marks_of_another_name_begin_inferences_where_none_is_called_so)
{
    write_text("t.marks", "0 round 0\n2 round 1\n2 other\n6 end\n");
    struct trace trace = must_read_text("t.txt", six_lines);
    struct phases phases = must_find(&trace);
    ck_assert_int_eq(phases.source, PHASES_MARKS);
    ck_assert_uint_eq(phases.count, 2);
    assert_phase(&phases, 0, 0, 2);
    assert_phase(&phases, 1, 2, 6);
    phases_release(&phases);
    trace_unload(&trace);
}
END_TEST

/* -- By period ----------------------------------------------------------------------------------- */

/* Writes made-up inferences: `layers` times an output that lives until the next layer's, and a work
 * space that does not. */
struct writing {
    FILE *file;
    unsigned next_address;
};

static unsigned allocate(struct writing *writing, unsigned size)
{
    fprintf(writing->file, "1: malloc 0x%x0 %u\n", ++writing->next_address, size);
    return writing->next_address;
}

static void release(struct writing *writing, unsigned address)
{
    fprintf(writing->file, "1: free 0x%x0\n", address);
}

static void write_inference(struct writing *writing, unsigned layers, unsigned scale)
{
    unsigned input = allocate(writing, 600 * scale);
    for (unsigned i = 0; i < layers; i++) {
        unsigned work = allocate(writing, (100 + 10 * (i / 3)) * scale);
        unsigned output = allocate(writing, (1000 - i) * scale);
        release(writing, work);
        release(writing, input);
        input = output;
    }
    unsigned end = allocate(writing, 4 * scale);
    release(writing, input);
    release(writing, end);
}

/* The loading of weights, that nothing repeats and that stays. */
static void write_loading(struct writing *writing, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        (void)allocate(writing, 5000 + i * i * 7);
    }
}

static struct writing begin_writing(void)
{
    struct writing writing = {.file = fopen(path_of("p.txt"), "w")};
    ck_assert_ptr_nonnull(writing.file);
    return writing;
}

static struct trace end_writing(struct writing *writing)
{
    fclose(writing->file);
    return must_read("p.txt");
}

static void assert_periods(const struct trace *trace, size_t count, uint32_t begin, uint32_t length)
{
    struct phases phases = must_find(trace);
    ck_assert_int_eq(phases.source, PHASES_PERIOD);
    ck_assert_uint_eq(phases.count, count);
    for (size_t i = 0; i < count; i++) {
        uint32_t at = begin + (uint32_t)i * length;
        assert_phase(&phases, i, at, at + length);
    }
    phases_release(&phases);
}

enum { LAYERS = 20, OPS = 2 * (2 + 2 * LAYERS) };

START_TEST(the_same_inference_again_and_again_is_found_behind_the_loading)
{
    struct writing writing = begin_writing();
    write_loading(&writing, 50);
    for (unsigned i = 0; i < 6; i++) {
        write_inference(&writing, LAYERS, 1);
    }
    struct trace trace = end_writing(&writing);
    assert_periods(&trace, 6, 50, OPS);
    trace_unload(&trace);
}
END_TEST

START_TEST(inferences_of_varying_size_are_found_by_their_shape)
{
    struct writing writing = begin_writing();
    for (unsigned i = 0; i < 8; i++) {
        write_inference(&writing, LAYERS, 3 + i * i);
    }
    struct trace trace = end_writing(&writing);
    assert_periods(&trace, 8, 0, OPS);
    trace_unload(&trace);
}
END_TEST

START_TEST(a_set_of_inputs_that_comes_again_is_several_inferences)
{
    struct writing writing = begin_writing();
    for (unsigned i = 0; i < 12; i++) {
        write_inference(&writing, LAYERS, 1 + i % 3);
    }
    struct trace trace = end_writing(&writing);
    assert_periods(&trace, 12, 0, OPS);
    trace_unload(&trace);
}
END_TEST

START_TEST(equal_layers_are_not_taken_for_inferences)
{
    struct writing writing = begin_writing();
    for (unsigned i = 0; i < 5; i++) {
        unsigned input = allocate(&writing, 77);
        for (unsigned layer = 0; layer < 6; layer++) {
            for (unsigned j = 0; j < 8; j++) {
                release(&writing, allocate(&writing, 1000 + j));
            }
        }
        for (unsigned j = 0; j < 10; j++) {
            release(&writing, allocate(&writing, 50 + j));
        }
        release(&writing, input);
    }
    struct trace trace = end_writing(&writing);
    assert_periods(&trace, 5, 0, 2 + 2 * 58);
    trace_unload(&trace);
}
END_TEST

START_TEST(where_nothing_repeats_nothing_is_found)
{
    struct writing writing = begin_writing();
    write_loading(&writing, 500);
    write_inference(&writing, LAYERS, 1);
    struct trace trace = end_writing(&writing);
    struct phases phases = must_find(&trace);
    ck_assert_int_eq(phases.source, PHASES_NONE);
    ck_assert_uint_eq(phases.count, 0);
    phases_release(&phases);
    trace_unload(&trace);
}
END_TEST

START_TEST(another_thread_s_operations_do_not_hide_what_repeats)
{
    struct writing writing = begin_writing();
    for (unsigned i = 0; i < 6; i++) {
        write_inference(&writing, LAYERS, 1);
        for (unsigned j = 0; j < i; j++) {
            fprintf(writing.file, "2: malloc 0xf%u%u00 %u\n", i, j, 10 + i * j);
        }
    }
    struct trace trace = end_writing(&writing);
    struct phases phases = must_find(&trace);
    ck_assert_int_eq(phases.source, PHASES_PERIOD);
    ck_assert_uint_eq(phases.count, 6);
    assert_phase(&phases, 1, OPS, 2 * OPS + 1); /* with what the other did meanwhile */
    phases_release(&phases);
    trace_unload(&trace);
}
END_TEST

/* -- Likeness ------------------------------------------------------------------------------------ */

START_TEST(likeness_counts_identical_inferences_and_sizes_in_common)
{
    static const char text[] = "1: malloc 0x10 1\n1: malloc 0x20 2\n1: free 0x20\n1: free 0x10\n"
                               "1: malloc 0x10 1\n1: malloc 0x20 2\n1: free 0x20\n1: free 0x10\n"
                               "1: malloc 0x10 2\n1: malloc 0x20 1\n1: free 0x20\n1: free 0x10\n"
                               "1: malloc 0x10 7\n1: malloc 0x20 1\n1: malloc 0x30 1\n";
    write_text("t.marks", "0 inference\n4 inference\n8 inference\n12 inference\n");
    struct trace trace = must_read_text("t.txt", text);
    struct phases phases = must_find(&trace);
    struct census_likeness likeness;
    ck_assert_uint_eq(phases.count, 4);
    ck_assert_int_eq(census_compare(&trace, &phases, &likeness), 0);
    ck_assert_uint_eq(likeness.identical, 1);
    ck_assert_double_eq_tol(likeness.median, 1.0, 1e-6);
    ck_assert_double_eq_tol(likeness.least, 1.0 / 3, 1e-5);
    phases_release(&phases);
    trace_unload(&trace);
}
END_TEST

/* -- Census -------------------------------------------------------------------------------------- */

START_TEST(the_census_counts_sizes_lifetimes_and_threads)
{
    struct trace trace = must_read_text("t.txt", "1: malloc 0x10 100 10 20\n"
                                                 "1: memalign 0x20 64 100 30 40\n"
                                                 "2: free 0x10 1040 1050\n"
                                                 "1: calloc 0x30 1 0 1060 1070\n"
                                                 "2: realloc 0x20 0x20 200 1080 1090\n");
    struct census census;
    ck_assert_int_eq(census_take(&trace, &census), 0);
    ck_assert_uint_eq(census.size_counts[7], 2); /* from 64 to 127 */
    ck_assert_uint_eq(census.size_bytes[7], 200);
    ck_assert_uint_eq(census.size_counts[0], 1);
    ck_assert_uint_eq(census.distinct_sizes, 3);
    ck_assert_uint_eq(census.alignment_counts[0], 2);
    ck_assert_uint_eq(census.alignment_counts[6], 1);
    ck_assert_uint_eq(census.foreign_frees, 1);
    ck_assert_uint_eq(census.foreign_reallocations, 1);
    ck_assert_uint_eq(census.lifetime_ops[2], 1); /* 2 operations */
    ck_assert_uint_eq(census.lifetime_ns[10], 1); /* 1020 ns: from 512 to 1023 */
    ck_assert_uint_eq(census.first_ns, 10);
    ck_assert_uint_eq(census.last_ns, 1090);
    ck_assert_uint_eq(census.exact_cache_bytes, 400); /* two of 100 at once, one of 200 */
    trace_unload(&trace);
}
END_TEST

START_TEST(the_curve_of_live_bytes_shows_each_part_s_most)
{
    struct trace trace = must_read_text("t.txt", "1: malloc 0x10 100\n1: malloc 0x20 50\n"
                                                 "1: free 0x10\n1: realloc 0x20 0x20 70\n"
                                                 "1: free 0x20\n1: malloc 0x10 5\n");
    uint64_t most[3], all;
    ck_assert_int_eq(census_live_bytes(&trace, most, 3), 0);
    ck_assert_uint_eq(most[0], 150);
    ck_assert_uint_eq(most[1], 150); /* as it begins */
    ck_assert_uint_eq(most[2], 70);
    ck_assert_int_eq(census_live_bytes(&trace, &all, 1), 0);
    ck_assert_uint_eq(all, 150);
    trace_unload(&trace);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("phases");
    TCase *marks = add_file_claims(suite, "marks");
    tcase_add_test(marks, a_mark_begins_an_inference_and_ends_the_one_before);
    tcase_add_test(marks, without_an_end_the_last_inference_reaches_to_the_end_of_the_trace);
    tcase_add_test(marks, marks_of_another_name_begin_inferences_where_none_is_called_so);
    TCase *period = add_file_claims(suite, "period");
    tcase_add_test(period, the_same_inference_again_and_again_is_found_behind_the_loading);
    tcase_add_test(period, inferences_of_varying_size_are_found_by_their_shape);
    tcase_add_test(period, a_set_of_inputs_that_comes_again_is_several_inferences);
    tcase_add_test(period, equal_layers_are_not_taken_for_inferences);
    tcase_add_test(period, where_nothing_repeats_nothing_is_found);
    tcase_add_test(period, another_thread_s_operations_do_not_hide_what_repeats);
    TCase *census = add_file_claims(suite, "census");
    tcase_add_test(census, likeness_counts_identical_inferences_and_sizes_in_common);
    tcase_add_test(census, the_census_counts_sizes_lifetimes_and_threads);
    tcase_add_test(census, the_curve_of_live_bytes_shows_each_part_s_most);
    return run_file_suite(suite);
}
