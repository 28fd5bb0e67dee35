/* SPDX-License-Identifier: MIT */
/*
 * Help for debugging: redzones around blocks are checked when they are freed, and fresh blocks are
 * filled with a known byte.
 */
#include "support.h"

static const size_t block_sizes[] = {0, 1, 64, 1000, 4096, 100000, 2 * 1024 * 1024};
#define SIZE_COUNT 7

static larder_t *make_with_redzones(int variant, size_t redzone)
{
    larder_config_t config;

    if (!variant_config(variant, &config))
        return NULL;
    config.redzone = redzone;
    return must_create(&config);
}

START_TEST(untouched_redzones_are_silent)
{
    static const size_t redzones[] = {1, 16, 64, 100, 4096};

    for (unsigned r = 0; r < 5; r++) {
        larder_t *larder = make_with_redzones(_i, redzones[r]);

        if (!larder)
            return;
        for (unsigned round = 0; round < 3 * SIZE_COUNT; round++) {
            size_t size = block_sizes[round % SIZE_COUNT];
            void *block = larder_alloc(larder, size);

            ck_assert_ptr_nonnull(block);
            ck_assert(is_aligned(block, 64));
            memset(block, 0x11, larder_usable_size(block));
            larder_free(larder, block);
        }
        must_destroy(larder);
    }
}
END_TEST

#if !UNDER_SANITIZER /* which would find the byte itself, earlier */
/* Writes one byte beside a block of each size, and says how often that was found at the free. */
static unsigned count_found(larder_t *larder, bool before, size_t distance)
{
    unsigned found = 0;

    for (unsigned i = 0; i < SIZE_COUNT; i++) {
        unsigned char *block = larder_alloc(larder, block_sizes[i]);
        size_t after = larder_usable_size(block) + distance;
        unsigned char *beside =
            byte_at(block, before ? -1 - (ptrdiff_t)distance : (ptrdiff_t)after);
        unsigned char right = *beside;
        struct error_log error;

        errors_reset();
        *beside = (unsigned char)~right;
        larder_free(larder, block);
        error = errors_recorded();
        if (error.count == 1 && error.kind == LARDER_ERROR_REDZONE && error.ptr == block)
            found++;
        if (larder_owner(block) == larder) { /* the bad free was ignored: repair and repeat */
            *beside = right;
            larder_free(larder, block);
        }
    }
    errors_reset();
    return found;
}

START_TEST(a_byte_written_beside_a_block_is_found_at_its_free)
{
    larder_t *larder = make_with_redzones(_i, 64);

    if (!larder)
        return;
    ck_assert_uint_eq(count_found(larder, true, 0), SIZE_COUNT);
    ck_assert_uint_eq(count_found(larder, true, 63), SIZE_COUNT);
    ck_assert_uint_eq(count_found(larder, false, 0), SIZE_COUNT);
    ck_assert_uint_eq(count_found(larder, false, 63), SIZE_COUNT);
    ck_assert_uint_eq(stats_of(larder).errors, 4 * SIZE_COUNT);
    ck_assert_uint_eq(larder_destroy(larder), 0);
}
END_TEST
#endif

/* What builds with all checks do unasked, and others do not. */
START_TEST(a_build_with_all_checks_surrounds_and_fills_blocks_unasked)
{
    larder_config_t config;
    larder_t *larder;
    unsigned char *block;
    bool fills = false;

    if (!variant_config(_i, &config))
        return;
    larder = must_create(&config);
#ifdef LARDER_CHECKS_FULL
    fills = true;
#if !UNDER_SANITIZER
    ck_assert_uint_eq(count_found(larder, true, 0), SIZE_COUNT);
    ck_assert_uint_eq(count_found(larder, false, 31), SIZE_COUNT);
#endif
#endif
    block = larder_alloc(larder, 1000);
    memset(block, 0x11, 1000);
    ck_assert(!fills || config.fill == 0xDB);
    larder_free(larder, block);
    block = larder_alloc(larder, 1000);
    ck_assert(all_bytes_are(block, 1000, 0xDB) == fills);
    larder_free(larder, block);
    ck_assert_uint_eq(larder_destroy(larder), 0);
}
END_TEST

