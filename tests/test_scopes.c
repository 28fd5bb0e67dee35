/* SPDX-License-Identifier: MIT */
/*
 * The calling thread's current instance: scopes nest, restore, do not leak into other threads, and
 * a block finds its way home whatever scope it is freed in.
 */
#include "support.h"

static larder_t *make_fit(void)
{
    return make_instance(LARDER_POLICY_FIT, NULL);
}

START_TEST(a_thread_starts_without_a_current_instance)
{
    ck_assert_ptr_null(larder_current());
}
END_TEST

START_TEST(enter_returns_the_previous_instance_and_leave_restores_it)
{
    larder_t *outer = make_fit(), *inner = make_fit();
    larder_t *before_outer, *before_inner;

    before_outer = larder_scope_enter(outer);
    ck_assert_ptr_null(before_outer);
    ck_assert_ptr_eq(larder_current(), outer);
    before_inner = larder_scope_enter(inner);
    ck_assert_ptr_eq(before_inner, outer);
    ck_assert_ptr_eq(larder_current(), inner);
    larder_scope_leave(before_inner);
    ck_assert_ptr_eq(larder_current(), outer);
    larder_scope_leave(before_outer);
    ck_assert_ptr_null(larder_current());
    must_destroy(outer);
    must_destroy(inner);
}
END_TEST

START_TEST(scopes_nest_a_hundred_deep)
{
    enum { DEPTH = 100 };
    larder_t *instances[3] = {make_fit(), make_fit(), NULL};
    larder_t *previous[DEPTH];

    for (unsigned i = 0; i < DEPTH; i++) {
        previous[i] = larder_scope_enter(instances[i % 3]);
        ck_assert_ptr_eq(larder_current(), instances[i % 3]);
    }
    for (unsigned i = DEPTH; i > 0; i--) {
        ck_assert_ptr_eq(larder_current(), instances[(i - 1) % 3]);
        larder_scope_leave(previous[i - 1]);
    }
    ck_assert_ptr_null(larder_current());
    must_destroy(instances[0]);
    must_destroy(instances[1]);
}
END_TEST

START_TEST(a_scope_of_null_turns_the_current_instance_off)
{
    larder_t *larder = make_fit();
    larder_t *outside = larder_scope_enter(larder);
    larder_t *disabled = larder_scope_enter(NULL);
    void *block;

    ck_assert_ptr_null(larder_current());
    block = larder_current_alloc(100);
    ck_assert_ptr_nonnull(block);
    ck_assert_ptr_null(larder_owner(block));
    larder_current_free(block);
    larder_scope_leave(disabled);
    ck_assert_ptr_eq(larder_current(), larder);
    larder_scope_leave(outside);
    ck_assert_uint_eq(stats_of(larder).allocations, 0);
    must_destroy(larder);
}
END_TEST

static larder_t *seen_inside;

static int leave_early(larder_t *larder)
{
    LARDER_SCOPE(larder);
    seen_inside = larder_current();
    if (seen_inside) /* always: a return from the middle */
        return 1;
    return 0;
}

START_TEST(the_scope_macro_ends_with_its_braces)
{
    larder_t *outer = make_fit(), *inner = make_fit();

    {
        LARDER_SCOPE(outer);
        ck_assert_ptr_eq(larder_current(), outer);
        {
            LARDER_SCOPE(inner);
            ck_assert_ptr_eq(larder_current(), inner);
        }
        ck_assert_ptr_eq(larder_current(), outer);
        ck_assert_int_eq(leave_early(inner), 1);
        ck_assert_ptr_eq(seen_inside, inner);
        ck_assert_ptr_eq(larder_current(), outer);
    }
    ck_assert_ptr_null(larder_current());
    must_destroy(outer);
    must_destroy(inner);
}
END_TEST

/* -- Threads -- */

static void enter_what_is_handed_over(void *context, unsigned index)
{
    larder_t *handed = context;
    larder_t *previous;
    void *block;

    (void)index;
    expect(larder_current() == NULL);
    previous = larder_scope_enter(handed);
    expect(previous == NULL);
    expect(larder_current() == handed);
    block = larder_current_alloc(1000);
    expect(larder_owner(block) == handed);
    larder_current_free(block);
    larder_scope_leave(previous);
    expect(larder_current() == NULL);
}

START_TEST(a_threads_scope_is_its_own_and_can_be_handed_to_other_threads)
{
    larder_t *larder = make_fit();
    larder_t *previous = larder_scope_enter(larder);

    run_threads(4, enter_what_is_handed_over, larder_current());
    ck_assert_ptr_eq(larder_current(), larder);
    larder_scope_leave(previous);
    ck_assert_uint_eq(stats_of(larder).allocations, 4);
    must_destroy(larder);
}
END_TEST

/* -- Blocks in and out of scopes -- */

START_TEST(the_current_instance_serves_allocations)
{
    larder_config_t config;
    larder_t *larder;
    void *block;

    if (!variant_config(_i, &config))
        return;
    larder = must_create(&config);
    {
        LARDER_SCOPE(larder);
        block = larder_current_alloc(1000);
        ck_assert_ptr_eq(larder_owner(block), larder);
        ck_assert_uint_eq(stats_of(larder).live_bytes, 1000);
        larder_current_free(block);
        larder_current_free(NULL);
        ck_assert_uint_eq(stats_of(larder).live_bytes, 0);
    }
    must_destroy(larder);
}
END_TEST

