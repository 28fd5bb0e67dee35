/* SPDX-License-Identifier: MIT */
/*
 * The biased lock, by its fields: when the bias is given, how it is lost, and that it excludes whatever
 * the mixture of owners and visitors.
 */
#include "support.h"

#include <sched.h>
#include <stdio.h>

#include "cache.h"
#include "heap_lock.h"

static heap_lock_t lock;
static heap_lock_user_t names[16]; /* stand for threads */

static void fresh_lock(void)
{
    os_barrier_prepare();
    memset(&lock, 0, sizeof lock);
    memset(names, 0, sizeof names);
}

static bool barrier_or_note(void)
{
    if (!os_barrier_is_remote())
        fputs("note: no barrier for other threads here, so there is no bias to test\n", stderr);
    return os_barrier_is_remote();
}

static heap_lock_user_t *owner(void)
{
    return atomic_load(&lock.owner);
}

static void pass(heap_lock_user_t *self)
{
    heap_lock_enter(&lock, self);
    heap_lock_leave(&lock);
}

/* How often `self` passes until it is the owner. */
static unsigned passes_to_own(heap_lock_user_t *self)
{
    unsigned passes = 0;

    while (owner() != self && passes <= HEAP_LOCK_LAST_STREAK) {
        pass(self);
        passes++;
    }
    return passes;
}

START_TEST(the_bias_is_given_after_a_streak_and_spares_the_spinlock)
{
    uint64_t acquisitions;

    if (!barrier_or_note())
        return;
    ck_assert_uint_eq(passes_to_own(&names[0]), HEAP_LOCK_FIRST_STREAK + 1);
    acquisitions = lock.spin.acquisitions;
    for (unsigned i = 0; i < 100; i++) {
        heap_lock_enter(&lock, &names[0]);
        ck_assert(lock.by_bias);
        ck_assert_uint_eq(atomic_load(&names[0].busy), 1);
        heap_lock_leave(&lock);
        ck_assert_uint_eq(atomic_load(&names[0].busy), 0);
    }
    ck_assert_uint_eq(lock.spin.acquisitions, acquisitions);
}
END_TEST

START_TEST(threads_that_alternate_are_never_given_the_bias)
{
    for (unsigned i = 0; i < 8 * HEAP_LOCK_FIRST_STREAK; i++) {
        pass(&names[i % 2]);
        ck_assert_ptr_null(owner());
    }
}
END_TEST

START_TEST(a_thread_without_a_name_is_never_given_the_bias)
{
    for (unsigned i = 0; i < 4 * HEAP_LOCK_FIRST_STREAK; i++) {
        pass(NULL);
        ck_assert_ptr_null(owner());
    }
}
END_TEST

/* As if the bias had been earned just now, or long ago, whatever the clock says. */
static void let_bias_be_new(bool new)
{
    lock.since_ms = os_now_ms() + (new ? 600000u : -600000u);
}

START_TEST(a_visitor_takes_the_bias_away_and_each_loss_doubles_the_next_streak)
{
    if (!barrier_or_note())
        return;
    for (unsigned loss = 0; loss < 3; loss++) {
        ck_assert_uint_eq(passes_to_own(&names[0]), ((unsigned)HEAP_LOCK_FIRST_STREAK << loss) + 1);
        let_bias_be_new(true);
        heap_lock_enter(&lock, &names[1]);
        ck_assert_ptr_null(owner());
        ck_assert(!lock.by_bias);
        heap_lock_leave(&lock);
        ck_assert_uint_eq(lock.revocations, loss + 1);
    }
}
END_TEST

START_TEST(the_loss_of_a_bias_that_has_lasted_halves_the_next_streak)
{
    if (!barrier_or_note())
        return;
    lock.streak_needed = 4 * HEAP_LOCK_FIRST_STREAK;
    for (unsigned halves = 4; halves != 0; halves /= 2) {
        ck_assert_uint_eq(passes_to_own(&names[0]), halves * HEAP_LOCK_FIRST_STREAK + 1);
        let_bias_be_new(false);
        pass(&names[1]);
        ck_assert_ptr_null(owner());
    }
    ck_assert_uint_eq(lock.streak_needed, HEAP_LOCK_FIRST_STREAK);
}
END_TEST

