/* SPDX-License-Identifier: MIT */
/*
 * What looks at all heaps of an instance: statistics, trims, walks, forks and the end of the instance see every one of them.
 */
#include "heaps_support.h"

/* Has one block in the first heap, and gives the caller's thread the second, where it has another. */
static void two_heaps(struct party *party, void (*act)(void *blocks[2]))
{
    party->blocks[0] = larder_alloc(larder, LARGE);
    meeting_wait(&party->meeting); /* the other thread is there */
    party->blocks[1] = alloc_crowded(2 * LARGE);
    expect(heap_of(party->blocks[0]) != heap_of(party->blocks[1]));
    act(party->blocks);
    meeting_wait(&party->meeting);
}

struct act {
    struct party party;
    void (*act)(void *blocks[2]);
};

static void act_or_be_there(void *context, unsigned index)
{
    struct act *act = context;
    if (index == 0) {
        two_heaps(&act->party, act->act);
        return;
    }
    void *block = larder_alloc(larder, 100);
    meeting_wait(&act->party.meeting);
    meeting_wait(&act->party.meeting);
    larder_free(larder, block);
}

static void with_two_heaps(void (*act)(void *blocks[2]))
{
    struct act context = {.act = act};
    meeting_init(&context.party.meeting, 2);
    run_threads(2, act_or_be_there, &context);
    assert_expectations();
}

static int count_block(void *context, void *ptr, size_t size)
{
    (void)ptr;
    if (size >= LARGE)
        ++*(unsigned *)context;
    return 0;
}

static void look_and_trim(void *blocks[2])
{
    larder_stats_t stats = stats_of(larder);
    unsigned walked = 0;
    larder_walk(larder, count_block, &walked);
    expect(walked == 2);
    expect(stats.live_bytes == 3 * LARGE + 100);
    expect(stats.peak_live_bytes >= 3 * LARGE && stats.peak_live_bytes <= 3 * LARGE + 128 * KIB);
    expect(stats.held_bytes >= 3 * LARGE);
    pattern_fill(blocks[0], LARGE, 1);
    pattern_fill(blocks[1], 2 * LARGE, 2);
    larder_free(larder, blocks[0]);
    larder_free(larder, blocks[1]);
    stats = stats_of(larder);
    expect(stats.free_committed_bytes >= 3 * LARGE);
    expect(stats.largest_free_span >= 2 * LARGE);
    expect(larder_trim(larder, LARGE) <= LARGE);
    expect(stats_of(larder).free_committed_bytes <= LARGE);
    larder_free_cached(larder);
    expect(stats_of(larder).held_bytes - stats_of(larder).metadata_bytes <= 128 * KIB);
}

START_TEST(statistics_walks_and_trims_see_all_heaps)
{
    with_two_heaps(look_and_trim);
    assert_all_is_free();
}
END_TEST

/* Blocks come aligned, which tells of them elsewhere than where their free does, and are resized in place. */
static void drift(void *blocks[2])
{
    larder_free(larder, blocks[0]);
    larder_free(larder, blocks[1]);
    for (int i = 0; i < 5000; i++) {
        void *block = larder_alloc_aligned(larder, 8192, LARGE);
        block = larder_realloc(larder, block, LARGE - LARGE / 4);
        larder_free(larder, block);
        if (i % 100 == 0) { /* regions come and go */
            larder_free_cached(larder);
        }
    }
    expect(stats_of(larder).live_bytes == 100);
    expect(stats_of(larder).peak_live_bytes <= 6 * LARGE);
}

START_TEST(live_bytes_told_to_other_heaps_add_up_to_no_false_peak)
{
    with_two_heaps(drift);
    assert_all_is_free();
}
END_TEST

static void in_child(void *context)
{
    void **blocks = context;
    struct span_heap *heap = own_heap();
    expect(heap == heap_of(blocks[1]) && heap->users == 1);
    larder_free(larder, blocks[0]);
    larder_free(larder, blocks[1]);
    void *block = larder_alloc(larder, LARGE);
    expect(heap_of(block) == heap);
    larder_free(larder, block);
    if (!UNDER_THREAD_SANITIZER) /* which allows no new threads here */
        run_threads(1, take_in_turn, NULL);
    expect(stats_of(larder).live_bytes == 100); /* the other thread's, which is not here */
}

static void fork_off(void *blocks[2])
{
    struct child_end end = run_in_child(in_child, blocks);
    expect(end.signal == 0 && end.status == 0);
    larder_free(larder, blocks[0]);
    larder_free(larder, blocks[1]);
}

START_TEST(a_fork_takes_all_heaps_along)
{
    if (emulated_or_note("fork in a process with threads"))
        return;
    with_two_heaps(fork_off);
    assert_all_is_free();
}
END_TEST

static void *left[2];

static void leave(void *blocks[2])
{
    memcpy(left, blocks, sizeof left);
}

START_TEST(blocks_of_any_heap_outlive_their_instance)
{
    with_two_heaps(leave);
    ck_assert_uint_eq(larder_destroy(larder), 2);
    pattern_fill(left[0], LARGE, 1);
    pattern_fill(left[1], 2 * LARGE, 2);
    ck_assert(pattern_holds(left[0], LARGE, 1));
    larder_free(NULL, left[1]);
    larder_free(NULL, left[0]);
    set_up();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("heaps_seen");
    TCase *claims = add_claims(suite, "heaps seen");
    tcase_add_checked_fixture(claims, set_up, tear_down);
    tcase_add_test(claims, statistics_walks_and_trims_see_all_heaps);
    tcase_add_test(claims, live_bytes_told_to_other_heaps_add_up_to_no_false_peak);
    tcase_add_test(claims, a_fork_takes_all_heaps_along);
    tcase_add_test(claims, blocks_of_any_heap_outlive_their_instance);
    return run_suite(suite);
}
