/* SPDX-License-Identifier: MIT */
/*
 * Threads that come and go: one that ends leaves nothing behind, frees after its teardown are as
 * good as others, and the allocation map may grow under the feet of those who use it. Random stress
 * is in test_stress.c, fork in test_fork.c.
 */
#include "support.h"

static larder_policy_t policy_of(int index)
{
    return caching_policies[index];
}

static void allocate_and_free_a_few(void *context, unsigned index)
{
    larder_t *larder = context;
    void *blocks[20];

    for (size_t i = 0; i < 20; i++) {
        blocks[i] = larder_alloc(larder, 16 + 50 * i * (index % 5 + 1));
        expect(blocks[i] != NULL);
    }
    for (unsigned i = 0; i < 20; i++)
        larder_free(larder, blocks[i]);
}

START_TEST(two_hundred_threads_leave_nothing_cached_by_them)
{
    larder_t *larder = make_instance(policy_of(_i), NULL);
    uint64_t after_first = 0;

    for (unsigned round = 0; round < 10; round++) {
        run_threads(20, allocate_and_free_a_few, larder);
        ck_assert_uint_eq(stats_of(larder).thread_cached_bytes, 0);
        if (round == 0)
            after_first = stats_of(larder).cached_bytes;
    }
    ck_assert_uint_gt(after_first, 0);
    /* twenty at once never need more than twenty times one thread's blocks */
    ck_assert_uint_le(stats_of(larder).cached_bytes, 20 * 20 * 5 * KIB + MIB);
    must_destroy(larder);
}
END_TEST

static void allocate_only_one(void *context, unsigned index)
{
    (void)index;
    larder_free(context, larder_alloc(context, 640));
}

START_TEST(threads_one_after_the_other_share_what_they_cache)
{
    struct counted source;
    larder_t *larder;

    counted_init(&source, 0);
    larder = make_instance(policy_of(_i), &source.backend);
    for (unsigned i = 0; i < 200; i++)
        run_threads(1, allocate_only_one, larder);
    ck_assert_uint_eq(count_of(&source.calls), 1);
    ck_assert_uint_eq(stats_of(larder).hits, 199);
    must_destroy(larder);
    assert_all_returned(&source);
}
END_TEST

/* -- After the thread's teardown -- */

static pthread_key_t late_key;
static larder_t *late_larder;

/* PTHREAD_DESTRUCTOR_ITERATIONS of glibc and musl; thread sanitizer takes the last for itself. */
#define LATE_ROUNDS (UNDER_THREAD_SANITIZER ? 3 : 4)

struct late {
    unsigned rounds_left;
    void *blocks[8];
};

/* Runs before and after the library's own destructor, whatever their order: it comes back as often
 * as the system allows. */
static void work_late(void *value)
{
    struct late *late = value;
    void *block;

    late->rounds_left--;
    expect(pattern_holds(late->blocks[late->rounds_left], 400, late->rounds_left));
    larder_free(late_larder, late->blocks[late->rounds_left]);
    block = larder_alloc(late_larder, 400);
    expect(block != NULL);
    pattern_fill(block, 400, 77);
    larder_current_free(block);
    if (late->rounds_left > 0)
        pthread_setspecific(late_key, late);
}

static void leave_blocks_to_the_destructor(void *context, unsigned index)
{
    struct late *all = context, *late = &all[index];

    late->rounds_left = LATE_ROUNDS;
    for (unsigned i = 0; i < late->rounds_left; i++) {
        late->blocks[i] = larder_alloc(late_larder, 400);
        expect(late->blocks[i] != NULL);
        pattern_fill(late->blocks[i], 400, i);
    }
    pthread_setspecific(late_key, late);
}

START_TEST(a_thread_may_free_and_allocate_in_its_destructors)
{
    struct late late[8];

    late_larder = make_instance(policy_of(_i), NULL);
    for (unsigned round = 0; round < 20; round++) {
        ck_assert_int_eq(pthread_key_create(&late_key, work_late), 0);
        memset(late, 0, sizeof late);
        run_threads(8, leave_blocks_to_the_destructor, late);
        for (unsigned i = 0; i < 8; i++)
            ck_assert_uint_eq(late[i].rounds_left, 0);
        ck_assert_uint_eq(stats_of(late_larder).live_blocks, 0);
        ck_assert_uint_eq(stats_of(late_larder).thread_cached_bytes, 0);
        pthread_key_delete(late_key);
    }
    must_destroy(late_larder);
}
END_TEST

static void leave_a_scope_open(void *context, unsigned index)
{
    larder_t *previous = larder_scope_enter(context);

    (void)index;
    expect(previous == NULL);
    larder_current_free(larder_current_alloc(100));
}

