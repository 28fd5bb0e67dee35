/* SPDX-License-Identifier: MIT */
/*
 * What an instance may keep: the cap holds at every instant, sizes outside of the bounds are not
 * cached, and a trim leaves no more than it was asked to. Memory that ages is in test_decay.c.
 */
#include "support.h"

#include <unistd.h>

static larder_policy_t policy_of(int index)
{
    return caching_policies[index];
}

static void allocate_and_free_each(larder_t *larder, size_t count, size_t size)
{
    void *blocks[200];

    ck_assert_uint_le(count, 200);
    for (size_t i = 0; i < count; i++)
        ck_assert_ptr_nonnull(blocks[i] = larder_alloc(larder, size));
    for (size_t i = 0; i < count; i++)
        larder_free(larder, blocks[i]);
}

/* -- The cap -- */

#define CAP MIB
#define BUSY_THREADS 8

struct busy {
    larder_t *larder;
    size_t cap;
    _Atomic unsigned running;
    _Atomic uint64_t highest;
};

static void sample_until_the_others_end(struct busy *busy)
{
    larder_stats_t stats = {.struct_size = sizeof stats};

    do {
        expect(larder_stats_get(busy->larder, &stats) == 0);
        expect(stats.cached_bytes <= busy->cap);
        if (stats.cached_bytes > atomic_load(&busy->highest))
            atomic_store(&busy->highest, stats.cached_bytes);
    } while (atomic_load(&busy->running) > 0);
}

static void churn(void *context, unsigned index)
{
    struct busy *busy = context;
    struct random random;
    void *blocks[32] = {NULL};

    if (index == BUSY_THREADS) {
        sample_until_the_others_end(busy);
        return;
    }
    random_init(&random, index);
    for (unsigned step = 0; step < 5000; step++) {
        size_t i = random_between(&random, 0, 31);

        larder_free(busy->larder, blocks[i]);
        blocks[i] = larder_alloc(busy->larder, random_size(&random, 256 * KIB));
        expect(blocks[i] != NULL);
    }
    for (unsigned i = 0; i < 32; i++)
        larder_free(busy->larder, blocks[i]);
    atomic_fetch_sub(&busy->running, 1);
}

START_TEST(the_cap_on_cached_bytes_holds_at_every_instant)
{
    larder_config_t config = test_config(policy_of(_i), NULL);
    struct busy busy = {.cap = CAP, .running = BUSY_THREADS};

    config.max_cached_bytes = CAP;
    busy.larder = must_create(&config);
    run_threads(BUSY_THREADS + 1, churn, &busy);
    ck_assert_uint_le(stats_of(busy.larder).cached_bytes, CAP);
    ck_assert_uint_le(stats_of(busy.larder).peak_cached_bytes, CAP);
    ck_assert_uint_gt(stats_of(busy.larder).peak_cached_bytes, 0);
    must_destroy(busy.larder);
}
END_TEST

START_TEST(the_backend_is_left_with_no_more_than_the_cap)
{
    larder_config_t config;
    struct busy busy = {.cap = CAP, .running = BUSY_THREADS};
    struct counted source;

    counted_init(&source, 0);
    config = test_config(LARDER_POLICY_EXACT, &source.backend);
    config.max_cached_bytes = CAP;
    busy.larder = must_create(&config);
    run_threads(BUSY_THREADS + 1, churn, &busy);
    ck_assert_uint_le(count_of(&source.outstanding_bytes), CAP);
    must_destroy(busy.larder);
    assert_all_returned(&source);
}
END_TEST

START_TEST(the_cap_evicts_no_more_than_it_needs_to)
{
    larder_config_t config = test_config(policy_of(_i), NULL);
    larder_t *larder;
    void *blocks[40];
    size_t size = 100 * KIB;

    config.max_cached_bytes = CAP;
    larder = must_create(&config);
    for (unsigned i = 0; i < 40; i++) {
        blocks[i] = larder_alloc(larder, size);
        ck_assert_ptr_nonnull(blocks[i]);
        memset(blocks[i], 1, size);
    }
    for (unsigned i = 0; i < 40; i++) {
        larder_free(larder, blocks[i]);
        ck_assert_uint_le(stats_of(larder).cached_bytes, CAP);
        if ((i + 1) * size > CAP)
            ck_assert_uint_ge(stats_of(larder).cached_bytes,
                              CAP - 2 * larder_good_size(larder, size));
    }
    must_destroy(larder);
}
END_TEST

