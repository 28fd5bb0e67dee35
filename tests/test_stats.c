/* SPDX-License-Identifier: MIT */
/*
 * The books: with nobody inside a call each figure is exact, so a model can keep them too. Also
 * what larder_walk() shows. How statistics are printed is in test_stats_text.c.
 */
#include "support.h"

#define SLOTS 40

/* -- Figures that every policy shares -- */

struct books {
    uint64_t live_blocks, live_bytes, peak_live_bytes;
    uint64_t allocations, frees, allocated_bytes;
};

static void assert_same_books(const larder_stats_t *stats, const struct books *books)
{
    ck_assert_uint_eq(stats->live_blocks, books->live_blocks);
    ck_assert_uint_eq(stats->live_bytes, books->live_bytes);
    ck_assert_uint_eq(stats->allocations, books->allocations);
    ck_assert_uint_eq(stats->frees, books->frees);
    ck_assert_uint_eq(stats->allocated_bytes, books->allocated_bytes);
    ck_assert_uint_eq(stats->failures, 0);
    ck_assert_uint_eq(stats->errors, 0);
}

static void assert_sums_agree(const larder_stats_t *stats)
{
    ck_assert_uint_eq(stats->version, LARDER_STATS_VERSION);
    ck_assert_uint_eq(stats->cached_bytes, stats->thread_cached_bytes + stats->depot_cached_bytes +
                                               stats->free_committed_bytes);
    ck_assert_uint_eq(stats->held_bytes, stats->live_bytes + stats->rounding_bytes +
                                             stats->cached_bytes + stats->metadata_bytes);
    ck_assert_uint_eq(stats->hits + stats->miss_cold + stats->miss_size, stats->allocations);
    ck_assert_uint_le(stats->thread_hits, stats->hits);
    ck_assert_uint_ge(stats->peak_held_bytes, stats->held_bytes);
    ck_assert_uint_ge(stats->peak_cached_bytes, stats->cached_bytes);
    ck_assert_uint_ge(stats->backend_allocations, stats->backend_frees);
    ck_assert_uint_le(stats->largest_free_span, stats->reserved_bytes);
}

START_TEST(the_figures_are_those_of_a_model_after_every_call)
{
    larder_config_t config;
    larder_t *larder;
    struct books books = {0};
    struct random random;
    void *blocks[SLOTS] = {NULL};
    size_t sizes[SLOTS] = {0};

    if (!variant_config(_i, &config))
        return;
    larder = must_create(&config);
    random_init(&random, 6);
    for (unsigned step = 0; step < 3000; step++) {
        size_t i = random_between(&random, 0, SLOTS - 1);
        larder_stats_t stats;

        if (blocks[i]) {
            larder_free(larder, blocks[i]);
            blocks[i] = NULL;
            books.frees++;
            books.live_blocks--;
            books.live_bytes -= sizes[i];
        } else {
            sizes[i] = random_size(&random, 256 * KIB) - 1;
            blocks[i] =
                step % 2 ? larder_alloc(larder, sizes[i]) : larder_calloc(larder, 1, sizes[i]);
            ck_assert_ptr_nonnull(blocks[i]);
            books.allocations++;
            books.live_blocks++;
            books.live_bytes += sizes[i];
            books.allocated_bytes += sizes[i];
        }
        if (books.live_bytes > books.peak_live_bytes)
            books.peak_live_bytes = books.live_bytes;
        stats = stats_of(larder);
        assert_same_books(&stats, &books);
        assert_sums_agree(&stats);
        ck_assert_uint_ge(stats.peak_live_bytes + config.thread_cached_bytes,
                          books.peak_live_bytes);
        ck_assert_uint_le(stats.peak_live_bytes,
                          books.peak_live_bytes + config.thread_cached_bytes);
    }
    for (unsigned i = 0; i < SLOTS; i++)
        larder_free(larder, blocks[i]);
    must_destroy(larder);
}
END_TEST

/* -- Hits and misses of `exact`: an allocation hits where a block of its size is cached -- */

START_TEST(hits_and_misses_of_exact_are_those_of_a_model)
{
    enum { SIZES = 12 };
    struct counted source;
    larder_config_t config;
    larder_t *larder;
    struct random random;
    uint64_t cached[SIZES] = {0}, cached_blocks = 0, hits = 0, cold = 0, out_of_bounds = 0;
    void *blocks[SLOTS] = {NULL};

    counted_init(&source, 0);
    config = test_config(LARDER_POLICY_EXACT, &source.backend);
    config.min_cached_size = 100;
    larder = must_create(&config);
    random_init(&random, 7);
    for (unsigned step = 0; step < 5000; step++) {
        size_t i = random_between(&random, 0, SLOTS - 1), kind = i % SIZES;
        size_t size = kind == 0 ? 99 : 5000 * kind;

        if (blocks[i]) {
            larder_free(larder, blocks[i]);
            blocks[i] = NULL;
            cached[kind] += kind != 0;
            cached_blocks += kind != 0;
        } else {
            blocks[i] = larder_alloc(larder, size);
            if (kind == 0) {
                out_of_bounds++;
            } else if (cached[kind] > 0) {
                hits++;
                cached[kind]--;
                cached_blocks--;
            } else {
                cold++;
            }
        }
        ck_assert_uint_eq(stats_of(larder).cached_blocks, cached_blocks);
    }
    ck_assert_uint_eq(stats_of(larder).hits, hits);
    ck_assert_uint_eq(stats_of(larder).miss_cold, cold);
    ck_assert_uint_eq(stats_of(larder).miss_size, out_of_bounds);
    ck_assert_uint_eq(stats_of(larder).backend_allocations, count_of(&source.calls));
    ck_assert_uint_eq(stats_of(larder).backend_frees, count_of(&source.frees));
    for (unsigned i = 0; i < SLOTS; i++)
        larder_free(larder, blocks[i]);
    must_destroy(larder);
    assert_all_returned(&source);
}
END_TEST

