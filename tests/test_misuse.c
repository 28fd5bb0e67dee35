/* SPDX-License-Identifier: MIT */
/*
 * Misuse that would corrupt memory: it is told to the error handler with what is known, the bad
 * call is ignored where the handler returns, and without a handler the process ends with one line.
 */
#include "support.h"

#include <signal.h>
#include <stdio.h>

static const size_t block_sizes[] = {0, 64, 1000, 20000, 100000, 3 * 1024 * 1024};
#define SIZE_COUNT 6
#define EACH_POLICY_AND_SIZE (CACHING_POLICY_COUNT * SIZE_COUNT)

static larder_policy_t policy_of(int index)
{
    return caching_policies[index / SIZE_COUNT];
}

static size_t size_of(int index)
{
    return block_sizes[index % SIZE_COUNT];
}

static void assert_one_error(larder_error_kind_t kind, const char *call, const void *ptr)
{
    struct error_log error = errors_recorded();

    ck_assert_uint_eq(error.count, 1);
    ck_assert_msg(error.kind == kind, "kind %d: %s", (int)error.kind, error.message);
    ck_assert_str_eq(error.call, call);
    ck_assert_ptr_eq(error.ptr, ptr);
    ck_assert_str_eq(error.instance, "tested");
    ck_assert_uint_ge(error.struct_size, sizeof(larder_error_t));
    ck_assert_msg(strstr(error.message, call) != NULL, "message: %s", error.message);
    ck_assert_msg(strchr(error.message, '\n') == NULL, "message: %s", error.message);
}

/* After a refused free: the free lists must not hold a block twice. */
static void assert_next_blocks_differ(larder_t *larder, size_t size)
{
    void *blocks[8];

    for (unsigned i = 0; i < 8; i++) {
        blocks[i] = larder_alloc(larder, size);
        ck_assert_ptr_nonnull(blocks[i]);
        for (unsigned j = 0; j < i; j++)
            ck_assert_ptr_ne(blocks[i], blocks[j]);
    }
    for (unsigned i = 0; i < 8; i++)
        larder_free(larder, blocks[i]);
}

static void end_after_errors(larder_t *larder)
{
    ck_assert_uint_eq(stats_of(larder).live_blocks, 0);
    errors_reset();
    must_destroy(larder);
}

/* -- Double frees -- */

START_TEST(a_double_free_is_reported_with_the_blocks_state_and_ignored)
{
    larder_t *larder = make_instance(policy_of(_i), NULL);
    void *block = larder_alloc(larder, size_of(_i));
    uint64_t cached;

    larder_free(larder, block);
    cached = stats_of(larder).cached_bytes;
    larder_free(larder, block);
    assert_one_error(LARDER_ERROR_DOUBLE_FREE, "larder_free", block);
    ck_assert_msg(strstr(errors_recorded().state, "cached"), "state: %s", errors_recorded().state);
    ck_assert_uint_eq(stats_of(larder).errors, 1);
    ck_assert_uint_eq(stats_of(larder).frees, 1);
    ck_assert_uint_eq(stats_of(larder).cached_bytes, cached);
    assert_next_blocks_differ(larder, size_of(_i));
    end_after_errors(larder);
}
END_TEST

START_TEST(a_double_free_is_caught_from_any_instance_and_scope)
{
    larder_t *larder = make_instance(policy_of(_i), NULL);
    larder_t *other = make_instance(LARDER_POLICY_FIT, NULL);
    void *block = larder_alloc(larder, size_of(_i));

    larder_free(larder, block);
    larder_free(other, block);
    assert_one_error(LARDER_ERROR_DOUBLE_FREE, "larder_free", block);
    errors_reset();
    larder_free(NULL, block);
    assert_one_error(LARDER_ERROR_DOUBLE_FREE, "larder_free", block);
    errors_reset();
    larder_current_free(block);
    assert_one_error(LARDER_ERROR_DOUBLE_FREE, "larder_current_free", block);
    end_after_errors(other);
    end_after_errors(larder);
}
END_TEST

static void free_handed_block(void *context, unsigned index)
{
    (void)index;
    larder_free(NULL, context);
}

