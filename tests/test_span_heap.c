/* SPDX-License-Identifier: MIT */
/*
 * Random operations on whole instances against a model that knows nothing of spans: a table of the
 * blocks that should be live. After every hundred operations both heaps are walked (heap_invariants.h)
 * and the statistics compared; at the end everything must have coalesced into one free span a region.
 *
 * Contents: each block carries a pattern of its own, so one that overlaps another, or whose pages were
 * given back, is found out when it is freed, moved or looked at. LARDER_TEST_SEED repeats a run.
 */
#include "support.h"

#include <sched.h>
#include <stdio.h>

#include "fit.h"
#include "heap_invariants.h"

enum { SLOTS = 96, OPERATIONS = 4000, CHECK_EVERY = 100 };
#define LARGEST (8 * MIB)

struct block {
    void *ptr; /* NULL: none */
    size_t size;
    uint64_t pattern;
};

struct model {
    struct larder *larder;
    struct random random;
    struct block blocks[SLOTS];
    unsigned slots;
    size_t largest;
    uint64_t last_pattern;
    uint64_t live_blocks, live_bytes, allocations, frees;
};

/* -- Settings under which it must hold -- */

static const struct setting {
    const char *backend;
    size_t max_cached_bytes, alignment, redzone, max_cached_size;
    uint32_t decay_ms; /* 0: what is free at a tick goes back */
    larder_checks_t checks;
} settings[] = {
    {"mmap", SIZE_MAX, 64, 0, SIZE_MAX, UINT32_MAX, LARDER_CHECKS_DEFAULT},
    {"mmap", SIZE_MAX, 64, 0, SIZE_MAX, 0, LARDER_CHECKS_DEFAULT},
    {"mmap", 3 * MIB, 16, 0, SIZE_MAX, UINT32_MAX, LARDER_CHECKS_DEFAULT},
    {"mmap", SIZE_MAX, 4096, 0, MIB, 0, LARDER_CHECKS_STRICT},
    {"mmap", SIZE_MAX, 64, 200, SIZE_MAX, 0, LARDER_CHECKS_STRICT},
    {"system", SIZE_MAX, 8, 0, SIZE_MAX, 0, LARDER_CHECKS_DEFAULT},
    {"system", 2 * MIB, 64, 16, SIZE_MAX, UINT32_MAX, LARDER_CHECKS_STRICT},
};
#define SETTING_COUNT (int)(sizeof settings / sizeof *settings)

static struct larder *instance_with(const struct setting *setting)
{
    larder_config_t config =
        test_config(LARDER_POLICY_FIT, larder_backend_by_name(setting->backend));

    config.max_cached_bytes = setting->max_cached_bytes;
    config.alignment = setting->alignment;
    config.redzone = setting->redzone;
    if (setting->redzone == 0)
        leave_blocks_bare(&config); /* the hit path, and loops, in builds with all checks, too */
    config.max_cached_size = setting->max_cached_size;
    config.decay_ms = setting->decay_ms;
    config.checks = setting->checks;
    return must_create(&config);
}

/* -- The model -- */

static void expect_no_overlap(const struct model *model, const char *ptr, size_t size)
{
    for (unsigned i = 0; i < model->slots; i++) {
        const char *other = model->blocks[i].ptr;

        expect(other == NULL || ptr + size <= other || other + model->blocks[i].size <= ptr);
    }
}

static void block_comes(struct model *model, struct block *block, void *ptr, size_t size)
{
    expect_no_overlap(model, ptr, size);
    expect(larder_usable_size(ptr) >= size);
    *block = (struct block){ptr, size, ++model->last_pattern};
    pattern_fill(ptr, size, block->pattern);
    model->live_blocks++;
    model->live_bytes += size;
    model->allocations++;
}

static void block_goes(struct model *model, struct block *block)
{
    expect(pattern_holds(block->ptr, block->size, block->pattern));
    model->live_blocks--;
    model->live_bytes -= block->size;
    model->frees++;
    larder_free(model->larder, block->ptr);
    block->ptr = NULL;
}

static void block_is_resized(struct model *model, struct block *block, size_t size)
{
    struct block old = *block;
    void *ptr;

    expect(pattern_holds(old.ptr, old.size, old.pattern));
    ptr = larder_realloc(model->larder, old.ptr, size);
    expect(ptr != NULL);
    /* the bytes kept are the first of the old pattern: written at both ends and once a page */
    for (size_t i = 0; i < size && i < old.size && i < 64; i++)
        expect(*byte_at(ptr, (ptrdiff_t)i) ==
               (unsigned char)(((old.pattern + i) * UINT64_C(0x9E3779B97F4A7C15)) >> 56));
    block->ptr = NULL;
    model->live_blocks--;
    model->live_bytes -= old.size;
    model->frees += ptr != old.ptr;
    model->allocations -= ptr == old.ptr;
    block_comes(model, block, ptr, size);
}

