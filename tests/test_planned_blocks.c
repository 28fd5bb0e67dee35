/* SPDX-License-Identifier: MIT */
/*
 * Blocks of the policy `planned` are blocks like all others to walks, trims, misuse and the end of an instance, whichever size they have and
 * whether they come from an arena or from magazines.
 */
#include "planned_network.h"

enum { ROUNDS = 40 };

/* -- Blocks of an arena are blocks like all others -- */

static int count_block(void *context, void *ptr, size_t size)
{
    (void)ptr;
    *(size_t *)context += size;
    return 0;
}

START_TEST(blocks_of_an_arena_are_found_walked_resized_and_their_misuse_reported)
{
    larder_t *larder = make_planned();
    struct network network = make_network(60);
    size_t walked = 0;

    infer(larder, &network, 1, NULL);
    ck_assert_int_eq(larder_plan_begin(larder, 1), 0);
    char *block = larder_alloc(larder, network.output[0]);
    ck_assert_ptr_eq(larder_owner(block), larder);
    ck_assert_uint_ge(larder_usable_size(block), network.output[0]);
    larder_walk(larder, count_block, &walked);
    ck_assert_uint_eq(walked, network.output[0]);
    ck_assert_int_eq(larder_record_free(block), -EPERM);
    larder_free(larder, block + 4096);
    ck_assert_uint_eq(errors_recorded().kind, LARDER_ERROR_INVALID_POINTER);
    block[0] = 42;
    char *moved = larder_realloc(larder, block, 4 * MIB);
    ck_assert_int_eq(moved[0], 42);
    larder_free(larder, moved);
    errors_reset();
    larder_free(larder, block); /* its place is free */
    ck_assert_uint_eq(errors_recorded().kind, LARDER_ERROR_DOUBLE_FREE);
    ck_assert_int_eq(larder_plan_end(larder), 0);
    ck_assert_uint_eq(stats_of(larder).plan_hits, 1);
    errors_reset();
    must_destroy(larder);
}
END_TEST

START_TEST(trimming_gives_idle_arenas_back_and_spares_live_blocks)
{
    larder_t *larder = make_planned();
    struct network network = make_network(61);
    struct run kept = {.larder = larder, .seed = 62};

    infer(larder, &network, 1, NULL);
    ck_assert_int_eq(larder_plan_begin(larder, 1), 0);
    take(&kept, 0, network.output[0]);
    ck_assert_int_eq(larder_plan_end(larder), 0);
    ck_assert_uint_ge(stats_of(larder).free_committed_bytes, 100 * KIB);
    larder_trim(larder, 0);
    give(&kept, 0);
    larder_trim(larder, 0);
    ck_assert_uint_le(stats_of(larder).free_committed_bytes, 16 * KIB);
    infer(larder, &network, 1, NULL);
    must_destroy(larder);
}
END_TEST

START_TEST(an_instance_may_end_before_its_planned_blocks)
{
    larder_t *larder = make_planned();
    struct network network = make_network(63);

    infer(larder, &network, 1, NULL);
    ck_assert_int_eq(larder_plan_begin(larder, 1), 0);
    char *block = larder_alloc(larder, network.output[0]);
    memset(block, 1, network.output[0]);
    ck_assert_uint_eq(larder_destroy(larder), 1);
    ck_assert(all_bytes_are(block, network.output[0], 1));
    larder_free(NULL, block);
    ck_assert_uint_eq(errors_recorded().count, 0);
}
END_TEST

