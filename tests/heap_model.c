/* SPDX-License-Identifier: MIT */
/* See heap_model.h. */
#include "heap_model.h"

#include "fit.h"
#include "heap_invariants.h"

/* -- Settings -- */

const struct setting settings[SETTING_COUNT] = {
    {"mmap", SIZE_MAX, 64, 0, SIZE_MAX, UINT32_MAX, LARDER_CHECKS_DEFAULT},
    {"mmap", SIZE_MAX, 64, 0, SIZE_MAX, 0, LARDER_CHECKS_DEFAULT},
    {"mmap", 3 * MIB, 16, 0, SIZE_MAX, UINT32_MAX, LARDER_CHECKS_DEFAULT},
    {"mmap", SIZE_MAX, 4096, 0, MIB, 0, LARDER_CHECKS_STRICT},
    {"mmap", SIZE_MAX, 64, 200, SIZE_MAX, 0, LARDER_CHECKS_STRICT},
    {"system", SIZE_MAX, 8, 0, SIZE_MAX, 0, LARDER_CHECKS_DEFAULT},
    {"system", 2 * MIB, 64, 16, SIZE_MAX, UINT32_MAX, LARDER_CHECKS_STRICT},
};

struct larder *instance_with(const struct setting *setting)
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

void block_goes(struct model *model, struct block *block)
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

void operate_on_block(struct model *model, struct block *block, unsigned dice)
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

void operate(struct model *model)
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

void all_blocks_go(struct model *model)
{
    for (unsigned i = 0; i < model->slots; i++)
        if (model->blocks[i].ptr != NULL)
            block_goes(model, &model->blocks[i]);
}

/* -- What is compared -- */

void assert_statistics_are(struct larder *larder, const struct model *model)
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

void assert_instance_is_sound(struct larder *larder)
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

void assert_all_coalesces(struct larder *larder)
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

/* -- Inferences: what is done again and again, with deviations -- */

void make_network(struct network *network, struct random *random)
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

void infer(struct model *model, const struct network *network, bool deviating)
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
