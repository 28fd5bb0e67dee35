/* SPDX-License-Identifier: MIT */
/*
 * Changing a block's size: contents are kept, failure leaves the block alone, and the block stays
 * with the instance that made it.
 */
#include "support.h"

static const size_t steps[] = {1,         64,    100,     100,     5000,          4096,
                               64 * 1024, 70000, 1 << 20, 3 << 20, (3 << 20) + 1, 2 << 20,
                               90000,     33,    0,       12};
#define STEP_COUNT (sizeof steps / sizeof steps[0])

START_TEST(realloc_keeps_contents_up_to_the_smaller_size)
{
    larder_config_t config;
    larder_t *larder;
    unsigned char *block;
    size_t size = 10;

    if (!variant_config(_i, &config))
        return;
    larder = must_create(&config);
    block = larder_alloc(larder, size);
    for (size_t i = 0; i < STEP_COUNT; i++) {
        size_t kept = size < steps[i] ? size : steps[i], wrong;
        unsigned char *moved;

        for (size_t k = 0; k < size; k++)
            block[k] = (unsigned char)(k * 31 + i);
        moved = larder_realloc(larder, block, steps[i]);
        ck_assert_ptr_nonnull(moved);
        ck_assert(is_aligned(moved, 64));
        for (wrong = 0; wrong < kept && moved[wrong] == (unsigned char)(wrong * 31 + i); wrong++) {
        }
        ck_assert_msg(wrong == kept, "%zu to %zu bytes, byte %zu", size, steps[i], wrong);
        ck_assert_uint_ge(larder_usable_size(moved), steps[i]);
        ck_assert_uint_eq(stats_of(larder).live_blocks, 1);
        ck_assert_uint_eq(stats_of(larder).live_bytes, steps[i]);
        block = moved;
        size = steps[i];
    }
    larder_free(larder, block);
    must_destroy(larder);
}
END_TEST

START_TEST(realloc_of_null_allocates)
{
    larder_config_t config;
    larder_t *larder;
    void *block;

    if (!variant_config(_i, &config))
        return;
    larder = must_create(&config);
    block = larder_realloc(larder, NULL, 1000);
    ck_assert_ptr_eq(larder_owner(block), larder);
    ck_assert_uint_eq(stats_of(larder).live_bytes, 1000);
    larder_free(larder, block);
    must_destroy(larder);
}
END_TEST

START_TEST(a_realloc_that_fails_keeps_the_block)
{
    larder_config_t config;
    larder_t *larder;
    void *block;

    if (!variant_config(_i, &config))
        return;
    larder = must_create(&config);
    block = larder_alloc(larder, 5000);
    pattern_fill(block, 5000, 7);
    for (unsigned i = 0; i < 3; i++) {
        volatile size_t absurd = SIZE_MAX - 100 * i;

        errno = 0;
        ck_assert_ptr_null(larder_realloc(larder, block, absurd));
        ck_assert_int_eq(errno, EOVERFLOW);
    }
    ck_assert(pattern_holds(block, 5000, 7));
    ck_assert_ptr_eq(larder_owner(block), larder);
    ck_assert_uint_eq(stats_of(larder).live_bytes, 5000);
    larder_free(larder, block);
    must_destroy(larder);
}
END_TEST

START_TEST(a_realloc_for_which_there_is_no_memory_keeps_the_block)
{
    struct counted source;
    larder_t *larder;
    void *block, *moved;

    counted_init(&source, 0);
    larder = make_instance((larder_policy_t)_i, &source.backend);
    block = larder_alloc(larder, 5000);
    pattern_fill(block, 5000, 7);
    atomic_store(&source.fail_from, 1);
    errno = 0;
    ck_assert_ptr_null(larder_realloc(larder, block, 512 * MIB));
    ck_assert_int_eq(errno, ENOMEM);
    ck_assert(pattern_holds(block, 5000, 7));
    ck_assert_uint_eq(stats_of(larder).live_bytes, 5000);
    atomic_store(&source.fail_from, 0);
    moved = larder_realloc(larder, block, 100000);
    ck_assert_ptr_nonnull(moved);
    ck_assert(pattern_holds(moved, 5000, 7));
    larder_free(larder, moved);
    must_destroy(larder);
    assert_all_returned(&source);
}
END_TEST

START_TEST(a_block_stays_with_its_owner_though_another_instance_is_named)
{
    larder_config_t config;
    larder_t *owner, *other;
    void *block;

    if (!variant_config(_i, &config))
        return;
    owner = must_create(&config);
    other = must_create(&config);
    block = larder_alloc(owner, 100);
    pattern_fill(block, 100, 3);
    for (size_t i = 0; i < STEP_COUNT; i++) {
        size_t size = steps[i] < 100 ? 100 : steps[i];

        block = larder_realloc(other, block, size);
        ck_assert_ptr_eq(larder_owner(block), owner);
        ck_assert(pattern_holds(block, 100, 3));
        ck_assert_uint_eq(stats_of(owner).live_bytes, size);
        ck_assert_uint_eq(stats_of(other).live_blocks, 0);
    }
    larder_free(other, block);
    must_destroy(owner);
    must_destroy(other);
}
END_TEST

START_TEST(many_blocks_that_grow_in_turn_stay_apart)
{
    enum { BLOCKS = 64 };
    larder_config_t config;
    larder_t *larder;
    struct random random;
    void *blocks[BLOCKS] = {NULL};
    size_t size[BLOCKS] = {0};

    if (!variant_config(_i, &config))
        return;
    larder = must_create(&config);
    random_init(&random, 2);
    for (unsigned step = 0; step < 2000; step++) {
        size_t i = random_between(&random, 0, BLOCKS - 1);
        size_t wanted = random_size(&random, 256 * KIB);
        void *moved;

        ck_assert(!blocks[i] || pattern_holds(blocks[i], size[i], i));
        moved = larder_realloc(larder, blocks[i], wanted);
        ck_assert_ptr_nonnull(moved);
        if (wanted <= 16 * KIB && size[i] <= 16 * KIB) /* there each byte is written */
            ck_assert(pattern_holds(moved, wanted < size[i] ? wanted : size[i], i));
        pattern_fill(moved, wanted, i);
        blocks[i] = moved;
        size[i] = wanted;
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        ck_assert(!blocks[i] || pattern_holds(blocks[i], size[i], i));
        larder_free(larder, blocks[i]);
    }
    must_destroy(larder);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("realloc");
    TCase *claims = add_claims(suite, "each policy over each backend");

    tcase_add_loop_test(claims, realloc_keeps_contents_up_to_the_smaller_size, 0, VARIANT_COUNT);
    tcase_add_loop_test(claims, realloc_of_null_allocates, 0, VARIANT_COUNT);
    tcase_add_loop_test(claims, a_realloc_that_fails_keeps_the_block, 0, VARIANT_COUNT);
    tcase_add_loop_test(claims, a_realloc_for_which_there_is_no_memory_keeps_the_block, 0, 3);
    tcase_add_loop_test(claims, a_block_stays_with_its_owner_though_another_instance_is_named, 0,
                        VARIANT_COUNT);
    tcase_add_loop_test(claims, many_blocks_that_grow_in_turn_stay_apart, 0, VARIANT_COUNT);
    return run_suite(suite);
}
