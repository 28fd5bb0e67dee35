/* SPDX-License-Identifier: MIT */
/*
 * The table that tells larder's addresses from others': what is marked, when, and what is not. And
 * the pages that need no clearing, which only the span heap knows.
 */
#include "support.h"

#include <sys/resource.h>

#include "granules.h"
#include "span_pages.h"

/* Each test has a process of its own (Check forks), and so a table of its own. */

static larder_t *make_with_table(larder_policy_t policy)
{
    ck_assert_int_eq(granules_enable(), 0);
    return make_instance(policy, NULL);
}

START_TEST(nothing_is_marked_before_the_table_is_asked_for)
{
    larder_t *larder = make_instance(LARDER_POLICY_FIT, NULL);
    void *block = larder_alloc(larder, 100 * KIB);
    ck_assert_ptr_nonnull(block);
    ck_assert(!granules_are_on());
    larder_free(larder, block);
    must_destroy(larder);
}
END_TEST

START_TEST(every_byte_of_a_block_in_a_region_is_marked)
{
    static const size_t sizes[] = {1, 5000, 100 * KIB, 70 * MIB};
    larder_t *larder = make_with_table(LARDER_POLICY_FIT);
    for (int i = 0; i < 4; i++) {
        char *block = larder_alloc(larder, sizes[i]);
        ck_assert_ptr_nonnull(block);
        ck_assert_int_eq(granule_kind_of(block), GRANULE_REGION);
        ck_assert_int_eq(granule_kind_of(block + sizes[i] - 1), GRANULE_REGION);
        larder_free(larder, block);
    }
    must_destroy(larder);
}
END_TEST

START_TEST(what_is_not_larders_is_not_marked)
{
    int on_stack = 0;
    static int in_data;
    larder_t *larder = make_with_table(LARDER_POLICY_FIT);
    void *block = larder_alloc(larder, MIB), *mapping = os_map(8 * MAP_GRANULE);
    ck_assert_ptr_nonnull(block);
    ck_assert_ptr_nonnull(mapping);
    ck_assert_int_eq(granule_kind_of(&on_stack), GRANULE_FOREIGN);
    ck_assert_int_eq(granule_kind_of(&in_data), GRANULE_FOREIGN);
    ck_assert_int_eq(granule_kind_of(NULL), GRANULE_FOREIGN);
    ck_assert_int_eq(granule_kind_of((char *)mapping + 4 * MAP_GRANULE), GRANULE_FOREIGN);
    ck_assert_int_eq(granule_kind_of((void *)(UINTPTR_MAX - 15)), GRANULE_FOREIGN);
    os_unmap(mapping, 8 * MAP_GRANULE);
    larder_free(larder, block);
    must_destroy(larder);
}
END_TEST

START_TEST(a_regions_marks_go_with_it)
{
    larder_t *larder = make_with_table(LARDER_POLICY_FIT);
    char *block = larder_alloc(larder, 100 * KIB);
    ck_assert_int_eq(granule_kind_of(block), GRANULE_REGION);
    larder_free(larder, block);
    must_destroy(larder);
    ck_assert_int_eq(granule_kind_of(block), GRANULE_FOREIGN);
}
END_TEST

START_TEST(a_block_with_a_record_is_to_be_looked_up)
{
    larder_t *larder = make_with_table(LARDER_POLICY_EXACT);
    void *block = larder_alloc(larder, 100 * KIB);
    ck_assert_int_eq(granule_kind_of(block), GRANULE_BLOCKS);
    larder_free(larder, block);
    must_destroy(larder);
    ck_assert_int_eq(granule_kind_of(block), GRANULE_BLOCKS);
    ck_assert_ptr_null(allocation_map_block((uintptr_t)block));
}
END_TEST

START_TEST(a_range_beyond_the_table_is_refused)
{
#if UINTPTR_MAX > 0xffffffff
    ck_assert_int_eq(granules_enable(), 0);
    uintptr_t end = (uintptr_t)1 << GRANULE_ADDRESS_BITS;
    ck_assert(granules_mark(end - MAP_GRANULE, MAP_GRANULE, GRANULE_REGION));
    ck_assert(!granules_mark(end - MAP_GRANULE, 2 * MAP_GRANULE, GRANULE_REGION));
    ck_assert(!granules_mark(end, 1, GRANULE_BLOCKS));
#endif
}
END_TEST