START_TEST(no_streak_is_longer_than_the_last)
{
    if (!barrier_or_note())
        return;
    lock.streak_needed = HEAP_LOCK_LAST_STREAK;
    for (unsigned loss = 0; loss < 2; loss++) {
        ck_assert_uint_eq(passes_to_own(&names[0]), HEAP_LOCK_LAST_STREAK + 1);
        let_bias_be_new(true);
        pass(&names[1]);
    }
}
END_TEST

START_TEST(one_who_looks_after_the_heap_gives_the_bias_back_where_he_leaves)
{
    if (!barrier_or_note())
        return;
    passes_to_own(&names[0]);
    for (unsigned i = 0; i < 3; i++) {
        heap_lock_enter_visiting(&lock, &names[1]);
        ck_assert_ptr_null(owner());
        heap_lock_leave(&lock);
        ck_assert_ptr_eq(owner(), &names[0]);
        pass(&names[0]);
    }
    ck_assert_uint_le(lock.streak_needed, HEAP_LOCK_FIRST_STREAK);
    let_bias_be_new(true);
    heap_lock_enter_visiting(&lock, &names[1]);
    heap_lock_forfeit(&lock);
    heap_lock_leave(&lock);
    ck_assert_ptr_null(owner());
    ck_assert_uint_eq(lock.streak_needed, 2 * HEAP_LOCK_FIRST_STREAK);
}
END_TEST

START_TEST(one_who_passes_by_breaks_no_streak_unless_he_comes_more_often)
{
    if (!barrier_or_note())
        return;
    for (unsigned i = 0; i <= HEAP_LOCK_FIRST_STREAK; i++) {
        pass(&names[0]);
        heap_lock_enter_passing(&lock, &names[1]);
        heap_lock_leave(&lock);
    }
    ck_assert_ptr_eq(owner(), &names[0]);
    for (unsigned i = 0; i < 3 * HEAP_LOCK_FIRST_STREAK; i++) {
        heap_lock_enter_passing(&lock, &names[1]);
        heap_lock_leave(&lock);
    }
    ck_assert_ptr_ne(owner(), &names[0]);
    ck_assert_ptr_eq(lock.last, &names[1]);
}
END_TEST

static _Atomic bool visitor_was_inside;

static void visit(void *context, unsigned index)
{
    (void)context;
    if (index ==
        0) { /* the owner stays inside until it sees the bias taken away, and a while longer */
        while (owner() != NULL)
            sched_yield();
        for (unsigned i = 0; i < 1000; i++)
            expect(!atomic_load(&visitor_was_inside));
        heap_lock_leave(&lock);
        return;
    }
    heap_lock_enter(&lock, &names[1]);
    atomic_store(&visitor_was_inside, true);
    heap_lock_leave(&lock);
}

START_TEST(a_visitor_waits_for_the_owner_inside)
{
    if (!barrier_or_note())
        return;
    passes_to_own(&names[0]);
    heap_lock_enter(&lock, &names[0]);
    ck_assert(lock.by_bias);
    atomic_store(&visitor_was_inside, false);
    run_threads(2, visit, NULL);
    ck_assert(atomic_load(&visitor_was_inside));
}
END_TEST

START_TEST(disowning_takes_only_the_own_bias)
{
    if (!barrier_or_note())
        return;
    passes_to_own(&names[0]);
    heap_lock_disown(&lock, &names[1]);
    ck_assert_ptr_eq(owner(), &names[0]);
    heap_lock_disown(&lock, &names[0]);
    ck_assert_ptr_null(owner());
    ck_assert_uint_eq(lock.revocations, 0);
    ck_assert_uint_eq(passes_to_own(&names[0]), HEAP_LOCK_FIRST_STREAK + 1);
}
END_TEST

/* -- Exclusion -- */

enum { THREADS = 6, DOMINANT_PASSES = 200000, OTHER_PASSES = 2000 };

static struct {
    uint64_t count;          /* plain: guarded by the lock */
    _Atomic unsigned inside; /* seen by each holder */
} guarded;

static void count_once(heap_lock_user_t *self)
{
    heap_lock_enter(&lock, self);
    expect(atomic_fetch_add_explicit(&guarded.inside, 1, memory_order_relaxed) == 0);
    guarded.count++;
    atomic_fetch_sub_explicit(&guarded.inside, 1, memory_order_relaxed);
    heap_lock_leave(&lock);
}

