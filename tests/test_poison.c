/* SPDX-License-Identifier: MIT */
/*
 * AddressSanitizer and Valgrind know which blocks are cached: an access to one is reported, and an access to what has been
 * handed out again, or to the padding of a live block, is not. AddressSanitizer ends the process, so that each use is tried in one of
 * its own; Valgrind counts, and this program is started by it where the build tells it anything. In other builds there is
 * nothing to see, and the suite says so.
 */
#include "poison.h"
#include "support.h"

#include <stdio.h>

#if POISON_ACTIVE

/* Multiples of 8: a part of eight bytes may be poisoned only from its end on. */
enum { SIZE_COUNT = 5 };
static const size_t sizes[SIZE_COUNT] = {8, 64, 1000, 100000, 2 * 1024 * 1024};

struct use {
    larder_t *larder;
    unsigned char *block;
    size_t at;
};

static void read_byte(void *context)
{
    const struct use *use = context;
    volatile unsigned char byte = *byte_at(use->block, (ptrdiff_t)use->at);
    (void)byte;
}

static void write_byte(void *context)
{
    const struct use *use = context;
    *(volatile unsigned char *)byte_at(use->block, (ptrdiff_t)use->at) = 1;
}

#ifdef POISON_ASAN

static void assert_reported(void (*body)(void *context), struct use *use, size_t size)
{
    struct child_end end = run_in_child(body, use);
    ck_assert_msg(strstr(end.output, "AddressSanitizer") != NULL && end.status != 0,
                  "byte %zu of a freed block of %zu: not reported: %s", use->at, size, end.output);
    ck_assert_msg(strstr(end.output, "use-after-poison") != NULL, "%s", end.output);
}

static void assert_nothing_reported(void)
{
    /* the process would have ended */
}

static bool is_watched(void)
{
    return true;
}

static bool is_out_of_sight(const char *backend)
{
    (void)backend;
    return false;
}

#else

static unsigned long reports_expected;

static void assert_reported(void (*body)(void *context), struct use *use, size_t size)
{
    body(use);
    ck_assert_msg(VALGRIND_COUNT_ERRORS == ++reports_expected,
                  "byte %zu of a freed block of %zu: not reported", use->at, size);
}

static void assert_nothing_reported(void)
{
    ck_assert_uint_eq(VALGRIND_COUNT_ERRORS, reports_expected);
}

static bool is_watched(void)
{
    return RUNNING_ON_VALGRIND != 0;
}

/* Valgrind takes over mimalloc's free(), but not what its blocks come from. */
static bool is_out_of_sight(const char *backend)
{
    return strcmp(backend, "mimalloc") == 0;
}

#endif

/* The variant's configuration; true where there is none, or none that can be watched. */
static bool config_unwatched(int variant, larder_config_t *config)
{
    return is_out_of_sight(variants[variant].backend_name) || !variant_config(variant, config);
}

START_TEST(a_use_after_free_is_reported)
{
    larder_config_t config;
    if (config_unwatched(_i, &config) || config.policy == LARDER_POLICY_PASSTHROUGH)
        return;
    larder_t *larder = must_create(&config);
    for (int i = 0; i < SIZE_COUNT; i++) {
        struct use use = {larder, larder_alloc(larder, sizes[i]), 0};
        ck_assert_ptr_nonnull(use.block);
        memset(use.block, 1, larder_usable_size(use.block));
        larder_free(larder, use.block);
        assert_reported(read_byte, &use, sizes[i]);
        use.at = sizes[i] - 1;
        assert_reported(write_byte, &use, sizes[i]);
    }
    must_destroy(larder);
}
END_TEST

/* The hit path, the way through the depot and heap, and what a trim has left. */
START_TEST(a_use_after_free_is_reported_wherever_the_block_went)
{
    enum { BLOCKS = 400 };
    static unsigned char *blocks[SIZE_COUNT - 1][BLOCKS];
    larder_t *larder = make_bare_instance(caching_policies[_i], larder_backend_mmap());
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < SIZE_COUNT - 1; i++) {
            for (int j = 0; j < BLOCKS; j++) {
                blocks[i][j] = larder_alloc(larder, sizes[i]);
                memset(blocks[i][j], round, sizes[i]);
            }
        }
        for (int i = 0; i < SIZE_COUNT - 1; i++) {
            for (int j = 0; j < BLOCKS; j++)
                larder_free(larder, blocks[i][j]);
        }
    }
    for (int i = 0; i < SIZE_COUNT - 1; i++) {
        for (int j = 0; j < BLOCKS; j += BLOCKS / 2 - 1) {
            struct use use = {larder, blocks[i][j], sizes[i] / 2};
            assert_reported(read_byte, &use, sizes[i]);
        }
    }
    must_destroy(larder);
}
END_TEST

