/* SPDX-License-Identifier: MIT */
/*
 * Memory that ages goes back, memory that is young stays, and a thread can hand in what it caches
 * before it sleeps. No test here asserts a time: they sleep past a tiny limit until the event, or
 * set a limit that no run reaches.
 */
#include <stdio.h>
#include <stdlib.h>

#include "support.h"

#include <time.h>

static larder_policy_t policy_of(int index)
{
    return caching_policies[index];
}

static void cache_some(larder_t *larder)
{
    void *blocks[40];

    for (size_t i = 0; i < 40; i++) {
        size_t size = i < 20 ? 500 : 20000 * i;

        blocks[i] = larder_alloc(larder, size);
        ck_assert_ptr_nonnull(blocks[i]);
        memset(blocks[i], 1, size);
    }
    for (size_t i = 0; i < 40; i++)
        larder_free(larder, blocks[i]);
}

static void sleep_ms(long milliseconds)
{
    struct timespec time = {milliseconds / 1000, (milliseconds % 1000) * 1000000};

    while (nanosleep(&time, &time) != 0 && errno == EINTR) {
    }
}

/* Sleeps and ticks until nothing is cached or, much later, hope is lost. Returns the bytes told. */
static size_t tick_until_empty(larder_t *ticked, const larder_t *observed)
{
    size_t given_back = 0;

    for (unsigned i = 0; i < 2000 && stats_of(observed).cached_bytes > 0; i++) {
        sleep_ms(2);
        given_back += larder_tick(ticked);
    }
    return given_back;
}

START_TEST(memory_idle_for_longer_than_the_decay_is_given_back_by_ticks)
{
    larder_config_t config;
    larder_t *larder;
    uint64_t cached;
    size_t given_back;

    if (!variant_config(_i, &config))
        return;
    config.decay_ms = 1;
    larder = must_create(&config);
    cache_some(larder);
    larder_flush_thread(larder);
    cached = stats_of(larder).cached_bytes;
    given_back = tick_until_empty(larder, larder);
    ck_assert_uint_eq(stats_of(larder).cached_bytes, 0);
    /* a page that is cached in part goes back whole, in either of two heaps */
    ck_assert_uint_le(given_back, cached + 2 * page_size());
    ck_assert_uint_le(given_back, stats_of(larder).given_back_bytes);
    if (cached > 0)
        ck_assert_uint_gt(stats_of(larder).given_back_bytes, 0);
    cache_some(larder); /* and it goes on working */
    must_destroy(larder);
}
END_TEST

START_TEST(ticks_reach_a_backend_that_cannot_discard)
{
    struct counted source;
    larder_config_t config;
    larder_t *larder;

    counted_init(&source, 0);
    config = test_config(policy_of(_i), &source.backend);
    config.decay_ms = 1;
    larder = must_create(&config);
    cache_some(larder);
    larder_flush_thread(larder);
    tick_until_empty(larder, larder);
    ck_assert_uint_eq(count_of(&source.outstanding_blocks), 0);
    must_destroy(larder);
    assert_all_returned(&source);
}
END_TEST

START_TEST(a_tick_of_null_reaches_every_instance)
{
    larder_config_t config = test_config(policy_of(_i), NULL);
    larder_t *instances[3];

    config.decay_ms = 1;
    for (unsigned i = 0; i < 3; i++) {
        instances[i] = must_create(&config);
        cache_some(instances[i]);
    }
    larder_flush_thread(NULL);
    for (unsigned i = 0; i < 3; i++)
        ck_assert_uint_eq(stats_of(instances[i]).thread_cached_bytes, 0);
    for (unsigned i = 0; i < 3; i++) {
        tick_until_empty(NULL, instances[i]);
        ck_assert_uint_eq(stats_of(instances[i]).cached_bytes, 0);
    }
    for (unsigned i = 0; i < 3; i++)
        must_destroy(instances[i]);
}
END_TEST