START_TEST(a_double_free_by_another_thread_is_caught)
{
    larder_t *larder = make_instance(policy_of(_i), NULL);
    void *block = larder_alloc(larder, size_of(_i));

    larder_free(larder, block);
    run_threads(1, free_handed_block, block);
    assert_one_error(LARDER_ERROR_DOUBLE_FREE, "larder_free", block);
    assert_next_blocks_differ(larder, size_of(_i));
    end_after_errors(larder);
}
END_TEST

START_TEST(realloc_of_a_freed_block_is_reported_and_gives_nothing)
{
    larder_t *larder = make_instance(policy_of(_i), NULL);
    void *block = larder_alloc(larder, size_of(_i));

    larder_free(larder, block);
    ck_assert_ptr_null(larder_realloc(larder, block, 500));
    assert_one_error(LARDER_ERROR_DOUBLE_FREE, "larder_realloc", block);
    end_after_errors(larder);
}
END_TEST

START_TEST(a_double_free_of_a_span_that_has_coalesced_is_reported)
{
    larder_t *larder = make_instance(LARDER_POLICY_FIT, NULL);
    void *blocks[3];

    for (unsigned i = 0; i < 3; i++)
        blocks[i] = larder_alloc(larder, MIB);
    for (unsigned i = 0; i < 3; i++)
        larder_free(larder, blocks[i]);
    for (unsigned i = 0; i < 3; i++)
        larder_free(larder, blocks[i]);
    ck_assert_uint_eq(errors_recorded().count, 3);
    ck_assert_uint_eq(stats_of(larder).frees, 3);
    end_after_errors(larder);
}
END_TEST

struct duel {
    struct meeting meeting;
    larder_t *larder;
    void *block;
    size_t size;
    unsigned wrong_counts;
};

static void free_at_the_same_instant(void *context, unsigned index)
{
    struct duel *duel = context;

    for (unsigned round = 0; round < 500; round++) {
        if (index == 0) {
            errors_reset();
            duel->block = larder_alloc(duel->larder, duel->size);
        }
        meeting_wait(&duel->meeting);
        larder_free(duel->larder, duel->block);
        meeting_wait(&duel->meeting);
        if (index == 0 && errors_recorded().count != 1)
            duel->wrong_counts++;
    }
}

START_TEST(strict_checks_catch_two_threads_that_free_a_block_at_once)
{
    larder_config_t config = test_config(policy_of(_i), NULL);
    struct duel duel = {.size = size_of(_i)};

    config.checks = LARDER_CHECKS_STRICT;
    duel.larder = must_create(&config);
    meeting_init(&duel.meeting, 2);
    run_threads(2, free_at_the_same_instant, &duel);
    ck_assert_uint_eq(duel.wrong_counts, 0);
    ck_assert_uint_eq(stats_of(duel.larder).frees, 500);
    assert_next_blocks_differ(duel.larder, duel.size);
    end_after_errors(duel.larder);
}
END_TEST

/* -- Pointers into the middle -- */

static void assert_interior_frees_are_reported(larder_t *larder, size_t size)
{
    static const size_t offsets[] = {1, 8, 16, 64, 128, 4096, 65536};
    char *block = larder_alloc(larder, size);

    pattern_fill(block, size, 5);
    for (unsigned i = 0; i < sizeof offsets / sizeof offsets[0]; i++) {
        if (offsets[i] >= size)
            continue;
        errors_reset();
        larder_free(larder, block + offsets[i]);
        assert_one_error(LARDER_ERROR_INVALID_POINTER, "larder_free", block + offsets[i]);
    }
    ck_assert(pattern_holds(block, size, 5));
    ck_assert_ptr_eq(larder_owner(block), larder);
    ck_assert_uint_eq(stats_of(larder).live_blocks, 1);
    larder_free(larder, block);
}

START_TEST(fit_reports_a_pointer_into_the_middle_of_a_block)
{
    larder_t *larder = make_instance(LARDER_POLICY_FIT, NULL);

    for (unsigned i = 0; i < SIZE_COUNT; i++)
        assert_interior_frees_are_reported(larder, block_sizes[i] + 2);
    end_after_errors(larder);
}
END_TEST

