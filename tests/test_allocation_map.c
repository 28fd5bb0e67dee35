/* SPDX-License-Identifier: MIT */
/*
 * The allocation map by itself, with keys that are no addresses of anything: what stays is found at
 * every instant, whatever other threads insert, remove and make grow meanwhile, and what was never there is not.
 *
 * A value tells its key: a record "pointer" is the key itself plus a generation below KEY_STEP, so a
 * value that belongs to another key is seen at once. Nothing follows these pointers.
 */
#include "support.h"

#include "allocation_map.h"

enum { KEY_STEP = 16, KEYS = 3000, STAYING = 500, CHURNED = 400, GROWING = 6000 };

/* Far apart areas: staying, churned, growing, and never there. */
static uintptr_t key_of(unsigned area, unsigned i)
{
    return ((uintptr_t)(area + 1) << 24) + (uintptr_t)i * KEY_STEP;
}

static struct block_record *value_of(uintptr_t key, unsigned generation)
{
    return (struct block_record *)(key + generation % KEY_STEP);
}

static bool belongs_to(const struct block_record *value, uintptr_t key)
{
    return ((uintptr_t)value & ~(uintptr_t)(KEY_STEP - 1)) == key;
}

static struct allocation_map_counts counts(void)
{
    struct allocation_map_counts counted;

    allocation_map_count(&counted);
    return counted;
}

static const unsigned shard_counts[] = {1, 2, 64, 1024};
#define SHARD_COUNTS 4

/* Each test has a process of its own (Check forks), and so a map of its own. */
static void prepare_map(unsigned shards)
{
    ck_assert_int_eq(allocation_map_set_shards(shards), 0);
    ck_assert_int_eq(allocation_map_prepare(), 0);
}

START_TEST(the_number_of_shards_is_a_power_of_two_and_fixed_at_the_first_use)
{
    static const unsigned bad[] = {0, 3, 48, 1023, 2048};

    for (unsigned i = 0; i < 5; i++)
        ck_assert_int_eq(allocation_map_set_shards(bad[i]), -EINVAL);
    for (unsigned shards = 1; shards <= 1024; shards *= 2)
        ck_assert_int_eq(allocation_map_set_shards(shards), 0);
    ck_assert_int_eq(allocation_map_prepare(), 0);
    ck_assert_int_eq(allocation_map_set_shards(64), -EBUSY);
    ck_assert_int_eq(allocation_map_set_shards(3), -EINVAL);
}
END_TEST

START_TEST(a_region_is_found_from_each_of_its_granules_and_from_no_other)
{
    struct region *region = (struct region *)key_of(0, 1);
    uintptr_t base = 40 * MAP_GRANULE;

    prepare_map(shard_counts[_i]);
    ck_assert_int_eq(allocation_map_insert_region(region, base, 5 * MAP_GRANULE), 0);
    for (unsigned granule = 0; granule < 5; granule++) {
        uintptr_t first = base + granule * MAP_GRANULE;

        ck_assert_ptr_eq(allocation_map_region(first), region);
        ck_assert_ptr_eq(allocation_map_region(first + MAP_GRANULE - 1), region);
    }
    ck_assert_ptr_null(allocation_map_region(base - 1));
    ck_assert_ptr_null(allocation_map_region(base + 5 * MAP_GRANULE));
    ck_assert_ptr_null(allocation_map_block(base));
    ck_assert_uint_eq(counts().entries, 5);
    allocation_map_remove_region(base, 5 * MAP_GRANULE);
    ck_assert_ptr_null(allocation_map_region(base));
    ck_assert_uint_eq(counts().entries, 0);
}
END_TEST

START_TEST(an_odd_address_and_null_are_nobodys_block)
{
    struct region *region = (struct region *)key_of(0, 1);
    uintptr_t base = 40 * MAP_GRANULE;

    prepare_map(64);
    /* entered under an odd key, which a block of that address must not meet */
    ck_assert_int_eq(allocation_map_insert_region(region, base, MAP_GRANULE), 0);
    ck_assert_ptr_null(allocation_map_block((base >> MAP_GRANULE_SHIFT) << 1 | 1));
    ck_assert_ptr_null(allocation_map_block(0));
}
END_TEST

static void assert_map_is(const unsigned *generations)
{
    uint64_t entries = 0;

    for (unsigned i = 0; i < KEYS; i++) {
        uintptr_t key = key_of(0, i);
        const struct block_record *wanted =
            generations[i] != 0 ? value_of(key, generations[i]) : NULL;

        ck_assert_ptr_eq(allocation_map_block(key), wanted);
        entries += wanted != NULL;
    }
    ck_assert_uint_eq(counts().entries, entries);
}

START_TEST(random_insertions_and_removals_leave_what_a_plain_array_says)
{
    static unsigned generations[KEYS]; /* 0: not there */
    struct random random;

    prepare_map(shard_counts[_i]);
    random_init(&random, (uint64_t)_i);
    for (unsigned step = 1; step <= 20000; step++) {
        unsigned i = (unsigned)random_between(&random, 0, KEYS - 1);

        if (generations[i] != 0) {
            allocation_map_remove_block(key_of(0, i));
            generations[i] = 0;
        } else {
            generations[i] = 1 + step % (KEY_STEP - 1);
            ck_assert_int_eq(
                allocation_map_insert_block(value_of(key_of(0, i), generations[i]), key_of(0, i)),
                0);
        }
        if (step % 1000 == 0)
            assert_map_is(generations);
    }
}
END_TEST

