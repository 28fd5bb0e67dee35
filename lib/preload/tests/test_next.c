/* SPDX-License-Identifier: MIT */
/*
 * The look-up of the allocator behind, with a dlsym that does what the real one may: it allocates.
 * This program's own dlsym and malloc family stand in for the loader's.
 */
#include "next.h"

#include <check.h>
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static int look_ups;
static int served_by_arena;

/* The call that a malloc made by dlsym would make. */
static void allocate_as_dlsym_does(void)
{
    if (next_family() != NULL)
        return;
    unsigned char *block = next_arena_allocate(64, 100);
    if (!block || (uintptr_t)block % 64 != 0 || !next_arena_owns(block) ||
        next_arena_readable(block) < 100)
        return;
    for (int i = 0; i < 100; i++) {
        if (block[i] != 0)
            return;
    }
    memset(block, 0xff, 100);
    served_by_arena++;
}

static void stand_in(void)
{
}

void *dlsym(void *restrict handle, const char *restrict name)
{
    (void)handle;
    void (*function)(void) = stand_in;
    void *symbol;
    memcpy(&symbol, &function, sizeof symbol);
    look_ups++;
    allocate_as_dlsym_does();
    return strcmp(name, "pvalloc") == 0 ? NULL : symbol;
}

START_TEST(a_call_made_by_dlsym_is_served_by_the_arena)
{
    const struct next_family *next = next_family();
    ck_assert_ptr_nonnull(next);
    ck_assert_ptr_nonnull(next->malloc);
    ck_assert_int_gt(look_ups, 0);
    ck_assert_int_eq(served_by_arena, look_ups);
}
END_TEST

START_TEST(the_look_up_happens_once)
{
    ck_assert_ptr_eq(next_family(), next_family());
    int before = look_ups;
    next_family();
    ck_assert_int_eq(look_ups, before);
}
END_TEST

START_TEST(blocks_of_the_arena_do_not_overlap)
{
    unsigned char *first = next_arena_allocate(1, 33);
    unsigned char *second = next_arena_allocate(1, 33);
    ck_assert_ptr_nonnull(first);
    ck_assert_ptr_nonnull(second);
    ck_assert(first + 33 <= second || second + 33 <= first);
}
END_TEST

START_TEST(a_used_up_arena_says_so)
{
    while (next_arena_allocate(1, 1000) != NULL)
        continue;
    ck_assert_ptr_null(next_arena_allocate(1, 1000));
    ck_assert_ptr_null(next_arena_allocate(1, SIZE_MAX));
}
END_TEST

START_TEST(a_block_from_elsewhere_is_not_the_arenas)
{
    int elsewhere = 0;
    ck_assert(!next_arena_owns(&elsewhere));
    ck_assert(!next_arena_owns(NULL));
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("next");
    tcase_add_test(tests, a_call_made_by_dlsym_is_served_by_the_arena);
    tcase_add_test(tests, the_look_up_happens_once);
    tcase_add_test(tests, blocks_of_the_arena_do_not_overlap);
    tcase_add_test(tests, a_used_up_arena_says_so);
    tcase_add_test(tests, a_block_from_elsewhere_is_not_the_arenas);

    Suite *suite = suite_create("next");
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
