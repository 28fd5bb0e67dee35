/* SPDX-License-Identifier: MIT */
/*
 * The allocators under comparison: each keeps its promises, and none takes the process's malloc
 * over.
 */
#include <check.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "allocator.h"
#include "peer.h"
#include "peer_malloc.h"

#define ALLOCATOR_COUNT 12

/* Opens the allocator with that number; false where this machine lacks it. */
static bool open_number(int number, struct allocator *allocator)
{
    char why[512] = "";
    int result = allocator_open(allocator_names()[number], allocator, why, sizeof why);
    if (result == -ENODEV) {
        ck_assert_msg(strstr(why, "install") != NULL, "%s", why); /* says how to get it */
        fprintf(stderr, "%s: not here: %s\n", allocator_names()[number], why);
        return false;
    }
    ck_assert_msg(result == 0, "%s: %s", allocator_names()[number], why);
    return true;
}

/*
 * "none" hands the same memory out twice: there is nothing to check in it but that it can be
 * written.
 */
static bool keeps_contents(const struct allocator *allocator)
{
    return strcmp(allocator->name, "none") != 0;
}

static bool holds(const unsigned char *bytes, size_t size, size_t value)
{
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] != value) {
            return false;
        }
    }
    return true;
}

START_TEST(the_list_names_as_many_as_are_tested)
{
    int count = 0;
    while (allocator_names()[count] != NULL) {
        ck_assert_ptr_nonnull(allocator_summary(allocator_names()[count]));
        count++;
    }
    ck_assert_int_eq(count, ALLOCATOR_COUNT);
    ck_assert_ptr_null(allocator_summary("nonsense"));
}
END_TEST

START_TEST(an_unknown_name_is_refused)
{
    struct allocator allocator;
    char why[256];
    ck_assert_int_eq(allocator_open("nonsense", &allocator, why, sizeof why), -ENOENT);
    ck_assert_ptr_nonnull(strstr(why, "'nonsense'"));
}
END_TEST

START_TEST(each_says_its_name_version_and_policy)
{
    struct allocator allocator;
    if (open_number(_i, &allocator)) {
        ck_assert_str_eq(allocator.name, allocator_names()[_i]);
        ck_assert_ptr_nonnull(allocator.policy);
        ck_assert_uint_gt(strlen(allocator.version), 0);
        allocator_close(&allocator);
    }
}
END_TEST

START_TEST(blocks_hold_their_contents_and_realloc_keeps_them)
{
    enum { COUNT = 200 };
    struct allocator allocator;
    unsigned char *blocks[COUNT];
    if (!open_number(_i, &allocator)) {
        return;
    }
    for (size_t i = 0; i < COUNT; i++) {
        blocks[i] = allocator.allocate(allocator.context, i * i + 1);
        ck_assert_ptr_nonnull(blocks[i]);
        memset(blocks[i], (int)i, i * i + 1);
    }
    for (size_t i = 0; i < COUNT; i++) {
        size_t size = i % 2 == 0 ? 2 * i * i + 100 : i * i / 2 + 1;
        size_t kept = size < i * i + 1 ? size : i * i + 1;
        blocks[i] = allocator.reallocate(allocator.context, blocks[i], size);
        ck_assert_ptr_nonnull(blocks[i]);
        ck_assert(!keeps_contents(&allocator) || holds(blocks[i], kept, i));
    }
    for (size_t i = 0; i < COUNT; i++) {
        allocator.release(allocator.context, blocks[i]);
    }
    allocator_close(&allocator);
}
END_TEST

START_TEST(aligned_blocks_are_aligned_up_to_a_page)
{
    struct allocator allocator;
    if (!open_number(_i, &allocator)) {
        return;
    }
    for (size_t alignment = 2; alignment <= 4096; alignment *= 2) {
        for (size_t size = 1; size < 100000; size *= 3) {
            char *block = allocator.allocate_aligned(allocator.context, alignment, size);
            ck_assert_ptr_nonnull(block);
            ck_assert_uint_eq((uintptr_t)block % alignment, 0);
            block[0] = block[size - 1] = 1;
            allocator.release(allocator.context, block);
        }
    }
    allocator_close(&allocator);
}
END_TEST

START_TEST(none_of_them_takes_malloc_over)
{
    struct allocator allocator;
    char before[512], after[512];
    ck_assert(peer_malloc_file(before, sizeof before));
    if (open_number(_i, &allocator)) {
        allocator.release(allocator.context, allocator.allocate(allocator.context, 1000));
        ck_assert(peer_malloc_file(after, sizeof after));
        ck_assert_str_eq(before, after);
        allocator_close(&allocator);
    }
}
END_TEST

/* False where the machine has no C++ compiler, or no libc10. */
static bool open_named(const char *name, struct allocator *allocator)
{
    int number = 0;
    while (strcmp(allocator_names()[number], name) != 0) {
        number++;
    }
    return open_number(number, allocator);
}

