/* SPDX-License-Identifier: MIT */
/* How long idle memory waits before it goes back, by a clock that the test turns. */
#include "support.h"

#include "patience.h"

enum { DECAY = 1000, STEP = 250 };

static struct patience patience;
static uint64_t held;
static uint32_t now;

static void reset(void)
{
    patience = (struct patience){0};
    held = 10 * MIB;
    now = UINT32_MAX - 5000; /* the clock may turn over */
}

/* A tick in which nothing goes back. */
static uint32_t look(uint32_t milliseconds)
{
    now += milliseconds;
    return patience_wait_ms(&patience, DECAY, now, held);
}

static void give_back(uint64_t bytes)
{
    held -= bytes;
    patience_note(&patience, now, bytes, held);
}

START_TEST(at_first_the_wait_is_the_decay)
{
    ck_assert_uint_eq(look(STEP), DECAY);
    held += 5 * MIB;
    ck_assert_uint_eq(look(STEP), DECAY); /* growth alone says nothing */
}
END_TEST

START_TEST(what_is_wanted_again_soon_doubles_the_wait_up_to_a_limit)
{
    uint32_t wait = DECAY;
    for (int i = 0; i < 6; i++) {
        ck_assert_uint_eq(look(STEP), wait);
        give_back(4 * MIB);
        held += 2 * MIB;
        wait = wait < PATIENCE_MOST * DECAY ? 2 * wait : wait;
        ck_assert_uint_eq(look(STEP), wait);
        held += 2 * MIB;
    }
    ck_assert_uint_eq(wait, PATIENCE_MOST * DECAY);
}
END_TEST

START_TEST(what_is_wanted_again_bit_by_bit_counts_together)
{
    look(STEP);
    give_back(2 * MIB);
    held += MIB / 2;
    ck_assert_uint_eq(look(STEP), DECAY);
    held -= MIB / 4; /* given back early, for the budget */
    ck_assert_uint_eq(look(STEP), DECAY);
    held += MIB / 2;
    ck_assert_uint_eq(look(STEP), 2 * DECAY);
}
END_TEST

START_TEST(what_is_not_wanted_again_halves_the_wait_down_to_the_decay)
{
    patience.doublings = 2;
    for (uint32_t wait = 4 * DECAY; wait > DECAY; wait /= 2) {
        ck_assert_uint_eq(look(STEP), wait);
        give_back(MIB);
        ck_assert_uint_eq(look(PATIENCE_WINDOW * wait - 1), wait);
        ck_assert_uint_eq(look(1), wait / 2);
    }
    give_back(MIB);
    ck_assert_uint_eq(look(100 * DECAY), DECAY);
}
END_TEST

START_TEST(a_cycle_that_fits_into_the_wait_leaves_it_as_it_is)
{
    patience.doublings = 1;
    for (int i = 0; i < 1000; i++)
        ck_assert_uint_eq(look(STEP), 2 * DECAY);
}
END_TEST

START_TEST(no_wait_is_too_long_for_the_clock)
{
    patience.doublings = 3;
    ck_assert_uint_eq(patience_wait_ms(&patience, INT32_MAX / 2, now, held), INT32_MAX);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("patience");
    TCase *tc = add_claims(suite, "the wait");
    tcase_add_checked_fixture(tc, reset, NULL);
    tcase_add_test(tc, at_first_the_wait_is_the_decay);
    tcase_add_test(tc, what_is_wanted_again_soon_doubles_the_wait_up_to_a_limit);
    tcase_add_test(tc, what_is_wanted_again_bit_by_bit_counts_together);
    tcase_add_test(tc, what_is_not_wanted_again_halves_the_wait_down_to_the_decay);
    tcase_add_test(tc, a_cycle_that_fits_into_the_wait_leaves_it_as_it_is);
    tcase_add_test(tc, no_wait_is_too_long_for_the_clock);
    return run_suite(suite);
}
