/* SPDX-License-Identifier: MIT */
/*
 * Whole instances against a model (heap_model.h), on one thread: random operations, inferences with deviations, and what both meet too
 * seldom. After every hundred operations both heaps are walked and the statistics compared; at the end everything must have coalesced
 * into one free span a region. LARDER_TEST_SEED repeats a run.
 */
#include <stdio.h>

#include "cache.h"
#include "heap_model.h"

enum { OPERATIONS = 4000, CHECK_EVERY = 100, NETWORKS = 4 };

START_TEST(random_operations_keep_every_block_apart_intact_and_counted)
{
    static struct model model;

    model =
        (struct model){.larder = instance_with(&settings[_i]), .slots = SLOTS, .largest = LARGEST};
    random_init(&model.random, (uint64_t)_i);
    for (unsigned i = 1; i <= OPERATIONS; i++) {
        operate(&model);
        if (i % CHECK_EVERY == 0) {
            assert_instance_is_sound(model.larder);
            assert_statistics_are(model.larder, &model);
            assert_expectations();
        }
    }
    for (unsigned i = 0; i < SLOTS; i++)
        ck_assert(
            model.blocks[i].ptr == NULL ||
            pattern_holds(model.blocks[i].ptr, model.blocks[i].size, model.blocks[i].pattern));
    all_blocks_go(&model);
    assert_statistics_are(model.larder, &model);
    assert_all_coalesces(model.larder);
    must_destroy(model.larder);
}
END_TEST

/* -- Inferences -- */

START_TEST(repeated_inferences_with_deviations_keep_every_block_apart_intact_and_counted)
{
    static struct model model;
    static struct network networks[NETWORKS];
    unsigned replayed = 0;

    model = (struct model){.larder = instance_with(&settings[_i]), .slots = SLOTS, .largest = MIB};
    random_init(&model.random, 100 + (uint64_t)_i);
    for (unsigned i = 0; i < NETWORKS; i++)
        make_network(&networks[i], &model.random);
    for (unsigned i = 1; i <= INFERENCES; i++) {
        /* ten of a kind, then a change; every other ten as they should be */
        infer(&model, &networks[i / 10 % NETWORKS], i / 10 % 2 == 0);
        replayed +=
            model.larder->heap.loops != NULL && model.larder->heap.loops->mode == LOOP_REPLAYING;
        assert_expectations();
        if (i % 37 == 0) {
            assert_instance_is_sound(model.larder);
            assert_statistics_are(model.larder, &model);
        }
    }
    if (settings[_i].decay_ms != 0)
        ck_assert_uint_gt(replayed, 0); /* else this shows nothing */
    all_blocks_go(&model);
    assert_statistics_are(model.larder, &model);
    assert_all_coalesces(model.larder);
    must_destroy(model.larder);
}
END_TEST

/* -- What random operations meet too seldom -- */

/* A hole below the top in which an aligned block has room, but not wherever the hole began. */
START_TEST(an_aligned_block_in_the_last_hole_leaves_the_top_where_it_is)
{
    struct larder *larder = instance_with(&settings[0]);
    void *first = larder_alloc(larder, 128 * KIB);

    for (size_t size = 64 * KIB; size <= 256 * KIB; size += 2 * KIB) {
        void *hole = larder_alloc(larder, 200 * KIB), *aligned;

        larder_free(larder, hole);
        aligned = larder_alloc_aligned(larder, 64 * KIB, size);
        assert_instance_is_sound(larder);
        larder_free(larder, aligned);
        assert_instance_is_sound(larder);
        larder_free_cached(larder);
    }
    larder_free(larder, first);
    assert_all_coalesces(larder);
    must_destroy(larder);
}
END_TEST

/* What a block does not use of its span is noted inside it, and may be any number below its size. */
START_TEST(gigabytes_shrunk_in_place_and_freed_leave_no_words_behind)
{
    struct larder *larder = instance_with(&settings[0]);
    void *below = larder_alloc(larder, 100 * KIB), *block;
    size_t size = sizeof(void *) == 8 ? 2048 * MIB : 16 * MIB;

    block = larder_alloc(larder, size);
    if (block == NULL) {
        fputs("note: no address space for 2 GiB\n", stderr);
    } else {
        block = larder_realloc(larder, block, size / 2);
        assert_instance_is_sound(larder);
        ck_assert_uint_eq(stats_of(larder).live_bytes, size / 2 + 100 * KIB);
        larder_free(larder, block);
    }
    larder_free(larder, below);
    assert_instance_is_sound(larder);
    assert_all_coalesces(larder);
    must_destroy(larder);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("span_heap");
    TCase *claims = add_claims(suite, "span heap");

    tcase_add_loop_test(claims, random_operations_keep_every_block_apart_intact_and_counted, 0,
                        SETTING_COUNT);
    tcase_add_loop_test(
        claims, repeated_inferences_with_deviations_keep_every_block_apart_intact_and_counted, 0,
        2);
    tcase_add_test(claims, an_aligned_block_in_the_last_hole_leaves_the_top_where_it_is);
    tcase_add_test(claims, gigabytes_shrunk_in_place_and_freed_leave_no_words_behind);
    return run_suite(suite);
}
