/* SPDX-License-Identifier: MIT */
/*
 * The policy `planned` as a program sees it: recorded inferences are replayed from one arena, what deviates is served and
 * counted, and nothing overlaps whatever happens; test_planned_blocks.c has what the blocks are to everybody else. Each block carries a pattern of its own, which is looked at
 * when it is freed.
 */
#include "planned_network.h"

enum { ROUNDS = 40 };

START_TEST(a_recorded_inference_is_served_from_the_same_places_ever_after)
{
    larder_t *larder = make_planned();
    struct network network = make_network(1);
    void *first[LAYERS], *later[LAYERS];

    infer(larder, &network, 0, NULL);
    ck_assert_uint_eq(stats_of(larder).plans, 1);
    ck_assert_uint_eq(stats_of(larder).plan_hits, 0);
    infer(larder, &network, 0, first);
    for (int i = 0; i < ROUNDS; i++) {
        infer(larder, &network, 0, later);
        ck_assert_mem_eq(first, later, sizeof first);
    }
    ck_assert_uint_eq(stats_of(larder).plan_hits, (ROUNDS + 1) * 2 * LAYERS);
    ck_assert_uint_eq(stats_of(larder).plan_deviations, 0);
    ck_assert_uint_eq(stats_of(larder).live_blocks, 0);
    must_destroy(larder);
}
END_TEST

START_TEST(the_arena_is_hardly_larger_than_what_is_live_at_once)
{
    larder_t *larder = make_planned();
    struct network network = make_network(2);
    uint64_t most = 0;

    for (int i = 0; i < LAYERS; i++) {
        uint64_t live = network.output[i] + network.work[i];
        for (int j = i - 1; j >= 0 && j >= i - 2; j--)
            live += network.output[j];
        most = live > most ? live : most;
    }
    infer(larder, &network, 0, NULL);
    /* what recording has touched has gone back */
    ck_assert_uint_le(stats_of(larder).free_committed_bytes, 64 * KIB);
    infer(larder, &network, 0, NULL);
    larder_stats_t stats = stats_of(larder);
    ck_assert_uint_le(stats.free_committed_bytes, most + most / 20 + 64 * KIB);
    ck_assert_uint_ge(stats.peak_live_bytes, most);
    ck_assert_uint_le(stats.peak_live_bytes, most + 64 * KIB);
    must_destroy(larder);
}
END_TEST

START_TEST(a_larger_request_is_served_elsewhere_and_counted_and_the_rest_goes_on)
{
    larder_t *larder = make_planned();
    struct network network = make_network(3), larger = network;

    infer(larder, &network, 7, NULL);
    larger.output[4] = 2 * MIB;
    infer(larder, &larger, 7, NULL);
    larder_stats_t stats = stats_of(larder);
    ck_assert_uint_ge(stats.plan_deviations, 1);
    ck_assert_uint_ge(stats.plan_hits, 2 * LAYERS - 4);
    infer(larder, &network, 7, NULL);
    ck_assert_uint_eq(stats_of(larder).plan_hits, stats.plan_hits + 2 * LAYERS);
    ck_assert_uint_eq(stats_of(larder).plan_deviations, stats.plan_deviations);
    must_destroy(larder);
}
END_TEST

START_TEST(smaller_requests_are_served_from_the_places_of_the_larger_ones)
{
    larder_t *larder = make_planned();
    struct network network = make_network(4), smaller = network;
    void *places[LAYERS], *smaller_places[LAYERS];

    for (int i = 0; i < LAYERS; i++) {
        smaller.output[i] -= 700;
        smaller.work[i] -= 700;
    }
    infer(larder, &network, 0, NULL);
    infer(larder, &network, 0, places);
    infer(larder, &smaller, 0, smaller_places);
    ck_assert_mem_eq(places, smaller_places, sizeof places);
    ck_assert_uint_eq(stats_of(larder).plan_deviations, 0);
    ck_assert_uint_eq(stats_of(larder).plans, 1);
    must_destroy(larder);
}
END_TEST

