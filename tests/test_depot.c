/* SPDX-License-Identifier: MIT */
/*
 * The depot of a class by itself (lib/depot.h): which runs blocks come from, what becomes of those that are empty, and what nobody
 * has needed. Runs are records alone here, with the words that a region has for them: nothing looks at their memory, but
 * builds with all checks at all else.
 */
#include "support.h"

#include "depot.h"

enum {
    BLOCK = 1024,
    BLOCKS = 8,
    UNITS = BLOCK * BLOCKS / UNIT,
    RUNS = 16,
    SEEN = BLOCKS * RUNS,
    REGION_UNITS = MAP_GRANULE / UNIT
};

/* Room for a run's record, at a multiple of its size. */
union record {
    _Alignas(RUN_RECORD) char room[RUN_RECORD];
    struct run run;
};

static union record records[RUNS];
static word_t words[REGION_UNITS];
static struct region region;
static struct depot depot;
static const int one, another, third; /* threads */

static struct run *run_at(unsigned i)
{
    return &records[i].run;
}

static void set_up(void)
{
    memset(&depot, 0, sizeof depot);
    memset(&region, 0, sizeof region);
    depot.block_size = BLOCK;
    depot.run_blocks = BLOCKS;
    depot.run_units = UNITS;
    depot.record_size = RUN_RECORD;
    region.units = REGION_UNITS;
    region.words = words;
    region.runs = (struct block_state *)(void *)records;
    atomic_store(&region.base, (uintptr_t)1 << 30);
    ck_assert_int_eq(allocation_map_prepare(), 0);
    ck_assert_int_eq(allocation_map_insert_region(&region, (uintptr_t)1 << 30, MAP_GRANULE), 0);
}

static void tear_down(void)
{
    allocation_map_remove_region((uintptr_t)1 << 30, MAP_GRANULE);
}

/* The words and states of a run, all blocks of which are free. */
static void enter_run(struct run *run)
{
    uint32_t address = (uint32_t)(uintptr_t)run_block(run, 0);
    for (uint32_t i = 0; i < BLOCKS; i++)
        run->states[i].address = address + i * BLOCK;
    for (uint32_t unit = 0; unit < UNITS; unit++) {
        const struct block_state *state = &run->states[unit * UNIT / BLOCK];
        word_store(&words[run->start + unit], WORD(WORD_RUN) | (uint32_t)(state - region.runs));
    }
}

/* A new run of the class is a spare. */
static void add_run(unsigned i)
{
    struct run *run = run_at(i);
    memset(run, 0, RUN_RECORD);
    run->region = &region;
    run->start = region_first_unit() + i * UNITS;
    run->length = UNITS;
    run->block_size = BLOCK;
    run->blocks = run->free_blocks = BLOCKS;
    run->free_bits = (1u << BLOCKS) - 1;
    enter_run(run);
    depot_add_spare(&depot, run);
}

static void add_runs(unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        add_run(i);
}

static unsigned run_of(struct round round)
{
    return (unsigned)((union record *)(void *)run_of_state(round.state, RUN_RECORD) - records);
}

/* Takes so many, all of which there must be. */
static void take(const void *taker, struct round *rounds, uint32_t count)
{
    ck_assert_uint_eq(depot_take_blocks(&depot, taker, rounds, count), count);
}

START_TEST(each_block_is_handed_out_once)
{
    struct round rounds[SEEN + 1];
    bool seen[SEEN] = {false};
    add_runs(RUNS);
    ck_assert_uint_eq(depot_take_blocks(&depot, &one, rounds, SEEN + 1), SEEN);
    for (unsigned i = 0; i < SEEN; i++) {
        size_t offset = (size_t)((char *)rounds[i].ptr - region_address(&region, 0));
        ck_assert_uint_ge(offset, region_first_unit() * UNIT);
        offset -= region_first_unit() * UNIT;
        ck_assert_uint_eq(offset % BLOCK, 0);
        ck_assert_uint_lt(offset / BLOCK, SEEN);
        ck_assert_uint_eq(offset / BLOCK / BLOCKS, run_of(rounds[i]));
        ck_assert(!seen[offset / BLOCK]);
        seen[offset / BLOCK] = true;
    }
    ck_assert_uint_eq(depot_spare_count(&depot), 0);
    depot_give_blocks(&depot, rounds, SEEN);
    ck_assert_uint_eq(depot_spare_count(&depot), RUNS);
}
END_TEST

START_TEST(a_thread_goes_on_with_its_own_run)
{
    struct round ones[BLOCKS], anothers[BLOCKS];
    add_runs(2);
    take(&one, ones, 2);
    take(&another, anothers, 2);
    ck_assert_uint_ne(run_of(ones[0]), run_of(anothers[0]));
    take(&one, ones + 2, 4);
    take(&another, anothers + 2, 4);
    for (unsigned i = 0; i < 6; i++) {
        ck_assert_uint_eq(run_of(ones[i]), run_of(ones[0]));
        ck_assert_uint_eq(run_of(anothers[i]), run_of(anothers[0]));
    }
}
END_TEST

