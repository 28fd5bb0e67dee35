/* SPDX-License-Identifier: MIT */
/*
 * One instance under several threads, each with a model of its own blocks (heap_model.h): blocks that go from hand to hand, an
 * instance that is looked at while it is in use, and an inference that others disturb. LARDER_TEST_SEED repeats a run, but for the
 * order of the threads.
 */
#include <sched.h>

#include "heap_model.h"

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
    Suite *suite = suite_create("span_heap_threads");
    TCase *claims = add_claims(suite, "span heap, threads");

    tcase_add_loop_test(claims, eight_threads_that_hand_blocks_to_each_other_leave_a_sound_heap, 0,
                        SETTING_COUNT);
    tcase_add_loop_test(claims, statistics_and_walks_are_safe_while_others_allocate_and_free, 0, 2);
    tcase_add_loop_test(claims, an_inference_that_other_threads_disturb_keeps_its_blocks, 0, 2);
    return run_suite(suite);
}