START_TEST(fresh_blocks_are_filled_with_the_byte_asked_for)
{
    static const int fills[] = {0, 0xCD, 255};
    larder_config_t config;

    for (unsigned f = 0; f < 3; f++) {
        larder_t *larder;

        if (!variant_config(_i, &config))
            return;
        config.fill = fills[f];
        larder = must_create(&config);
        for (unsigned round = 0; round < 3 * SIZE_COUNT; round++) {
            size_t size = block_sizes[round % SIZE_COUNT];
            unsigned char *block = larder_alloc(larder, size), *zero;

            ck_assert_msg(all_bytes_are(block, size, fills[f]), "size %zu", size);
            memset(block, 0x11, size);
            larder_free(larder, block);
            zero = larder_calloc(larder, 1, size);
            ck_assert(all_bytes_are(zero, size, 0)); /* calloc's promise is the stronger */
            larder_free(larder, zero);
        }
        must_destroy(larder);
    }
}
END_TEST

#if !UNDER_SANITIZER
/* -- A free that comes while another one looks at the block -- */

struct second {
    larder_t *larder;
    unsigned frees, redzones, doubles;
};

static void *free_again(void *argument)
{
    void **pair = argument;

    larder_free(pair[0], pair[1]);
    return NULL;
}

/* Told of the redzone, has another thread free the block, before the first free goes on to fill it. */
static void free_meanwhile(void *context, const larder_error_t *error)
{
    struct second *second = context;
    void *pair[] = {second->larder, (void *)(uintptr_t)error->ptr};
    pthread_t thread;

    second->doubles += error->kind == LARDER_ERROR_DOUBLE_FREE;
    second->redzones += error->kind == LARDER_ERROR_REDZONE;
    if (second->frees++ != 0)
        return;
    expect(pthread_create(&thread, NULL, free_again, pair) == 0);
    pthread_join(thread, NULL);
}

/* Every policy, default and strict checks, with and without a quarantine. */
static larder_t *make_for_a_second_free(int bits, struct second *second)
{
    larder_config_t config =
        test_config((larder_policy_t)(bits >> 2), larder_backend_by_name("mmap"));

    config.checks = bits & 1 ? LARDER_CHECKS_STRICT : LARDER_CHECKS_DEFAULT;
    config.quarantine_bytes = bits & 2 ? 16 * MIB : 0;
    config.redzone = 16;
    config.fill = 0xDB;
    config.error_handler = free_meanwhile;
    config.error_context = second;
    return must_create(&config);
}

static void free_overrun_block(struct second *second, size_t size)
{
    unsigned char *block = larder_alloc(second->larder, size);

    ck_assert_ptr_nonnull(block);
    *byte_at(block, (ptrdiff_t)size) ^= 0xFF;
    *second = (struct second){.larder = second->larder};
    larder_free(second->larder, block);
    ck_assert_msg(second->redzones == 1 && second->doubles == 1, "%zu bytes: %u redzones, %u twice",
                  size, second->redzones, second->doubles);
}

START_TEST(a_block_is_nobodys_before_it_is_looked_at_and_filled)
{
    struct second second = {0};

    second.larder = make_for_a_second_free(_i, &second);
    for (unsigned i = 0; i < SIZE_COUNT; i++)
        free_overrun_block(&second, block_sizes[i]);
    if (_i >> 2 == LARDER_POLICY_PLANNED) { /* and those of an arena */
        for (unsigned round = 0; round < 3; round++) {
            void *blocks[2];

            ck_assert_int_eq(larder_plan_begin(second.larder, 1), 0);
            if (round == 2) {
                free_overrun_block(&second, 300000);
                free_overrun_block(&second, 300000);
            }
            for (unsigned i = 0; i < 2; i++)
                ck_assert_ptr_nonnull(blocks[i] = larder_alloc(second.larder, 300000));
            for (unsigned i = 0; i < 2; i++)
                larder_free(second.larder, blocks[i]);
            ck_assert_int_eq(larder_plan_end(second.larder), 0);
        }
    }
    must_destroy(second.larder);
}
END_TEST
#endif

int main(void)
{
    Suite *suite = suite_create("debugging help");
    TCase *claims = add_claims(suite, "redzones and fill");

    tcase_add_loop_test(claims, untouched_redzones_are_silent, 0, VARIANT_COUNT);
#if !UNDER_SANITIZER
    tcase_add_loop_test(claims, a_byte_written_beside_a_block_is_found_at_its_free, 0,
                        VARIANT_COUNT);
#endif
#if !UNDER_SANITIZER
    tcase_add_loop_test(claims, a_block_is_nobodys_before_it_is_looked_at_and_filled, 0, 4 << 2);
#endif
    tcase_add_loop_test(claims, a_build_with_all_checks_surrounds_and_fills_blocks_unasked, 0,
                        VARIANT_COUNT);
    tcase_add_loop_test(claims, fresh_blocks_are_filled_with_the_byte_asked_for, 0, VARIANT_COUNT);
    return run_suite(suite);
}