/* Units from the start up to the end of the last dirty page, page by page. */
static uint32_t touched_slowly(const struct region *region, uint32_t shift, uint32_t start,
                               uint32_t length)
{
    uint32_t touched = 0;
    for (uint32_t unit = 0; unit < length; unit++) {
        uint32_t page = (start + unit) >> shift;
        if (pages_is_dirty(region, page))
            touched = unit + 1;
    }
    return touched;
}

START_TEST(touched_units_end_with_the_last_dirty_page)
{
    enum { SHIFT = 3, PAGES = 320, UNITS = PAGES << SHIFT, NOTES = PAGES / 16 };
    static struct chunk_note notes[NOTES];
    struct region region = {.notes = &notes[NOTES - 1]};
    struct random random;
    random_init(&random, 1);
    for (int round = 0; round < 3000; round++) {
        memset(notes, 0, sizeof notes);
        for (size_t pages = random_between(&random, 0, 3); pages > 0; pages--) {
            uint32_t page = (uint32_t)random_between(&random, 0, PAGES - 1);
            *pages_dirty_word(&region, page) |= UINT32_C(1) << page % 32;
        }
        uint32_t start = (uint32_t)random_between(&random, 0, UNITS - 1);
        uint32_t length = (uint32_t)random_between(&random, 1, UNITS - start);
        ck_assert_uint_eq(pages_touched_units(&region, SHIFT, start, length),
                          touched_slowly(&region, SHIFT, start, length));
    }
}
END_TEST

static bool is_zero(const unsigned char *block, size_t size)
{
    return size == 0 || (block[0] == 0 && memcmp(block, block + 1, size - 1) == 0);
}

START_TEST(calloc_gives_zeros_beside_dirty_fresh_and_discarded_pages)
{
    enum { SLOTS = 24, ROUNDS = 3000 };
    void *slots[SLOTS] = {NULL};
    struct random random;
    random_init(&random, 2);
    larder_t *larder = make_instance(LARDER_POLICY_FIT, NULL);
    for (int round = 0; round < ROUNDS; round++) {
        size_t slot = random_between(&random, 0, SLOTS - 1);
        size_t size = random_between(&random, 8 * KIB, 200 * KIB);
        larder_free(larder, slots[slot]);
        if (random_between(&random, 0, 49) == 0)
            larder_trim(larder, random_between(&random, 0, 1) * 100 * KIB);
        slots[slot] = larder_calloc(larder, 1, size);
        ck_assert_ptr_nonnull(slots[slot]);
        ck_assert(is_zero(slots[slot], size));
        memset(slots[slot], 0xa5, random_between(&random, 0, size));
    }
    for (int i = 0; i < SLOTS; i++)
        larder_free(larder, slots[i]);
    must_destroy(larder);
}
END_TEST

START_TEST(calloc_leaves_fresh_pages_alone)
{
    struct rusage before, after;
    larder_t *larder = make_bare_instance(LARDER_POLICY_FIT, NULL);
    larder_free(larder, memset(larder_alloc(larder, 300 * KIB), 1, 300 * KIB)); /* begins dirty */
    for (int i = 0; i < 3; i++) {
        getrusage(RUSAGE_SELF, &before);
        unsigned char *block = larder_calloc(larder, 64, MIB);
        getrusage(RUSAGE_SELF, &after);
        size_t pages = 64 * MIB / os_page_size();
        ck_assert_uint_lt((size_t)(after.ru_minflt - before.ru_minflt), pages / 4);
        ck_assert(is_zero(block, 64 * MIB));
        larder_free(larder, block);
        larder_trim(larder, 0);
    }
    must_destroy(larder);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("granules");
    TCase *tests = add_claims(suite, "granules");
    tcase_add_test(tests, nothing_is_marked_before_the_table_is_asked_for);
    tcase_add_test(tests, every_byte_of_a_block_in_a_region_is_marked);
    tcase_add_test(tests, what_is_not_larders_is_not_marked);
    tcase_add_test(tests, a_regions_marks_go_with_it);
    tcase_add_test(tests, a_block_with_a_record_is_to_be_looked_up);
    tcase_add_test(tests, a_range_beyond_the_table_is_refused);
    tcase_add_test(tests, touched_units_end_with_the_last_dirty_page);
    tcase_add_test(tests, calloc_gives_zeros_beside_dirty_fresh_and_discarded_pages);
    tcase_add_test(tests, calloc_leaves_fresh_pages_alone);
    return run_suite(suite);
}