static void operate_on_block(struct model *model, struct block *block, unsigned dice)
{
    size_t size = random_size(&model->random, model->largest);

    if (block->ptr == NULL && dice < 80) {
        block_comes(model, block, larder_alloc(model->larder, size), size);
    } else if (block->ptr == NULL) {
        size_t alignment = (size_t)1 << random_between(&model->random, 4, 16);
        void *ptr = larder_alloc_aligned(model->larder, alignment, size);

        expect(is_aligned(ptr, alignment));
        block_comes(model, block, ptr, size);
    } else if (dice < 75) {
        block_goes(model, block);
    } else {
        /* half of them near the old size, where it may stay in place */
        bool near = random_next(&model->random) % 2 == 0;

        block_is_resized(model, block, near ? block->size - block->size / 3 : size);
    }
}

static void operate(struct model *model)
{
    unsigned dice = (unsigned)random_between(&model->random, 0, 999);
    unsigned slot = (unsigned)random_between(&model->random, 0, model->slots - 1);

    switch (dice) {
    case 0:
        larder_free_cached(model->larder);
        break;
    case 1:
    case 2:
    case 3:
        larder_trim(model->larder, random_size(&model->random, LARGEST));
        break;
    case 4:
    case 5:
    case 6:
        larder_flush_thread(model->larder);
        break;
    case 7:
    case 8:
    case 9:
        larder_tick(model->larder);
        break;
    default:
        operate_on_block(model, &model->blocks[slot], dice % 100);
        break;
    }
}

static void all_blocks_go(struct model *model)
{
    for (unsigned i = 0; i < model->slots; i++)
        if (model->blocks[i].ptr != NULL)
            block_goes(model, &model->blocks[i]);
}

/* -- What is compared -- */

static void assert_statistics_are(struct larder *larder, const struct model *model)
{
    larder_stats_t stats = stats_of(larder);

    ck_assert_uint_eq(stats.live_blocks, model->live_blocks);
    ck_assert_uint_eq(stats.live_bytes, model->live_bytes);
    ck_assert_uint_eq(stats.allocations, model->allocations);
    ck_assert_uint_eq(stats.frees, model->frees);
    ck_assert_uint_ge(stats.held_bytes, stats.live_bytes + stats.cached_bytes);
    ck_assert_uint_ge(stats.peak_live_bytes, stats.live_bytes);
    ck_assert_uint_le(stats.cached_bytes, larder->config.max_cached_bytes);
    ck_assert_uint_le(stats.peak_cached_bytes, larder->config.max_cached_bytes);
}

static void assert_instance_is_sound(struct larder *larder)
{
    struct heap_census census;
    larder_stats_t stats = stats_of(larder);
    /* blocks beyond max_cached_size are no spans, but regions to the statistics */
    uint64_t records = atomic_load(&larder->block_records);

    ck_assert(instance_is_sound(larder, &census));
    ck_assert_uint_eq(stats.regions, census.regions + records);
    ck_assert_uint_eq(stats.live_blocks, census.live_blocks + records);
    ck_assert_uint_eq(stats.cached_blocks, census.cached_blocks);
    ck_assert_uint_eq(stats.free_committed_bytes,
                      census.free_units * UNIT - census.clean_pages * os_page_size());
}

/* Nothing is live, and no thread but the caller has magazines. */
static void assert_all_coalesces(struct larder *larder)
{
    struct heap_census census;

    larder_flush_thread(larder);
    fit_drain_depots(larder);
    assert_instance_is_sound(larder);
    ck_assert(instance_is_sound(larder, &census));
    ck_assert_uint_eq(census.used_units, 0);
    ck_assert_uint_le(census.free_spans, census.regions); /* a region never used has none */
    larder_free_cached(larder);
    ck_assert_uint_eq(stats_of(larder).regions, 0);
    ck_assert_uint_eq(stats_of(larder).held_bytes, stats_of(larder).metadata_bytes);
}

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

/* -- Inferences: what is done again and again, with deviations -- */

enum { NETWORKS = 4, LAYERS = 60, INFERENCES = 1200, WEIGHTS = 16 };

/* A network is a list of places: a tensor is taken where there is none, else given back. */
struct network {
    unsigned places[2 * LAYERS];
    size_t sizes[2 * LAYERS];
    unsigned steps;
};