/* One inference: two large blocks, the first freed in the middle. Returns where it was. */
static unsigned char *infer(larder_t *larder)
{
    ck_assert_int_eq(larder_plan_begin(larder, 1), 0);
    unsigned char *first = larder_alloc(larder, sizes[3]), *second;
    memset(first, 1, sizes[3]);
    second = larder_alloc(larder, 2 * sizes[3]);
    larder_free(larder, first);
    memset(second, 2, 2 * sizes[3]);
    larder_free(larder, second);
    ck_assert_int_eq(larder_plan_end(larder), 0);
    return first;
}

START_TEST(a_use_after_free_is_reported_in_the_arena_of_a_plan)
{
    larder_config_t config = test_config(LARDER_POLICY_PLANNED, larder_backend_mmap());
    leave_blocks_bare(&config);
    if (_i == 1)
        config.checks = LARDER_CHECKS_STRICT;
    larder_t *larder = must_create(&config);
    for (int i = 0; i < 3; i++)
        infer(larder);
    ck_assert_uint_ge(stats_of(larder).plan_hits, 4);
    assert_nothing_reported();
    struct use use = {larder, infer(larder), sizes[3] - 1};
    assert_reported(read_byte, &use, sizes[3]);
    infer(larder);
    assert_nothing_reported();
    must_destroy(larder);
}
END_TEST

START_TEST(what_is_handed_out_again_is_usable_with_its_padding)
{
    larder_config_t config;
    if (config_unwatched(_i, &config))
        return;
    config.padding_before = 32;
    config.padding_after = 64;
    larder_t *larder = must_create(&config);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < SIZE_COUNT; i++) {
            unsigned char *block = larder_calloc(larder, 1, sizes[i]);
            unsigned char *neighbour = larder_alloc(larder, sizes[i]);
            struct use use = {larder, block, 0};
            larder_free(larder, neighbour);
            write_byte(&use);
            use.at = sizes[i] + 63;
            read_byte(&use);
            use.at = (size_t)-32;
            read_byte(&use);
            block = larder_realloc(larder, block, sizes[i] * 2);
            memset(block, 1, sizes[i] * 2);
            larder_free(larder, block);
        }
        larder_trim(larder, 0);
    }
    must_destroy(larder);
    assert_nothing_reported();
}
END_TEST

/* With the regions of an instance go their poisoned bytes. */
START_TEST(a_backend_gets_memory_back_as_it_gave_it)
{
    struct counted counted;
    counted_init(&counted, 0);
    for (int i = 0; i < CACHING_POLICY_COUNT; i++) {
        larder_t *larder = make_bare_instance(caching_policies[i], &counted.backend);
        for (int j = 0; j < SIZE_COUNT; j++)
            larder_free(larder, larder_alloc(larder, sizes[j]));
        must_destroy(larder);
    }
    assert_all_returned(&counted);
    for (int i = 0; i < 64; i++) { /* mapped where a region was */
        larder_t *larder = make_bare_instance(LARDER_POLICY_FIT, larder_backend_mmap());
        unsigned char *block = larder_alloc(larder, sizes[3]);
        memset(block, 1, sizes[3]);
        larder_free(larder, block);
        must_destroy(larder);
        const larder_backend_t *mmap_backend = larder_backend_mmap();
        block = mmap_backend->allocate(mmap_backend->context, 4 * MIB, 64);
        memset(block, 1, 4 * MIB);
        mmap_backend->free(mmap_backend->context, block, 4 * MIB);
    }
    assert_nothing_reported();
}
END_TEST

int main(void)
{
    if (!is_watched()) {
        fprintf(stderr, "skipped: nobody watches (Valgrind has a test of its own)\n");
        return 77;
    }
    Suite *suite = suite_create("poison");
    TCase *claims = add_claims(suite, "cached blocks are nobody's");

    tcase_add_loop_test(claims, a_use_after_free_is_reported, 0, VARIANT_COUNT);
    tcase_add_loop_test(claims, a_use_after_free_is_reported_wherever_the_block_went, 0,
                        CACHING_POLICY_COUNT);
    tcase_add_loop_test(claims, a_use_after_free_is_reported_in_the_arena_of_a_plan, 0, 2);
    tcase_add_loop_test(claims, what_is_handed_out_again_is_usable_with_its_padding, 0,
                        VARIANT_COUNT);
    tcase_add_test(claims, a_backend_gets_memory_back_as_it_gave_it);
    return run_suite(suite);
}

#else

int main(void)
{
    fprintf(stderr, "skipped: a build without AddressSanitizer, or Valgrind and all checks\n");
    return 77;
}

#endif