START_TEST(without_a_scope_memory_is_the_systems)
{
    for (size_t size = 0; size < 10000; size = 2 * size + 1) {
        void *block = larder_current_alloc(size), *other = larder_current_alloc(size);

        ck_assert_ptr_nonnull(block);
        ck_assert_ptr_nonnull(other);
        ck_assert_ptr_ne(block, other);
        ck_assert(is_aligned(block, 64) && is_aligned(other, 64));
        ck_assert_ptr_null(larder_owner(block));
        memset(block, 1, size);
        larder_current_free(block);
        free(other); /* the process's own free takes it as well */
    }
}
END_TEST

START_TEST(a_block_from_inside_a_scope_may_be_freed_outside)
{
    larder_config_t config;
    larder_t *larder, *previous;
    void *block;

    if (!variant_config(_i, &config))
        return;
    larder = must_create(&config);
    previous = larder_scope_enter(larder);
    block = larder_current_alloc(1000);
    larder_scope_leave(previous);
    larder_current_free(block);
    ck_assert_uint_eq(stats_of(larder).live_blocks, 0);
    ck_assert_uint_eq(stats_of(larder).frees, 1);
    must_destroy(larder);
}
END_TEST

START_TEST(a_block_from_outside_may_be_freed_inside_a_scope)
{
    larder_config_t config;
    larder_t *larder;
    void *block = larder_current_alloc(1000);

    ck_assert_ptr_nonnull(block);
    if (!variant_config(_i, &config)) {
        larder_current_free(block);
        return;
    }
    larder = must_create(&config);
    {
        LARDER_SCOPE(larder);
        larder_current_free(block);
    }
    ck_assert_uint_eq(stats_of(larder).frees, 0);
    ck_assert_uint_eq(stats_of(larder).cached_bytes, 0);
    must_destroy(larder);
}
END_TEST

START_TEST(a_block_goes_home_from_another_instances_scope)
{
    larder_t *home = make_instance(LARDER_POLICY_EXACT, NULL), *other = make_fit();
    void *block = larder_alloc(home, 1000);

    {
        LARDER_SCOPE(other);
        larder_current_free(block);
    }
    ck_assert_uint_eq(stats_of(home).frees, 1);
    ck_assert_uint_eq(stats_of(other).frees, 0);
    ck_assert_ptr_eq(larder_alloc(home, 1000), block);
    larder_free(home, block);
    must_destroy(home);
    must_destroy(other);
}
END_TEST

/* -- Misuse -- */

START_TEST(leaving_the_outer_scope_before_the_inner_one_is_reported)
{
    larder_t *outer = make_fit(), *inner = make_fit();
    larder_t *before_outer = larder_scope_enter(outer);
    larder_t *before_inner = larder_scope_enter(inner);

    larder_scope_leave(before_outer);
    ck_assert_uint_eq(errors_recorded().count, 1);
    ck_assert_int_eq(errors_recorded().kind, LARDER_ERROR_SCOPE);
    ck_assert_ptr_eq(larder_current(), inner); /* the bad call was ignored */
    larder_scope_leave(before_inner);
    larder_scope_leave(before_outer);
    ck_assert_uint_eq(errors_recorded().count, 1);
    ck_assert_ptr_null(larder_current());
    errors_reset();
    must_destroy(outer);
    must_destroy(inner);
}
END_TEST

static void leave_what_was_never_entered(void *context, unsigned index)
{
    (void)index;
    larder_scope_leave(context);
    expect(larder_current() == NULL);
}

START_TEST(leaving_a_scope_on_the_wrong_thread_is_reported_and_ignored)
{
    larder_t *larder = make_fit();
    larder_t *outside = larder_scope_enter(larder), *inside = larder_scope_enter(NULL);

    run_threads(1, leave_what_was_never_entered, inside);
    ck_assert_uint_eq(errors_recorded().count, 1);
    ck_assert_int_eq(errors_recorded().kind, LARDER_ERROR_SCOPE);
    errors_reset();
    larder_scope_leave(inside);
    larder_scope_leave(outside);
    must_destroy(larder);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("scopes");
    TCase *nesting = add_claims(suite, "nesting");
    TCase *blocks = add_claims(suite, "blocks");

    tcase_add_test(nesting, a_thread_starts_without_a_current_instance);
    tcase_add_test(nesting, enter_returns_the_previous_instance_and_leave_restores_it);
    tcase_add_test(nesting, scopes_nest_a_hundred_deep);
    tcase_add_test(nesting, a_scope_of_null_turns_the_current_instance_off);
    tcase_add_test(nesting, the_scope_macro_ends_with_its_braces);
    tcase_add_test(nesting, a_threads_scope_is_its_own_and_can_be_handed_to_other_threads);
    tcase_add_test(nesting, leaving_the_outer_scope_before_the_inner_one_is_reported);
    tcase_add_test(nesting, leaving_a_scope_on_the_wrong_thread_is_reported_and_ignored);
    tcase_add_loop_test(blocks, the_current_instance_serves_allocations, 0, VARIANT_COUNT);
    tcase_add_test(blocks, without_a_scope_memory_is_the_systems);
    tcase_add_loop_test(blocks, a_block_from_inside_a_scope_may_be_freed_outside, 0, VARIANT_COUNT);
    tcase_add_loop_test(blocks, a_block_from_outside_may_be_freed_inside_a_scope, 0, VARIANT_COUNT);
    tcase_add_test(blocks, a_block_goes_home_from_another_instances_scope);
    return run_suite(suite);
}
