/* SPDX-License-Identifier: MIT */
/*
 * The parts of the command-line tool that decide: numbers, JSON lines, and which allocator is
 * recommended.
 */
#include <check.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "pick.h"
#include "tool.h"

/* -- Numbers ----------------------------------------------------------------------------------- */

START_TEST(sizes_take_suffixes_and_nothing_else)
{
    static const char *const bad[] = {"",
                                      "k",
                                      "-1",
                                      "+1",
                                      " 1",
                                      "1 ",
                                      "1kk",
                                      "1t",
                                      "0x10",
                                      "1.5k",
                                      "18446744073709551616",
                                      "18014398509481984k"};
    uint64_t size = 0;
    ck_assert(tool_read_size("0", &size) && size == 0);
    ck_assert(tool_read_size("1024", &size) && size == 1024);
    ck_assert(tool_read_size("16k", &size) && size == 16384);
    ck_assert(tool_read_size("2M", &size) && size == 2097152);
    ck_assert(tool_read_size("18446744073709551615", &size) && size == UINT64_MAX);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        ck_assert_msg(!tool_read_size(bad[i], &size), "'%s' was taken", bad[i]);
    }
}
END_TEST

START_TEST(bytes_are_shown_with_three_digits)
{
    char text[32];
    ck_assert_str_eq(tool_format_bytes(1023, text, sizeof text), "1023 B");
    ck_assert_str_eq(tool_format_bytes(1024, text, sizeof text), "1 KiB");
    ck_assert_str_eq(tool_format_bytes(1536, text, sizeof text), "1.50 KiB");
    ck_assert_str_eq(tool_format_bytes(12257760, text, sizeof text), "11.7 MiB");
    ck_assert_str_eq(tool_format_bytes(UINT64_C(5) << 40, text, sizeof text), "5 TiB");
}
END_TEST

START_TEST(a_json_line_reads_back_as_written)
{
    char buffer[512] = "", text[64];
    double number = 0;
    uint64_t count = 0;
    FILE *file = fmemopen(buffer, sizeof buffer, "w");
    struct json_line line;
    json_begin(&line, file);
    json_string(&line, "trace", "a \"b\" \\ \t\xc3\xa4, \"ns\": 7");
    json_number(&line, "ns", 1.25, 2);
    json_count(&line, "bytes", UINT64_MAX - 1);
    json_count(&line, "unknown", UINT64_MAX);
    json_boolean(&line, "best", true);
    json_end(&line);
    fclose(file);
    ck_assert(json_get_string(buffer, "trace", text, sizeof text));
    ck_assert_str_eq(text, "a \"b\" \\ \t\xc3\xa4, \"ns\": 7");
    ck_assert(json_get_number(buffer, "ns", &number) && number == 1.25);
    ck_assert(json_get_count(buffer, "bytes", &count) && count == UINT64_MAX - 1);
    ck_assert(json_get_count(buffer, "unknown", &count) && count == UINT64_MAX);
    ck_assert(!json_get_count(buffer, "absent", &count));
    ck_assert(!json_get_string(buffer, "ns", text, sizeof text));
    ck_assert_ptr_nonnull(strstr(buffer, "\"best\": true}\n"));
}
END_TEST

/* -- Which allocator --------------------------------------------------------------------------- */

static struct pick_options options;
static struct pick_case traces[2];
static struct pick pick;

static void reset(void)
{
    static const char *const paths[] = {"one", "two"};
    options = (struct pick_options){
        .traces = paths, .trace_count = 1, .replay.touch = "page", .repetitions = 3};
    memset(&pick, 0, sizeof pick);
    memset(traces, 0, sizeof traces);
    pick.options = &options;
    pick.cases = traces;
    pick.main_count = pick.case_count = 1;
}

static size_t add_backend(const char *name, bool candidate)
{
    struct pick_backend *backend = &pick.backends[pick.backend_count];
    snprintf(backend->name, sizeof backend->name, "%s", name);
    backend->candidate = candidate;
    return pick.backend_count++;
}

static void add_sample(size_t trace, size_t backend, double ns, uint64_t rss, double faults)
{
    struct pick_row *row = &traces[trace].rows[backend];
    row->samples[row->sample_count++] = (struct pick_sample){
        .ns_per_op = ns,
        .ns_per_op_min = ns,
        .ns_per_op_max = ns,
        .faults_per_pass = faults,
        .peak_rss_bytes = rss,
        .held_bytes = UINT64_MAX,
        .peak_held_bytes = UINT64_MAX,
    };
}