START_TEST(removal_closes_gaps_so_that_churn_makes_no_table_grow)
{
    uint64_t table_bytes;

    prepare_map(shard_counts[_i]);
    for (unsigned i = 0; i < KEYS; i++)
        ck_assert_int_eq(allocation_map_insert_block(value_of(key_of(0, i), 1), key_of(0, i)), 0);
    for (unsigned i = 0; i < KEYS; i += 2)
        allocation_map_remove_block(key_of(0, i));
    table_bytes = counts().table_bytes;
    /* one key comes and goes at a time: a table that kept tombstones would fill up */
    for (unsigned i = 0; i < 20 * KEYS; i++) {
        uintptr_t key = key_of(1, i);

        ck_assert_int_eq(allocation_map_insert_block(value_of(key, 1), key), 0);
        allocation_map_remove_block(key);
    }
    ck_assert_uint_eq(counts().entries, KEYS / 2);
    /* with many shards, one may by chance have been one key short of its limit: growth stops there */
    ck_assert_uint_le(counts().table_bytes, 3 * table_bytes);
    for (unsigned i = 0; i < KEYS; i++)
        ck_assert(allocation_map_block(key_of(0, i)) ==
                  (i % 2 == 0 ? NULL : value_of(key_of(0, i), 1)));
}
END_TEST

START_TEST(removing_what_is_not_there_changes_nothing)
{
    prepare_map(1);
    allocation_map_remove_block(key_of(0, 0));
    ck_assert_int_eq(allocation_map_insert_block(value_of(key_of(0, 1), 1), key_of(0, 1)), 0);
    allocation_map_remove_block(key_of(0, 0));
    ck_assert_ptr_eq(allocation_map_block(key_of(0, 1)), value_of(key_of(0, 1), 1));
    ck_assert_uint_eq(counts().entries, 1);
}
END_TEST

/* -- Readers against writers -- */

enum { STAYING_AREA, CHURNED_AREA, GROWING_AREA, NEVER_AREA };
enum { WRITERS = 2, READERS = 3, CHURN_ROUNDS = 60 };

static _Atomic unsigned writers_at_work;

/* Its own half of the churned keys comes and goes; its own half of the growing ones comes to stay. */
static void write_map(unsigned index)
{
    unsigned grown = 0;

    for (unsigned round = 1; round <= CHURN_ROUNDS; round++) {
        for (unsigned i = index; i < CHURNED; i += WRITERS) {
            uintptr_t key = key_of(CHURNED_AREA, i);

            expect(allocation_map_insert_block(value_of(key, round), key) == 0);
        }
        for (unsigned i = 0; i < GROWING / WRITERS / CHURN_ROUNDS; i++, grown++) {
            uintptr_t key = key_of(GROWING_AREA, grown * WRITERS + index);

            expect(allocation_map_insert_block(value_of(key, 1), key) == 0);
            expect(allocation_map_block(key) == value_of(key, 1));
        }
        for (unsigned i = index; i < CHURNED; i += WRITERS) {
            uintptr_t key = key_of(CHURNED_AREA, i);

            expect(allocation_map_block(key) == value_of(key, round));
            allocation_map_remove_block(key);
            expect(allocation_map_block(key) == NULL);
        }
    }
    atomic_fetch_sub(&writers_at_work, 1);
}

static void read_once(void)
{
    for (unsigned i = 0; i < STAYING; i++) {
        uintptr_t staying = key_of(STAYING_AREA, i), churned = key_of(CHURNED_AREA, i % CHURNED);
        const struct block_record *value = allocation_map_block(churned);

        expect(allocation_map_block(staying) == value_of(staying, 7));
        expect(value == NULL || belongs_to(value, churned));
        expect(allocation_map_block(key_of(NEVER_AREA, i)) == NULL);
    }
}

static void read_or_write(void *context, unsigned index)
{
    (void)context;
    if (index < WRITERS) {
        write_map(index);
        return;
    }
    do {
        read_once();
    } while (atomic_load(&writers_at_work) != 0);
    read_once();
}

START_TEST(a_key_that_stays_is_always_found_and_one_that_never_was_never)
{
    prepare_map(shard_counts[_i]);
    for (unsigned i = 0; i < STAYING; i++) {
        uintptr_t key = key_of(STAYING_AREA, i);

        ck_assert_int_eq(allocation_map_insert_block(value_of(key, 7), key), 0);
    }
    atomic_store(&writers_at_work, WRITERS);
    run_threads(WRITERS + READERS, read_or_write, NULL);
    ck_assert_uint_eq(counts().entries,
                      STAYING + GROWING / WRITERS / CHURN_ROUNDS * CHURN_ROUNDS * WRITERS);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("allocation_map");
    TCase *claims = add_claims(suite, "allocation map");

    tcase_add_test(claims, the_number_of_shards_is_a_power_of_two_and_fixed_at_the_first_use);
    tcase_add_loop_test(claims, a_region_is_found_from_each_of_its_granules_and_from_no_other, 0,
                        SHARD_COUNTS);
    tcase_add_test(claims, an_odd_address_and_null_are_nobodys_block);
    tcase_add_loop_test(claims, random_insertions_and_removals_leave_what_a_plain_array_says, 0,
                        SHARD_COUNTS);
    tcase_add_loop_test(claims, removal_closes_gaps_so_that_churn_makes_no_table_grow, 0,
                        SHARD_COUNTS);
    tcase_add_test(claims, removing_what_is_not_there_changes_nothing);
    tcase_add_loop_test(claims, a_key_that_stays_is_always_found_and_one_that_never_was_never, 0,
                        SHARD_COUNTS);
    return run_suite(suite);
}