START_TEST(a_cap_of_nothing_caches_nothing)
{
    larder_config_t config;
    struct counted source;
    larder_t *larder;

    counted_init(&source, 0);
    config = test_config(policy_of(_i), &source.backend);
    config.max_cached_bytes = 0;
    larder = must_create(&config);
    for (size_t size = 1; size < 2 * MIB; size *= 4) {
        allocate_and_free_each(larder, 10, size);
        ck_assert_uint_eq(stats_of(larder).cached_bytes, 0);
    }
    ck_assert_uint_eq(stats_of(larder).peak_cached_bytes, 0);
    must_destroy(larder);
    assert_all_returned(&source);
}
END_TEST

START_TEST(a_hundred_sizes_one_live_at_a_time_do_not_pile_up)
{
    larder_config_t config = test_config(policy_of(_i), NULL);
    larder_t *larder;
    size_t largest = 100 * 64 * KIB;

    if (config.policy == LARDER_POLICY_EXACT)
        config.max_cached_bytes = largest; /* without it that policy keeps each size: 315 MiB */
    larder = must_create(&config);
    for (unsigned round = 0; round < 3; round++) {
        for (size_t i = 1; i <= 100; i++) {
            void *block = larder_alloc(larder, i * 64 * KIB);

            ck_assert_ptr_nonnull(block);
            larder_free(larder, block);
            ck_assert_uint_le(stats_of(larder).held_bytes, 2 * largest + 2 * MIB);
        }
    }
    must_destroy(larder);
}
END_TEST

START_TEST(what_goes_with_its_region_makes_room_under_the_cap_again)
{
    larder_config_t config;
    struct counted source;
    larder_t *larder;

    counted_init(&source, 0); /* which cannot discard: memory goes by whole regions */
    config = test_config(LARDER_POLICY_FIT, &source.backend);
    config.max_cached_bytes = CAP;
    larder = must_create(&config);
    for (unsigned round = 0; round < 5; round++) {
        void *cached = larder_alloc(larder, 900 * KIB), *refused = larder_alloc(larder, 2 * MIB);

        larder_free(larder, cached);
        ck_assert_uint_ge(stats_of(larder).cached_bytes, 900 * KIB);
        larder_free(larder, refused); /* the region is empty now */
        ck_assert_uint_eq(count_of(&source.outstanding_blocks), 0);
    }
    must_destroy(larder);
    assert_all_returned(&source);
}
END_TEST

/* -- Sizes that are cached -- */

START_TEST(sizes_outside_of_the_bounds_go_straight_to_the_backend)
{
    static const size_t outside[] = {0, 1, 999, 50001, 1000000};
    struct counted source;
    larder_config_t config;
    larder_t *larder;

    counted_init(&source, 0);
    config = test_config(LARDER_POLICY_EXACT, &source.backend);
    config.min_cached_size = 1000;
    config.max_cached_size = 50000;
    larder = must_create(&config);
    for (unsigned i = 0; i < 5; i++) {
        allocate_and_free_each(larder, 10, outside[i]);
        ck_assert_uint_eq(count_of(&source.outstanding_blocks), 0);
    }
    ck_assert_uint_eq(stats_of(larder).miss_size, 50);
    ck_assert_uint_eq(stats_of(larder).cached_bytes, 0);
    allocate_and_free_each(larder, 10, 1000);
    allocate_and_free_each(larder, 10, 50000);
    ck_assert_uint_eq(stats_of(larder).cached_blocks, 20);
    must_destroy(larder);
    assert_all_returned(&source);
}
END_TEST

