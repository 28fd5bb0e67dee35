/* SPDX-License-Identifier: MIT */
/*
 * The policy `exact`: one backend allocation a block, reused under its exact size, last in first
 * out, with the same addresses again for a repeated trace: what c10::CPUCachingAllocator does.
 * Blocks that leave by another door are in test_record_free.c.
 */
#include "support.h"

/* -- Reuse -- */

START_TEST(freed_blocks_of_a_size_come_back_last_in_first_out)
{
    static const size_t sizes[] = {48, 1000, 5000, 100000, 1000000};
    enum { BLOCKS = 60 };
    struct counted source;
    larder_t *larder;
    struct random random;
    void *live[BLOCKS], *cached[BLOCKS];
    size_t live_count = 0, cached_count = 0, size = sizes[_i];

    counted_init(&source, 0);
    larder = make_instance(LARDER_POLICY_EXACT, &source.backend);
    random_init(&random, 3);
    for (unsigned step = 0; step < 5000; step++) {
        bool full = live_count == BLOCKS || (live_count > 0 && random_between(&random, 0, 1));

        if (full) {
            size_t i = random_between(&random, 0, live_count - 1);

            larder_free(larder, live[i]);
            cached[cached_count++] = live[i];
            live[i] = live[--live_count];
        } else {
            void *block = larder_alloc(larder, size);

            ck_assert_ptr_nonnull(block);
            if (cached_count > 0)
                ck_assert_ptr_eq(block, cached[--cached_count]);
            live[live_count++] = block;
        }
    }
    while (live_count > 0)
        larder_free(larder, live[--live_count]);
    must_destroy(larder);
    assert_all_returned(&source);
}
END_TEST

/* Nested lifetimes of 200 sizes: more than a thread may keep in a table of its own. */
static void run_nested_trace(larder_t *larder, void **addresses, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        addresses[i] = larder_alloc(larder, 100 + 24 * (i % 200));
        ck_assert_ptr_nonnull(addresses[i]);
    }
    for (size_t i = count; i > 0; i--)
        larder_free(larder, addresses[i - 1]);
}

START_TEST(a_repeated_trace_gets_the_same_addresses_again)
{
    enum { BLOCKS = 500 };
    void *first[BLOCKS], *again[BLOCKS];
    larder_t *larder = make_instance(LARDER_POLICY_EXACT, NULL);

    run_nested_trace(larder, first, BLOCKS);
    for (unsigned round = 0; round < 10; round++) {
        run_nested_trace(larder, again, BLOCKS);
        ck_assert_mem_eq(first, again, sizeof first);
    }
    must_destroy(larder);
}
END_TEST

/* A trace without order in its lifetimes, the same each time. */
static void run_random_trace(larder_t *larder)
{
    enum { BLOCKS = 50 };
    struct random random;
    void *blocks[BLOCKS] = {NULL};

    random_init(&random, 4);
    for (unsigned step = 0; step < 1000; step++) {
        size_t i = random_between(&random, 0, BLOCKS - 1);

        if (blocks[i])
            larder_free(larder, blocks[i]);
        blocks[i] = blocks[i] ? NULL : larder_alloc(larder, 1000 * (1 + i % 9));
    }
    for (size_t i = 0; i < BLOCKS; i++)
        larder_free(larder, blocks[i]);
}

START_TEST(a_repeated_trace_asks_the_backend_only_in_its_first_run)
{
    struct counted source;
    larder_t *larder;
    uint64_t calls;

    counted_init(&source, 0);
    larder = make_instance(LARDER_POLICY_EXACT, &source.backend);
    run_random_trace(larder);
    calls = count_of(&source.calls);
    for (unsigned round = 0; round < 10; round++)
        run_random_trace(larder);
    ck_assert_uint_eq(count_of(&source.calls), calls);
    ck_assert_uint_eq(count_of(&source.frees), 0);
    must_destroy(larder);
    assert_all_returned(&source);
}
END_TEST

