/* SPDX-License-Identifier: MIT */
/*
 * The allocation map by itself, with keys that are no addresses of anything: what stays is found at
 * every instant, whatever other threads insert, remove and make grow meanwhile, and what was never there is not.
 *
 * A value tells its key: a record "pointer" is the key itself plus a generation below KEY_STEP, so a
 * value that belongs to another key is seen at once. Nothing follows these pointers.
 */
#include "support.h"

#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "allocation_map.h"
#include "granules.h"
#include "meta.h"
#include "witness.h"

/* -- The system, which may have nothing left -- */

static _Atomic bool exhausted; /* threads map memory, too */

void *mmap(void *hint, size_t size, int protection, int flags, int file, off_t offset)
{
    if (file == -1 && atomic_load(&exhausted)) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
#ifdef SYS_mmap2
    return (void *)syscall(SYS_mmap2, hint, size, protection, flags, file, (long)(offset / 4096));
#else
    return (void *)syscall(SYS_mmap, hint, size, protection, flags, file, offset);
#endif
}

/* Nothing is left, larder's own records included. */
static void exhaust_memory(void)
{
    atomic_store(&exhausted, true);
    while (meta_alloc(64) != NULL)
        ;
}

static void refill_memory(void)
{
    atomic_store(&exhausted, false);
}

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
    uintptr_t base = 41 * MAP_GRANULE; /* no wide granule lies in it whole, however wide they are */

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

/* Behind a wide granule's beginning by one, and with small ones on both sides of `wide` whole ones. */
static const uintptr_t wide_base = 2 * MAP_WIDE - MAP_GRANULE;
static size_t wide_size(size_t wide)
{
    return wide * MAP_WIDE + 3 * MAP_GRANULE;
}

START_TEST(a_large_region_is_found_everywhere_and_has_few_entries)
{
    struct region *region = (struct region *)key_of(0, 1);
    struct region *before = (struct region *)key_of(0, 2), *behind = (struct region *)key_of(0, 3);
    uintptr_t end = wide_base + wide_size(2);

    prepare_map(shard_counts[_i]);
    ck_assert_int_eq(allocation_map_insert_region(region, wide_base, wide_size(2)), 0);
    ck_assert_uint_eq(counts().entries, 5); /* one small, two wide, two small */
    /* neighbours within the same wide granules */
    ck_assert_int_eq(allocation_map_insert_region(before, wide_base - MAP_GRANULE, MAP_GRANULE), 0);
    ck_assert_int_eq(allocation_map_insert_region(behind, end, MAP_GRANULE), 0);
    for (uintptr_t granule = wide_base; granule != end; granule += MAP_GRANULE) {
        ck_assert_ptr_eq(allocation_map_region(granule), region);
        ck_assert_ptr_eq(allocation_map_region(granule + MAP_GRANULE - 1), region);
    }
    ck_assert_ptr_eq(allocation_map_region(wide_base - 1), before);
    ck_assert_ptr_eq(allocation_map_region(end), behind);
    ck_assert_ptr_null(allocation_map_region(wide_base - MAP_GRANULE - 1));
    ck_assert_ptr_null(allocation_map_region(end + MAP_GRANULE));
    allocation_map_remove_region(wide_base, wide_size(2));
    ck_assert_ptr_eq(allocation_map_region(wide_base - 1), before);
    ck_assert_ptr_null(allocation_map_region(wide_base));
    ck_assert_ptr_null(allocation_map_region(2 * MAP_WIDE));
    ck_assert_ptr_null(allocation_map_region(end - 1));
    ck_assert_ptr_eq(allocation_map_region(end), behind);
    ck_assert_uint_eq(counts().entries, 2);
}
END_TEST

