/* SPDX-License-Identifier: MIT */
/*
 * Random work by eight threads that hand blocks to each other. Each block carries a pattern of its
 * own; a block given to two owners, moved or torn shows in it. At the end the books must balance.
 */
#include "support.h"

#define THREADS 8
#define OWN_BLOCKS 32
#define SHARED_BLOCKS 64

/* A block on its way from one thread to another. */
struct parcel {
    void *block;
    size_t size;
    uint64_t seed;
};

struct stress {
    larder_t *instances[2];
    size_t largest;
    unsigned steps;
    struct parcel *_Atomic shared[SHARED_BLOCKS];
};

static void open_parcel(struct stress *stress, struct parcel *parcel, struct random *random)
{
    if (!parcel)
        return;
    expect(pattern_holds(parcel->block, parcel->size, parcel->seed));
    larder_free(stress->instances[random_between(random, 0, 1)], parcel->block);
    larder_free(NULL, parcel);
}

static struct parcel *pack_parcel(struct stress *stress, struct random *random)
{
    larder_t *larder = stress->instances[random_between(random, 0, 1)];
    struct parcel *parcel = larder_alloc(larder, sizeof *parcel);

    expect(parcel != NULL);
    parcel->size = random_size(random, stress->largest);
    parcel->seed = random_next(random);
    parcel->block = larder_alloc(larder, parcel->size);
    expect(parcel->block != NULL);
    pattern_fill(parcel->block, parcel->size, parcel->seed);
    return parcel;
}

static void resize_parcel(struct stress *stress, struct parcel *parcel, struct random *random)
{
    size_t size = random_size(random, stress->largest);

    parcel->block = larder_realloc(stress->instances[0], parcel->block, size);
    expect(parcel->block != NULL);
    parcel->size = size;
    pattern_fill(parcel->block, size, parcel->seed);
}

static void work_at_random(void *context, unsigned index)
{
    struct stress *stress = context;
    struct parcel *own[OWN_BLOCKS] = {NULL};
    struct random random;

    random_init(&random, index + 1);
    for (unsigned step = 0; step < stress->steps; step++) {
        struct parcel **mine = &own[random_between(&random, 0, OWN_BLOCKS - 1)];

        if (!*mine) {
            *mine = pack_parcel(stress, &random);
            continue;
        }
        switch (random_between(&random, 0, 9)) {
        case 0:
            resize_parcel(stress, *mine, &random);
            break;
        case 1:
        case 2:
        case 3: /* handed over; who finds a parcel in its place takes that one */
            *mine = atomic_exchange(&stress->shared[random_between(&random, 0, SHARED_BLOCKS - 1)],
                                    *mine);
            break;
        default:
            open_parcel(stress, *mine, &random);
            *mine = NULL;
        }
        if (step % 1000 == 999)
            larder_trim(stress->instances[1], 100 * KIB);
        if (step % 1500 == 1499)
            larder_flush_thread(NULL);
        if (step % 512 == 511)
            larder_tick(NULL);
    }
    for (unsigned i = 0; i < OWN_BLOCKS; i++)
        open_parcel(stress, own[i], &random);
}

static void run_stress(const larder_config_t *config, size_t largest, unsigned steps)
{
    struct stress *stress = calloc(1, sizeof *stress);
    struct random random;

    ck_assert_ptr_nonnull(stress);
    stress->instances[0] = must_create(config);
    stress->instances[1] = must_create(config);
    stress->largest = largest;
    stress->steps = steps * (1 + test_seconds(0)); /* a longer run has more of them */
    run_threads(THREADS, work_at_random, stress);
    random_init(&random, 0);
    for (unsigned i = 0; i < SHARED_BLOCKS; i++)
        open_parcel(stress, atomic_load(&stress->shared[i]), &random);
    for (unsigned i = 0; i < 2; i++) {
        larder_stats_t stats = stats_of(stress->instances[i]);

        ck_assert_uint_eq(stats.live_blocks, 0);
        ck_assert_uint_eq(stats.live_bytes, 0);
        ck_assert_uint_eq(stats.allocations, stats.frees);
        ck_assert_uint_eq(stats.errors, 0);
        must_destroy(stress->instances[i]);
    }
    free(stress);
}