START_TEST(a_block_is_reused_for_its_exact_size_only)
{
    larder_t *larder = make_instance(LARDER_POLICY_EXACT, NULL);
    void *block = larder_alloc(larder, 1000), *smaller, *larger, *same;

    larder_free(larder, block);
    smaller = larder_alloc(larder, 999);
    larger = larder_alloc(larder, 1001);
    same = larder_alloc(larder, 1000);
    ck_assert_ptr_ne(smaller, block);
    ck_assert_ptr_ne(larger, block);
    ck_assert_ptr_eq(same, block);
    ck_assert_uint_eq(stats_of(larder).hits, 1);
    larder_free(larder, smaller);
    larder_free(larder, larger);
    larder_free(larder, same);
    must_destroy(larder);
}
END_TEST

START_TEST(each_block_is_one_backend_allocation)
{
    struct counted source;
    larder_t *larder;
    void *blocks[20];

    counted_init(&source, 0);
    larder = make_instance(LARDER_POLICY_EXACT, &source.backend);
    for (unsigned i = 0; i < 20; i++) {
        blocks[i] = larder_alloc(larder, 100 * i);
        ck_assert_uint_eq(count_of(&source.calls), i + 1);
    }
    ck_assert_uint_eq(stats_of(larder).backend_allocations, 20);
    for (unsigned i = 0; i < 20; i++)
        larder_free(larder, blocks[i]);
    ck_assert_uint_eq(count_of(&source.frees), 0);
    ck_assert_uint_eq(stats_of(larder).cached_blocks, 20);
    larder_free_cached(larder);
    ck_assert_uint_eq(count_of(&source.frees), 20);
    must_destroy(larder);
    assert_all_returned(&source);
}
END_TEST

START_TEST(a_trace_of_mixed_alignments_does_not_pile_up)
{
    static const size_t alignments[] = {4096, 64, 64 * 1024, 256};
    struct counted source;
    larder_t *larder;
    uint64_t calls = 0;

    counted_init(&source, 0);
    larder = make_instance(LARDER_POLICY_EXACT, &source.backend);
    for (unsigned round = 0; round < 50; round++) {
        void *blocks[4];

        for (unsigned i = 0; i < 4; i++) {
            blocks[i] = larder_alloc_aligned(larder, alignments[i], 1000);
            ck_assert(is_aligned(blocks[i], alignments[i]));
        }
        for (unsigned i = 0; i < 4; i++)
            larder_free(larder, blocks[i]);
        if (round == 9)
            calls = count_of(&source.calls);
    }
    ck_assert_uint_eq(count_of(&source.calls), calls); /* each later round is served again */
    must_destroy(larder);
    assert_all_returned(&source);
}
END_TEST

START_TEST(a_release_leaves_no_block_of_a_size_whatever_lies_around_each)
{
    enum { BLOCKS = 20 };
    larder_config_t config;
    struct counted source;
    larder_t *larder;
    void *blocks[BLOCKS];

    counted_init(&source, 0);
    config = test_config(LARDER_POLICY_EXACT, &source.backend);
    config.padding_before = 16; /* as much as its alignment before a block of a larger one */
    larder = must_create(&config);
    for (unsigned i = 0; i < BLOCKS; i++)
        blocks[i] = larder_alloc_aligned(larder, i + 1 == BLOCKS ? 4096 : 64, 1000);
    for (unsigned i = 0; i < BLOCKS; i++)
        larder_free(larder, blocks[i]);
    larder_free_cached(larder);
    ck_assert_uint_eq(count_of(&source.outstanding_blocks), 0);
    must_destroy(larder);
    assert_all_returned(&source);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("exact");
    TCase *reuse = add_claims(suite, "reuse");

    tcase_add_loop_test(reuse, freed_blocks_of_a_size_come_back_last_in_first_out, 0, 5);
    tcase_add_test(reuse, a_repeated_trace_gets_the_same_addresses_again);
    tcase_add_test(reuse, a_repeated_trace_asks_the_backend_only_in_its_first_run);
    tcase_add_test(reuse, a_block_is_reused_for_its_exact_size_only);
    tcase_add_test(reuse, a_trace_of_mixed_alignments_does_not_pile_up);
    tcase_add_test(reuse, each_block_is_one_backend_allocation);
    tcase_add_test(reuse, a_release_leaves_no_block_of_a_size_whatever_lies_around_each);
    return run_suite(suite);
}