START_TEST(exact_reports_a_pointer_into_the_middle_under_strict_checks)
{
    larder_config_t config = test_config(LARDER_POLICY_EXACT, NULL);
    larder_t *larder;

    config.checks = LARDER_CHECKS_STRICT;
    larder = must_create(&config);
    for (unsigned i = 0; i < SIZE_COUNT; i++)
        assert_interior_frees_are_reported(larder, block_sizes[i] + 2);
    end_after_errors(larder);
}
END_TEST

START_TEST(passthrough_over_mmap_reports_a_second_free)
{
    larder_t *larder = make_instance(LARDER_POLICY_PASSTHROUGH, larder_backend_mmap());
    void *block = larder_alloc(larder, 5000);

    larder_free(larder, block);
    larder_free(larder, block);
    assert_one_error(LARDER_ERROR_FOREIGN_POINTER, "larder_free", block);
    end_after_errors(larder);
}
END_TEST

/* -- Without a handler -- */

static void free_twice_without_handler(void *context)
{
    larder_config_t config;
    larder_t *larder;
    void *block;

    larder_config_init(&config);
    config.policy = *(larder_policy_t *)context;
    larder = larder_create("kitchen", &config);
    block = larder_alloc(larder, 1000);
    fprintf(stderr, "%p\n", block);
    larder_free(larder, block);
    larder_free(larder, block);
}

START_TEST(the_default_handler_prints_one_line_with_call_pointer_and_state_and_aborts)
{
    larder_policy_t policy = caching_policies[_i];
    struct child_end end = run_in_child(free_twice_without_handler, &policy);
    char *line = strchr(end.output, '\n'), *last;

    ck_assert_msg(end.signal == SIGABRT, "signal %d, status %d: %s", end.signal, end.status,
                  end.output);
    ck_assert_ptr_nonnull(line);
    *line++ = '\0'; /* the child's own line: the pointer */
    ck_assert_msg(strstr(line, "larder_free"), "line: %s", line);
    ck_assert_msg(strstr(line, end.output), "line: %s, pointer: %s", line, end.output);
    ck_assert_msg(strstr(line, "cached"), "line: %s", line);
    ck_assert_msg(strstr(line, "kitchen"), "line: %s", line);
    last = strchr(line, '\n');
    if (emulated_or_note("that nothing follows that line; the emulator adds one"))
        return;
    ck_assert_msg(last && last[1] == '\0', "not one line: %s", line);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("misuse");
    TCase *doubles = add_claims(suite, "double frees");
    TCase *interior = add_claims(suite, "interior pointers");

    tcase_add_loop_test(doubles, a_double_free_is_reported_with_the_blocks_state_and_ignored, 0,
                        EACH_POLICY_AND_SIZE);
    tcase_add_loop_test(doubles, a_double_free_is_caught_from_any_instance_and_scope, 0,
                        EACH_POLICY_AND_SIZE);
    tcase_add_loop_test(doubles, a_double_free_by_another_thread_is_caught, 0,
                        EACH_POLICY_AND_SIZE);
    tcase_add_loop_test(doubles, realloc_of_a_freed_block_is_reported_and_gives_nothing, 0,
                        EACH_POLICY_AND_SIZE);
    tcase_add_test(doubles, a_double_free_of_a_span_that_has_coalesced_is_reported);
    tcase_add_loop_test(doubles, strict_checks_catch_two_threads_that_free_a_block_at_once, 0,
                        EACH_POLICY_AND_SIZE);
    tcase_add_test(interior, fit_reports_a_pointer_into_the_middle_of_a_block);
    tcase_add_test(interior, exact_reports_a_pointer_into_the_middle_under_strict_checks);
    tcase_add_test(interior, passthrough_over_mmap_reports_a_second_free);
    tcase_add_loop_test(doubles,
                        the_default_handler_prints_one_line_with_call_pointer_and_state_and_aborts,
                        0, CACHING_POLICY_COUNT);
    return run_suite(suite);
}