START_TEST(blocks_handed_between_threads_keep_their_contents)
{
    larder_config_t config;

    if (variant_config(_i, &config))
        run_stress(&config, 128 * KIB, 6000);
}
END_TEST

START_TEST(small_blocks_handed_between_threads_keep_their_contents)
{
    larder_config_t config;

    if (variant_config(_i, &config))
        run_stress(&config, 512, 15000);
}
END_TEST

START_TEST(nothing_is_lost_under_a_small_cap_and_fast_decay)
{
    struct counted source;
    larder_config_t config;

    counted_init(&source, 0);
    config = test_config((larder_policy_t)_i, &source.backend);
    config.max_cached_bytes = 256 * KIB;
    config.decay_ms = 1;
    run_stress(&config, 64 * KIB, 3000);
    assert_all_returned(&source);
}
END_TEST

START_TEST(nothing_is_lost_with_all_checks_on)
{
    struct counted source;
    larder_config_t config;

    counted_init(&source, 0);
    counted_add_discard(&source);
    config = test_config((larder_policy_t)_i, &source.backend);
    config.checks = LARDER_CHECKS_STRICT;
    config.redzone = 32;
    config.padding_before = 16;
    config.padding_after = 16;
    config.fill = 0xEE;
    config.decay_ms = 1;
    run_stress(&config, 64 * KIB, 3000);
    assert_all_returned(&source);
}
END_TEST

/* -- Memory that comes and goes -- */

struct scarcity {
    larder_t *larder;
    _Atomic unsigned refused;
};

static void work_though_requests_fail(void *context, unsigned index)
{
    struct scarcity *scarcity = context;
    void *blocks[OWN_BLOCKS] = {NULL};
    size_t sizes[OWN_BLOCKS] = {0};
    struct random random;

    random_init(&random, index + 1);
    for (unsigned step = 0; step < 4000; step++) {
        size_t i = random_between(&random, 0, OWN_BLOCKS - 1);

        expect(!blocks[i] || pattern_holds(blocks[i], sizes[i], i + index));
        larder_free(scarcity->larder, blocks[i]);
        sizes[i] = random_size(&random, 64 * KIB);
        blocks[i] = larder_alloc(scarcity->larder, sizes[i]);
        if (blocks[i])
            pattern_fill(blocks[i], sizes[i], i + index);
        else
            atomic_fetch_add(&scarcity->refused, 1);
    }
    for (unsigned i = 0; i < OWN_BLOCKS; i++) {
        expect(!blocks[i] || pattern_holds(blocks[i], sizes[i], i + index));
        larder_free(scarcity->larder, blocks[i]);
    }
}

START_TEST(threads_that_run_out_of_memory_together_corrupt_nothing)
{
    struct counted source;
    struct scarcity scarcity = {.refused = 0};

    counted_init(&source, 0);
    /* a quarter of what they would hold at once on average */
    atomic_store(&source.budget_bytes, THREADS * OWN_BLOCKS * 2 * KIB);
    scarcity.larder = make_instance((larder_policy_t)_i, &source.backend);
    run_threads(THREADS, work_though_requests_fail, &scarcity);
    ck_assert_uint_eq(stats_of(scarcity.larder).live_blocks, 0);
    ck_assert_uint_eq(stats_of(scarcity.larder).failures, atomic_load(&scarcity.refused));
    ck_assert_uint_gt(atomic_load(&scarcity.refused), 0);
    must_destroy(scarcity.larder);
    assert_all_returned(&source);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("stress");
    TCase *claims = add_claims(suite, "eight threads");

    tcase_add_loop_test(claims, blocks_handed_between_threads_keep_their_contents, 0,
                        VARIANT_COUNT);
    tcase_add_loop_test(claims, small_blocks_handed_between_threads_keep_their_contents, 0,
                        VARIANT_COUNT);
    tcase_add_loop_test(claims, nothing_is_lost_under_a_small_cap_and_fast_decay, 0, 3);
    tcase_add_loop_test(claims, nothing_is_lost_with_all_checks_on, 0, 3);
    tcase_add_loop_test(claims, threads_that_run_out_of_memory_together_corrupt_nothing, 0, 3);
    return run_suite(suite);
}