START_TEST(fit_does_not_cache_sizes_above_the_maximum)
{
    larder_config_t config = test_config(LARDER_POLICY_FIT, NULL);
    larder_t *larder;

    config.max_cached_size = 50000;
    larder = must_create(&config);
    allocate_and_free_each(larder, 10, 50001);
    allocate_and_free_each(larder, 10, 5 * MIB);
    ck_assert_uint_eq(stats_of(larder).cached_bytes, 0);
    ck_assert_uint_eq(stats_of(larder).miss_size, 20);
    allocate_and_free_each(larder, 10, 50000);
    ck_assert_uint_gt(stats_of(larder).cached_bytes, 0);
    must_destroy(larder);
}
END_TEST

START_TEST(a_threads_magazines_stay_within_their_bytes_and_the_common_room)
{
    static const size_t limits[] = {0, 4096, 65536};

    for (unsigned k = 0; k < 3; k++) {
        larder_config_t config = test_config(policy_of(_i), NULL);
        larder_t *larder;

        config.thread_cached_bytes = limits[k];
        larder = must_create(&config);
        for (size_t size = 8; size <= MIB; size *= 2) {
            allocate_and_free_each(larder, 100, size);
            ck_assert_uint_le(stats_of(larder).thread_cached_bytes, 3 * limits[k]);
        }
        must_destroy(larder);
    }
}
END_TEST

#define OWN (32 * KIB)

/* Leaves as much in the calling thread's magazines as they take; how much that is, of all threads. */
static uint64_t fill_magazines(larder_t *larder)
{
    void *blocks[128];

    for (unsigned i = 0; i < 128; i++)
        expect((blocks[i] = larder_alloc(larder, i < 64 ? 1024 : 2048)) != NULL);
    for (unsigned i = 0; i < 128; i++)
        larder_free(larder, blocks[i]);
    return stats_of(larder).thread_cached_bytes;
}

struct second_thread {
    larder_t *larder;
    uint64_t with_first;
};

static void *fill_as_well(void *argument)
{
    struct second_thread *second = argument;

    second->with_first = fill_magazines(second->larder);
    return NULL;
}

START_TEST(threads_hold_together_at_most_so_many_bytes_beyond_their_own_as_there_are_processors)
{
    larder_config_t config = test_config(LARDER_POLICY_FIT, NULL);
    struct second_thread second;
    pthread_t thread;
    uint64_t first;
    long processors = sysconf(_SC_NPROCESSORS_ONLN);

    config.thread_cached_bytes = OWN;
    second.larder = must_create(&config);
    for (unsigned round = 0; round < 3; round++) { /* what was lent comes back each time */
        first = fill_magazines(second.larder);
        ck_assert_uint_gt(first, OWN);
        ck_assert_uint_le(first, 3 * OWN);
        ck_assert_int_eq(pthread_create(&thread, NULL, fill_as_well, &second), 0);
        pthread_join(thread, NULL);
        ck_assert_uint_gt(second.with_first, first);
        ck_assert_uint_le(second.with_first, (size_t)(2 + (processors < 4 ? processors : 4)) * OWN);
        larder_flush_thread(second.larder);
        ck_assert_uint_eq(stats_of(second.larder).thread_cached_bytes, 0);
    }
    must_destroy(second.larder);
}
END_TEST

/* -- Giving back on request -- */

START_TEST(free_cached_gives_everything_back_but_live_blocks)
{
    larder_config_t config;
    larder_t *larder;
    void *live;

    if (!variant_config(_i, &config))
        return;
    larder = must_create(&config);
    live = larder_alloc(larder, 5000);
    pattern_fill(live, 5000, 1);
    for (size_t size = 1; size <= 2 * MIB; size *= 8)
        allocate_and_free_each(larder, 10, size);
    larder_free_cached(larder);
    /* what shares a region with a live block can only go where the backend can discard pages, and then not
     * what shares a page with it */
    if (config.policy != LARDER_POLICY_FIT)
        ck_assert_uint_eq(stats_of(larder).cached_bytes, 0);
    else if (config.backend->discard)
        ck_assert_uint_lt(stats_of(larder).cached_bytes, 2 * page_size());
    ck_assert_uint_eq(stats_of(larder).cached_blocks, 0);
    ck_assert_uint_eq(stats_of(larder).live_blocks, 1);
    ck_assert(pattern_holds(live, 5000, 1));
    larder_free(larder, live);
    larder_free_cached(larder);
    ck_assert_uint_eq(stats_of(larder).cached_bytes, 0);
    must_destroy(larder);
}
END_TEST