static void make_network(struct network *network, struct random *random)
{
    bool live[SLOTS - WEIGHTS] = {false};

    for (network->steps = 0; network->steps < LAYERS; network->steps++) {
        unsigned place = (unsigned)random_between(random, 0, SLOTS - WEIGHTS - 1);

        network->places[network->steps] = place;
        /* few sizes, so that the same place is taken more than once in a round */
        network->sizes[network->steps] = 33 * KIB + random_between(random, 0, 5) * 50 * KIB;
        live[place] = !live[place];
    }
    for (unsigned place = 0; place < SLOTS - WEIGHTS; place++)
        if (live[place])
            network->places[network->steps++] = place;
}

/* One of the things that no loop expects. */
static void deviate(struct model *model)
{
    struct block *weight =
        &model->blocks[SLOTS - WEIGHTS + random_between(&model->random, 0, WEIGHTS - 1)];

    switch (random_between(&model->random, 0, 9)) {
    case 0:
        larder_trim(model->larder, MIB);
        break;
    case 1:
        larder_tick(model->larder);
        break;
    case 2:
        (void)stats_of(model->larder);
        break;
    case 3:
        assert_instance_is_sound(model->larder);
        break;
    default:
        operate_on_block(model, weight, (unsigned)random_between(&model->random, 0, 99));
        break;
    }
}

/* Shrinks a tensor in place, so that what its span does not use is another number than when recorded. */
static void shrink(struct model *model, struct block *block)
{
    block_is_resized(model, block, block->size - block->size / 4);
}

static void infer(struct model *model, const struct network *network, bool deviating)
{
    for (unsigned i = 0; i < network->steps; i++) {
        struct block *block = &model->blocks[network->places[i]];

        if (block->ptr != NULL)
            block_goes(model, block);
        else
            block_comes(model, block, larder_alloc(model->larder, network->sizes[i]),
                        network->sizes[i]);
        if (deviating && random_between(&model->random, 0, 499) == 0)
            deviate(model);
        if (block->ptr != NULL && random_between(&model->random, 0, 19) == 0)
            shrink(model, block);
    }
    /* what a deviation took is kept only now and then: it keeps loops from closing */
    for (unsigned i = SLOTS - WEIGHTS; i < SLOTS && random_between(&model->random, 0, 999) != 0;
         i++)
        if (model->blocks[i].ptr != NULL)
            block_goes(model, &model->blocks[i]);
}

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

/* -- Eight threads, with blocks that go from hand to hand -- */

enum { THREADS = 8, THREAD_SLOTS = 24, THREAD_OPERATIONS = 2500, RING = 64 };

static struct {
    struct larder *larder;
    struct model models[THREADS];
    pthread_mutex_t mutex;
    struct block ring[RING]; /* under mutex, as the next */
    unsigned handed;
} shared = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static void hand_over(struct model *model, struct block *block)
{
    bool handed;

    pthread_mutex_lock(&shared.mutex);
    handed = shared.handed < RING;
    if (handed)
        shared.ring[shared.handed++] = *block;
    pthread_mutex_unlock(&shared.mutex);
    if (!handed)
        return;
    /* from now on it is live for whoever takes it */
    model->live_blocks--;
    model->live_bytes -= block->size;
    block->ptr = NULL;
}

static void take_over(struct model *model, struct block *block)
{
    pthread_mutex_lock(&shared.mutex);
    if (shared.handed > 0)
        *block = shared.ring[--shared.handed];
    pthread_mutex_unlock(&shared.mutex);
    if (block->ptr == NULL)
        return;
    model->live_blocks++;
    model->live_bytes += block->size;
}

static void operate_among_others(void *context, unsigned index)
{
    struct model *model = &shared.models[index];

    (void)context;
    for (unsigned i = 0; i < THREAD_OPERATIONS; i++) {
        unsigned slot = (unsigned)random_between(&model->random, 0, THREAD_SLOTS - 1);
        struct block *block = &model->blocks[slot];

        if (random_next(&model->random) % 4 != 0)
            operate(model);
        else if (block->ptr != NULL)
            hand_over(model, block);
        else
            take_over(model, block);
    }
}

static struct model sum_of_models(void)
{
    struct model sum = {.larder = shared.larder};

    for (unsigned i = 0; i < THREADS; i++) {
        sum.live_blocks += shared.models[i].live_blocks;
        sum.live_bytes += shared.models[i].live_bytes;
        sum.allocations += shared.models[i].allocations;
        sum.frees += shared.models[i].frees;
    }
    return sum;
}