static struct allocator_report report_of(const struct allocator *allocator)
{
    struct allocator_report report;
    allocator_get_report(allocator, &report);
    return report;
}

static const char *const c10_names[] = {"c10", "c10-design"};

START_TEST(c10_reuses_exact_sizes_last_in_first_out)
{
    struct allocator c10;
    if (!open_named(c10_names[_i], &c10)) {
        return;
    }
    void *a = c10.allocate(c10.context, 1000);
    void *b = c10.allocate(c10.context, 1000);
    ck_assert_uint_eq((uintptr_t)a % 64, 0);
    c10.release(c10.context, a);
    c10.release(c10.context, b);
    void *other = c10.allocate(c10.context, 999); /* no block of 1000 serves it */
    ck_assert_ptr_ne(other, a);
    ck_assert_ptr_ne(other, b);
    ck_assert_ptr_eq(c10.allocate(c10.context, 1000), b);
    ck_assert_ptr_eq(c10.allocate(c10.context, 1000), a);
    c10.release(c10.context, a);
    c10.release(c10.context, b);
    c10.release(c10.context, other);
    allocator_close(&c10);
}
END_TEST

START_TEST(c10_passes_foreign_blocks_on_to_free)
{
    struct allocator c10;
    if (!open_named(c10_names[_i], &c10)) {
        return;
    }
    void *foreign = malloc(100);
    c10.release(c10.context, foreign);
    void *block = c10.allocate(c10.context, 100); /* a cache that took it in would give it out */
    ck_assert(block != foreign || (uintptr_t)foreign % 64 == 0);
    c10.release(c10.context, block);
    allocator_close(&c10);
}
END_TEST

START_TEST(c10_can_be_opened_again_and_starts_empty)
{
    struct allocator c10;
    for (size_t round = 0; round < 3; round++) {
        if (!open_named(c10_names[_i], &c10)) {
            return;
        }
        if (c10.report != NULL) {
            ck_assert_uint_eq(report_of(&c10).held_bytes, 0);
        }
        for (size_t size = 1000; size < 1200; size++) {
            void *block = c10.allocate(c10.context, size);
            ck_assert_ptr_nonnull(block);
            c10.release(c10.context, block);
            ck_assert_ptr_eq(c10.allocate(c10.context, size), block);
            c10.release(c10.context, block);
        }
        allocator_close(&c10);
    }
}
END_TEST

START_TEST(c10_has_no_memory_for_an_absurd_size_and_goes_on)
{
    struct allocator c10;
    if (!open_named(c10_names[_i], &c10)) {
        return;
    }
    volatile size_t absurd = SIZE_MAX / 4;
    ck_assert_ptr_null(c10.allocate(c10.context, absurd));
    void *block = c10.allocate(c10.context, 1000);
    ck_assert_ptr_nonnull(block);
    c10.release(c10.context, block);
    allocator_close(&c10);
}
END_TEST

START_TEST(c10_design_never_gives_back_and_says_so)
{
    struct allocator c10;
    if (!open_named("c10-design", &c10)) {
        return;
    }
    for (size_t size = 1000; size < 1100; size++) {
        c10.release(c10.context, c10.allocate(c10.context, size));
    }
    void *live = c10.allocate(c10.context, 1099);
    struct allocator_report report = report_of(&c10);
    ck_assert_uint_eq(report.live_bytes, 1099);
    ck_assert_uint_eq(report.held_bytes, 100 * (1000 + 1099) / 2);
    ck_assert_uint_eq(report.cached_bytes, report.held_bytes - 1099);
    ck_assert_uint_eq(report.peak_held_bytes, report.held_bytes);
    c10.release(c10.context, live);
    allocator_close(&c10);
}
END_TEST

START_TEST(ncnn_pool_takes_the_first_that_is_large_enough_and_drops_the_smallest)
{
    struct allocator pool;
    void *blocks[12];
    if (!open_named("ncnn-pool", &pool)) {
        return;
    }
    void *large = pool.allocate(pool.context, 1 << 20);
    pool.release(pool.context, large);
    ck_assert_ptr_eq(pool.allocate(pool.context, 10), large); /* however much larger */
    pool.release(pool.context, large);
    for (size_t i = 0; i < 12; i++) {
        blocks[i] = pool.allocate(pool.context, (2 + i) << 20); /* too large for what is free */
    }
    for (size_t i = 0; i < 12; i++) {
        pool.release(pool.context, blocks[i]);
    }
    uint64_t before = report_of(&pool).held_bytes;
    void *huge = pool.allocate(pool.context, 100 << 20);
    ck_assert_uint_eq(report_of(&pool).held_bytes, before - (1 << 20) + (100 << 20));
    pool.release(pool.context, huge);
    allocator_close(&pool);
}
END_TEST

