/* SPDX-License-Identifier: MIT */
/*
 * 64-bit ARM ignores the top byte of an address, and Android's malloc puts a tag there. larder tells blocks by the
 * rest: a pointer that its owner has tagged is the block's, whatever call it comes to. It hands out addresses without. On other
 * machines there are no tags.
 */
#include "support.h"

#include <stdio.h>

#if defined(__aarch64__)

enum { SIZE_COUNT = 4 };
static const size_t sizes[SIZE_COUNT] = {16, 1000, 100 * KIB, 2 * MIB};

static void *tagged(const void *ptr, uint64_t tag)
{
    return (void *)((uintptr_t)ptr | tag << 56);
}

START_TEST(a_tagged_pointer_is_its_block)
{
    larder_config_t config;
    if (!variant_config(_i, &config))
        return;
    larder_t *larder = must_create(&config);
    for (uint64_t tag = 1; tag < 256; tag += 127) {
        for (int i = 0; i < SIZE_COUNT; i++) {
            void *block = larder_alloc(larder, sizes[i]);
            ck_assert_uint_eq((uintptr_t)block >> 56, 0);
            pattern_fill(block, sizes[i], 7);
            ck_assert_ptr_eq(larder_owner(tagged(block, tag)), larder);
            ck_assert_uint_eq(larder_usable_size(tagged(block, tag)), larder_usable_size(block));
            void *moved = larder_realloc(larder, tagged(block, tag), 3 * sizes[i]);
            ck_assert(pattern_holds(moved, sizes[i], 7));
            larder_free(larder, tagged(moved, tag ^ 1));
        }
    }
    ck_assert_uint_eq(stats_of(larder).live_blocks, 0);
    ck_assert_uint_eq(errors_recorded().count, 0);
    must_destroy(larder);
}
END_TEST

START_TEST(a_double_free_under_another_tag_is_caught)
{
    larder_t *larder = make_instance(caching_policies[_i], larder_backend_mmap());
    for (int i = 0; i < SIZE_COUNT; i++) {
        void *block = larder_alloc(larder, sizes[i]), *kept = larder_alloc(larder, sizes[i]);
        larder_free(larder, tagged(block, 3));
        larder_free(larder, tagged(block, 4));
        ck_assert_uint_eq(errors_recorded().count, 1);
        ck_assert_int_eq(errors_recorded().kind, LARDER_ERROR_DOUBLE_FREE);
        errors_reset();
        void *again = larder_alloc(larder, sizes[i]);
        ck_assert_uint_eq((uintptr_t)again >> 56, 0);
        larder_free(larder, again);
        larder_free(larder, kept);
    }
    must_destroy(larder);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tagged");
    TCase *claims = add_claims(suite, "addresses with a tag in the top byte");

    tcase_add_loop_test(claims, a_tagged_pointer_is_its_block, 0, VARIANT_COUNT);
    tcase_add_loop_test(claims, a_double_free_under_another_tag_is_caught, 0, CACHING_POLICY_COUNT);
    return run_suite(suite);
}

#else

int main(void)
{
    fprintf(stderr, "skipped: only 64-bit ARM has tagged addresses\n");
    return 77;
}

#endif
