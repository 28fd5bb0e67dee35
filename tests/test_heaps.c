/* SPDX-License-Identifier: MIT */
/*
 * Several heaps of large blocks in one instance (lib/heaps.h): when there are more than one, that blocks go back to
 * where they came from, and that statistics, trims, walks, forks and the end of an instance see all of them.
 *
 * Threads are moved by telling them that they have met others, so that no test depends on whether they really do.
 */
#include "support.h"

#include "fit.h"
#include "heap_invariants.h"
#include "heaps.h"
#include "lookup.h"
#include "thread_state.h"

#define LARGE (1 * MIB)

static struct larder *larder;

static void set_up(void)
{
    larder = make_bare_instance(LARDER_POLICY_FIT, larder_backend_mmap());
}

static void tear_down(void)
{
    must_destroy(larder);
}

static struct span_heap *own_heap(void)
{
    return thread_cache_of(larder)->heap;
}

static struct span_heap *heap_of(const void *block)
{
    struct lookup found;
    return lookup_address(block, &found) == LOOKUP_FIT ? found.fit.region->heap : NULL;
}

/* The calling thread has met others as often as it takes, unless that is too often for it. */
static void meet_others(void)
{
    uint32_t enough = thread_state.crowd.enough;
    thread_note_meeting(own_heap(), enough != 0 ? enough : CROWD_MEETINGS);
}

/* Takes a block after such meetings. */
static void *alloc_crowded(size_t size)
{
    meet_others();
    return larder_alloc(larder, size);
}

static void assert_all_is_free(void)
{
    struct heap_census census;
    fit_release_spares(larder);
    ck_assert(instance_is_sound(larder, &census));
    ck_assert_uint_eq(census.used_units, 0);
    ck_assert_uint_le(census.free_spans, census.regions);
    larder_free_cached(larder);
    ck_assert_uint_eq(stats_of(larder).free_committed_bytes, 0);
    ck_assert_uint_eq(stats_of(larder).regions, 0);
}

/* -- When there is another -- */

static void take_in_turn(void *context, unsigned index)
{
    (void)context;
    (void)index;
    for (int i = 0; i < 1000; i++) {
        void *block = larder_alloc(larder, LARGE);
        expect(heap_of(block) == &larder->heap);
        larder_free(larder, block);
    }
}

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

/* Threads that all have a cache before the first goes on; `others` of them wait for the rest. */
struct party {
    struct meeting meeting;
    void *blocks[64];
    _Atomic unsigned done;
};

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

/* -- What looks at all heaps -- */

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
    tcase_add_test(claims, statistics_walks_and_trims_see_all_heaps);
    tcase_add_test(claims, live_bytes_told_to_other_heaps_add_up_to_no_false_peak);
    tcase_add_test(claims, a_fork_takes_all_heaps_along);
    tcase_add_test(claims, blocks_of_any_heap_outlive_their_instance);
    tcase_add_test(claims, heaps_stay_sound_while_threads_move_between_them);
    return run_suite(suite);
}
