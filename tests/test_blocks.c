/* SPDX-License-Identifier: MIT */
/*
 * What every block promises, whatever the policy and wherever memory comes from: alignment, room,
 * contents, padding, and a clean answer to sizes that no machine could serve.
 */
#include "support.h"

/* one of each kind: tiny, class edges, page edges, large, and the sizes of tensors */
static const size_t sizes[] = {0,       1,
                               7,       8,
                               15,      16,
                               17,      63,
                               64,      65,
                               127,     128,
                               129,     500,
                               512,     513,
                               1000,    1024,
                               4000,    4095,
                               4096,    4097,
                               8192,    10000,
                               16384,   32768,
                               65535,   65536,
                               65537,   100000,
                               401408,  1024 * 1024,
                               1500000, 3 * 1024 * 1024 + 1};
#define SIZE_COUNT (sizeof sizes / sizeof sizes[0])

static const size_t absurd_sizes[] = {SIZE_MAX,        SIZE_MAX - 1,     SIZE_MAX - 15,
                                      SIZE_MAX - 63,   SIZE_MAX - 4095,  SIZE_MAX - 4096,
                                      SIZE_MAX - 8191, SIZE_MAX / 2 + 1, SIZE_MAX / 2 + 4096};
#define ABSURD_COUNT (sizeof absurd_sizes / sizeof absurd_sizes[0])

#define SKIP_WITHOUT_BACKEND(config)                                                               \
    if (!variant_config(_i, &(config)))                                                            \
    return

START_TEST(blocks_have_the_alignment_of_their_instance)
{
    larder_config_t config;

    SKIP_WITHOUT_BACKEND(config);
    for (size_t alignment = 8; alignment <= 4096; alignment *= 2) {
        void *blocks[SIZE_COUNT];
        larder_t *larder;

        config.alignment = alignment;
        larder = must_create(&config);
        for (unsigned round = 0; round < 2; round++) { /* fresh ones, then cached ones */
            for (size_t i = 0; i < SIZE_COUNT; i++) {
                blocks[i] = larder_alloc(larder, sizes[i]);
                ck_assert_ptr_nonnull(blocks[i]);
                ck_assert_msg(is_aligned(blocks[i], alignment), "size %zu at %p", sizes[i],
                              blocks[i]);
            }
            for (size_t i = 0; i < SIZE_COUNT; i++)
                larder_free(larder, blocks[i]);
        }
        must_destroy(larder);
    }
}
END_TEST

START_TEST(an_alignment_can_be_asked_for_block_by_block)
{
    larder_config_t config;
    larder_t *larder;

    SKIP_WITHOUT_BACKEND(config);
    larder = must_create(&config);
    for (size_t alignment = 1; alignment <= 256 * KIB; alignment *= 2) {
        for (size_t i = 0; i < SIZE_COUNT; i++) {
            void *block = larder_alloc_aligned(larder, alignment, sizes[i]);

            ck_assert_ptr_nonnull(block);
            ck_assert_msg(is_aligned(block, alignment) && is_aligned(block, 64),
                          "size %zu, alignment %zu, at %p", sizes[i], alignment, block);
            ck_assert_uint_ge(larder_usable_size(block), sizes[i]);
            pattern_fill(block, sizes[i], i);
            ck_assert(pattern_holds(block, sizes[i], i));
            larder_free(larder, block);
        }
    }
    must_destroy(larder);
}
END_TEST

START_TEST(an_alignment_beyond_reason_is_served_or_refused_but_harmless)
{
    larder_config_t config;
    larder_t *larder;
    size_t highest = SIZE_MAX / 2 + 1;

    SKIP_WITHOUT_BACKEND(config);
    if (emulated_or_note("alignments above 1 GiB: it keeps a record of each page, used or not"))
        highest = KIB * MIB;
    larder = must_create(&config);
    for (size_t alignment = MIB; alignment != 0 && alignment <= highest; alignment *= 2) {
        void *block;

        errno = 0;
        block = larder_alloc_aligned(larder, alignment, 100);
        if (block) {
            ck_assert(is_aligned(block, alignment));
            memset(block, 1, 100);
        } else {
            ck_assert(errno == ENOMEM || errno == EOVERFLOW);
        }
        larder_free(larder, block);
    }
    ck_assert_uint_eq(stats_of(larder).live_blocks, 0);
    must_destroy(larder);
}
END_TEST

