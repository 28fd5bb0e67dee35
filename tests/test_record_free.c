/* SPDX-License-Identifier: MIT */
/*
 * Blocks that leave by another door: larder_record_free() tells of one before somebody else
 * releases it, and no stale entry may stay behind, or a later block at that address gets the old
 * one's size.
 */
#include "support.h"

START_TEST(a_recorded_block_is_forgotten_and_may_be_freed_by_its_backend)
{
    larder_t *larder = make_bare_instance((larder_policy_t)_i, larder_backend_system());
    void *kept = larder_alloc(larder, 1000), *gone = larder_alloc(larder, 1000);

    ck_assert_int_eq(larder_record_free(gone), 0);
    ck_assert_ptr_null(larder_owner(gone));
    ck_assert_uint_eq(larder_usable_size(gone), 0);
    ck_assert_uint_eq(stats_of(larder).live_blocks, 1);
    ck_assert_uint_eq(stats_of(larder).live_bytes, 1000);
    ck_assert_uint_eq(stats_of(larder).cached_bytes, 0);
    ck_assert_int_eq(larder_record_free(gone), 0); /* by now a pointer that nobody owns */
    free(gone);
    larder_free(larder, kept);
    must_destroy(larder);
}
END_TEST

/* A backend with one place, so that the same address comes back whatever the heap would do. */
#define PLACE_SIZE (64 * KIB)
static void *only_place; /* from the heap: an array would be known not to come from an allocator */
static unsigned place_taken, place_freed;
static size_t place_freed_size;

static void *take_place(void *context, size_t size, size_t alignment)
{
    (void)context;
    if (place_taken != place_freed || size > PLACE_SIZE || alignment > 4096)
        return NULL;
    place_taken++;
    return only_place;
}

static void free_place(void *context, void *ptr, size_t size)
{
    (void)context;
    ck_assert_ptr_eq(ptr, only_place);
    place_freed++;
    place_freed_size = size;
}

static void prepare_place(void)
{
    place_taken = place_freed = 0;
    only_place = aligned_alloc(4096, PLACE_SIZE);
    ck_assert_ptr_nonnull(only_place);
}

static const larder_backend_t one_place = {.struct_size = sizeof one_place,
                                           .name = "one place",
                                           .allocate = take_place,
                                           .free = free_place,
                                           .flags = LARDER_BACKEND_FREES_FOREIGN};

START_TEST(an_address_that_left_and_came_back_has_its_new_size)
{
    larder_t *larder = make_bare_instance(LARDER_POLICY_EXACT, &one_place);
    void *block, *again;

    prepare_place();
    block = larder_alloc(larder, 1000);
    ck_assert_int_eq(larder_record_free(block), 0);
    free_place(NULL, block, 1000);
    again = larder_alloc(larder, 3000);
    ck_assert_ptr_eq(again, block);
    ck_assert_uint_ge(larder_usable_size(again), 3000);
    ck_assert_uint_eq(stats_of(larder).live_bytes, 3000);
    larder_free(larder, again);
    ck_assert_ptr_eq(larder_alloc(larder, 3000), block);
    larder_free(larder, block);
    must_destroy(larder);
    ck_assert_uint_eq(place_taken, place_freed);
    ck_assert_uint_eq(place_freed_size, 3000);
    free(only_place);
}
END_TEST

START_TEST(a_foreign_block_at_an_address_that_left_is_not_cached_under_the_old_size)
{
    larder_t *larder = make_bare_instance(LARDER_POLICY_EXACT, &one_place);
    void *block;

    prepare_place();
    block = larder_alloc(larder, 1000);
    ck_assert_int_eq(larder_record_free(block), 0);
    free_place(NULL, block, 1000);
    block = take_place(NULL, 10, 64); /* somebody else's, smaller */
    larder_free(larder, block);
    ck_assert_uint_eq(place_freed, 2);
    ck_assert_uint_eq(stats_of(larder).foreign_frees, 1);
    ck_assert_uint_eq(stats_of(larder).cached_bytes, 0);
    must_destroy(larder);
    ck_assert_uint_eq(place_freed, 2);
    free(only_place);
}
END_TEST

START_TEST(recording_an_unknown_pointer_is_a_silent_nothing)
{
    larder_t *larder = make_instance(LARDER_POLICY_EXACT, NULL);
    void *foreign = malloc(100);
    int local = 0;

    ck_assert_int_eq(larder_record_free(foreign), 0);
    ck_assert_int_eq(larder_record_free(&local), 0);
    ck_assert_int_eq(larder_record_free(NULL), 0);
    ck_assert_uint_eq(errors_recorded().count, 0);
    free(foreign);
    must_destroy(larder);
}
END_TEST

START_TEST(recording_a_cached_block_is_refused_and_it_stays_cached)
{
    larder_t *larder = make_instance(LARDER_POLICY_EXACT, NULL);
    void *block = larder_alloc(larder, 1000);

    larder_free(larder, block);
    ck_assert_int_eq(larder_record_free(block), -EINVAL);
    ck_assert_ptr_eq(larder_alloc(larder, 1000), block);
    errors_reset(); /* whether it is told to the handler besides is not promised */
    larder_free(larder, block);
    must_destroy(larder);
}
END_TEST

START_TEST(recording_a_block_cut_from_a_region_is_refused_and_it_stays_live)
{
    larder_t *larder = make_instance(LARDER_POLICY_FIT, NULL);
    size_t sizes[] = {100, 5000, 100000, 3 * MIB};

    for (unsigned i = 0; i < 4; i++) {
        void *block = larder_alloc(larder, sizes[i]);
        struct error_log error;

        pattern_fill(block, sizes[i], i);
        errors_reset();
        ck_assert_int_eq(larder_record_free(block), -EPERM);
        error = errors_recorded();
        ck_assert_uint_eq(error.count, 1);
        ck_assert_int_eq(error.kind, LARDER_ERROR_REFUSED);
        ck_assert_ptr_eq(error.ptr, block);
        ck_assert_str_eq(error.call, "larder_record_free");
        ck_assert_ptr_eq(larder_owner(block), larder);
        ck_assert(pattern_holds(block, sizes[i], i));
        larder_free(larder, block);
    }
    errors_reset();
    must_destroy(larder);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("record_free");
    TCase *claims = add_claims(suite, "record_free");

    tcase_add_loop_test(claims, a_recorded_block_is_forgotten_and_may_be_freed_by_its_backend,
                        LARDER_POLICY_EXACT, LARDER_POLICY_PASSTHROUGH + 1);
    tcase_add_test(claims, an_address_that_left_and_came_back_has_its_new_size);
    tcase_add_test(claims,
                   a_foreign_block_at_an_address_that_left_is_not_cached_under_the_old_size);
    tcase_add_test(claims, recording_an_unknown_pointer_is_a_silent_nothing);
    tcase_add_test(claims, recording_a_cached_block_is_refused_and_it_stays_cached);
    tcase_add_test(claims, recording_a_block_cut_from_a_region_is_refused_and_it_stays_live);
    return run_suite(suite);
}
