/* SPDX-License-Identifier: MIT */
/* How replays share the time that is left. */
#include <check.h>
#include <stdlib.h>

#include "pick_pace.h"

#define MS 1e6
#define CELLS 4

/* Two main cells, the second ten times slower; and the same two with a pause. */
static struct pace_cell cells[CELLS];

static void reset(void)
{
    cells[0] = (struct pace_cell){.start_ns = 10 * MS, .pass_ns = 1 * MS};
    cells[1] = (struct pace_cell){.start_ns = 10 * MS, .pass_ns = 10 * MS};
    cells[2] = (struct pace_cell){.start_ns = 10 * MS, .pass_ns = 34 * MS, .with_gap = true};
    cells[3] = (struct pace_cell){.start_ns = 10 * MS, .pass_ns = 43 * MS, .with_gap = true};
}

static double planned_ns(const struct pace *pace)
{
    return pace->slowness * (pace->main_left * pace_cost(cells, CELLS, false) +
                             pace->gap_left * pace_cost(cells, CELLS, true));
}

START_TEST(rounds_that_fit_stay_and_replays_fill_the_time)
{
    struct pace pace = {.left_ns = 10000 * MS, .slowness = 1, .main_wanted = 8, .gap_wanted = 4};
    pace_round(&pace, cells, CELLS);
    ck_assert_uint_eq(pace.main_left, 8);
    ck_assert_uint_eq(pace.gap_left, 4);
    ck_assert_double_le(planned_ns(&pace), pace.left_ns);
    ck_assert_double_ge(planned_ns(&pace), 0.8 * pace.left_ns);
    ck_assert_uint_gt(cells[0].passes, cells[1].passes);
}
END_TEST

START_TEST(a_slower_machine_gets_shorter_replays_before_fewer_rounds)
{
    struct pace fast = {.left_ns = 10000 * MS, .slowness = 1, .main_wanted = 8, .gap_wanted = 4};
    struct pace slow = fast;
    pace_round(&fast, cells, CELLS);
    unsigned passes = cells[0].passes;
    slow.slowness = 3;
    pace_round(&slow, cells, CELLS);
    ck_assert_uint_eq(slow.main_left, 8);
    ck_assert_uint_lt(cells[0].passes, passes);
    ck_assert_double_le(planned_ns(&slow), slow.left_ns);
}
END_TEST

START_TEST(where_replays_cannot_be_shorter_rounds_are_taken_away)
{
    /* With the fewest passes, a round takes 64 ms, and one with pauses 328 ms. */
    struct pace pace = {.left_ns = 400 * MS, .slowness = 1, .main_wanted = 8, .gap_wanted = 4};
    pace_round(&pace, cells, CELLS);
    ck_assert_uint_eq(pace.gap_left, 0);
    ck_assert_uint_eq(pace.main_left, 6);
    for (int i = 0; i < CELLS; i++) {
        ck_assert_uint_ge(cells[i].passes, PACE_PASSES_LEAST);
    }
}
END_TEST

START_TEST(pauses_get_their_first_round_for_up_to_half_of_the_time_and_no_more)
{
    struct pace first = {.left_ns = 700 * MS, .slowness = 1, .main_wanted = 8, .gap_wanted = 4};
    struct pace later = first;
    pace_round(&first, cells, CELLS);
    ck_assert_uint_eq(first.gap_left, 1);
    ck_assert_double_le(planned_ns(&first), first.left_ns);
    later.gap_began = true;
    pace_round(&later, cells, CELLS);
    ck_assert_uint_eq(later.gap_left, 0);
}
END_TEST

START_TEST(the_first_round_is_begun_even_where_it_will_not_end)
{
    struct pace pace = {.left_ns = 1 * MS, .slowness = 1, .main_wanted = 8};
    pace_round(&pace, cells, CELLS);
    ck_assert_uint_eq(pace.main_left, 1);
    pace.main_began = true;
    pace_round(&pace, cells, CELLS);
    ck_assert_uint_eq(pace.main_left, 0);
    pace.left_ns = -5;
    pace_round(&pace, cells, CELLS);
    ck_assert_uint_eq(pace.main_left, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pick_pace");
    TCase *claims = tcase_create("rounds");
    tcase_add_checked_fixture(claims, reset, NULL);
    tcase_add_test(claims, rounds_that_fit_stay_and_replays_fill_the_time);
    tcase_add_test(claims, a_slower_machine_gets_shorter_replays_before_fewer_rounds);
    tcase_add_test(claims, where_replays_cannot_be_shorter_rounds_are_taken_away);
    tcase_add_test(claims, pauses_get_their_first_round_for_up_to_half_of_the_time_and_no_more);
    tcase_add_test(claims, the_first_round_is_begun_even_where_it_will_not_end);
    suite_add_tcase(suite, claims);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
