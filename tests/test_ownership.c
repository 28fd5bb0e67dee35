/* SPDX-License-Identifier: MIT */
/*
 * Whose a block is. It returns to the instance that made it, whichever thread or instance frees it;
 * a pointer that nobody owns goes to a backend that could have made it, or is an error; and a block
 * that outlives its instance stays good.
 */
#include "support.h"

/* -- Lookups -- */

START_TEST(a_live_block_has_an_owner_and_others_have_none)
{
    larder_config_t config;
    larder_t *larder;
    void *block, *foreign = malloc(100);
    int local = 0;

    if (variant_config(_i, &config)) {
        larder = must_create(&config);
        block = larder_alloc(larder, 1000);
        ck_assert_ptr_eq(larder_owner(block), larder);
        larder_free(larder, block);
        ck_assert_ptr_null(larder_owner(block));
        ck_assert_uint_eq(larder_usable_size(block), 0);
        ck_assert_ptr_null(larder_owner(foreign));
        ck_assert_uint_eq(larder_usable_size(foreign), 0);
        ck_assert_ptr_null(larder_owner(&local));
        ck_assert_ptr_null(larder_owner(NULL));
        must_destroy(larder);
    }
    free(foreign);
}
END_TEST

/* -- Foreign pointers -- */

START_TEST(a_foreign_pointer_passes_through_a_backend_that_takes_it)
{
    struct counted source;
    larder_t *larder;
    void *foreign;

    counted_init(&source, LARDER_BACKEND_FREES_FOREIGN);
    larder = make_instance((larder_policy_t)_i, &source.backend);
    foreign = source.backend.allocate(&source, 1000, 64);
    larder_free(larder, foreign);
    ck_assert_uint_eq(count_of(&source.outstanding_blocks), 0);
    ck_assert_uint_eq(stats_of(larder).foreign_frees, 1);
    ck_assert_uint_eq(stats_of(larder).frees, 0);
    ck_assert_uint_eq(stats_of(larder).cached_bytes, 0);
    must_destroy(larder);
    assert_all_returned(&source);
}
END_TEST

START_TEST(a_pointer_from_malloc_may_be_freed_through_the_system_backend_or_none)
{
    larder_t *larder = make_instance((larder_policy_t)_i, larder_backend_system());

    larder_free(larder, malloc(1000));
    larder_free(NULL, malloc(1000));
    ck_assert_uint_eq(stats_of(larder).foreign_frees, 1);
    must_destroy(larder);
}
END_TEST

START_TEST(a_foreign_pointer_is_an_error_where_the_backend_cannot_free_it)
{
    larder_t *larder = make_instance((larder_policy_t)_i, larder_backend_mmap());
    char *foreign = malloc(1000);
    struct error_log error;

    memset(foreign, 7, 1000);
    larder_free(larder, foreign);
    error = errors_recorded();
    ck_assert_uint_eq(error.count, 1);
    ck_assert_int_eq(error.kind, LARDER_ERROR_FOREIGN_POINTER);
    ck_assert_ptr_eq(error.ptr, foreign);
    ck_assert_str_eq(error.instance, "tested");
    ck_assert(all_bytes_are(foreign, 1000, 7));
    free(foreign);
    errors_reset();
    must_destroy(larder);
}
END_TEST

/* -- Other instances -- */

START_TEST(a_block_freed_through_another_instance_comes_back_to_its_owner)
{
    larder_config_t config;
    larder_t *owner, *other;
    size_t sizes[] = {100, 5000, 300000};

    if (!variant_config(_i, &config))
        return;
    owner = must_create(&config);
    other = must_create(&config);
    for (unsigned i = 0; i < 3; i++)
        larder_free(other, larder_alloc(owner, sizes[i]));
    for (unsigned i = 0; i < 3; i++)
        larder_free(NULL, larder_alloc(owner, sizes[i]));
    ck_assert_uint_eq(stats_of(owner).frees, 6);
    ck_assert_uint_eq(stats_of(owner).live_blocks, 0);
    ck_assert_uint_eq(stats_of(other).frees, 0);
    ck_assert_uint_eq(stats_of(other).foreign_frees, 0);
    ck_assert_uint_eq(stats_of(other).cached_bytes, 0);
    if (config.policy != LARDER_POLICY_PASSTHROUGH)
        ck_assert_uint_ge(stats_of(owner).hits, 3);
    must_destroy(owner);
    must_destroy(other);
}
END_TEST