START_TEST(an_alignment_that_is_no_power_of_two_is_refused)
{
    static const size_t bad[] = {0, 3, 48, 100, 4097, SIZE_MAX};
    larder_config_t config;
    larder_t *larder;

    SKIP_WITHOUT_BACKEND(config);
    larder = must_create(&config);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        errno = 0;
        ck_assert_ptr_null(larder_alloc_aligned(larder, bad[i], 100));
        ck_assert_int_eq(errno, EINVAL);
    }
    must_destroy(larder);
}
END_TEST

START_TEST(no_two_live_blocks_overlap_in_all_of_their_usable_size)
{
    larder_config_t config;
    larder_t *larder;
    void *blocks[4 * SIZE_COUNT];
    struct random random;

    SKIP_WITHOUT_BACKEND(config);
    larder = must_create(&config);
    random_init(&random, 1);
    for (size_t i = 0; i < 4 * SIZE_COUNT; i++)
        blocks[i] = NULL;
    for (unsigned step = 0; step < 2000; step++) {
        size_t i = random_between(&random, 0, 4 * SIZE_COUNT - 1);
        size_t size = sizes[i % SIZE_COUNT];

        if (blocks[i]) {
            ck_assert(pattern_holds(blocks[i], larder_usable_size(blocks[i]), i));
            larder_free(larder, blocks[i]);
            blocks[i] = NULL;
            continue;
        }
        blocks[i] = larder_alloc(larder, size);
        ck_assert_ptr_nonnull(blocks[i]);
        ck_assert_uint_ge(larder_usable_size(blocks[i]), size);
        pattern_fill(blocks[i], larder_usable_size(blocks[i]), i);
    }
    for (size_t i = 0; i < 4 * SIZE_COUNT; i++) {
        ck_assert(!blocks[i] || pattern_holds(blocks[i], larder_usable_size(blocks[i]), i));
        larder_free(larder, blocks[i]);
    }
    must_destroy(larder);
}
END_TEST

START_TEST(good_size_tells_the_usable_size_beforehand)
{
    larder_config_t config;
    larder_t *larder;

    SKIP_WITHOUT_BACKEND(config);
    larder = must_create(&config);
    for (size_t i = 0; i < SIZE_COUNT; i++) {
        size_t good = larder_good_size(larder, sizes[i]);
        void *block = larder_alloc(larder, sizes[i]);

        ck_assert_uint_ge(good, sizes[i]);
        ck_assert_msg(larder_usable_size(block) == good, "size %zu: usable %zu, good %zu", sizes[i],
                      larder_usable_size(block), good);
        larder_free(larder, block);
    }
    for (size_t i = 0; i < ABSURD_COUNT; i++)
        ck_assert_uint_eq(larder_good_size(larder, absurd_sizes[i]), SIZE_MAX);
    ck_assert_uint_eq(larder_usable_size(NULL), 0);
    must_destroy(larder);
}
END_TEST

START_TEST(blocks_of_no_bytes_are_blocks_of_their_own)
{
    larder_config_t config;
    larder_t *larder;
    void *blocks[100];

    SKIP_WITHOUT_BACKEND(config);
    larder = must_create(&config);
    for (unsigned i = 0; i < 100; i++) {
        blocks[i] = i % 3 == 0   ? larder_alloc(larder, 0)
                    : i % 3 == 1 ? larder_calloc(larder, 0, 8)
                                 : larder_realloc(larder, NULL, 0);
        ck_assert_ptr_nonnull(blocks[i]);
        for (unsigned j = 0; j < i; j++)
            ck_assert_ptr_ne(blocks[i], blocks[j]);
    }
    ck_assert_uint_eq(stats_of(larder).live_blocks, 100);
    for (unsigned i = 0; i < 100; i++)
        larder_free(larder, blocks[i]);
    larder_free(larder, NULL);
    must_destroy(larder);
}
END_TEST

START_TEST(an_absurd_size_fails_with_eoverflow_and_leaves_no_trace)
{
    larder_config_t config;
    larder_t *larder;
    larder_stats_t before, after;

    SKIP_WITHOUT_BACKEND(config);
    larder = must_create(&config);
    larder_free(larder, larder_alloc(larder, 100));
    before = stats_of(larder);
    for (size_t i = 0; i < ABSURD_COUNT; i++) {
        errno = 0;
        ck_assert_ptr_null(larder_alloc(larder, absurd_sizes[i]));
        ck_assert_int_eq(errno, EOVERFLOW);
        errno = 0;
        ck_assert_ptr_null(larder_alloc_aligned(larder, 4096, absurd_sizes[i]));
        ck_assert_int_eq(errno, EOVERFLOW);
        errno = 0;
        ck_assert_ptr_null(larder_calloc(larder, 1, absurd_sizes[i]));
        ck_assert_int_eq(errno, EOVERFLOW);
    }
    after = stats_of(larder);
    ck_assert_uint_eq(after.live_blocks, 0);
    ck_assert_uint_eq(after.cached_bytes, before.cached_bytes);
    must_destroy(larder);
}
END_TEST