START_TEST(calls_in_the_wrong_order_or_place_are_refused)
{
    larder_t *larder = make_planned(), *fit = make_instance(LARDER_POLICY_FIT, NULL);

    ck_assert_int_eq(larder_plan_begin(NULL, 0), -EINVAL);
    ck_assert_int_eq(larder_plan_begin(fit, 0), -ENOTSUP);
    ck_assert_int_eq(larder_plan_end(fit), -ENOTSUP);
    ck_assert_int_eq(larder_plan_load(fit, "x"), -ENOTSUP);
    ck_assert_int_eq(larder_plan_end(larder), -EINVAL);
    ck_assert_int_eq(larder_plan_begin(larder, 0), 0);
    ck_assert_int_eq(larder_plan_begin(larder, 0), -EBUSY);
    ck_assert_int_eq(larder_plan_end(larder), 0);
    must_destroy(larder);
    must_destroy(fit);
}
END_TEST

/* -- Small blocks -- */

/* One inference of large blocks, with `count` small ones in each layer, which live while the layer is computed. */
static void infer_with_small(larder_t *larder, const struct network *network, int count)
{
    struct run run = {.larder = larder, .seed = 80};
    ck_assert_int_eq(larder_plan_begin(larder, 0), 0);
    for (int i = 0; i < LAYERS; i++) {
        take(&run, 0, network->output[i]);
        for (int k = 1; k <= count; k++)
            take(&run, k, (size_t)(500 + 700 * k));
        for (int k = 0; k <= count; k++)
            give(&run, k);
    }
    ck_assert_int_eq(larder_plan_end(larder), 0);
}

START_TEST(small_blocks_are_planned_where_they_are_as_few_as_large_ones)
{
    larder_t *larder = make_planned();
    struct network network = make_network(81);

    infer_with_small(larder, &network, 1); /* of 1,200 bytes */
    infer_with_small(larder, &network, 1);
    ck_assert_uint_eq(stats_of(larder).plan_hits, 2 * LAYERS);
    ck_assert_uint_eq(stats_of(larder).plan_deviations, 0);
    must_destroy(larder);
}
END_TEST

START_TEST(small_blocks_are_left_to_the_magazines_where_they_are_many)
{
    larder_t *larder = make_planned();
    struct network network = make_network(82);

    infer_with_small(larder, &network, 5);
    infer_with_small(larder, &network, 5);
    ck_assert_uint_eq(stats_of(larder).plan_hits, LAYERS);
    ck_assert_uint_eq(stats_of(larder).plan_deviations, 0);
    must_destroy(larder);
}
END_TEST

START_TEST(small_blocks_live_past_the_end_of_an_inference_and_between_two)
{
    larder_t *larder = make_planned();
    struct network network = make_network(83);
    struct run kept = {.larder = larder, .seed = 84};

    infer_with_small(larder, &network, 1);
    for (int i = 0; i < ROUNDS; i++) {
        ck_assert_int_eq(larder_plan_begin(larder, 0), 0);
        take(&kept, 0, network.output[0]);
        take(&kept, 1, 1200);
        give(&kept, 0);
        ck_assert_int_eq(larder_plan_end(larder), 0);
        take(&kept, 2, 1200);
        infer_with_small(larder, &network, 1);
        give(&kept, 1);
        give(&kept, 2);
    }
    ck_assert_uint_ge(stats_of(larder).plan_deviations, 1);
    ck_assert_uint_eq(stats_of(larder).live_blocks, 0);
    must_destroy(larder);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("planned_blocks");
    TCase *claims = add_claims(suite, "planned blocks");

    tcase_add_test(claims, blocks_of_an_arena_are_found_walked_resized_and_their_misuse_reported);
    tcase_add_test(claims, trimming_gives_idle_arenas_back_and_spares_live_blocks);
    tcase_add_test(claims, an_instance_may_end_before_its_planned_blocks);
    tcase_add_test(claims, calls_in_the_wrong_order_or_place_are_refused);
    tcase_add_test(claims, small_blocks_are_planned_where_they_are_as_few_as_large_ones);
    tcase_add_test(claims, small_blocks_are_left_to_the_magazines_where_they_are_many);
    tcase_add_test(claims, small_blocks_live_past_the_end_of_an_inference_and_between_two);
    return run_suite(suite);
}
