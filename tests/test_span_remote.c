/* SPDX-License-Identifier: MIT */
/*
 * Large blocks freed by others than the thread that has their heap to itself (lib/span_remote.h): that the owner is left alone,
 * that nothing is counted wrong or handed out twice meanwhile, and that what waits is bounded and comes back.
 *
 * The main thread owns the heap; others come and go, joined before it goes on, so each claim is deterministic.
 */
#include "support.h"

#include <stdio.h>

#include "heap_invariants.h"
#include "heaps.h"
#include "thread_state.h"

enum { BLOCKS = 24 };
#define LARGE (256 * KIB)

static larder_t *larder;
static void *blocks[2 * REMOTE_SLOTS];
static unsigned blocks_count;

static void set_up(void)
{
    larder_config_t config = test_config(LARDER_POLICY_FIT, larder_backend_mmap());
    larder = must_create(&config);
}

static void tear_down(void)
{
    must_destroy(larder);
}

static struct span_remote *remote(void)
{
    return &larder->heap.remote;
}

static bool is_owner(void)
{
    return atomic_load(&larder->heap.lock.owner) == &thread_state.lock_user;
}

/* The calling thread earns the bias of the heap; false, with a note, where there can be none. */
static bool own_heap_or_note(void)
{
    for (unsigned i = 0; i < 4 * HEAP_LOCK_FIRST_STREAK && !is_owner(); i++)
        larder_free(larder, larder_alloc(larder, LARGE + i * KIB));
    bool plain = thread_cache_of(larder)->span_limit != 0;
    if (!is_owner() || !plain)
        fputs("note: no bias, or no short way for large blocks, in this build: nothing to test\n",
              stderr);
    return is_owner() && plain;
}

static void take_blocks(unsigned count, size_t size)
{
    for (unsigned i = 0; i < count; i++) {
        blocks[i] = larder_alloc(larder, size);
        ck_assert_ptr_nonnull(blocks[i]);
        pattern_fill(blocks[i], size, i);
    }
    blocks_count = count;
}

static void free_all(void *context, unsigned index)
{
    (void)context;
    (void)index;
    for (unsigned i = 0; i < blocks_count; i++)
        larder_free(larder, blocks[i]);
}

/* The first free of a thread finds the region, and needs the heap's lock. */
static void free_first_then_all(void *context, unsigned index)
{
    larder_free(larder, blocks[--blocks_count]);
    free_all(context, index);
}

static void assert_all_is_free(void)
{
    struct heap_census census;
    ck_assert_uint_eq(stats_of(larder).live_blocks, 0);
    ck_assert(instance_is_sound(larder, &census));
    ck_assert_uint_eq(span_heap_used_bytes(&larder->heap), 0);
}

START_TEST(blocks_freed_by_another_thread_wait_and_the_owner_keeps_its_lock)
{
    if (!own_heap_or_note())
        return;
    take_blocks(BLOCKS, LARGE);
    uint64_t revocations = larder->heap.lock.revocations;
    run_threads(1, free_first_then_all, NULL);
    ck_assert(is_owner());
    ck_assert_uint_le(larder->heap.lock.revocations, revocations + 1);
    ck_assert_uint_ge(span_remote_count(remote()), BLOCKS - 1);
    ck_assert_uint_eq(span_remote_bytes(remote()), span_remote_count(remote()) * LARGE);
    ck_assert_uint_eq(stats_of(larder).live_bytes, 0);
    ck_assert_uint_eq(span_remote_count(remote()), 0);
    assert_all_is_free();
}
END_TEST

START_TEST(what_waits_is_used_before_fresh_pages_are)
{
    if (!own_heap_or_note())
        return;
    take_blocks(BLOCKS, LARGE);
    uint64_t units = larder->heap.total_units, peak = stats_of(larder).peak_live_bytes;
    for (unsigned round = 0; round < 50; round++) {
        run_threads(1, free_first_then_all, NULL);
        take_blocks(BLOCKS, LARGE);
        ck_assert_uint_eq(larder->heap.total_units, units);
    }
    ck_assert_uint_eq(stats_of(larder).peak_live_bytes, peak);
    free_all(NULL, 0);
    assert_all_is_free();
}
END_TEST

START_TEST(a_second_free_of_a_block_that_waits_is_caught_whoever_makes_it)
{
    if (!own_heap_or_note())
        return;
    take_blocks(4, LARGE);
    run_threads(1, free_all, NULL);
    larder_free(larder, blocks[1]);
    ck_assert_uint_eq(errors_recorded().count, 1);
    ck_assert_int_eq(errors_recorded().kind, LARDER_ERROR_DOUBLE_FREE);
    ck_assert_str_eq(errors_recorded().state, "cached");
    run_threads(1, free_all, NULL);
    ck_assert_uint_eq(errors_recorded().count, 5);
    assert_all_is_free();
    errors_reset();
}
END_TEST

