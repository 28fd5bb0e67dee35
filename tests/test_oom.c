/* SPDX-License-Identifier: MIT */
/*
 * Memory that runs out. Faults are injected by count: a workload is run once for every backend call
 * it makes, with that call failing (a retry must absorb it) or with every call from there on
 * failing (requests fail cleanly, contents stay, and all is well again when memory returns).
 */
#include "support.h"

#define SLOTS 24
#define STEPS 240
#define LARGEST (300 * KIB)

struct work {
    larder_t *larder;
    struct counted *source;
    bool may_fail;
    unsigned failures;
    uint64_t live_bytes;
    void *blocks[SLOTS];
    size_t sizes[SLOTS];
};

/* A request that gave nothing: allowed only while the backend refuses. */
static void note_failure(struct work *work, int error)
{
    ck_assert_msg(work->may_fail, "a request failed though one retry would have served it");
    ck_assert_int_eq(error, ENOMEM);
    work->failures++;
}

static void resize_slot(struct work *work, size_t i, size_t size)
{
    void *moved;

    errno = 0;
    moved = larder_realloc(work->larder, work->blocks[i], size);
    if (!moved) {
        note_failure(work, errno);
        ck_assert(pattern_holds(work->blocks[i], work->sizes[i], i));
        return;
    }
    if (work->sizes[i] <= 16 * KIB && size <= 16 * KIB)
        ck_assert(pattern_holds(moved, work->sizes[i] < size ? work->sizes[i] : size, i));
    work->live_bytes = work->live_bytes + size - work->sizes[i];
    work->blocks[i] = moved;
    work->sizes[i] = size;
    pattern_fill(moved, size, i);
}

static void fill_slot(struct work *work, size_t i, size_t size, bool zeroed)
{
    errno = 0;
    work->blocks[i] =
        zeroed ? larder_calloc(work->larder, 1, size) : larder_alloc(work->larder, size);
    if (!work->blocks[i]) {
        note_failure(work, errno);
        return;
    }
    if (zeroed)
        ck_assert(all_bytes_are(work->blocks[i], size, 0));
    work->live_bytes += size;
    work->sizes[i] = size;
    pattern_fill(work->blocks[i], size, i);
}

static void empty_slot(struct work *work, size_t i)
{
    if (!work->blocks[i])
        return;
    ck_assert(pattern_holds(work->blocks[i], work->sizes[i], i));
    larder_free(work->larder, work->blocks[i]);
    work->live_bytes -= work->sizes[i];
    work->blocks[i] = NULL;
}

/* The same steps each time: allocations, frees and reallocs of tensor-like sizes. */
static void run_steps(struct work *work)
{
    struct random random;

    random_init(&random, 5);
    for (unsigned step = 0; step < STEPS; step++) {
        size_t i = random_between(&random, 0, SLOTS - 1);
        size_t size = random_size(&random, LARGEST);
        size_t what = random_between(&random, 0, 3);

        if (!work->blocks[i])
            fill_slot(work, i, size, what == 0);
        else if (what == 1)
            resize_slot(work, i, size);
        else
            empty_slot(work, i);
    }
    ck_assert_uint_eq(stats_of(work->larder).live_bytes, work->live_bytes);
}

static void start_work(struct work *work, struct counted *source, larder_policy_t policy)
{
    memset(work, 0, sizeof *work);
    counted_init(source, 0);
    work->source = source;
    work->larder = make_instance(policy, &source->backend);
}

static void end_work(struct work *work)
{
    for (size_t i = 0; i < SLOTS; i++)
        empty_slot(work, i);
    ck_assert_uint_eq(stats_of(work->larder).live_blocks, 0);
    must_destroy(work->larder);
    assert_all_returned(work->source);
}

static uint64_t calls_without_faults(larder_policy_t policy)
{
    struct counted source;
    struct work work;

    start_work(&work, &source, policy);
    run_steps(&work);
    end_work(&work);
    return count_of(&source.calls);
}

START_TEST(one_failing_backend_call_is_absorbed_wherever_it_comes)
{
    uint64_t calls = calls_without_faults((larder_policy_t)_i);

    ck_assert_uint_gt(calls, 0);
    for (uint64_t n = 1; n <= calls; n++) {
        struct counted source;
        struct work work;

        start_work(&work, &source, (larder_policy_t)_i);
        atomic_store(&source.fail_at, n);
        run_steps(&work);
        ck_assert_uint_eq(count_of(&source.refused), 1);
        ck_assert_uint_ge(stats_of(work.larder).backend_failures, 1);
        end_work(&work);
    }
}
END_TEST

