/* SPDX-License-Identifier: MIT */
/*
 * The quarantine: freed blocks wait before they are handed out again, up to the bytes that the setting says, so that misuse
 * of them is caught whatever has been allocated in between.
 */
#include "support.h"

enum { SIZE_COUNT = 4, OTHERS = 20 };
static const size_t sizes[SIZE_COUNT] = {24, 1000, 100 * KIB, 300 * KIB};

/* -- Each policy -- */

static const larder_policy_t policies[] = {LARDER_POLICY_FIT, LARDER_POLICY_EXACT,
                                           LARDER_POLICY_PASSTHROUGH, LARDER_POLICY_PLANNED};
#define POLICY_COUNT 4

static larder_config_t quarantine_config(int policy)
{
    larder_config_t config = test_config(policies[policy], larder_backend_mmap());
    config.quarantine_bytes = 64 * MIB;
    config.fill = 0x5A;
    return config;
}

static void use_others(larder_t *larder, size_t size)
{
    for (int i = 0; i < OTHERS; i++) {
        void *other = larder_alloc(larder, size);
        ck_assert_ptr_nonnull(other);
        memset(other, i, size);
        larder_free(larder, other);
    }
}

START_TEST(a_double_free_is_caught_whatever_has_been_allocated_in_between)
{
    larder_config_t config = quarantine_config(_i);
    larder_t *larder = must_create(&config);
    for (int i = 0; i < SIZE_COUNT; i++) {
        void *block = larder_alloc(larder, sizes[i]);
        larder_free(larder, block);
        use_others(larder, sizes[i]);
        ck_assert_uint_eq(errors_recorded().count, 0);
        larder_free(larder, block);
        ck_assert_uint_eq(errors_recorded().count, 1);
        ck_assert_int_eq(errors_recorded().kind, LARDER_ERROR_DOUBLE_FREE);
        ck_assert_ptr_eq(errors_recorded().ptr, block);
        errors_reset();
    }
    ck_assert_uint_eq(stats_of(larder).live_blocks, 0);
    must_destroy(larder);
}
END_TEST

START_TEST(an_address_is_not_handed_out_while_it_waits)
{
    larder_config_t config = quarantine_config(_i);
    larder_t *larder = must_create(&config);
    for (int i = 0; i < SIZE_COUNT; i++) {
        void *block = larder_alloc(larder, sizes[i]);
        larder_free(larder, block);
        for (int j = 0; j < OTHERS; j++) {
            void *other = larder_alloc(larder, sizes[i]);
            ck_assert_ptr_ne(other, block);
            larder_free(larder, other);
        }
    }
    must_destroy(larder);
}
END_TEST

/* -- Writes to what waits -- */

static void write_to_a_freed_block(larder_t *larder, size_t size, ptrdiff_t at)
{
    unsigned char *block = larder_alloc(larder, size);
    larder_free(larder, block);
    use_others(larder, size);
    *(volatile unsigned char *)byte_at(block, at) = 1;
    ck_assert_uint_eq(errors_recorded().count, 0);
    larder_trim(larder, 0);
    ck_assert_uint_eq(errors_recorded().count, 1);
    ck_assert_int_eq(errors_recorded().kind, LARDER_ERROR_USE_AFTER_FREE);
    ck_assert_ptr_eq(errors_recorded().ptr, block);
    ck_assert_uint_eq(errors_recorded().size, size);
    errors_reset();
}

START_TEST(a_write_to_a_freed_block_is_told_when_it_leaves)
{
    if (UNDER_SANITIZER && !UNDER_THREAD_SANITIZER) /* which tells it at once: test_poison.c */
        return;
    larder_config_t config = quarantine_config(_i);
    config.redzone = 16;
    larder_t *larder = must_create(&config);
    for (int i = 0; i < SIZE_COUNT; i++) {
        ptrdiff_t end = (ptrdiff_t)sizes[i];
        write_to_a_freed_block(larder, sizes[i], 0);
        write_to_a_freed_block(larder, sizes[i], end - 1);
        write_to_a_freed_block(larder, sizes[i], end + 15);
        write_to_a_freed_block(larder, sizes[i], -16);
    }
    must_destroy(larder);
}
END_TEST

/* -- Its bounds -- */

START_TEST(it_holds_no_more_bytes_than_it_is_told)
{
    enum { SIZE = 1000, BLOCKS = 64 };
    struct counted counted;
    counted_init(&counted, 0);
    larder_config_t config = test_config(LARDER_POLICY_PASSTHROUGH, &counted.backend);
    leave_blocks_bare(&config);
    config.quarantine_bytes = 10 * SIZE + SIZE / 2;
    larder_t *larder = must_create(&config);
    for (unsigned i = 1; i <= BLOCKS; i++) {
        larder_free(larder, larder_alloc(larder, SIZE));
        ck_assert_uint_eq(count_of(&counted.outstanding_blocks), i < 10 ? i : 10);
        ck_assert_uint_eq(stats_of(larder).cached_bytes, (i < 10 ? i : 10) * SIZE);
        ck_assert_uint_eq(stats_of(larder).cached_blocks, i < 10 ? i : 10);
        ck_assert_uint_eq(stats_of(larder).live_blocks, 0);
        ck_assert_uint_eq(stats_of(larder).live_bytes, 0);
    }
    larder_free(larder, larder_alloc(larder, 11 * SIZE)); /* larger than all of it */
    ck_assert_uint_eq(count_of(&counted.outstanding_blocks), 10);
    must_destroy(larder);
    assert_all_returned(&counted);
}
END_TEST