START_TEST(bfc_arena_fits_best_splits_joins_and_doubles)
{
    struct allocator arena;
    if (!open_named("bfc-arena", &arena)) {
        return;
    }
    char *first = arena.allocate(arena.context, 1000);
    char *second = arena.allocate(arena.context, 100000);
    char *third = arena.allocate(arena.context, 1);
    ck_assert_ptr_eq(second, first + 1024); /* cut from one region */
    ck_assert_ptr_eq(third, second + 100096);
    ck_assert_uint_eq(report_of(&arena).held_bytes, 1 << 20);
    arena.release(arena.context, first);
    /* The hole of 1024 bytes, not the rest of the region; too small a rest to be split off. */
    ck_assert_ptr_eq(arena.allocate(arena.context, 600), first);
    arena.release(arena.context, second);
    arena.release(arena.context, first);
    /* Joined to one hole, which serves what neither did. */
    ck_assert_ptr_eq(arena.allocate(arena.context, 101000), first);
    char *next_region = arena.allocate(arena.context, 3 << 20);
    ck_assert_uint_eq(report_of(&arena).held_bytes, (1 << 20) + (4 << 20));
    arena.release(arena.context, next_region);
    ck_assert_uint_eq(report_of(&arena).held_bytes, (1 << 20) + (4 << 20)); /* for ever */
    arena.release(arena.context, first);
    arena.release(arena.context, third);
    ck_assert_uint_eq(report_of(&arena).live_bytes, 0);
    allocator_close(&arena);
}
END_TEST

START_TEST(peers_are_told_from_allocators_of_this_process)
{
    for (const char *const *name = peer_names(); *name != NULL; name++) {
        ck_assert(peer_is_one(*name));
        ck_assert_ptr_null(allocator_summary(*name));
    }
    ck_assert(peer_is_one("preload:/some/where.so"));
    ck_assert(!peer_is_one("system"));
}
END_TEST

START_TEST(a_library_that_cannot_be_preloaded_is_refused)
{
    static const char *const names[] = {"preload:", "preload:/nonexistent.so", "preload:/a b.so",
                                        "preload:/a.so:/b.so"};
    char library[256], why[256];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        ck_assert_int_eq(peer_library(names[i], library, sizeof library, why, sizeof why), -ENODEV);
    }
}
END_TEST

START_TEST(mimalloc_versions_of_both_kinds_are_read)
{
    char version[32];
    peer_format_mimalloc_version(209, version, sizeof version);
    ck_assert_str_eq(version, "2.0.9");
    peer_format_mimalloc_version(20405, version, sizeof version);
    ck_assert_str_eq(version, "2.4.5");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("allocators");
    TCase *each = tcase_create("each");
    tcase_set_timeout(each, 60);
    tcase_add_loop_test(each, each_says_its_name_version_and_policy, 0, ALLOCATOR_COUNT);
    tcase_add_loop_test(each, blocks_hold_their_contents_and_realloc_keeps_them, 0,
                        ALLOCATOR_COUNT);
    tcase_add_loop_test(each, aligned_blocks_are_aligned_up_to_a_page, 0, ALLOCATOR_COUNT);
    tcase_add_loop_test(each, none_of_them_takes_malloc_over, 0, ALLOCATOR_COUNT);
    suite_add_tcase(suite, each);

    TCase *table = tcase_create("table");
    tcase_add_test(table, the_list_names_as_many_as_are_tested);
    tcase_add_test(table, an_unknown_name_is_refused);
    tcase_add_test(table, peers_are_told_from_allocators_of_this_process);
    tcase_add_test(table, a_library_that_cannot_be_preloaded_is_refused);
    tcase_add_test(table, mimalloc_versions_of_both_kinds_are_read);
    suite_add_tcase(suite, table);

    TCase *c10 = tcase_create("c10");
    tcase_set_timeout(c10, 60);
    tcase_add_loop_test(c10, c10_reuses_exact_sizes_last_in_first_out, 0, 2);
    tcase_add_loop_test(c10, c10_passes_foreign_blocks_on_to_free, 0, 2);
    tcase_add_loop_test(c10, c10_can_be_opened_again_and_starts_empty, 0, 2);
    tcase_add_loop_test(c10, c10_has_no_memory_for_an_absurd_size_and_goes_on, 0, 2);
    tcase_add_test(c10, c10_design_never_gives_back_and_says_so);
    suite_add_tcase(suite, c10);

    TCase *engines = tcase_create("engines");
    tcase_add_test(engines, ncnn_pool_takes_the_first_that_is_large_enough_and_drops_the_smallest);
    tcase_add_test(engines, bfc_arena_fits_best_splits_joins_and_doubles);
    suite_add_tcase(suite, engines);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