START_TEST(a_thread_that_ends_inside_a_scope_leaves_nothing)
{
    larder_t *larder = make_instance(policy_of(_i), NULL);

    for (unsigned round = 0; round < 5; round++)
        run_threads(4, leave_a_scope_open, larder);
    ck_assert_uint_eq(stats_of(larder).thread_cached_bytes, 0);
    must_destroy(larder);
}
END_TEST

/* -- The allocation map -- */

#define MAP_THREADS 8
#define MAP_BLOCKS 3000

struct growth {
    larder_t *grown, *churned;
};

/* Half of the threads make the map grow, the other half change the states of what is in it. */
static void grow_or_churn(void *context, unsigned index)
{
    struct growth *growth = context;
    void **blocks = calloc(MAP_BLOCKS, sizeof *blocks);
    struct random random;

    random_init(&random, index);
    for (size_t i = 0; i < MAP_BLOCKS; i++) {
        if (index % 2 == 0) {
            blocks[i] = larder_alloc(growth->grown, 64);
            expect(blocks[i] != NULL);
            pattern_fill(blocks[i], 64, i);
        } else {
            void *block = larder_alloc(growth->churned, 64 * (1 + i % 16));

            expect(larder_owner(block) == growth->churned);
            larder_free(growth->churned, block);
            expect(larder_owner(block) != growth->grown);
        }
    }
    for (size_t i = MAP_BLOCKS; blocks[0] && i > 1; i--) { /* shuffled: frees in another order */
        size_t j = random_between(&random, 0, i - 1);
        void *swapped = blocks[j];

        blocks[j] = blocks[i - 1];
        blocks[i - 1] = swapped;
    }
    for (size_t i = 0; index % 2 == 0 && i < MAP_BLOCKS; i++) {
        expect(larder_owner(blocks[i]) == growth->grown);
        larder_free(growth->grown, blocks[i]);
    }
    free(blocks);
}

START_TEST(the_map_loses_nothing_while_it_grows_under_others)
{
    struct growth growth;

    for (unsigned round = 0; round < 3; round++) {
        growth.grown = make_instance(policy_of(_i), NULL);
        growth.churned = make_instance(LARDER_POLICY_EXACT, NULL);
        run_threads(MAP_THREADS, grow_or_churn, &growth);
        ck_assert_uint_eq(stats_of(growth.grown).live_blocks, 0);
        ck_assert_uint_eq(stats_of(growth.grown).frees, MAP_THREADS / 2 * MAP_BLOCKS);
        ck_assert_uint_eq(stats_of(growth.churned).frees, MAP_THREADS / 2 * MAP_BLOCKS);
        must_destroy(growth.grown);
        must_destroy(growth.churned);
    }
}
END_TEST

START_TEST(a_hundred_thousand_live_blocks_are_found_again)
{
    enum { MANY = 100000 };
    larder_t *larder = make_instance(policy_of(_i), NULL);
    void **blocks = calloc(MANY, sizeof *blocks);

    ck_assert_ptr_nonnull(blocks);
    for (size_t i = 0; i < MANY; i++) {
        blocks[i] = larder_alloc(larder, 1 + i % 200);
        ck_assert_ptr_nonnull(blocks[i]);
        *(unsigned char *)blocks[i] = (unsigned char)i;
    }
    ck_assert_uint_eq(stats_of(larder).live_blocks, MANY);
    for (size_t i = 0; i < MANY; i++) {
        if (larder_owner(blocks[i]) != larder || *(unsigned char *)blocks[i] != (unsigned char)i)
            ck_abort_msg("block %zu is lost", i);
        larder_free(larder, blocks[i]);
    }
    free(blocks);
    must_destroy(larder);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("threads");
    TCase *ends = add_claims(suite, "ends of threads");
    TCase *map = add_claims(suite, "allocation map");

    tcase_add_loop_test(ends, two_hundred_threads_leave_nothing_cached_by_them, 0,
                        CACHING_POLICY_COUNT);
    tcase_add_loop_test(ends, threads_one_after_the_other_share_what_they_cache, 0,
                        CACHING_POLICY_COUNT);
    tcase_add_loop_test(ends, a_thread_may_free_and_allocate_in_its_destructors, 0,
                        CACHING_POLICY_COUNT);
    tcase_add_loop_test(ends, a_thread_that_ends_inside_a_scope_leaves_nothing, 0,
                        CACHING_POLICY_COUNT);
    tcase_add_loop_test(map, the_map_loses_nothing_while_it_grows_under_others, 0,
                        CACHING_POLICY_COUNT);
    tcase_add_loop_test(map, a_hundred_thousand_live_blocks_are_found_again, 0,
                        CACHING_POLICY_COUNT);
    return run_suite(suite);
}