START_TEST(another_order_and_one_too_many_are_served_and_the_next_inference_is_as_planned)
{
    larder_t *larder = make_planned();
    struct network network = make_network(5);
    struct run run = {.larder = larder, .seed = 5};

    infer(larder, &network, 3, NULL);
    ck_assert_int_eq(larder_plan_begin(larder, 3), 0);
    for (int i = LAYERS - 1; i >= 0; i--) /* backwards, and all at once */
        take(&run, i, network.output[i]);
    for (int i = 0; i < LAYERS; i++)
        take(&run, LAYERS + i, network.work[i]);
    take(&run, BLOCKS, 5 * MIB);
    for (int i = 0; i <= BLOCKS; i++)
        give(&run, i);
    ck_assert_int_eq(larder_plan_end(larder), 0);
    larder_stats_t stats = stats_of(larder);
    ck_assert_uint_ge(stats.plan_deviations, 1);
    infer(larder, &network, 3, NULL);
    ck_assert_uint_eq(stats_of(larder).plan_hits, stats.plan_hits + 2 * LAYERS);
    must_destroy(larder);
}
END_TEST

START_TEST(a_block_that_outlives_its_inference_keeps_its_place_and_contents)
{
    larder_t *larder = make_planned();
    struct network network = make_network(6);
    struct run kept = {.larder = larder, .seed = 77};

    infer(larder, &network, 1, NULL);
    ck_assert_int_eq(larder_plan_begin(larder, 1), 0);
    take(&kept, 0, network.output[0]);
    ck_assert_int_eq(larder_plan_end(larder), 0);
    for (int i = 0; i < 5; i++)
        infer(larder, &network, 1, NULL);
    larder_stats_t stats = stats_of(larder);
    ck_assert_uint_ge(stats.plan_deviations, 5);
    give(&kept, 0);
    infer(larder, &network, 1, NULL);
    ck_assert_uint_eq(stats_of(larder).plan_deviations, stats.plan_deviations);
    must_destroy(larder);
}
END_TEST

/* An output that is freed only in the next inference: its place is its own. */
START_TEST(a_result_that_is_freed_one_inference_later_is_planned_for)
{
    larder_t *larder = make_planned();
    struct run run = {.larder = larder, .seed = 9};

    for (int i = 0; i < ROUNDS; i++) {
        ck_assert_int_eq(larder_plan_begin(larder, 1), 0);
        give(&run, 0);
        take(&run, 0, 100000);
        take(&run, 1, 50000);
        give(&run, 1);
        take(&run, 2, 70000);
        give(&run, 2);
        ck_assert_int_eq(larder_plan_end(larder), 0);
    }
    give(&run, 0);
    ck_assert_uint_eq(stats_of(larder).plan_deviations, 0);
    must_destroy(larder);
}
END_TEST

START_TEST(holes_of_equal_size_are_all_used)
{
    larder_t *larder = make_planned();
    struct run run = {.larder = larder, .seed = 10};

    for (int round = 0; round < 3; round++) {
        ck_assert_int_eq(larder_plan_begin(larder, 1), 0);
        for (int i = 0; i < 4; i++)
            take(&run, i, 64 * KIB);
        give(&run, 0);
        give(&run, 2);
        take(&run, 4, 64 * KIB);
        take(&run, 5, 64 * KIB);
        for (int i = 0; i < 6; i++)
            give(&run, i);
        ck_assert_int_eq(larder_plan_end(larder), 0);
    }
    ck_assert_uint_eq(stats_of(larder).plan_hits, 12);
    ck_assert_uint_le(stats_of(larder).free_committed_bytes, 4 * 64 * KIB + 16 * KIB);
    must_destroy(larder);
}
END_TEST

START_TEST(alignments_hold_in_the_plan)
{
    larder_t *larder = make_bare_instance(LARDER_POLICY_PLANNED, larder_backend_mmap());

    for (int round = 0; round < 4; round++) {
        void *blocks[6];
        ck_assert_int_eq(larder_plan_begin(larder, 1), 0);
        for (unsigned i = 0; i < 6; i++) {
            size_t alignment = (size_t)128 << i;
            blocks[i] = larder_alloc_aligned(larder, alignment, 9001 + 512 * i);
            ck_assert(is_aligned(blocks[i], alignment));
        }
        for (int i = 0; i < 6; i++)
            larder_free(larder, blocks[i]);
        ck_assert_int_eq(larder_plan_end(larder), 0);
    }
    ck_assert_uint_eq(stats_of(larder).plan_hits, 18);
    must_destroy(larder);
}
END_TEST