START_TEST(an_odd_address_and_null_are_nobodys_block)
{
    struct region *region = (struct region *)key_of(0, 1);
    uintptr_t base = MAP_WIDE - MAP_GRANULE;

    prepare_map(64);
    /* entered under odd keys, which blocks of those addresses must not meet */
    ck_assert_int_eq(allocation_map_insert_region(region, base, MAP_GRANULE + MAP_WIDE), 0);
    ck_assert_uint_eq(counts().entries, 2);
    ck_assert_ptr_null(allocation_map_block((base >> MAP_GRANULE_SHIFT) << 2 | 1));
    ck_assert_ptr_null(allocation_map_block((MAP_WIDE >> MAP_WIDE_SHIFT) << 2 | 3));
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

START_TEST(removing_a_region_that_is_not_there_hides_no_other)
{
    struct region *region = (struct region *)key_of(0, 1);

    prepare_map(64);
    allocation_map_remove_region(wide_base, wide_size(1)); /* as after an insertion that failed */
    /* as many as were removed, of either size */
    ck_assert_int_eq(allocation_map_insert_region(region, wide_base, wide_size(1)), 0);
    ck_assert_ptr_eq(allocation_map_region(wide_base), region);
    ck_assert_ptr_eq(allocation_map_region(wide_base + MAP_GRANULE), region);
}
END_TEST

/* -- How many shards -- */

/* In a process of its own: the table's bytes, as many as shards while nothing is in it. */
static void tell_table_bytes(void *value)
{
    if (value != NULL)
        expect(setenv("LARDER_MAP_SHARDS", value, 1) == 0);
    expect(counts().table_bytes == 0); /* and may be asked before there is any */
    expect(allocation_map_prepare() == 0);
    fprintf(stderr, "%llu", (unsigned long long)counts().table_bytes);
}

static uint64_t table_bytes_with(const char *value)
{
    char copy[16];
    struct child_end end;

    snprintf(copy, sizeof copy, "%s", value != NULL ? value : "");
    end = run_in_child(tell_table_bytes, value != NULL ? copy : NULL);
    ck_assert_msg(end.signal == 0 && end.status == 0, "%s", end.output);
    return strtoull(end.output, NULL, 10);
}

START_TEST(the_environment_chooses_the_number_of_shards_unless_it_is_none)
{
    static const struct {
        const char *value;
        unsigned shards;
    } choices[] = {
        {NULL, 64}, {"2", 2},     {"64", 64}, {"1024", 1024}, {"", 64},   {"0", 64},
        {"3", 64},  {"2048", 64}, {"-1", 64}, {"8x", 64},     {"x8", 64},
    };
    uint64_t one = table_bytes_with("1");

    ck_assert_uint_gt(one, 0);
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++)
        ck_assert_msg(table_bytes_with(choices[i].value) == choices[i].shards * one, "%s",
                      choices[i].value);
}
END_TEST

/* -- When memory runs out -- */

START_TEST(a_map_that_could_not_be_prepared_can_be_later)
{
    exhaust_memory();
    ck_assert_int_eq(allocation_map_prepare(), -ENOMEM);
    refill_memory();
    ck_assert_int_eq(allocation_map_set_shards(2), 0); /* none has been fixed */
    ck_assert_int_eq(allocation_map_prepare(), 0);
    ck_assert_int_eq(allocation_map_insert_block(value_of(key_of(0, 0), 1), key_of(0, 0)), 0);
}
END_TEST

START_TEST(a_block_that_finds_no_room_leaves_those_before_it)
{
    unsigned inserted = 0;

    prepare_map(shard_counts[_i]);
    exhaust_memory();
    while (allocation_map_insert_block(value_of(key_of(0, inserted), 1), key_of(0, inserted)) == 0)
        ck_assert_uint_lt(++inserted, KEYS);
    ck_assert_uint_eq(counts().entries, inserted);
    refill_memory();
    ck_assert_ptr_null(allocation_map_block(key_of(0, inserted)));
    for (unsigned i = inserted; i < KEYS; i++)
        ck_assert_int_eq(allocation_map_insert_block(value_of(key_of(0, i), 1), key_of(0, i)), 0);
    for (unsigned i = 0; i < KEYS; i++)
        ck_assert_ptr_eq(allocation_map_block(key_of(0, i)), value_of(key_of(0, i), 1));
}
END_TEST