START_TEST(it_holds_no_more_blocks_than_it_has_places)
{
    enum { PLACES = 16384 };
    larder_config_t config = quarantine_config(0);
    larder_t *larder = must_create(&config);
    for (int i = 0; i < PLACES + 100; i++)
        larder_free(larder, larder_alloc(larder, 1));
    ck_assert_uint_ge(stats_of(larder).cached_bytes, PLACES * 64);
    ck_assert_uint_le(stats_of(larder).allocations - stats_of(larder).frees, 0);
    must_destroy(larder);
}
END_TEST

START_TEST(the_cap_holds_for_it_too)
{
    larder_config_t config = quarantine_config(_i);
    config.max_cached_bytes = _i % 2 == 0 ? 256 * KIB : 0;
    larder_t *larder = must_create(&config);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < SIZE_COUNT; i++) {
            use_others(larder, sizes[i]);
            ck_assert_uint_le(stats_of(larder).cached_bytes, config.max_cached_bytes);
        }
    }
    ck_assert_uint_le(stats_of(larder).peak_cached_bytes, config.max_cached_bytes);
    must_destroy(larder);
}
END_TEST

START_TEST(a_trim_empties_it)
{
    larder_config_t config = quarantine_config(_i);
    larder_t *larder = must_create(&config);
    for (int i = 0; i < SIZE_COUNT; i++)
        use_others(larder, sizes[i]);
    ck_assert_uint_ge(stats_of(larder).cached_bytes, OTHERS * sizes[SIZE_COUNT - 1]);
    ck_assert_uint_eq(larder_trim(larder, 0), 0);
    must_destroy(larder);
}
END_TEST

/* -- Right use -- */

static void use_at_random(void *context, unsigned index)
{
    larder_t *larder = context;
    struct {
        void *ptr;
        size_t size;
    } blocks[32] = {{NULL, 0}};
    struct random random;
    random_init(&random, index);
    for (int step = 0; step < 1000; step++) {
        size_t i = random_between(&random, 0, 31);
        if (blocks[i].ptr != NULL) {
            expect(pattern_holds(blocks[i].ptr, blocks[i].size, index * 32 + i));
            larder_free(larder, blocks[i].ptr);
        }
        blocks[i].size = random_size(&random, 64 * KIB);
        blocks[i].ptr = larder_alloc(larder, blocks[i].size);
        expect(blocks[i].ptr != NULL);
        pattern_fill(blocks[i].ptr, blocks[i].size, index * 32 + i);
        if (step % 300 == 299)
            larder_trim(larder, index * 64 * KIB);
    }
    for (size_t i = 0; i < 32; i++)
        larder_free(larder, blocks[i].ptr);
}

START_TEST(threads_that_use_it_rightly_hear_nothing_and_lose_nothing)
{
    struct counted counted;
    counted_init(&counted, 0);
    larder_config_t config = quarantine_config(_i);
    config.backend = &counted.backend;
    config.quarantine_bytes = 256 * KIB;
    config.redzone = 8;
    config.checks = _i % 2 == 0 ? LARDER_CHECKS_DEFAULT : LARDER_CHECKS_STRICT;
    larder_t *larder = must_create(&config);
    run_threads(4, use_at_random, larder);
    larder_stats_t stats = stats_of(larder);
    ck_assert_uint_eq(stats.live_blocks, 0);
    ck_assert_uint_eq(stats.live_bytes, 0);
    ck_assert_uint_eq(larder_trim(larder, 0), 0);
    must_destroy(larder);
    assert_all_returned(&counted);
}
END_TEST

START_TEST(orphans_go_back_at_once)
{
    struct counted counted;
    counted_init(&counted, 0);
    larder_config_t config = quarantine_config(_i);
    config.backend = &counted.backend;
    larder_t *larder = must_create(&config);
    void *orphan = larder_alloc(larder, sizes[2]);
    use_others(larder, sizes[2]);
    ck_assert_uint_eq(larder_destroy(larder), 1);
    larder_free(NULL, orphan);
    assert_all_returned(&counted);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("quarantine");
    TCase *misuse = add_claims(suite, "misuse is caught");
    TCase *bounds = add_claims(suite, "it is bounded");
    TCase *use = add_claims(suite, "right use");

    tcase_add_loop_test(misuse, a_double_free_is_caught_whatever_has_been_allocated_in_between, 0,
                        POLICY_COUNT);
    tcase_add_loop_test(misuse, an_address_is_not_handed_out_while_it_waits, 0, POLICY_COUNT);
    tcase_add_loop_test(misuse, a_write_to_a_freed_block_is_told_when_it_leaves, 0, POLICY_COUNT);
    tcase_add_test(bounds, it_holds_no_more_bytes_than_it_is_told);
    tcase_add_test(bounds, it_holds_no_more_blocks_than_it_has_places);
    tcase_add_loop_test(bounds, the_cap_holds_for_it_too, 0, POLICY_COUNT);
    tcase_add_loop_test(bounds, a_trim_empties_it, 0, POLICY_COUNT);
    tcase_add_loop_test(use, threads_that_use_it_rightly_hear_nothing_and_lose_nothing, 0,
                        POLICY_COUNT);
    tcase_add_loop_test(use, orphans_go_back_at_once, 0, POLICY_COUNT);
    return run_suite(suite);
}