START_TEST(a_thread_that_repeats_itself_hits_its_own_magazines)
{
    larder_t *larder = make_bare_instance(caching_policies[_i], NULL);
    larder_stats_t first, last;

    larder_free(larder, larder_alloc(larder, 1000));
    first = stats_of(larder);
    for (unsigned i = 0; i < 1000; i++)
        larder_free(larder, larder_alloc(larder, 1000));
    last = stats_of(larder);
    ck_assert_uint_eq(last.thread_hits, first.thread_hits + 1000);
    ck_assert_uint_eq(last.hits, first.hits + 1000);
    ck_assert_uint_eq(last.lock_acquisitions, first.lock_acquisitions);
    ck_assert_uint_eq(last.backend_allocations, first.backend_allocations);
    must_destroy(larder);
}
END_TEST

static void add_to_the_books(void *context, unsigned index)
{
    for (size_t i = 0; i < 1000; i++)
        larder_free(context, larder_alloc(context, 100 + index));
}

START_TEST(the_figures_of_many_threads_add_up_when_they_have_ended)
{
    larder_t *larder = make_instance(caching_policies[_i], NULL);
    larder_stats_t stats;

    run_threads(8, add_to_the_books, larder);
    stats = stats_of(larder);
    ck_assert_uint_eq(stats.allocations, 8000);
    ck_assert_uint_eq(stats.frees, 8000);
    ck_assert_uint_eq(stats.allocated_bytes, 1000 * (8 * 100 + 28));
    ck_assert_uint_eq(stats.live_bytes, 0);
    assert_sums_agree(&stats);
    must_destroy(larder);
}
END_TEST

/* -- Walking -- */

struct seen {
    void *blocks[SLOTS];
    size_t sizes[SLOTS];
    unsigned visits[SLOTS], strangers, stop_after, calls;
};

static int look(void *context, void *ptr, size_t size)
{
    struct seen *seen = context;

    seen->calls++;
    if (seen->stop_after && seen->calls == seen->stop_after)
        return 42;
    for (unsigned i = 0; i < SLOTS; i++) {
        if (seen->blocks[i] == ptr && seen->sizes[i] == size) {
            seen->visits[i]++;
            return 0;
        }
    }
    seen->strangers++;
    return 0;
}

START_TEST(a_walk_visits_each_live_block_once_and_nothing_else)
{
    larder_config_t config;
    larder_t *larder, *other;
    struct seen seen = {.strangers = 0};
    void *of_other;

    if (!variant_config(_i, &config))
        return;
    larder = must_create(&config);
    other = must_create(&config);
    of_other = larder_alloc(other, 1000);
    for (size_t i = 0; i < SLOTS; i++) {
        seen.sizes[i] = i * i * i * 30;
        seen.blocks[i] = larder_alloc(larder, seen.sizes[i]);
    }
    for (size_t i = 0; i < SLOTS; i += 3) { /* cached blocks are not live */
        larder_free(larder, seen.blocks[i]);
        seen.blocks[i] = NULL;
    }
    ck_assert_int_eq(larder_walk(larder, look, &seen), 0);
    ck_assert_uint_eq(seen.strangers, 0);
    for (unsigned i = 0; i < SLOTS; i++)
        ck_assert_uint_eq(seen.visits[i], i % 3 == 0 ? 0 : 1);
    for (unsigned i = 0; i < SLOTS; i++)
        larder_free(larder, seen.blocks[i]);
    larder_free(other, of_other);
    must_destroy(larder);
    must_destroy(other);
}
END_TEST

START_TEST(a_walk_stops_when_told_to)
{
    larder_config_t config;
    larder_t *larder;
    struct seen seen = {.stop_after = 3};
    void *blocks[10];

    if (!variant_config(_i, &config))
        return;
    larder = must_create(&config);
    ck_assert_int_eq(larder_walk(larder, look, &seen), 0);
    ck_assert_uint_eq(seen.calls, 0);
    for (unsigned i = 0; i < 10; i++)
        blocks[i] = larder_alloc(larder, 1000 * i);
    ck_assert_int_eq(larder_walk(larder, look, &seen), 42);
    ck_assert_uint_eq(seen.calls, 3);
    for (unsigned i = 0; i < 10; i++)
        larder_free(larder, blocks[i]);
    must_destroy(larder);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("statistics");
    TCase *books = add_claims(suite, "books");
    TCase *walks = add_claims(suite, "walks");

    tcase_add_loop_test(books, the_figures_are_those_of_a_model_after_every_call, 0, VARIANT_COUNT);
    tcase_add_test(books, hits_and_misses_of_exact_are_those_of_a_model);
    tcase_add_loop_test(books, a_thread_that_repeats_itself_hits_its_own_magazines, 0,
                        CACHING_POLICY_COUNT);
    tcase_add_loop_test(books, the_figures_of_many_threads_add_up_when_they_have_ended, 0,
                        CACHING_POLICY_COUNT);
    tcase_add_loop_test(walks, a_walk_visits_each_live_block_once_and_nothing_else, 0,
                        VARIANT_COUNT);
    tcase_add_loop_test(walks, a_walk_stops_when_told_to, 0, VARIANT_COUNT);
    return run_suite(suite);
}