static void prepare_shared(const struct setting *setting, int stream)
{
    shared.larder = instance_with(setting);
    for (unsigned i = 0; i < THREADS; i++) {
        shared.models[i] = (struct model){.larder = shared.larder,
                                          .slots = THREAD_SLOTS,
                                          .largest = MIB,
                                          .last_pattern = (uint64_t)(i + 1) << 32};
        random_init(&shared.models[i].random, (uint64_t)stream * THREADS + i);
    }
}

START_TEST(eight_threads_that_hand_blocks_to_each_other_leave_a_sound_heap)
{
    struct model sum;

    prepare_shared(&settings[_i], _i);
    run_threads(THREADS, operate_among_others, NULL);
    while (shared.handed > 0) {
        struct block block = {NULL, 0, 0};

        take_over(&shared.models[0], &block);
        block_goes(&shared.models[0], &block);
    }
    sum = sum_of_models();
    assert_statistics_are(shared.larder, &sum);
    assert_instance_is_sound(shared.larder);
    for (unsigned i = 0; i < THREADS; i++)
        all_blocks_go(&shared.models[i]);
    sum = sum_of_models();
    ck_assert_uint_eq(sum.live_bytes, 0);
    assert_statistics_are(shared.larder, &sum);
    assert_all_coalesces(shared.larder);
    must_destroy(shared.larder);
}
END_TEST

/* -- Looking at an instance in use -- */

enum { LOOKERS = 2, LOOKED_AT_OPERATIONS = 1000 };

static _Atomic unsigned busy_threads;

static int count_block(void *context, void *ptr, size_t size)
{
    size_t *seen = context;

    (void)size;
    *seen += ptr != NULL;
    return 0;
}

static void look(struct larder *larder)
{
    larder_stats_t stats = {.struct_size = sizeof stats};
    size_t seen = 0;

    do {
        expect(larder_stats_get(larder, &stats) == 0);
        expect(larder_walk(larder, count_block, &seen) == 0);
    } while (atomic_load(&busy_threads) != 0);
}

static void operate_or_look(void *context, unsigned index)
{
    (void)context;
    if (index >= THREADS - LOOKERS) {
        look(shared.larder);
        return;
    }
    for (unsigned i = 0; i < LOOKED_AT_OPERATIONS; i++)
        operate(&shared.models[index]);
    atomic_fetch_sub(&busy_threads, 1);
}

START_TEST(statistics_and_walks_are_safe_while_others_allocate_and_free)
{
    struct model sum;

    prepare_shared(&settings[_i], _i);
    atomic_store(&busy_threads, THREADS - LOOKERS);
    run_threads(THREADS, operate_or_look, NULL);
    for (unsigned i = 0; i < THREADS; i++)
        all_blocks_go(&shared.models[i]);
    sum = sum_of_models();
    assert_statistics_are(shared.larder, &sum);
    assert_all_coalesces(shared.larder);
    must_destroy(shared.larder);
}
END_TEST

/* -- An inference that others disturb -- */

static struct network shared_network;

static void infer_or_disturb(void *context, unsigned index)
{
    struct model *model = &shared.models[index];

    (void)context;
    if (index == 0) {
        for (unsigned i = 0; i < INFERENCES / 4; i++)
            infer(model, &shared_network, false);
        atomic_store(&busy_threads, 0);
    }
    while (atomic_load(&busy_threads) != 0) {
        operate_on_block(model, &model->blocks[index],
                         (unsigned)random_between(&model->random, 0, 99));
        for (unsigned i = 0; i < 50; i++)
            sched_yield();
    }
}

START_TEST(an_inference_that_other_threads_disturb_keeps_its_blocks)
{
    struct model sum;

    prepare_shared(&settings[_i], _i);
    shared.models[0].slots = SLOTS;
    make_network(&shared_network, &shared.models[0].random);
    atomic_store(&busy_threads, 1);
    run_threads(3, infer_or_disturb, NULL);
    assert_instance_is_sound(shared.larder);
    for (unsigned i = 0; i < THREADS; i++)
        all_blocks_go(&shared.models[i]);
    sum = sum_of_models();
    assert_statistics_are(shared.larder, &sum);
    assert_all_coalesces(shared.larder);
    must_destroy(shared.larder);
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
    tcase_add_loop_test(claims, eight_threads_that_hand_blocks_to_each_other_leave_a_sound_heap, 0,
                        SETTING_COUNT);
    tcase_add_loop_test(claims, statistics_and_walks_are_safe_while_others_allocate_and_free, 0, 2);
    tcase_add_loop_test(claims, an_inference_that_other_threads_disturb_keeps_its_blocks, 0, 2);
    return run_suite(suite);
}