START_TEST(more_than_a_bounded_number_and_size_does_not_wait_for_an_owner_that_sleeps)
{
    if (!own_heap_or_note())
        return;
    take_blocks(2 * REMOTE_SLOTS, 16 * KIB);
    run_threads(1, free_all, NULL);
    ck_assert_uint_le(span_remote_count(remote()), REMOTE_SLOTS);
    ck_assert_uint_le(span_heap_used_bytes(&larder->heap), REMOTE_SLOTS * 16 * KIB);
    (void)own_heap_or_note();
    take_blocks(40, 2 * MIB);
    run_threads(1, free_all, NULL);
    ck_assert_uint_le(span_remote_bytes(remote()), REMOTE_BYTES);
    ck_assert_uint_le(span_heap_used_bytes(&larder->heap), REMOTE_BYTES);
    assert_all_is_free();
}
END_TEST

START_TEST(a_frozen_heap_that_settles_leaves_alone_what_waits)
{
    if (!own_heap_or_note())
        return;
    for (unsigned i = 0; i < 600; i++) {
        take_blocks(3, LARGE);
        free_all(NULL, 0);
    }
    take_blocks(3, LARGE);
    ck_assert(larder->heap.frozen);
    blocks_count = 2;
    run_threads(1, free_all, NULL);
    ck_assert_uint_ge(span_remote_count(remote()), 1);
    /* no look before this take, which the loop does not expect */
    atomic_store(&remote()->interval, REMOTE_LONGEST_INTERVAL);
    atomic_store(&remote()->looks, 0);
    void *other = larder_alloc(larder, 16 * KIB);
    ck_assert(!larder->heap.frozen);
    ck_assert_uint_ge(span_remote_count(remote()), 1);
    pattern_fill(other, 16 * KIB, 7);
    ck_assert(pattern_holds(blocks[2], LARGE, 2));
    struct heap_census census;
    ck_assert(instance_is_sound(larder, &census));
    ck_assert(pattern_holds(other, 16 * KIB, 7));
    larder_free(larder, other);
    larder_free(larder, blocks[2]);
    assert_all_is_free();
}
END_TEST

START_TEST(nothing_is_recorded_of_a_stream_and_loops_come_back_after_it)
{
    if (!own_heap_or_note())
        return;
    take_blocks(BLOCKS, LARGE);
    run_threads(1, free_all, NULL);
    atomic_store(&remote()->interval, REMOTE_STREAM);
    atomic_store(&remote()->looks, 0);
    larder_free(larder, larder_alloc(larder, LARGE));
    ck_assert_uint_eq(larder->heap.loops->count, 0);
    ck_assert_uint_eq(larder->heap.loops->loops_count, 0);
    for (unsigned i = 0; i < 600; i++)
        larder_free(larder, larder_alloc(larder, LARGE));
    ck_assert(larder->heap.frozen);
    assert_all_is_free();
}
END_TEST

START_TEST(a_stream_of_few_blocks_is_known_though_each_drain_is_for_need)
{
    if (!own_heap_or_note())
        return;
    for (unsigned round = 0; round < 40; round++) {
        take_blocks(4, LARGE);
        run_threads(1, free_first_then_all, NULL);
    }
    ck_assert(span_remote_is_stream(remote()));
    ck_assert_uint_eq(atomic_load(&remote()->interval), REMOTE_LONGEST_INTERVAL);
    assert_all_is_free();
}
END_TEST

static void free_first_end_a_loop_and_free_all(void *context, unsigned index)
{
    larder_free(larder, blocks[--blocks_count]);
    span_heap_want_attention(&larder->heap);
    free_all(context, index);
}

START_TEST(the_end_of_a_loop_is_left_to_the_owner_by_those_who_note)
{
    if (!own_heap_or_note())
        return;
    take_blocks(2 * TICK_EVERY, LARGE);
    run_threads(1, free_first_end_a_loop_and_free_all, NULL);
    ck_assert(is_owner() && span_heap_is_due(&larder->heap));
    for (unsigned i = 0; i < REMOTE_LONGEST_INTERVAL; i++)
        blocks[i] = larder_alloc(larder, LARGE);
    ck_assert(!span_heap_is_due(&larder->heap));
    blocks_count = REMOTE_LONGEST_INTERVAL;
    free_all(NULL, 0);
    assert_all_is_free();
}
END_TEST

/* -- The ring alone -- */

static struct span_remote ring;

START_TEST(the_ring_takes_so_many_blocks_and_bytes_and_no_more)
{
    memset(&ring, 0, sizeof ring);
    for (uint32_t i = 0; i < REMOTE_SLOTS; i++)
        ck_assert(span_remote_push(&ring, i + 1, 1));
    ck_assert(!span_remote_push(&ring, 1000, 1));
    memset(&ring, 0, sizeof ring);
    ck_assert(!span_remote_push(&ring, 1, (size_t)REMOTE_BYTES + 1));
    ck_assert(span_remote_push(&ring, 1, REMOTE_BYTES - 1));
    ck_assert(!span_remote_push(&ring, 2, 2));
    ck_assert(span_remote_push(&ring, 2, 1));
    ck_assert(!span_remote_push(&ring, 3, 1));
}
END_TEST

