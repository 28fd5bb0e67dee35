/* SPDX-License-Identifier: MIT */
/*
 * What small blocks of many sizes cost together: the memory that one size keeps when it is another's turn, and the work of handing it
 * over. Blocks of a size are cut from runs of their own (lib/fit_runs.c), so both can be seen in the statistics: what is held, and
 * how often spans were split and merged for runs.
 */
#include "support.h"

enum { TURNS = 4, MOST = 512, WARM_UP = 12, ROUNDS = 8 };

struct turn {
    size_t size;
    unsigned count;
};

static larder_t *make_fit(void)
{
    larder_config_t config = test_config(LARDER_POLICY_FIT, NULL);

    leave_blocks_bare(&config);
    return must_create(&config);
}

/* One size after the other has its turn: all of its blocks are allocated, and freed. */
static void take_turns(larder_t *larder, const struct turn *turns, unsigned count)
{
    void *blocks[MOST];

    for (unsigned t = 0; t < count; t++) {
        for (unsigned i = 0; i < turns[t].count; i++) {
            blocks[i] = larder_alloc(larder, turns[t].size);
            ck_assert_ptr_nonnull(blocks[i]);
            pattern_fill(blocks[i], turns[t].size, i);
        }
        for (unsigned i = 0; i < turns[t].count; i++) {
            ck_assert(pattern_holds(blocks[i], turns[t].size, i));
            larder_free(larder, blocks[i]);
        }
    }
}

static uint64_t spans_changed(const larder_t *larder)
{
    larder_stats_t stats = stats_of(larder);

    return stats.splits + stats.coalesces;
}

START_TEST(sizes_that_take_turns_settle_where_no_run_is_made)
{
    static const struct turn turns[] = {{1024, 400}, {4608, 12}, {1152, 20}, {6144, 2}};
    larder_t *larder = make_fit();
    uint64_t before;

    for (unsigned round = 0; round < WARM_UP; round++)
        take_turns(larder, turns, TURNS);
    before = spans_changed(larder);
    for (unsigned round = 0; round < ROUNDS; round++)
        take_turns(larder, turns, TURNS);
    ck_assert_uint_eq(spans_changed(larder), before);
    must_destroy(larder);
}
END_TEST

START_TEST(sizes_that_take_turns_use_each_others_memory)
{
    static const struct turn turns[] = {{1024, 400}, {2048, 200}, {4096, 100}, {8192, 50}};
    larder_t *larder = make_fit();
    larder_stats_t stats;

    for (unsigned round = 0; round < WARM_UP + ROUNDS; round++)
        take_turns(larder, turns, TURNS);
    stats = stats_of(larder);
    /* half as much again, and some for what pages and runs leave over; each for itself they would have four times as much */
    ck_assert_uint_le(stats.peak_held_bytes - stats.metadata_bytes, 400 * KIB * 3 / 2 + 128 * KIB);
    must_destroy(larder);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("runs");
    TCase *claims = add_claims(suite, "turns");

    tcase_add_test(claims, sizes_that_take_turns_settle_where_no_run_is_made);
    tcase_add_test(claims, sizes_that_take_turns_use_each_others_memory);
    return run_suite(suite);
}