START_TEST(each_shape_has_a_plan_found_by_its_first_request_or_its_key)
{
    larder_t *larder = make_planned();
    struct network networks[6];

    for (uint64_t i = 0; i < 6; i++) {
        networks[i] = make_network(20 + i);
        networks[i].output[0] = (size_t)(20 + 50 * i) * KIB;
    }
    for (int round = 0; round < 3;
         round++) { /* some are tried in the place of larger ones at first */
        for (uint64_t i = 6; i-- > 0;)
            infer(larder, &networks[i], i % 2 == 0 ? 0 : i, NULL);
    }
    uint64_t deviations = stats_of(larder).plan_deviations;
    ck_assert_uint_ge(stats_of(larder).plans, 6);
    for (int round = 0; round < 5; round++) {
        for (uint64_t i = 0; i < 6; i++)
            infer(larder, &networks[i], i % 2 == 0 ? 0 : i, NULL);
    }
    ck_assert_uint_eq(stats_of(larder).plan_deviations, deviations);
    must_destroy(larder);
}
END_TEST

/* The same beginning, then two ways. */
START_TEST(a_change_of_control_flow_is_learnt)
{
    larder_t *larder = make_planned();
    struct network one = make_network(30), other = one;

    for (int i = 3; i < LAYERS; i++) {
        other.output[i] = one.output[i] + 40000;
        other.work[i] = one.work[i] + 20000;
    }
    for (int round = 0; round < ROUNDS; round++)
        infer(larder, round % 2 == 0 ? &one : &other, 0, NULL);
    larder_stats_t before = stats_of(larder);
    ck_assert_uint_ge(before.plan_deviations, 1);
    infer(larder, &one, 0, NULL);
    infer(larder, &other, 0, NULL);
    larder_stats_t after = stats_of(larder);
    /* where they part, what is live may lie in the other plan's way */
    ck_assert_uint_ge(after.plan_hits - before.plan_hits, 2 * LAYERS);
    must_destroy(larder);
}
END_TEST

/* -- Whatever happens, nothing overlaps -- */

static void infer_at_random(larder_t *larder, const struct network *network, struct run *run,
                            struct random *random)
{
    bool deviates = random_between(random, 0, 2) == 0;
    ck_assert_int_eq(larder_plan_begin(larder, random_between(random, 0, 1)), 0);
    for (int i = 0; i < LAYERS; i++) {
        unsigned what = deviates ? (unsigned)random_between(random, 0, 9) : 9;
        if (what == 0)
            continue; /* left out */
        give(run, i); /* of the inference before */
        take(run, i,
             what == 1   ? 3 * network->output[i]
             : what == 2 ? 20 * KIB
                         : network->output[i]);
        if (what == 3) {
            give(run, 2 * LAYERS + i);
            take(run, 2 * LAYERS + i, random_between(random, 9 * KIB, 500 * KIB));
        }
        give(run, LAYERS + i);
        take(run, LAYERS + i, network->work[i]);
        if (what != 4)
            give(run, LAYERS + i);
        if (i >= 2 && what != 5)
            give(run, i - 2);
    }
    if (!deviates) {
        for (int i = 0; i < BLOCKS; i++)
            give(run, i);
    }
    ck_assert_int_eq(larder_plan_end(larder), 0);
}

static larder_t *make_setting(int index)
{
    larder_config_t config = test_config(LARDER_POLICY_PLANNED, larder_backend_mmap());
    if (index == 1)
        config.checks = LARDER_CHECKS_STRICT;
    if (index == 2)
        config.redzone = 64;
    if (index == 3)
        config.backend = larder_backend_system();
    if (index == 4)
        config.max_cached_bytes = MIB;
    if (index == 5)
        config.decay_ms = 0;
    return must_create(&config);
}