#define MIB(n) ((uint64_t)(n) << 20)

START_TEST(the_fastest_and_smallest_is_recommended_whoever_it_is)
{
    size_t larder = add_backend("larder", true), other = add_backend("other", true);
    add_sample(0, larder, 110, MIB(12), 0);
    add_sample(0, other, 100, MIB(10), 0);
    pick_judge_case(&pick, &traces[0]);
    ck_assert_uint_eq(traces[0].verdict.choice, other);
    ck_assert_uint_eq(traces[0].verdict.fastest, other);
    ck_assert_uint_eq(traces[0].verdict.smallest, other);
    ck_assert(!traces[0].verdict.tested); /* one repetition tells nothing from chance */
}
END_TEST

START_TEST(twice_the_time_weighs_as_much_as_four_times_the_memory)
{
    size_t fast = add_backend("fast", true), small = add_backend("small", true);
    add_sample(0, fast, 100, MIB(39), 0);
    add_sample(0, small, 200, MIB(10), 0);
    pick_judge_case(&pick, &traces[0]);
    ck_assert_uint_eq(traces[0].verdict.choice, fast);
    ck_assert_uint_eq(traces[0].verdict.smallest, small);
    add_sample(0, fast, 100, MIB(48), 0);
    add_sample(0, fast, 100, MIB(48), 0);
    pick_judge_case(&pick, &traces[0]);
    ck_assert_uint_eq(traces[0].verdict.choice, small);
}
END_TEST

START_TEST(among_equals_the_one_with_fewer_faults_is_recommended)
{
    size_t faulting = add_backend("faulting", true), calm = add_backend("calm", true);
    add_sample(0, faulting, 100, MIB(10), 200);
    add_sample(0, calm, 104, MIB(10), 0);
    pick_judge_case(&pick, &traces[0]);
    ck_assert_uint_eq(traces[0].verdict.choice, calm);
    ck_assert(traces[0].rows[faulting].close);
    traces[0].rows[calm].samples[0].ns_per_op = 106;
    pick_judge_case(&pick, &traces[0]);
    ck_assert_uint_eq(traces[0].verdict.choice, faulting);
}
END_TEST

START_TEST(references_and_failures_are_never_recommended)
{
    size_t none = add_backend("none", false), failed = add_backend("failed", true);
    size_t slow = add_backend("slow", true);
    add_sample(0, none, 1, MIB(1), 0);
    add_sample(0, slow, 1000, MIB(100), 1000);
    traces[0].rows[failed].failed = true;
    pick_judge_case(&pick, &traces[0]);
    ck_assert_uint_eq(traces[0].verdict.choice, slow);
    ck_assert_uint_eq(traces[0].verdict.fastest, slow);
}
END_TEST

START_TEST(without_a_candidate_nobody_is_recommended)
{
    size_t none = add_backend("none", false);
    add_sample(0, none, 1, MIB(1), 0);
    pick_judge_case(&pick, &traces[0]);
    pick_judge_all(&pick);
    ck_assert_uint_eq(traces[0].verdict.choice, PICK_NOBODY);
    ck_assert_uint_eq(pick.overall.choice, PICK_NOBODY);
}
END_TEST

START_TEST(time_alone_decides_where_nothing_is_touched_or_a_footprint_is_unknown)
{
    size_t fast = add_backend("fast", true), small = add_backend("small", true);
    options.replay.touch = "none";
    add_sample(0, fast, 100, MIB(1000), 0);
    add_sample(0, small, 150, MIB(1), 0);
    pick_judge_case(&pick, &traces[0]);
    ck_assert_uint_eq(traces[0].verdict.choice, fast);
    ck_assert_uint_eq(traces[0].verdict.smallest, PICK_NOBODY);
    options.replay.touch = "page";
    traces[0].rows[small].samples[0].peak_rss_bytes = UINT64_MAX;
    pick_judge_case(&pick, &traces[0]);
    ck_assert_uint_eq(traces[0].verdict.choice, fast);
    ck_assert_uint_eq(traces[0].verdict.smallest, PICK_NOBODY);
}
END_TEST