START_TEST(memory_younger_than_the_decay_is_kept)
{
    static const uint32_t long_times[] = {UINT32_MAX, 3600 * 1000};

    for (unsigned k = 0; k < 2; k++) {
        larder_config_t config = test_config(policy_of(_i), NULL);
        larder_t *larder;
        uint64_t cached;

        config.decay_ms = long_times[k];
        larder = must_create(&config);
        cache_some(larder);
        larder_flush_thread(larder);
        cached = stats_of(larder).cached_bytes;
        ck_assert_uint_gt(cached, 0);
        for (unsigned i = 0; i < 20; i++) {
            ck_assert_uint_eq(larder_tick(larder), 0);
            cache_some(larder);
        }
        larder_flush_thread(larder);
        ck_assert_uint_ge(stats_of(larder).cached_bytes, cached);
        ck_assert_uint_eq(stats_of(larder).given_back_bytes, 0);
        must_destroy(larder);
    }
}
END_TEST

START_TEST(live_blocks_keep_their_contents_while_the_rest_decays)
{
    larder_config_t config = test_config(policy_of(_i), NULL);
    larder_t *larder;
    void *live[20];

    config.decay_ms = 1;
    larder = must_create(&config);
    for (size_t i = 0; i < 20; i++) { /* each second one is freed: holes between live blocks */
        void *hole = larder_alloc(larder, 30000);

        live[i] = larder_alloc(larder, 30000);
        ck_assert(hole && live[i]);
        pattern_fill(hole, 30000, 99);
        pattern_fill(live[i], 30000, i);
        larder_free(larder, hole);
    }
    larder_flush_thread(larder);
    tick_until_empty(larder, larder);
    for (size_t i = 0; i < 20; i++) {
        ck_assert(pattern_holds(live[i], 30000, i));
        larder_free(larder, live[i]);
    }
    must_destroy(larder);
}
END_TEST

/* -- Threads that go to sleep -- */

static void cache_flush_and_look(void *context, unsigned index)
{
    larder_t *larder = context;

    (void)index;
    for (unsigned i = 0; i < 50; i++)
        larder_free(larder, larder_alloc(larder, 300));
    larder_flush_thread(larder);
}

START_TEST(a_flushed_threads_blocks_serve_other_threads)
{
    larder_t *larder = make_instance(policy_of(_i), NULL);
    uint64_t cached, hits;
    void *block;

    run_threads(1, cache_flush_and_look, larder);
    cached = stats_of(larder).cached_bytes;
    ck_assert_uint_gt(cached, 0);
    ck_assert_uint_eq(stats_of(larder).thread_cached_bytes, 0);
    hits = stats_of(larder).hits;
    block = larder_alloc(larder, 300);
    ck_assert_uint_eq(stats_of(larder).hits, hits + 1);
    larder_free(larder, block);
    larder_flush_thread(larder);
    ck_assert_uint_eq(stats_of(larder).thread_cached_bytes, 0);
    ck_assert_uint_eq(stats_of(larder).cached_bytes, cached);
    must_destroy(larder);
}
END_TEST

struct asked {
    larder_t *larder;
    struct meeting meeting;
};

static void give_up_at_the_next_call(void *context, unsigned index)
{
    struct asked *asked = context;
    void *block = larder_alloc(asked->larder, 300);

    if (index == 1)
        larder_free(asked->larder, block); /* now this thread's magazine holds it */
    meeting_wait(&asked->meeting);
    if (index == 0) {
        larder_free(asked->larder, block);
        larder_free_cached(asked->larder);
    }
    meeting_wait(&asked->meeting);
    if (index == 1) { /* its next call */
        block = larder_alloc(asked->larder, 100000);
        expect(stats_of(asked->larder).thread_cached_bytes == 0);
        larder_free(asked->larder, block);
    }
    meeting_wait(&asked->meeting);
}

