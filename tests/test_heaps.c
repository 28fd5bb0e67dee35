/* SPDX-License-Identifier: MIT */
/*
 * Several heaps of large blocks in one instance (lib/heaps.h): when there are more than one, how threads spread over them, and that blocks go
 * back to where they came from.
 */
#include "heaps_support.h"
#include "thread_state.h"

/* -- When there is another -- */

START_TEST(threads_one_after_another_share_one_heap)
{
    for (unsigned i = 0; i < 4; i++)
        run_threads(1, take_in_turn, NULL);
    ck_assert_uint_eq(heaps_count(larder), 2);
    assert_all_is_free();
}
END_TEST

START_TEST(a_thread_that_is_alone_stays_where_it_is)
{
    void *block = larder_alloc(larder, LARGE);
    larder_free(larder, block);
    block = alloc_crowded(LARGE);
    ck_assert_ptr_eq(heap_of(block), &larder->heap);
    ck_assert_uint_eq(heaps_count(larder), 2);
    larder_free(larder, block);
}
END_TEST

START_TEST(meetings_that_are_too_far_apart_are_forgotten)
{
    larder_free(larder, larder_alloc(larder, LARGE));
    thread_note_meeting(&larder->heap, CROWD_MEETINGS - 1);
    ck_assert(!thread_is_crowded(&larder->heap));
    thread_state.crowd.since_ms -= CROWD_MS;
    thread_note_meeting(&larder->heap, CROWD_MEETINGS - 1);
    ck_assert(!thread_is_crowded(&larder->heap));
    thread_note_meeting(&larder->heap, 1);
    ck_assert(thread_is_crowded(&larder->heap));
}
END_TEST

static void wait_for_a_meeting(void *context, unsigned index)
{
    struct party *party = context;
    void *block = larder_alloc(larder, LARGE);
    uint32_t before = thread_state.crowd.meetings;
    expect(block != NULL);
    meeting_wait(&party->meeting);
    if (index == 0) {
        larder_free(larder, larder_alloc(larder, LARGE)); /* took last */
        span_heap_lock_settled(&larder->heap);
        meeting_wait(&party->meeting);
        while (atomic_load(&larder->heap.lock.spin.word) != SPINLOCK_WANTED)
            os_yield();
        heap_lock_leave(&larder->heap.lock);
    } else {
        meeting_wait(&party->meeting);
        void *other = larder_alloc(larder, LARGE);
        expect(thread_state.crowd.meetings == before + HEAP_LOCK_LONG);
        expect(thread_state.crowd.heap == &larder->heap);
        larder_free(larder, other);
        /* alone again: nobody is met */
        expect(thread_state.crowd.meetings == before + HEAP_LOCK_LONG);
    }
    meeting_wait(&party->meeting);
    larder_free(larder, block);
}

START_TEST(a_thread_that_waits_to_take_has_met_the_one_that_took_last)
{
    struct party party = {.done = 0};
    meeting_init(&party.meeting, 2);
    run_threads(2, wait_for_a_meeting, &party);
    assert_expectations();
    assert_all_is_free();
}
END_TEST

static void repeat_and_move(void *context, unsigned index)
{
    struct party *party = context;
    void *blocks[3];
    larder_free(larder, larder_alloc(larder, LARGE));
    meeting_wait(&party->meeting);
    if (index == 0) {
        for (int i = 0; i < 30; i++) {
            blocks[i % 3] = larder_alloc(larder, LARGE);
            if (i % 3 == 2) {
                for (int j = 0; j < 3; j++)
                    larder_free(larder, blocks[j]);
            }
        }
        expect(larder->heap.loops->loops_count != 0);
        void *block = alloc_crowded(LARGE);
        expect(heap_of(block) != &larder->heap);
        expect(larder->heap.loops->loops_count == 0);
        /* less what has been given back already, for this very block */
        expect(larder->budget.credit + stats_of(larder).given_back_bytes >= 3 * LARGE);
        larder_free(larder, block);
    }
    meeting_wait(&party->meeting);
}

