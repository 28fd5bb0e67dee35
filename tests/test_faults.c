/* SPDX-License-Identifier: MIT */
/*
 * The system refuses: each mmap, mprotect and madvise that larder makes is made to fail in turn, its own
 * records' memory included, over a workload that takes every way of a block. This suite stands in for the C
 * library's calls and counts what is mapped.
 *
 * Claims, for each call n: nothing crashes, no block is lost or torn, the span heaps are sound
 * (heap_invariants.h), the books balance, all is well again when memory returns, and nothing stays mapped that
 * was not before, but larder's own records, which never go back and are used again.
 */
#include "support.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cache.h"
#include "heap_invariants.h"
#include "meta.h"

/* -- The system, counted and refusing -- */

static struct {
    uint64_t calls, refused;
    uint64_t fail_at;   /* the call with this number fails */
    uint64_t fail_from; /* so does each from this number on; 0: none */
    uint64_t mapped;    /* bytes */
} the_system;

static bool refuses(void)
{
    uint64_t call = ++the_system.calls;
    bool refused =
        call == the_system.fail_at || (the_system.fail_from != 0 && call >= the_system.fail_from);

    if (refused) {
        the_system.refused++;
        errno = ENOMEM;
    }
    return refused;
}

void *mmap(void *hint, size_t size, int protection, int flags, int file, off_t offset)
{
    void *ptr;

    if (file == -1 && refuses())
        return MAP_FAILED;
#ifdef SYS_mmap2
    ptr = (void *)syscall(SYS_mmap2, hint, size, protection, flags, file, (long)(offset / 4096));
#else
    ptr = (void *)syscall(SYS_mmap, hint, size, protection, flags, file, offset);
#endif
    if (ptr != MAP_FAILED && file == -1)
        the_system.mapped += size;
    return ptr;
}

int munmap(void *ptr, size_t size)
{
    the_system.mapped -= size;
    return (int)syscall(SYS_munmap, ptr, size);
}

int mprotect(void *ptr, size_t size, int protection)
{
    return refuses() ? -1 : (int)syscall(SYS_mprotect, ptr, size, protection);
}

int madvise(void *ptr, size_t size, int advice)
{
    return refuses() ? -1 : (int)syscall(SYS_madvise, ptr, size, advice);
}

static void heed(uint64_t fail_at, uint64_t fail_from)
{
    the_system.calls = the_system.refused = 0;
    the_system.fail_at = fail_at;
    the_system.fail_from = fail_from;
}

/* -- The workload -- */

#define SLOTS 10
#define STEPS 50

struct setting {
    const char *name;
    larder_policy_t policy;
    bool capped, debug;
};

static const struct setting settings[] = {
    {"fit", LARDER_POLICY_FIT, false, false},
    {"fit with a cap", LARDER_POLICY_FIT, true, false},
    {"fit with redzones and strict checks", LARDER_POLICY_FIT, false, true},
    {"exact", LARDER_POLICY_EXACT, false, false},
    {"exact with a cap", LARDER_POLICY_EXACT, true, false},
    {"passthrough", LARDER_POLICY_PASSTHROUGH, false, false},
};
#define SETTING_COUNT 6

struct work {
    larder_t *larder;
    unsigned failures;
    uint64_t live_bytes;
    void *blocks[SLOTS];
    size_t sizes[SLOTS];
};

static larder_t *create(const struct setting *setting)
{
    larder_config_t config = test_config(setting->policy, larder_backend_mmap());

    if (setting->capped)
        config.max_cached_bytes = 2 * MIB;
    if (setting->debug) {
        config.redzone = 32;
        config.checks = LARDER_CHECKS_STRICT;
    }
    return larder_create("tested", &config);
}

static void fill(struct work *work, size_t i, void *block, size_t size)
{
    work->live_bytes += (uint64_t)size - work->sizes[i];
    work->blocks[i] = block;
    work->sizes[i] = size;
    pattern_fill(block, size, i);
}

static void empty(struct work *work, size_t i)
{
    ck_assert(work->blocks[i] == NULL || pattern_holds(work->blocks[i], work->sizes[i], i));
    larder_free(work->larder, work->blocks[i]);
    work->live_bytes -= work->sizes[i];
    work->blocks[i] = NULL;
    work->sizes[i] = 0;
}

static void take_or_resize(struct work *work, size_t i, size_t size, size_t way)
{
    void *block;

    errno = 0;
    if (way == 0)
        block = larder_realloc(work->larder, work->blocks[i], size);
    else if (way == 1)
        block = larder_alloc_aligned(work->larder, 4096, size);
    else
        block = larder_alloc(work->larder, size);
    if (block != NULL) {
        fill(work, i, block, size);
        return;
    }
    ck_assert_int_eq(errno, ENOMEM);
    ck_assert(work->blocks[i] == NULL || pattern_holds(work->blocks[i], work->sizes[i], i));
    work->failures++;
}

/* Class blocks, spans, and blocks too large for any region that is there; now and then all is given back. */
static size_t size_for(struct random *random, unsigned step)
{
    return step % 25 == 24 ? 5 * MIB : random_size(random, 400 * KIB);
}

