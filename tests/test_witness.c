/* SPDX-License-Identifier: MIT */
/*
 * The witness to the order of locks (witness.h): in builds with -Dchecks=full, a lock out of order ends the process
 * with a line that names both. Elsewhere it is empty, and so is this suite.
 */
#include "support.h"

#include <signal.h>
#include <stdio.h>

#include "heap_lock.h"

#ifdef LARDER_CHECKS_FULL
static spinlock_t depot = SPINLOCK_OF(RANK_DEPOT), shard = SPINLOCK_OF(RANK_SHARD);
static heap_lock_t heap = {.spin = SPINLOCK_OF(RANK_HEAP)};
static heap_lock_user_t self;

static void outer_inside_inner(void *context)
{
    (void)context;
    spinlock_lock(&shard);
    spinlock_lock(&depot);
}

static void twice_the_same_rank(void *context)
{
    spinlock_t other = SPINLOCK_OF(RANK_DEPOT);

    (void)context;
    spinlock_lock(&depot);
    spinlock_lock(&other);
}

static void inside_a_lock_held_by_bias(void *context)
{
    (void)context;
    os_barrier_prepare();
    for (unsigned i = 0; i < 2 * HEAP_LOCK_FIRST_STREAK; i++) {
        heap_lock_enter(&heap, &self);
        heap_lock_leave(&heap);
    }
    heap_lock_enter(&heap, &self);
    spinlock_lock(&depot);
}

static void map_with_a_lock_held(void *context)
{
    (void)context;
    spinlock_lock(&depot);
    (void)os_map(4096);
}

static const struct {
    void (*act)(void *context);
    const char *line;
} wrongs[] = {
    {outer_inside_inner, "larder: lock order: depot with the lock of shard held\n"},
    {twice_the_same_rank, "larder: lock order: depot with the lock of depot held\n"},
    {inside_a_lock_held_by_bias, "larder: lock order: depot with the lock of heap held\n"},
    {map_with_a_lock_held, "larder: lock order: mmap with the lock of depot held\n"},
};
#define WRONG_COUNT 4

START_TEST(a_lock_out_of_order_ends_the_process_with_both_names)
{
    struct child_end end = run_in_child(wrongs[_i].act, NULL);

    ck_assert_msg(end.signal == SIGABRT && strstr(end.output, wrongs[_i].line),
                  "signal %d, status %d: %s", end.signal, end.status, end.output);
}
END_TEST

START_TEST(locks_in_order_are_silent_and_forgotten_when_left)
{
    for (unsigned i = 0; i < 2; i++) {
        spinlock_lock(&depot);
        spinlock_lock(&shard);
        spinlock_unlock(&depot);
        spinlock_unlock(&shard);
    }
    ck_assert_ptr_nonnull(os_map(4096));
}
END_TEST

static void leave_blocks_behind(void *context)
{
    larder_t *larder = larder_create("leaky", NULL);
    void *block = larder_alloc(larder, 1234);

    (void)context;
    expect(block != NULL && larder_destroy(larder) == 1);
    larder_free(NULL, block);
}

START_TEST(live_blocks_of_a_destroyed_instance_are_named)
{
    struct child_end end = run_in_child(leave_blocks_behind, NULL);

    ck_assert(end.signal == 0 && end.status == 0);
    ck_assert_msg(strstr(end.output, "leaky is destroyed with 1 live block") &&
                      strstr(end.output, "1234 bytes"),
                  "%s", end.output);
}
END_TEST
#endif

int main(void)
{
    Suite *suite = suite_create("witness");
    TCase *claims = add_claims(suite, "lock order");

    (void)claims;
#ifdef LARDER_CHECKS_FULL
    tcase_add_loop_test(claims, a_lock_out_of_order_ends_the_process_with_both_names, 0,
                        WRONG_COUNT);
    tcase_add_test(claims, locks_in_order_are_silent_and_forgotten_when_left);
    tcase_add_test(claims, live_blocks_of_a_destroyed_instance_are_named);
#else
    fputs("note: no witness in this build (-Dchecks=full)\n", stderr);
#endif
    return run_suite(suite);
}