START_TEST(random_deviations_leave_every_block_intact)
{
    larder_t *larder = make_setting(_i);
    struct network network = make_network(40);
    struct run run = {.larder = larder, .seed = 41};
    struct random random;

    random_init(&random, (uint64_t)_i);
    for (int round = 0; round < 300; round++) {
        infer_at_random(larder, &network, &run, &random);
        if (round % 50 == 49)
            larder_trim(larder, 0);
    }
    for (int i = 0; i < BLOCKS; i++)
        give(&run, i);
    ck_assert_uint_eq(stats_of(larder).live_blocks, 0);
    ck_assert_uint_eq(stats_of(larder).live_bytes, 0);
    must_destroy(larder);
}
END_TEST

static struct {
    larder_t *larder;
    _Atomic(void *) handed;
    _Atomic bool ended;
} shared;

static void infer_in_a_thread(void *context, unsigned index)
{
    (void)context;
    struct network network = make_network(50);
    struct run run = {.larder = shared.larder, .seed = index * 1000};
    for (int round = 0; round < 60; round++) {
        expect(larder_plan_begin(shared.larder, 5) == 0);
        for (int i = 0; i < LAYERS; i++) {
            run.blocks[i] = larder_alloc(shared.larder, network.output[i]);
            pattern_fill(run.blocks[i], network.output[i], run.seed + (uint64_t)i);
            if (i >= 2) {
                expect(pattern_holds(run.blocks[i - 2], network.output[i - 2],
                                     run.seed + (uint64_t)i - 2));
                /* one of them is freed by whoever comes next */
                void *ptr = run.blocks[i - 2];
                if (i == 5)
                    ptr = atomic_exchange(&shared.handed, ptr);
                larder_free(shared.larder, ptr);
            }
        }
        larder_free(shared.larder, run.blocks[LAYERS - 2]);
        larder_free(shared.larder, run.blocks[LAYERS - 1]);
        expect(larder_plan_end(shared.larder) == 0);
        if (index == 0 && round % 16 == 0)
            larder_trim(shared.larder, 0);
    }
}

START_TEST(streams_have_arenas_of_their_own_and_free_each_others_blocks)
{
    shared.larder = make_planned();
    atomic_store(&shared.handed, NULL);
    run_threads(4, infer_in_a_thread, NULL);
    larder_free(shared.larder, atomic_load(&shared.handed));
    ck_assert_uint_eq(stats_of(shared.larder).live_blocks, 0);
    ck_assert_uint_ge(stats_of(shared.larder).plan_hits, 4 * 50 * (LAYERS - 2));
    must_destroy(shared.larder);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("planned");
    TCase *claims = add_claims(suite, "planned");

    tcase_add_test(claims, a_recorded_inference_is_served_from_the_same_places_ever_after);
    tcase_add_test(claims, the_arena_is_hardly_larger_than_what_is_live_at_once);
    tcase_add_test(claims, a_larger_request_is_served_elsewhere_and_counted_and_the_rest_goes_on);
    tcase_add_test(claims, smaller_requests_are_served_from_the_places_of_the_larger_ones);
    tcase_add_test(claims,
                   another_order_and_one_too_many_are_served_and_the_next_inference_is_as_planned);
    tcase_add_test(claims, a_block_that_outlives_its_inference_keeps_its_place_and_contents);
    tcase_add_test(claims, a_result_that_is_freed_one_inference_later_is_planned_for);
    tcase_add_test(claims, holes_of_equal_size_are_all_used);
    tcase_add_test(claims, alignments_hold_in_the_plan);
    tcase_add_test(claims, each_shape_has_a_plan_found_by_its_first_request_or_its_key);
    tcase_add_test(claims, a_change_of_control_flow_is_learnt);
    tcase_add_loop_test(claims, random_deviations_leave_every_block_intact, 0, 6);
    tcase_add_test(claims, streams_have_arenas_of_their_own_and_free_each_others_blocks);
    return run_suite(suite);
}