START_TEST(calloc_gives_zeros_though_the_memory_was_used_before)
{
    larder_config_t config;
    larder_t *larder;

    SKIP_WITHOUT_BACKEND(config);
    larder = must_create(&config);
    for (unsigned round = 0; round < 3; round++) {
        for (size_t i = 0; i < SIZE_COUNT; i++) {
            unsigned char *block = larder_calloc(larder, sizes[i], 1);

            ck_assert_ptr_nonnull(block);
            ck_assert_msg(all_bytes_are(block, sizes[i], 0), "size %zu", sizes[i]);
            memset(block, 0xA5, sizes[i]);
            larder_free(larder, block);
        }
    }
    must_destroy(larder);
}
END_TEST

START_TEST(a_product_that_overflows_is_refused_by_calloc)
{
    static const size_t products[][2] = {
        {SIZE_MAX, 2}, {2, SIZE_MAX}, {SIZE_MAX / 2 + 1, 2}, {SIZE_MAX / 8 + 1, 8}};
    larder_config_t config;
    larder_t *larder;

    SKIP_WITHOUT_BACKEND(config);
    larder = must_create(&config);
    for (size_t i = 0; i < sizeof products / sizeof products[0]; i++) {
        errno = 0;
        ck_assert_ptr_null(larder_calloc(larder, products[i][0], products[i][1]));
        ck_assert_int_eq(errno, EOVERFLOW);
    }
    must_destroy(larder);
}
END_TEST

START_TEST(padding_around_a_block_can_be_read)
{
    static const size_t paddings[] = {16, 64, 100, 4096};
    static volatile unsigned char sink; /* keeps the reads */
    larder_config_t config;

    SKIP_WITHOUT_BACKEND(config);
    for (size_t p = 0; p < sizeof paddings / sizeof paddings[0]; p++) {
        void *blocks[SIZE_COUNT];
        larder_t *larder;

        config.padding_before = paddings[p];
        config.padding_after = paddings[p];
        larder = must_create(&config);
        for (size_t i = 0; i < SIZE_COUNT; i++) {
            const unsigned char *block = blocks[i] = larder_alloc(larder, sizes[i]);

            ck_assert_ptr_nonnull(block);
            ck_assert(is_aligned(block, 64));
            for (size_t k = 1; k <= paddings[p]; k++)
                sink = (unsigned char)(sink + block[-(ptrdiff_t)k] + block[sizes[i] + k - 1]);
        }
        for (size_t i = 0; i < SIZE_COUNT; i++)
            larder_free(larder, blocks[i]);
        must_destroy(larder);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("blocks");
    TCase *claims = add_claims(suite, "each policy over each backend");

    tcase_add_loop_test(claims, blocks_have_the_alignment_of_their_instance, 0, VARIANT_COUNT);
    tcase_add_loop_test(claims, an_alignment_can_be_asked_for_block_by_block, 0, VARIANT_COUNT);
    tcase_add_loop_test(claims, an_alignment_beyond_reason_is_served_or_refused_but_harmless, 0,
                        VARIANT_COUNT);
    tcase_add_loop_test(claims, an_alignment_that_is_no_power_of_two_is_refused, 0, VARIANT_COUNT);
    tcase_add_loop_test(claims, no_two_live_blocks_overlap_in_all_of_their_usable_size, 0,
                        VARIANT_COUNT);
    tcase_add_loop_test(claims, good_size_tells_the_usable_size_beforehand, 0, VARIANT_COUNT);
    tcase_add_loop_test(claims, blocks_of_no_bytes_are_blocks_of_their_own, 0, VARIANT_COUNT);
    tcase_add_loop_test(claims, an_absurd_size_fails_with_eoverflow_and_leaves_no_trace, 0,
                        VARIANT_COUNT);
    tcase_add_loop_test(claims, calloc_gives_zeros_though_the_memory_was_used_before, 0,
                        VARIANT_COUNT);
    tcase_add_loop_test(claims, a_product_that_overflows_is_refused_by_calloc, 0, VARIANT_COUNT);
    tcase_add_loop_test(claims, padding_around_a_block_can_be_read, 0, VARIANT_COUNT);
    return run_suite(suite);
}