START_TEST(one_slow_repetition_does_not_count)
{
    size_t steady = add_backend("steady", true), disturbed = add_backend("disturbed", true);
    for (int i = 0; i < 3; i++) {
        add_sample(0, steady, 120, MIB(10), 0);
        add_sample(0, disturbed, i == 1 ? 5000 : 100, MIB(10), 0);
    }
    pick_judge_case(&pick, &traces[0]);
    ck_assert_uint_eq(traces[0].verdict.choice, disturbed);
    ck_assert_double_eq(traces[0].rows[disturbed].median.ns_per_op, 100);
    ck_assert_double_eq(traces[0].rows[disturbed].median.ns_per_op_max, 5000);
}
END_TEST

START_TEST(below_a_mebibyte_footprints_are_equal)
{
    size_t fast = add_backend("fast", true), small = add_backend("small", true);
    add_sample(0, fast, 100, 900000, 0);
    add_sample(0, small, 110, 4096, 0);
    pick_judge_case(&pick, &traces[0]);
    ck_assert_uint_eq(traces[0].verdict.choice, fast);
}
END_TEST

START_TEST(over_several_traces_the_best_on_average_is_recommended)
{
    size_t first = add_backend("first", true), both = add_backend("both", true);
    pick.main_count = pick.case_count = 2;
    add_sample(0, first, 100, MIB(10), 0);
    add_sample(0, both, 120, MIB(10), 0);
    add_sample(1, first, 300, MIB(10), 0);
    add_sample(1, both, 100, MIB(10), 0);
    pick_judge_case(&pick, &traces[0]);
    pick_judge_case(&pick, &traces[1]);
    pick_judge_all(&pick);
    ck_assert_uint_eq(traces[0].verdict.choice, first);
    ck_assert_uint_eq(pick.overall.choice, both);
    ck_assert_double_eq_tol(pick.overall_rows[first].time_ratio, 1.7320508, 1e-6);
}
END_TEST

START_TEST(who_failed_on_one_trace_is_not_recommended_over_all)
{
    size_t partial = add_backend("partial", true), both = add_backend("both", true);
    pick.main_count = pick.case_count = 2;
    add_sample(0, partial, 10, MIB(10), 0);
    add_sample(0, both, 100, MIB(10), 0);
    add_sample(1, both, 100, MIB(10), 0);
    pick_judge_case(&pick, &traces[0]);
    pick_judge_case(&pick, &traces[1]);
    pick_judge_all(&pick);
    ck_assert_uint_eq(pick.overall.choice, both);
    ck_assert_uint_ne(pick.overall.fastest, partial);
}
END_TEST

/* Eight repetitions from `ns` on, 1 % apart. */
static void add_repetitions(size_t trace, size_t backend, double ns, uint64_t rss, double faults)
{
    for (int i = 0; i < 8; i++) {
        add_sample(trace, backend, ns * (1 + 0.01 * i), rss, faults);
    }
}

START_TEST(what_repetitions_do_not_tell_apart_counts_as_equal)
{
    size_t faulting = add_backend("faulting", true), calm = add_backend("calm", true);
    add_repetitions(0, faulting, 100, MIB(10), 200);
    add_repetitions(0, calm, 102.5, MIB(10), 0); /* they overlap: p is over 0.05 */
    pick_judge_case(&pick, &traces[0]);
    ck_assert(traces[0].verdict.tested);
    ck_assert(traces[0].rows[calm].close);
    ck_assert_uint_eq(traces[0].verdict.choice, calm);
    ck_assert_uint_eq(traces[0].rows[faulting].beats, 0);
}
END_TEST

START_TEST(what_repetitions_tell_apart_counts_however_close)
{
    size_t fast = add_backend("fast", true), calm = add_backend("calm", true);
    for (int i = 0; i < 8; i++) {
        add_sample(0, fast, 100 + 0.1 * i, MIB(10), 200);
        add_sample(0, calm, 103 + 0.1 * i, MIB(10), 0);
    }
    pick_judge_case(&pick, &traces[0]);
    ck_assert(!traces[0].rows[calm].close);
    ck_assert_uint_eq(traces[0].verdict.choice, fast);
    ck_assert_uint_eq(traces[0].rows[fast].beats, UINT32_C(1) << calm);
    ck_assert_uint_eq(traces[0].rows[calm].beats, 0);
}
END_TEST