/* Whichever of its granules finds no room. */
START_TEST(a_region_is_entered_whole_or_not_at_all)
{
    enum { WIDE = 37, ENTRIES = WIDE + 3 };
    struct region *region = (struct region *)key_of(0, 1);
    uintptr_t base = wide_base;
    size_t size = wide_size(WIDE);
    unsigned failed = 0;

    prepare_map(1);
    for (unsigned before = 0; before < 300; before++) {
        ck_assert_int_eq(
            allocation_map_insert_block(value_of(key_of(0, before), 1), key_of(0, before)), 0);
        exhaust_memory();
        if (allocation_map_insert_region(region, base, size) == 0) {
            ck_assert_ptr_eq(allocation_map_region(base + size - 1), region);
            allocation_map_remove_region(base, size);
        } else {
            failed++;
        }
        for (size_t offset = 0; offset < size; offset += MAP_GRANULE)
            ck_assert_ptr_null(allocation_map_region(base + offset));
        ck_assert_uint_eq(counts().entries, before + 1);
        refill_memory();
    }
    ck_assert_uint_ge(failed, ENTRIES); /* each granule's turn has come */
}
END_TEST

START_TEST(an_address_beyond_the_table_of_granules_is_refused)
{
    uintptr_t beyond = GRANULES << MAP_GRANULE_SHIFT; /* 0 where the table holds every address */

    prepare_map(64);
    ck_assert_int_eq(granules_enable(), 0);
    if (beyond == 0)
        return;
    ck_assert_int_eq(
        allocation_map_insert_region((struct region *)key_of(0, 1), beyond, MAP_GRANULE), -ENOMEM);
    ck_assert_int_eq(allocation_map_insert_block(value_of(key_of(0, 1), 1), beyond), -ENOMEM);
    ck_assert_ptr_null(allocation_map_region(beyond));
    ck_assert_ptr_null(allocation_map_block(beyond));
    ck_assert_uint_eq(counts().entries, 0);
}
END_TEST

/* -- Around a fork -- */

START_TEST(a_fork_before_the_first_use_and_after_it_leaves_the_map_usable_on_both_sides)
{
    for (unsigned i = 0; i < 2; i++) {
        uintptr_t key = key_of(0, i);

        witness_look_away(); /* all shards at once: as before every fork */
        allocation_map_fork_lock();
        if (_i == 0)
            allocation_map_fork_unlock();
        else
            allocation_map_fork_child();
        witness_look_again();
        ck_assert_int_eq(allocation_map_prepare(), 0);
        ck_assert_int_eq(allocation_map_insert_block(value_of(key, 1), key), 0);
        ck_assert_uint_eq(counts().entries, i + 1);
    }
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
    tcase_add_loop_test(claims, a_large_region_is_found_everywhere_and_has_few_entries, 0,
                        SHARD_COUNTS);
    tcase_add_test(claims, an_odd_address_and_null_are_nobodys_block);
    tcase_add_loop_test(claims, random_insertions_and_removals_leave_what_a_plain_array_says, 0,
                        SHARD_COUNTS);
    tcase_add_loop_test(claims, removal_closes_gaps_so_that_churn_makes_no_table_grow, 0,
                        SHARD_COUNTS);
    tcase_add_test(claims, removing_what_is_not_there_changes_nothing);
    tcase_add_test(claims, removing_a_region_that_is_not_there_hides_no_other);
    tcase_add_test(claims, the_environment_chooses_the_number_of_shards_unless_it_is_none);
    tcase_add_test(claims, a_map_that_could_not_be_prepared_can_be_later);
    tcase_add_loop_test(claims, a_block_that_finds_no_room_leaves_those_before_it, 0, SHARD_COUNTS);
    tcase_add_test(claims, a_region_is_entered_whole_or_not_at_all);
    tcase_add_test(claims, an_address_beyond_the_table_of_granules_is_refused);
    tcase_add_loop_test(
        claims, a_fork_before_the_first_use_and_after_it_leaves_the_map_usable_on_both_sides, 0, 2);
    tcase_add_loop_test(claims, a_key_that_stays_is_always_found_and_one_that_never_was_never, 0,
                        SHARD_COUNTS);
    return run_suite(suite);
}