START_TEST(the_child_of_a_fork_passes_over_a_place_reserved_and_not_written)
{
    memset(&ring, 0, sizeof ring);
    ring.pushed = ring.drained = ring.seen = UINT64_C(0xfffffffe) << 32 | 100;
    ck_assert(span_remote_push(&ring, 11, 1));
    ring.pushed = remote_advance(ring.pushed, 1); /* by a thread that the child does not have */
    ck_assert(span_remote_push(&ring, 13, 1));
    span_remote_fork_child(&ring);
    ck_assert_uint_eq(span_remote_count(&ring), 2);
    ck_assert_uint_eq(ring.slots[REMOTE_SLOTS - 2], 11);
    ck_assert_uint_eq(ring.slots[REMOTE_SLOTS - 1], 13);
    ck_assert_uint_eq(ring.slots[0], 0);
    memset(&ring, 0, sizeof ring);
    ring.pushed = remote_advance(0, 5);
    span_remote_fork_child(&ring);
    ck_assert_uint_eq(span_remote_count(&ring), 0);
    ck_assert_uint_eq(span_remote_bytes(&ring), 0);
}
END_TEST

static void be_a_child(void *context)
{
    (void)context;
    expect(stats_of(larder).live_blocks == 0);
    expect(span_heap_used_bytes(&larder->heap) == 0);
    void *block = larder_alloc(larder, LARGE);
    expect(block != NULL);
    larder_free(larder, block);
}

START_TEST(a_fork_takes_along_what_waits)
{
    if (!own_heap_or_note())
        return;
    take_blocks(BLOCKS, LARGE);
    run_threads(1, free_all, NULL);
    struct child_end end = run_in_child(be_a_child, NULL);
    ck_assert_msg(end.signal == 0 && end.status == 0, "%s", end.output);
    assert_all_is_free();
}
END_TEST

/* -- Together -- */

enum { PASSED = 4000, STAGES = 3, PLACES = 16 };

struct belt {
    _Atomic(void *) places[STAGES - 1][PLACES];
};

/* The first thread allocates, two free what it lays before them. */
static void work(void *context, unsigned index)
{
    struct belt *belt = context;
    struct random random;
    random_init(&random, index);
    for (unsigned i = 0; i < PASSED; i++) {
        if (index == 0) {
            size_t size = random_between(&random, 9 * KIB, 200 * KIB);
            size_t *block = larder_alloc(larder, size);
            expect(block != NULL);
            block[0] = size, block[1] = i; /* then the pattern begins */
            pattern_fill(block + 2, size - 2 * sizeof *block, i);
            _Atomic(void *) *place = &belt->places[i % 2][i / 2 % PLACES];
            void *none = NULL;
            while (!atomic_compare_exchange_weak(place, &none, block)) {
                none = NULL;
                os_yield();
            }
        } else if (i < PASSED / 2) {
            _Atomic(void *) *place = &belt->places[index - 1][i % PLACES];
            size_t *block;
            while ((block = atomic_exchange(place, NULL)) == NULL)
                os_yield();
            expect(pattern_holds(block + 2, block[0] - 2 * sizeof *block, block[1]));
            larder_free(larder, block);
        }
    }
}

START_TEST(a_pipeline_of_three_threads_loses_nothing)
{
    static struct belt belt;
    run_threads(STAGES, work, &belt);
    assert_expectations();
    assert_all_is_free();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("span_remote");
    TCase *owned = add_claims(suite, "owned");

    tcase_add_checked_fixture(owned, set_up, tear_down);
    tcase_add_test(owned, blocks_freed_by_another_thread_wait_and_the_owner_keeps_its_lock);
    tcase_add_test(owned, what_waits_is_used_before_fresh_pages_are);
    tcase_add_test(owned, a_second_free_of_a_block_that_waits_is_caught_whoever_makes_it);
    tcase_add_test(owned,
                   more_than_a_bounded_number_and_size_does_not_wait_for_an_owner_that_sleeps);
    tcase_add_test(owned, a_frozen_heap_that_settles_leaves_alone_what_waits);
    tcase_add_test(owned, nothing_is_recorded_of_a_stream_and_loops_come_back_after_it);
    tcase_add_test(owned, a_stream_of_few_blocks_is_known_though_each_drain_is_for_need);
    tcase_add_test(owned, the_end_of_a_loop_is_left_to_the_owner_by_those_who_note);
    tcase_add_test(owned, a_fork_takes_along_what_waits);
    tcase_add_test(owned, a_pipeline_of_three_threads_loses_nothing);

    TCase *alone = add_claims(suite, "ring");
    tcase_add_test(alone, the_ring_takes_so_many_blocks_and_bytes_and_no_more);
    tcase_add_test(alone, the_child_of_a_fork_passes_over_a_place_reserved_and_not_written);
    return run_suite(suite);
}