START_TEST(a_preference_decides_and_the_others_are_known)
{
    size_t fast = add_backend("fast", true), small = add_backend("small", true);
    add_repetitions(0, fast, 100, MIB(30), 0);
    add_repetitions(0, small, 180, MIB(10), 0);
    pick_judge_case(&pick, &traces[0]);
    ck_assert_uint_eq(traces[0].verdict.choice, fast); /* 1.8 against sqrt(3) = 1.73 */
    ck_assert_uint_eq(traces[0].verdict.by[PICK_TIME], fast);
    ck_assert_uint_eq(traces[0].verdict.by[PICK_MEMORY], small);
    options.preference = PICK_MEMORY;
    pick_judge_case(&pick, &traces[0]);
    ck_assert_uint_eq(traces[0].verdict.choice, small);
    ck_assert_uint_eq(traces[0].verdict.by[PICK_BALANCED], fast);
}
END_TEST

START_TEST(the_hopeless_are_never_close_and_do_not_cost_the_others_their_test)
{
    size_t good = add_backend("good", true), other = add_backend("other", true);
    size_t hopeless = add_backend("hopeless", true);
    add_repetitions(0, good, 100, MIB(10), 0);
    add_repetitions(0, other, 150, MIB(10), 0);
    add_sample(0, hopeless, 90000, MIB(10), 0);
    traces[0].rows[hopeless].hopeless = true;
    pick_judge_case(&pick, &traces[0]);
    ck_assert(traces[0].verdict.tested);
    ck_assert(!traces[0].rows[hopeless].close);
    ck_assert(!traces[0].rows[other].close);
    ck_assert_uint_eq(traces[0].rows[hopeless].time_rank, 3);
}
END_TEST

START_TEST(a_difference_in_time_of_two_percent_is_no_order_whatever_the_test_says)
{
    size_t a = add_backend("a", true), b = add_backend("b", true), c = add_backend("c", true);
    for (int i = 0; i < 8; i++) {
        add_sample(0, a, 100 + i * 0.01, MIB(10), 0);
        add_sample(0, b, 101.5 + i * 0.01, MIB(10), 0);
        add_sample(0, c, 103 + i * 0.01, MIB(10), 0);
    }
    pick_judge_case(&pick, &traces[0]);
    ck_assert_uint_eq(traces[0].rows[a].beats, UINT32_C(1) << c);
    ck_assert_uint_eq(traces[0].rows[b].beats, 0);
    ck_assert_uint_eq(traces[0].rows[c].beats, 0);
}
END_TEST

/* -- Statistics -------------------------------------------------------------------------------- */

/* How far the U of the values chosen by `set` is from its mean. */
static double u_distance(const double *values, size_t count, size_t n, unsigned set)
{
    double u = 0;
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < count; j++) {
            if ((set >> i & 1) != 0 && (set >> j & 1) == 0) {
                u += values[i] > values[j] ? 1 : values[i] < values[j] ? 0 : 0.5;
            }
        }
    }
    return fabs(u - (double)(n * (count - n)) / 2);
}

/* Two-sided p by listing all ways to choose `n` of the values as the first sample. */
static double p_by_listing(const double *values, size_t count, size_t n)
{
    double observed = u_distance(values, count, n, (1u << n) - 1), as_far = 0, total = 0;
    for (unsigned set = 0; set < 1u << count; set++) {
        if ((size_t)__builtin_popcount(set) == n) {
            as_far += u_distance(values, count, n, set) > observed - 1e-9;
            total++;
        }
    }
    return as_far / total;
}

START_TEST(the_rank_test_is_exact_with_and_without_ties)
{
    static const double samples[][9] = {{1, 2, 3, 4, 5, 6, 7, 8, 9},
                                        {9, 1, 8, 2, 7, 3, 6, 4, 5},
                                        {1, 1, 2, 2, 2, 3, 3, 1, 2},
                                        {5, 5, 5, 5, 5, 5, 5, 5, 5}};
    for (size_t s = 0; s < sizeof samples / sizeof samples[0]; s++) {
        for (size_t n = 1; n < 9; n++) {
            double p = rank_test(samples[s], n, samples[s] + n, 9 - n);
            ck_assert_double_eq_tol(p, p_by_listing(samples[s], 9, n), 1e-9);
        }
    }
    ck_assert_double_eq_tol(rank_test(samples[0], 4, samples[0] + 4, 4), 2.0 / 70, 1e-12);
}
END_TEST