/* One dominates; the others come alone, in bursts long enough for a bias of their own, or nameless. */
static void count_by_index(void *context, unsigned index)
{
    heap_lock_user_t *self = index == THREADS - 1 ? NULL : &names[index];

    (void)context;
    for (unsigned i = 0; i < (index == 0 ? DOMINANT_PASSES : OTHER_PASSES); i++) {
        count_once(self);
        if (index != 0 && i % (index * 100) == 0)
            sched_yield();
    }
}

static void count_with_all_threads(void)
{
    memset(&guarded, 0, sizeof guarded);
    run_threads(THREADS, count_by_index, NULL);
    ck_assert_uint_eq(guarded.count, DOMINANT_PASSES + (THREADS - 1) * OTHER_PASSES);
}

START_TEST(a_dominating_thread_and_its_visitors_exclude_each_other)
{
    count_with_all_threads();
}
END_TEST

/* Each loss of the bias is followed by its return: the streak is kept as short as at first. */
static void give_and_take(void *context, unsigned index)
{
    (void)context;
    for (unsigned i = 0; i < 300; i++) {
        for (unsigned pass = 0; pass < (index == 0 ? 3 * HEAP_LOCK_FIRST_STREAK : 1); pass++) {
            heap_lock_enter(&lock, &names[index]);
            lock.streak_needed = HEAP_LOCK_FIRST_STREAK;
            guarded.count++;
            heap_lock_leave(&lock);
        }
        if (index != 0)
            sched_yield();
    }
}

START_TEST(a_bias_given_and_taken_hundreds_of_times_still_excludes)
{
    memset(&guarded, 0, sizeof guarded);
    run_threads(3, give_and_take, NULL);
    ck_assert_uint_eq(guarded.count, 300 * (3 * HEAP_LOCK_FIRST_STREAK + 2));
}
END_TEST

START_TEST(without_a_barrier_for_other_threads_nobody_is_given_the_bias)
{
    atomic_store(&os_barrier_found, false);
    ck_assert_uint_eq(passes_to_own(&names[0]), HEAP_LOCK_LAST_STREAK + 1);
    memset(&lock, 0, sizeof lock);
    count_with_all_threads();
    ck_assert_ptr_null(owner());
    ck_assert_uint_eq(lock.revocations, 0);
}
END_TEST

/* -- In an instance -- */

static void own_the_heap(void *context, unsigned index)
{
    struct larder *larder = context;
    bool owned = false;

    (void)index;
    for (unsigned i = 0; i < 4 * HEAP_LOCK_FIRST_STREAK; i++)
        larder_free(larder, larder_alloc(larder, 100 * KIB));
    owned = atomic_load(&larder->heap.lock.owner) != NULL;
    expect(owned || !os_barrier_is_remote());
}

START_TEST(a_thread_that_has_ended_is_no_owner)
{
    larder_t *larder = make_instance(LARDER_POLICY_FIT, NULL);

    for (unsigned i = 0; i < 3; i++) {
        run_threads(1, own_the_heap, larder);
        ck_assert_ptr_null(atomic_load(&larder->heap.lock.owner));
    }
    must_destroy(larder);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("heap_lock");
    TCase *claims = add_claims(suite, "heap lock");

    tcase_add_checked_fixture(claims, fresh_lock, NULL);
    tcase_add_test(claims, the_bias_is_given_after_a_streak_and_spares_the_spinlock);
    tcase_add_test(claims, threads_that_alternate_are_never_given_the_bias);
    tcase_add_test(claims, a_thread_without_a_name_is_never_given_the_bias);
    tcase_add_test(claims, a_visitor_takes_the_bias_away_and_each_loss_doubles_the_next_streak);
    tcase_add_test(claims, the_loss_of_a_bias_that_has_lasted_halves_the_next_streak);
    tcase_add_test(claims, no_streak_is_longer_than_the_last);
    tcase_add_test(claims, one_who_looks_after_the_heap_gives_the_bias_back_where_he_leaves);
    tcase_add_test(claims, one_who_passes_by_breaks_no_streak_unless_he_comes_more_often);
    tcase_add_test(claims, a_visitor_waits_for_the_owner_inside);
    tcase_add_test(claims, disowning_takes_only_the_own_bias);
    tcase_add_test(claims, a_dominating_thread_and_its_visitors_exclude_each_other);
    tcase_add_test(claims, a_bias_given_and_taken_hundreds_of_times_still_excludes);
    tcase_add_test(claims, without_a_barrier_for_other_threads_nobody_is_given_the_bias);
    tcase_add_test(claims, a_thread_that_has_ended_is_no_owner);
    return run_suite(suite);
}