struct exchange {
    larder_t *producer, *consumer;
    struct meeting meeting;
    void *blocks[16];
    size_t size;
};

#define ROUNDS 100

static void produce_or_consume(void *context, unsigned index)
{
    struct exchange *exchange = context;

    for (unsigned round = 0; round < ROUNDS; round++) {
        if (index == 0) {
            for (unsigned i = 0; i < 16; i++) {
                exchange->blocks[i] = larder_alloc(exchange->producer, exchange->size);
                expect(exchange->blocks[i] != NULL);
                pattern_fill(exchange->blocks[i], exchange->size, round + i);
            }
        }
        meeting_wait(&exchange->meeting);
        if (index == 1) {
            for (unsigned i = 0; i < 16; i++) {
                expect(pattern_holds(exchange->blocks[i], exchange->size, round + i));
                larder_free(exchange->consumer, exchange->blocks[i]);
            }
        }
        meeting_wait(&exchange->meeting);
    }
}

/* 1 MiB live at a time; the original held 100 MiB after as many rounds. */
static void assert_exchange_stays_small(larder_t *producer, larder_t *consumer, size_t size)
{
    struct exchange exchange = {.producer = producer, .consumer = consumer, .size = size};

    meeting_init(&exchange.meeting, 2);
    run_threads(2, produce_or_consume, &exchange);
    ck_assert_uint_eq(stats_of(producer).live_blocks, 0);
    ck_assert_uint_le(stats_of(producer).cached_bytes, 2 * 16 * size + 256 * KIB);
    if (consumer != producer)
        ck_assert_uint_eq(stats_of(consumer).cached_bytes, 0);
}

START_TEST(a_producer_and_a_consumer_do_not_pile_up_memory)
{
    larder_policy_t policy = caching_policies[_i];
    larder_t *one = make_instance(policy, NULL), *other = make_instance(policy, NULL);

    assert_exchange_stays_small(one, one, 64 * KIB);
    larder_free_cached(one);
    assert_exchange_stays_small(one, one, 1 * KIB);
    larder_free_cached(one);
    assert_exchange_stays_small(one, other, 64 * KIB);
    must_destroy(one);
    must_destroy(other);
}
END_TEST

/* -- Orphans -- */

#define ORPHANS 50

START_TEST(blocks_outlive_their_instance_and_can_be_freed_later)
{
    struct counted source;
    larder_t *larder, *next;
    void *blocks[ORPHANS];

    counted_init(&source, 0);
    larder = make_instance((larder_policy_t)_i, &source.backend);
    for (size_t i = 0; i < ORPHANS; i++) {
        blocks[i] = larder_alloc(larder, 100 + 1000 * i);
        pattern_fill(blocks[i], 100 + 1000 * i, i);
    }
    ck_assert_uint_eq(larder_destroy(larder), ORPHANS);
    next = make_instance((larder_policy_t)_i, NULL); /* it may well get the old one's address */
    for (size_t i = 0; i < ORPHANS; i++) {
        ck_assert_ptr_null(larder_owner(blocks[i]));
        ck_assert(pattern_holds(blocks[i], 100 + 1000 * i, i));
        ck_assert_uint_ge(larder_usable_size(blocks[i]), 100 + 1000 * i);
    }
    for (size_t i = 0; i < ORPHANS; i++)
        larder_free(i % 2 ? next : NULL, blocks[i]);
    ck_assert_uint_eq(stats_of(next).frees, 0);
    ck_assert_uint_eq(stats_of(next).cached_bytes, 0);
    must_destroy(next);
    assert_all_returned(&source);
}
END_TEST

START_TEST(a_block_that_outlived_its_instance_can_be_reallocated)
{
    struct counted source;
    larder_t *larder, *next, *another;
    void *block;

    counted_init(&source, 0);
    larder = make_instance((larder_policy_t)_i, &source.backend);
    block = larder_alloc(larder, 1000);
    pattern_fill(block, 1000, 1);
    ck_assert_uint_eq(larder_destroy(larder), 1);
    next = make_instance((larder_policy_t)_i, NULL);
    block = larder_realloc(next, block, 100000);
    ck_assert_ptr_nonnull(block);
    ck_assert(pattern_holds(block, 1000, 1));
    /* what has moved is still the destroyed one's, of which nothing may be another's by now */
    another = make_instance((larder_policy_t)_i, NULL);
    ck_assert_ptr_null(larder_owner(block));
    block = larder_realloc(next, block, 500);
    ck_assert_ptr_nonnull(block);
    ck_assert(pattern_holds(block, 500, 1));
    larder_free(next, block);
    must_destroy(another);
    must_destroy(next);
    assert_all_returned(&source);
}
END_TEST