START_TEST(a_few_runs_of_others_are_left_to_them)
{
    struct round rounds[BLOCKS];
    add_runs(2);
    take(&one, rounds, 1);
    take(&another, rounds, BLOCKS);
    ck_assert_uint_eq(depot_take_blocks(&depot, &another, rounds, 1), 0);
    ck_assert_uint_eq(depot_take_blocks(&depot, &third, rounds, 1), 0);
    take(&one, rounds, 1);
}
END_TEST

START_TEST(who_is_no_taker_gets_what_there_is)
{
    struct round rounds[BLOCKS];
    add_runs(1);
    take(&one, rounds, 1);
    take(NULL, rounds, BLOCKS - 1);
    ck_assert_uint_eq(depot_take_blocks(&depot, NULL, rounds, 1), 0);
}
END_TEST

START_TEST(what_many_threads_have_left_others_use)
{
    static const char threads[RUNS];
    struct round rounds[BLOCKS];
    unsigned used = 0;
    for (unsigned i = 0; i < RUNS; i++) {
        if (depot_take_blocks(&depot, &threads[i], rounds, 1) == 1)
            continue;
        add_run(used++);
        take(&threads[i], rounds, 1);
    }
    ck_assert_uint_gt(used, 2);
    ck_assert_uint_lt(used, RUNS);
}
END_TEST

START_TEST(a_run_that_was_empty_is_anyones)
{
    struct round rounds[BLOCKS];
    add_runs(1);
    take(&one, rounds, BLOCKS);
    depot_give_blocks(&depot, rounds, BLOCKS - 1);
    ck_assert_uint_eq(depot_take_blocks(&depot, &another, rounds, 1), 0);
    depot_give_blocks(&depot, rounds + BLOCKS - 1, 1);
    take(&another, rounds, BLOCKS);
}
END_TEST

START_TEST(spares_that_nobody_needed_are_reaped)
{
    struct round rounds[BLOCKS];
    bool idle;
    add_runs(4);
    ck_assert_uint_eq(depot_reap_spares(&depot, os_now_ms(), UINT32_MAX / 2, &idle), 0);
    take(&one, rounds, BLOCKS);
    depot_give_blocks(&depot, rounds, BLOCKS);
    ck_assert_uint_eq(depot_reap_spares(&depot, os_now_ms(), UINT32_MAX / 2, &idle), 3);
    ck_assert(!idle);
    unsigned detached = 0;
    for (struct run *run = depot_detach_spares(&depot, 3); run != NULL; run = run->next)
        detached++;
    ck_assert_uint_eq(detached, 3);
    ck_assert_uint_eq(depot_spare_count(&depot), 1);
}
END_TEST

static struct magazine *full_magazine(void)
{
    struct magazine *magazine = magazine_get(4);
    ck_assert_ptr_nonnull(magazine);
    take(&one, magazine->rounds, 4);
    magazine->count = 4;
    return magazine;
}

START_TEST(magazines_come_back_last_in_first_out_and_leave_an_empty_one)
{
    add_runs(2);
    struct magazine *first = full_magazine(), *second = full_magazine(), *empty = magazine_get(4);
    ck_assert_ptr_null(depot_take_full(&depot, empty));
    ck_assert_ptr_null(depot_give_full(&depot, first));
    ck_assert_ptr_null(depot_give_full(&depot, second));
    ck_assert_ptr_eq(depot_take_full(&depot, empty), second);
    ck_assert_ptr_eq(depot_give_full(&depot, second), empty);
    ck_assert_ptr_eq(depot_take_full(&depot, NULL), second);
    ck_assert_ptr_eq(depot_detach_full(&depot, 9), first);
    ck_assert_ptr_null(depot_take_full(&depot, NULL));
}
END_TEST

static Suite *depots(void)
{
    Suite *suite = suite_create("the depot of a class");
    TCase *tc = add_claims(suite, "depot");
    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_add_test(tc, each_block_is_handed_out_once);
    tcase_add_test(tc, a_thread_goes_on_with_its_own_run);
    tcase_add_test(tc, a_few_runs_of_others_are_left_to_them);
    tcase_add_test(tc, who_is_no_taker_gets_what_there_is);
    tcase_add_test(tc, what_many_threads_have_left_others_use);
    tcase_add_test(tc, a_run_that_was_empty_is_anyones);
    tcase_add_test(tc, spares_that_nobody_needed_are_reaped);
    tcase_add_test(tc, magazines_come_back_last_in_first_out_and_leave_an_empty_one);
    return suite;
}

int main(void)
{
    return run_suite(depots());
}