START_TEST(a_trim_leaves_at_most_what_it_was_asked_to_leave)
{
    static const size_t targets[] = {SIZE_MAX, 3 * MIB, MIB, 100 * KIB, 1, 0};
    larder_t *larder = make_instance(policy_of(_i), NULL);

    allocate_and_free_each(larder, 100, 100);
    allocate_and_free_each(larder, 50, 100 * KIB);
    for (unsigned i = 0; i < 6; i++) {
        larder_stats_t before = stats_of(larder);
        size_t left = larder_trim(larder, targets[i]);

        ck_assert_uint_le(left, targets[i]);
        ck_assert_uint_eq(left, stats_of(larder).cached_bytes);
        if (before.cached_bytes <= targets[i])
            ck_assert_uint_eq(stats_of(larder).given_back_bytes, before.given_back_bytes);
    }
    allocate_and_free_each(larder, 10, 100 * KIB); /* and it goes on working */
    must_destroy(larder);
}
END_TEST

START_TEST(a_trim_gives_back_no_more_than_it_needs_to)
{
    struct counted source;
    larder_t *larder;

    counted_init(&source, 0);
    larder = make_instance(LARDER_POLICY_EXACT, &source.backend);
    allocate_and_free_each(larder, 50, 100 * KIB);
    larder_trim(larder, 30 * 100 * KIB + 4096 * 30); /* some rounding allowed for */
    ck_assert_uint_ge(count_of(&source.outstanding_blocks), 28);
    ck_assert_uint_le(count_of(&source.outstanding_blocks), 31);
    must_destroy(larder);
    assert_all_returned(&source);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("limits");
    TCase *cap = add_claims(suite, "cap");
    TCase *sizes = add_claims(suite, "sizes");
    TCase *request = add_claims(suite, "on request");

    tcase_add_loop_test(cap, the_cap_on_cached_bytes_holds_at_every_instant, 0,
                        CACHING_POLICY_COUNT);
    tcase_add_test(cap, the_backend_is_left_with_no_more_than_the_cap);
    tcase_add_loop_test(cap, the_cap_evicts_no_more_than_it_needs_to, 0, CACHING_POLICY_COUNT);
    tcase_add_loop_test(cap, a_cap_of_nothing_caches_nothing, 0, CACHING_POLICY_COUNT);
    tcase_add_loop_test(cap, a_hundred_sizes_one_live_at_a_time_do_not_pile_up, 0,
                        CACHING_POLICY_COUNT);
    tcase_add_test(cap, what_goes_with_its_region_makes_room_under_the_cap_again);
    tcase_add_test(sizes, sizes_outside_of_the_bounds_go_straight_to_the_backend);
    tcase_add_test(sizes, fit_does_not_cache_sizes_above_the_maximum);
    tcase_add_loop_test(sizes, a_threads_magazines_stay_within_their_bytes_and_the_common_room, 0,
                        CACHING_POLICY_COUNT);
    tcase_add_test(
        sizes,
        threads_hold_together_at_most_so_many_bytes_beyond_their_own_as_there_are_processors);
    tcase_add_loop_test(request, free_cached_gives_everything_back_but_live_blocks, 0,
                        VARIANT_COUNT);
    tcase_add_loop_test(request, a_trim_leaves_at_most_what_it_was_asked_to_leave, 0,
                        CACHING_POLICY_COUNT);
    tcase_add_test(request, a_trim_gives_back_no_more_than_it_needs_to);
    return run_suite(suite);
}