START_TEST(many_values_are_tested_by_the_normal_approximation)
{
    double a[30], b[30];
    for (int i = 0; i < 30; i++) {
        a[i] = i;
        b[i] = i + 0.5;
    }
    ck_assert_double_gt(rank_test(a, 30, b, 30), 0.5);
    for (int i = 0; i < 30; i++) {
        b[i] = i + 20.5;
    }
    ck_assert_double_lt(rank_test(a, 30, b, 30), 1e-6);
}
END_TEST

START_TEST(intervals_of_the_median_are_order_statistics)
{
    double values[] = {8, 3, 5, 1, 7, 2, 6, 4, 9, 10};
    struct rank_interval interval = rank_median_interval(values, 10);
    /* P(at most 1 head in 10 tosses) = 11/1024: the second least and the second most */
    ck_assert_double_eq(interval.low, 2);
    ck_assert_double_eq(interval.high, 9);
    ck_assert_double_eq_tol(interval.coverage, 1 - 22.0 / 1024, 1e-9);
    interval = rank_median_interval(values, 3);
    ck_assert_double_eq(interval.low, 1);
    ck_assert_double_eq(interval.high, 3);
    ck_assert_double_eq_tol(interval.coverage, 0.75, 1e-9);
    ck_assert_double_eq(rank_median(values, 10), 5.5);
}
END_TEST

START_TEST(holms_correction_is_stepwise_and_keeps_the_order)
{
    double p_values[] = {0.04, 0.01, 0.03, 0.005};
    rank_holm(p_values, 4);
    ck_assert_double_eq_tol(p_values[3], 0.02, 1e-12);
    ck_assert_double_eq_tol(p_values[1], 0.03, 1e-12);
    ck_assert_double_eq_tol(p_values[2], 0.06, 1e-12);
    ck_assert_double_eq_tol(p_values[0], 0.06, 1e-12); /* not below the one before it */
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tools");
    TCase *values = tcase_create("values");
    tcase_add_test(values, sizes_take_suffixes_and_nothing_else);
    tcase_add_test(values, bytes_are_shown_with_three_digits);
    tcase_add_test(values, a_json_line_reads_back_as_written);
    suite_add_tcase(suite, values);

    TCase *judge = tcase_create("judge");
    tcase_add_checked_fixture(judge, reset, NULL);
    tcase_add_test(judge, the_fastest_and_smallest_is_recommended_whoever_it_is);
    tcase_add_test(judge, twice_the_time_weighs_as_much_as_four_times_the_memory);
    tcase_add_test(judge, among_equals_the_one_with_fewer_faults_is_recommended);
    tcase_add_test(judge, references_and_failures_are_never_recommended);
    tcase_add_test(judge, without_a_candidate_nobody_is_recommended);
    tcase_add_test(judge, time_alone_decides_where_nothing_is_touched_or_a_footprint_is_unknown);
    tcase_add_test(judge, one_slow_repetition_does_not_count);
    tcase_add_test(judge, below_a_mebibyte_footprints_are_equal);
    tcase_add_test(judge, over_several_traces_the_best_on_average_is_recommended);
    tcase_add_test(judge, who_failed_on_one_trace_is_not_recommended_over_all);
    tcase_add_test(judge, what_repetitions_do_not_tell_apart_counts_as_equal);
    tcase_add_test(judge, what_repetitions_tell_apart_counts_however_close);
    tcase_add_test(judge, a_preference_decides_and_the_others_are_known);
    tcase_add_test(judge, a_difference_in_time_of_two_percent_is_no_order_whatever_the_test_says);
    tcase_add_test(judge, the_hopeless_are_never_close_and_do_not_cost_the_others_their_test);
    suite_add_tcase(suite, judge);

    TCase *statistics = tcase_create("statistics");
    tcase_add_test(statistics, the_rank_test_is_exact_with_and_without_ties);
    tcase_add_test(statistics, many_values_are_tested_by_the_normal_approximation);
    tcase_add_test(statistics, intervals_of_the_median_are_order_statistics);
    tcase_add_test(statistics, holms_correction_is_stepwise_and_keeps_the_order);
    suite_add_tcase(suite, statistics);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