START_TEST(free_cached_reaches_other_threads_at_their_next_call)
{
    struct asked asked = {.larder = make_instance(policy_of(_i), NULL)};

    meeting_init(&asked.meeting, 2);
    run_threads(2, give_up_at_the_next_call, &asked);
    must_destroy(asked.larder);
}
END_TEST

/* Until the ticker has done it or, much later, hope is lost. */
static void wait_until_empty(const larder_t *larder)
{
    for (unsigned i = 0; i < 5000 && stats_of(larder).cached_bytes > 64 * KIB; i++)
        sleep_ms(2);
}

START_TEST(a_ticker_gives_back_for_a_process_that_does_nothing)
{
    larder_config_t config = test_config(LARDER_POLICY_FIT, NULL);
    larder_t *larder;

    config.decay_ms = 1;
    larder = must_create(&config);
    ck_assert_int_eq(larder_ticker_start(1000000), 0);
    cache_some(larder);
    ck_assert_int_eq(larder_ticker_start(1), 0); /* the new interval holds at once */
    wait_until_empty(larder);
    ck_assert_uint_le(stats_of(larder).cached_bytes, 64 * KIB);
    larder_ticker_stop();
    larder_ticker_stop(); /* there is none: nothing happens */
    must_destroy(larder);
}
END_TEST

static void tick_in_child(void *context)
{
    larder_t *larder = context;

    cache_some(larder);
    expect(larder_ticker_start(1) == 0);
    wait_until_empty(larder);
    expect(stats_of(larder).cached_bytes <= 64 * KIB);
    larder_ticker_stop();
}

START_TEST(a_forked_child_starts_a_ticker_of_its_own)
{
    larder_config_t config = test_config(LARDER_POLICY_FIT, NULL);
    larder_t *larder;
    struct child_end end;

    if (emulated_or_note("threads after fork"))
        return;
    if (UNDER_THREAD_SANITIZER) {
        fprintf(stderr, "note: ThreadSanitizer starts no threads after a fork: left out\n");
        return;
    }
    config.decay_ms = 20; /* nothing is so old within the calls that cache it */
    larder = must_create(&config);
    cache_some(larder);
    ck_assert_int_eq(larder_ticker_start(1), 0);
    /* AddressSanitizer has a lock while a thread starts, and a child forked then can start none */
    wait_until_empty(larder);
    end = run_in_child(tick_in_child, larder);
    ck_assert_msg(end.signal == 0 && end.status == 0, "%s", end.output);
    larder_ticker_stop();
    must_destroy(larder);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("decay");
    TCase *decay = add_claims(suite, "decay");
    TCase *threads = add_claims(suite, "threads");

    tcase_add_loop_test(decay, memory_idle_for_longer_than_the_decay_is_given_back_by_ticks, 0,
                        VARIANT_COUNT);
    tcase_add_loop_test(decay, ticks_reach_a_backend_that_cannot_discard, 0, CACHING_POLICY_COUNT);
    tcase_add_loop_test(decay, a_tick_of_null_reaches_every_instance, 0, CACHING_POLICY_COUNT);
    tcase_add_loop_test(decay, memory_younger_than_the_decay_is_kept, 0, CACHING_POLICY_COUNT);
    tcase_add_loop_test(decay, live_blocks_keep_their_contents_while_the_rest_decays, 0,
                        CACHING_POLICY_COUNT);
    tcase_add_loop_test(threads, a_flushed_threads_blocks_serve_other_threads, 0,
                        CACHING_POLICY_COUNT);
    tcase_add_loop_test(threads, free_cached_reaches_other_threads_at_their_next_call, 0,
                        CACHING_POLICY_COUNT);
    TCase *tc = add_claims(suite, "a ticker");
    tcase_add_test(tc, a_ticker_gives_back_for_a_process_that_does_nothing);
    tcase_add_test(tc, a_forked_child_starts_a_ticker_of_its_own);
    return run_suite(suite);
}