static void run_steps(struct work *work)
{
    struct random random;

    random_init(&random, 7);
    for (unsigned step = 0; step < STEPS; step++) {
        size_t i = random_between(&random, 0, SLOTS - 1), size = size_for(&random, step);
        size_t way = random_between(&random, 0, 5);

        if (work->blocks[i] != NULL && way != 0)
            empty(work, i);
        else
            take_or_resize(work, i, size, way);
        if (step % 20 == 19)
            larder_trim(work->larder, 64 * KIB);
    }
    ck_assert_uint_eq(stats_of(work->larder).live_bytes, work->live_bytes);
    ck_assert(instance_is_sound(work->larder, &(struct heap_census){0}));
}

/* The whole of it: creation, work, work with memory there again, destruction. */
static uint64_t live_through(const struct setting *setting, uint64_t fail_at, uint64_t fail_from)
{
    struct work work = {.failures = 0};
    uint64_t calls;

    heed(fail_at, fail_from);
    work.larder = create(setting);
    if (work.larder != NULL) {
        run_steps(&work);
    } else {
        ck_assert_int_eq(errno, ENOMEM);
        ck_assert_uint_gt(the_system.refused, 0);
    }
    calls = the_system.calls;
    /* a run may get along with fewer calls than the one that was counted: records are left from that */
    ck_assert((fail_at == 0 && fail_from == 0) || the_system.refused > 0 ||
              calls < fail_at + fail_from);
    ck_assert_msg(work.failures == 0 || fail_from != 0,
                  "%s: call %llu alone failed, and so did %u requests", setting->name,
                  (unsigned long long)fail_at, work.failures);
    heed(0, 0);
    if (work.larder == NULL)
        work.larder = create(setting);
    ck_assert_ptr_nonnull(work.larder);
    work.failures = 0;
    run_steps(&work);
    ck_assert_uint_eq(work.failures, 0);
    for (size_t i = 0; i < SLOTS; i++)
        empty(&work, i);
    ck_assert_uint_eq(stats_of(work.larder).live_blocks, 0);
    must_destroy(work.larder);
    return calls;
}

/* What is mapped beside larder's records. */
static uint64_t mapped_beside_records(void)
{
    return the_system.mapped - meta_bytes();
}

static void fail_each_call(const struct setting *setting, bool and_all_after)
{
    uint64_t calls, before;

    live_through(setting, 0, 0);
    calls = live_through(setting, 0, 0);
    before = mapped_beside_records();
    ck_assert_uint_gt(calls, 5);
    for (uint64_t n = 1; n <= calls; n++)
        live_through(setting, and_all_after ? 0 : n, and_all_after ? n : 0);
    /* what is left of record chunks */
    ck_assert_msg(mapped_beside_records() <= before + 256 * KIB, "%s: %llu bytes stay mapped",
                  setting->name, (unsigned long long)(mapped_beside_records() - before));
}

START_TEST(one_refused_system_call_is_absorbed_wherever_it_comes)
{
    fail_each_call(&settings[_i], false);
}
END_TEST

START_TEST(a_system_that_refuses_from_any_call_on_costs_only_what_was_asked_meanwhile)
{
    fail_each_call(&settings[_i], true);
}
END_TEST

/* The first instance of a process: also the allocation map, which is made once. */
START_TEST(the_first_instance_comes_into_being_as_soon_as_there_is_memory)
{
    larder_t *larder = NULL;

    for (uint64_t n = 1; larder == NULL; n++) {
        ck_assert_uint_lt(n, 20);
        heed(n, 0);
        larder = create(&settings[_i]);
    }
    heed(0, 0);
    larder_free(larder, larder_alloc(larder, 1000));
    must_destroy(larder);
}
END_TEST

static void *free_in_a_thread(void *context)
{
    void **pair = context;

    larder_free(pair[0], pair[1]);
    expect(larder_alloc(pair[0], 100 * MIB) == NULL);
    return NULL;
}

/* There is no record for its cache, and none for its magazines. */
START_TEST(a_thread_without_memory_for_a_cache_can_free)
{
    larder_t *larder = create(&settings[_i]);
    void *blocks[] = {larder_alloc(larder, 100), larder_alloc(larder, 300000)};

    for (unsigned i = 0; i < 2; i++) {
        void *pair[] = {larder, blocks[i]};
        pthread_t thread;

        heed(0, 1);
        ck_assert_int_eq(pthread_create(&thread, NULL, free_in_a_thread, pair), 0);
        pthread_join(thread, NULL);
        heed(0, 0);
    }
    assert_expectations();
    ck_assert_uint_eq(stats_of(larder).live_blocks, 0);
    must_destroy(larder);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("faults");
    TCase *claims = add_claims(suite, "refused system calls");

    tcase_add_loop_test(claims, one_refused_system_call_is_absorbed_wherever_it_comes, 0,
                        SETTING_COUNT);
    tcase_add_loop_test(claims,
                        a_system_that_refuses_from_any_call_on_costs_only_what_was_asked_meanwhile,
                        0, SETTING_COUNT);
    tcase_add_loop_test(claims, the_first_instance_comes_into_being_as_soon_as_there_is_memory, 0,
                        SETTING_COUNT);
    tcase_add_loop_test(claims, a_thread_without_memory_for_a_cache_can_free, 0, SETTING_COUNT);
    return run_suite(suite);
}