START_TEST(a_thread_that_moves_leaves_no_loops_behind_and_memory_to_be_given_back)
{
    struct party party = {.done = 0};
    meeting_init(&party.meeting, 2);
    run_threads(2, repeat_and_move, &party);
    assert_expectations();
    assert_all_is_free();
}
END_TEST

/* -- Blocks -- */

static void move_and_cross(void *context, unsigned index)
{
    struct party *party = context;
    void *before = larder_alloc(larder, LARGE);
    meeting_wait(&party->meeting);
    if (index == 0)
        meet_others();
    void *after = larder_alloc(larder, LARGE);
    expect((heap_of(after) == &larder->heap) == (index != 0));
    expect(heap_of(before) == &larder->heap);
    expect(own_heap() == heap_of(after));
    expect(thread_state.hint->heap == own_heap()); /* where a free looks first */
    pattern_fill(before, LARGE, index);
    pattern_fill(after, LARGE, index + 2);
    party->blocks[index] = before;
    party->blocks[index + 2] = after;
    meeting_wait(&party->meeting);
    void *others[] = {party->blocks[1 - index], party->blocks[3 - index]};
    for (unsigned i = 0; i < 2; i++) {
        expect(pattern_holds(others[i], LARGE, 1 - index + 2 * i));
        larder_free(larder, others[i]);
    }
    meeting_wait(&party->meeting);
}

START_TEST(blocks_go_back_to_the_heap_they_came_from_whoever_frees_them)
{
    struct party party = {.done = 0};
    meeting_init(&party.meeting, 2);
    run_threads(2, move_and_cross, &party);
    assert_expectations();
    ck_assert_uint_eq(heaps_count(larder), 3);
    for (uint32_t i = 0; i < heaps_count(larder); i++)
        ck_assert_uint_eq(span_heap_used_bytes(heaps_at(larder, i)), 0);
    ck_assert_uint_eq(stats_of(larder).live_blocks, 0);
    assert_all_is_free();
}
END_TEST

/* -- Many threads -- */

static void spread_out(void *context, unsigned index)
{
    struct party *party = context;
    (void)index;
    larder_free(larder, larder_alloc(larder, LARGE));
    meeting_wait(&party->meeting);
    for (int i = 0; i < 3; i++)
        larder_free(larder, alloc_crowded(LARGE));
    meeting_wait(&party->meeting);
}

static uint32_t users_of_all(void)
{
    uint32_t users = 0;
    for (uint32_t i = 1; i < heaps_count(larder); i++)
        users += heaps_at(larder, i)->users;
    return users;
}

static void spread_and_look(void *context, unsigned index)
{
    struct party *party = context;
    spread_out(context, index);
    if (index == 0) {
        expect(users_of_all() == party->meeting.count);
        for (uint32_t i = 1; i < heaps_count(larder); i++)
            expect(heaps_at(larder, i)->users <= party->meeting.count / 2);
    }
    meeting_wait(&party->meeting);
}

START_TEST(threads_spread_over_a_bounded_number_of_heaps_and_leave_them_to_others)
{
    enum { MANY = 40, FEW = 3 };
    struct party party = {.done = 0};
    meeting_init(&party.meeting, MANY);
    run_threads(MANY, spread_and_look, &party);
    assert_expectations();
    uint32_t count = heaps_count(larder);
    ck_assert_uint_eq(count, 2 + MORE_HEAPS);
    ck_assert_uint_eq(users_of_all(), 0);
    meeting_init(&party.meeting, FEW);
    run_threads(FEW, spread_out, &party);
    ck_assert_uint_eq(heaps_count(larder), count);
    ck_assert_uint_eq(users_of_all(), 0);
    assert_all_is_free();
}
END_TEST

/* -- All at once -- */

enum { CROWD = 6, ROUNDS = 3000 };