START_TEST(destroy_gives_back_what_is_cached_and_counts_only_live_blocks)
{
    struct counted source;
    larder_t *larder;
    void *live = NULL;

    counted_init(&source, 0);
    larder = make_instance((larder_policy_t)_i, &source.backend);
    for (size_t i = 0; i < 100; i++) {
        larder_free(larder, live);
        live = larder_alloc(larder, 100 * i);
    }
    ck_assert_uint_eq(larder_destroy(larder), 1);
    larder_free(NULL, live);
    ck_assert_uint_eq(larder_destroy(NULL), 0);
    assert_all_returned(&source);
}
END_TEST

static void cache_something(void *context, unsigned index)
{
    larder_t *larder = context;

    (void)index;
    for (size_t size = 16; size < 100000; size *= 2)
        larder_free(larder, larder_alloc(larder, size));
}

START_TEST(many_instances_come_and_go)
{
    struct counted source;

    counted_init(&source, 0);
    for (unsigned round = 0; round < 200; round++) { /* more than any table of a thread */
        larder_t *larder = make_instance(caching_policies[_i], &source.backend);

        cache_something(larder, 0);
        must_destroy(larder);
        assert_all_returned(&source);
    }
}
END_TEST

struct shared_life {
    struct meeting meeting;
    larder_t *ended, *staying;
};

static void use_both_and_outlive_one(void *context, unsigned index)
{
    struct shared_life *life = context;

    cache_something(life->ended, index);
    cache_something(life->staying, index);
    meeting_wait(&life->meeting);
    if (index == 0)
        expect(larder_destroy(life->ended) == 0);
    meeting_wait(&life->meeting);
    cache_something(life->staying, index);
}

START_TEST(threads_may_end_after_an_instance_that_they_used)
{
    struct counted source;
    struct shared_life life;

    counted_init(&source, 0);
    meeting_init(&life.meeting, 4);
    life.staying = make_instance(caching_policies[_i], &source.backend);
    for (unsigned round = 0; round < 10; round++) {
        life.ended = make_instance(caching_policies[_i], &source.backend);
        run_threads(4, use_both_and_outlive_one, &life);
    }
    must_destroy(life.staying);
    assert_all_returned(&source);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ownership");
    TCase *owners = add_claims(suite, "owners");
    TCase *foreign = add_claims(suite, "foreign pointers");
    TCase *orphans = add_claims(suite, "orphans");

    tcase_add_loop_test(owners, a_live_block_has_an_owner_and_others_have_none, 0, VARIANT_COUNT);
    tcase_add_loop_test(owners, a_block_freed_through_another_instance_comes_back_to_its_owner, 0,
                        VARIANT_COUNT);
    tcase_add_loop_test(owners, a_producer_and_a_consumer_do_not_pile_up_memory, 0,
                        CACHING_POLICY_COUNT);
    tcase_add_loop_test(foreign, a_foreign_pointer_passes_through_a_backend_that_takes_it, 0, 3);
    tcase_add_loop_test(
        foreign, a_pointer_from_malloc_may_be_freed_through_the_system_backend_or_none, 0, 3);
    tcase_add_loop_test(foreign, a_foreign_pointer_is_an_error_where_the_backend_cannot_free_it, 0,
                        3);
    tcase_add_loop_test(orphans, blocks_outlive_their_instance_and_can_be_freed_later, 0, 3);
    tcase_add_loop_test(orphans, a_block_that_outlived_its_instance_can_be_reallocated, 0, 3);
    tcase_add_loop_test(orphans, destroy_gives_back_what_is_cached_and_counts_only_live_blocks, 0,
                        3);
    tcase_add_loop_test(orphans, many_instances_come_and_go, 0, CACHING_POLICY_COUNT);
    tcase_add_loop_test(orphans, threads_may_end_after_an_instance_that_they_used, 0,
                        CACHING_POLICY_COUNT);
    return run_suite(suite);
}