START_TEST(memory_that_runs_out_at_any_call_loses_nothing_and_recovers)
{
    uint64_t calls = calls_without_faults((larder_policy_t)_i);

    for (uint64_t n = 1; n <= calls; n++) {
        struct counted source;
        struct work work;

        start_work(&work, &source, (larder_policy_t)_i);
        atomic_store(&source.fail_from, n);
        work.may_fail = true;
        run_steps(&work);
        ck_assert_uint_gt(count_of(&source.refused), 0);
        ck_assert_uint_eq(stats_of(work.larder).failures, work.failures);
        atomic_store(&source.fail_from, 0);
        work.may_fail = false;
        run_steps(&work);
        end_work(&work);
    }
}
END_TEST

/* -- What is cached is given up before a request fails -- */

START_TEST(a_miss_out_of_memory_is_served_by_flushing_the_cache)
{
    struct counted source;
    larder_t *larder;
    void *blocks[10], *large;

    counted_init(&source, 0);
    larder = make_instance(LARDER_POLICY_EXACT, &source.backend);
    for (unsigned i = 0; i < 10; i++)
        blocks[i] = larder_alloc(larder, 100 * KIB);
    atomic_store(&source.budget_bytes, count_of(&source.outstanding_bytes));
    for (unsigned i = 0; i < 10; i++)
        larder_free(larder, blocks[i]);
    ck_assert_uint_eq(count_of(&source.frees), 0);
    large = larder_alloc(larder, 900 * KIB);
    ck_assert_ptr_nonnull(large);
    larder_free(larder, large);
    must_destroy(larder);
    assert_all_returned(&source);
}
END_TEST

START_TEST(other_instances_give_up_their_caches_too)
{
    struct counted source;
    larder_t *hoarder, *needy;
    void *block;

    counted_init(&source, 0);
    hoarder = make_instance(caching_policies[_i], &source.backend);
    needy = make_instance(LARDER_POLICY_EXACT, &source.backend);
    for (size_t size = 64; size <= MIB; size *= 2)
        larder_free(hoarder, larder_alloc(hoarder, size));
    atomic_store(&source.budget_bytes, count_of(&source.outstanding_bytes));
    block = larder_alloc(needy, (size_t)count_of(&source.outstanding_bytes) / 2);
    ck_assert_ptr_nonnull(block);
    ck_assert_uint_eq(stats_of(hoarder).cached_bytes, 0);
    larder_free(needy, block);
    must_destroy(hoarder);
    must_destroy(needy);
    assert_all_returned(&source);
}
END_TEST

START_TEST(an_absurd_size_asks_no_backend_and_trims_nothing)
{
    static const size_t absurd[] = {SIZE_MAX, SIZE_MAX - 4096, SIZE_MAX / 2 + 1};
    struct counted source;
    larder_t *larder;
    larder_stats_t before, after;

    counted_init(&source, 0);
    larder = make_instance((larder_policy_t)_i, &source.backend);
    for (size_t size = 64; size <= MIB; size *= 2)
        larder_free(larder, larder_alloc(larder, size));
    before = stats_of(larder);
    for (unsigned i = 0; i < 3; i++)
        ck_assert_ptr_null(larder_alloc(larder, absurd[i]));
    after = stats_of(larder);
    ck_assert_uint_eq(after.cached_bytes, before.cached_bytes);
    ck_assert_uint_eq(after.given_back_bytes, before.given_back_bytes);
    ck_assert_uint_eq(after.trims, before.trims);
    ck_assert_uint_eq(after.failures, before.failures + 3);
    ck_assert_uint_eq(count_of(&source.refused), 0);
    must_destroy(larder);
    assert_all_returned(&source);
}
END_TEST

START_TEST(small_blocks_are_served_where_the_backend_refuses_large_requests)
{
    struct counted source;
    larder_t *larder;
    void *block;

    counted_init(&source, 0);
    atomic_store(&source.largest_size, MIB);
    larder = make_instance((larder_policy_t)_i, &source.backend);
    for (size_t size = 16; size <= 256 * KIB; size *= 4) {
        block = larder_alloc(larder, size);
        ck_assert_msg(block != NULL, "%zu bytes", size);
        larder_free(larder, block);
    }
    ck_assert_ptr_null(larder_alloc(larder, 4 * MIB));
    must_destroy(larder);
    assert_all_returned(&source);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("out of memory");
    TCase *faults = add_claims(suite, "faults by count");
    TCase *flush = add_claims(suite, "giving up caches");

    tcase_add_loop_test(faults, one_failing_backend_call_is_absorbed_wherever_it_comes, 0, 3);
    tcase_add_loop_test(faults, memory_that_runs_out_at_any_call_loses_nothing_and_recovers, 0, 3);
    tcase_add_test(flush, a_miss_out_of_memory_is_served_by_flushing_the_cache);
    tcase_add_loop_test(flush, other_instances_give_up_their_caches_too, 0, CACHING_POLICY_COUNT);
    tcase_add_loop_test(flush, an_absurd_size_asks_no_backend_and_trims_nothing, 0, 3);
    tcase_add_loop_test(flush, small_blocks_are_served_where_the_backend_refuses_large_requests, 0,
                        3);
    return run_suite(suite);
}