static void churn(void *context, unsigned index)
{
    struct party *party = context;
    struct random random;
    void *blocks[8] = {NULL};
    size_t sizes[8] = {0};
    random_init(&random, index);
    for (int i = 0; i < ROUNDS; i++) {
        size_t slot = random_between(&random, 0, 7);
        if (random_between(&random, 0, 99) == 0) {
            thread_state.crowd.enough = CROWD_MEETINGS;
            meet_others();
        }
        if (random_between(&random, 0, 499) == 0)
            larder_trim(larder, LARGE);
        if (random_between(&random, 0, 499) == 0)
            larder_tick(larder);
        if (blocks[slot] != NULL) {
            expect(pattern_holds(blocks[slot], sizes[slot], (uint64_t)(uintptr_t)blocks[slot]));
            larder_free(larder, blocks[slot]);
            blocks[slot] = NULL;
            continue;
        }
        sizes[slot] = 40 * KIB + random_between(&random, 0, 9) * 16 * KIB;
        blocks[slot] = larder_alloc(larder, sizes[slot]);
        expect(blocks[slot] != NULL);
        pattern_fill(blocks[slot], sizes[slot], (uint64_t)(uintptr_t)blocks[slot]);
    }
    for (int slot = 0; slot < 8; slot++)
        party->blocks[index * 8 + (unsigned)slot] = blocks[slot];
    meeting_wait(&party->meeting);
    for (unsigned slot = 0; slot < 8; slot++) /* the next thread's */
        larder_free(larder, party->blocks[(index + 1) % CROWD * 8 + slot]);
}

START_TEST(heaps_stay_sound_while_threads_move_between_them)
{
    struct party party = {.done = 0};
    meeting_init(&party.meeting, CROWD);
    run_threads(CROWD, churn, &party);
    assert_expectations();
    ck_assert_uint_gt(heaps_count(larder), 2);
    ck_assert_uint_eq(users_of_all(), 0);
    ck_assert_uint_eq(stats_of(larder).live_blocks, 0);
    assert_all_is_free();
}
END_TEST

/* The region that a thread's hint names has the block. */
static bool hint_has(struct region *hint, const void *block)
{
    size_t offset;
    return region_contains(hint, (uintptr_t)block, &offset);
}

START_TEST(hints_stay_apart_when_the_record_of_a_region_changes_its_kind)
{
    for (unsigned i = 0; i < 8;
         i++) { /* records of regions that have gone are used again, last one first */
        larder_t *other = larder_create("other", NULL);
        ck_assert_ptr_nonnull(other);
        size_t first = i % 2 == 0 ? 100 : LARGE, second = i % 2 == 0 ? LARGE : 100;
        void *one = larder_alloc(other, first), *two = larder_alloc(other, second);
        larder_free(other, one);
        larder_free(other, two);
        void *small = first < second ? one : two, *large = first < second ? two : one;
        ck_assert(hint_has(thread_state.small_hint, small));
        ck_assert(hint_has(thread_state.hint, large));
        ck_assert_uint_eq(larder_destroy(other), 0);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("heaps");
    TCase *claims = add_claims(suite, "heaps");
    tcase_add_checked_fixture(claims, set_up, tear_down);
    tcase_add_test(claims, threads_one_after_another_share_one_heap);
    tcase_add_test(claims, hints_stay_apart_when_the_record_of_a_region_changes_its_kind);
    tcase_add_test(claims, a_thread_that_is_alone_stays_where_it_is);
    tcase_add_test(claims, meetings_that_are_too_far_apart_are_forgotten);
    tcase_add_test(claims, a_thread_that_waits_to_take_has_met_the_one_that_took_last);
    tcase_add_test(claims, a_thread_that_moves_leaves_no_loops_behind_and_memory_to_be_given_back);
    tcase_add_test(claims, blocks_go_back_to_the_heap_they_came_from_whoever_frees_them);
    tcase_add_test(claims, threads_spread_over_a_bounded_number_of_heaps_and_leave_them_to_others);
    tcase_add_test(claims, heaps_stay_sound_while_threads_move_between_them);
    return run_suite(suite);
}
