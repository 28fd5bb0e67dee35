/* SPDX-License-Identifier: MIT */
/*
 * fork in a process whose other threads are inside the library: the child can allocate, free, use
 * scopes, start threads and fork again, and the parent has lost nothing. With LARDER_TEST_SECONDS it goes on for so long.
 */
#include "support.h"

#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WORKERS 4
#define FORKS 20
#define LEGACIES 32

struct family {
    larder_t *larder;
    struct meeting begin;
    _Atomic bool done;
    void *legacies[LEGACIES];
};

static void work_until_done(struct family *family, unsigned index)
{
    struct random random;
    void *blocks[16] = {NULL};

    random_init(&random, index);
    while (!atomic_load(&family->done)) {
        size_t i = random_between(&random, 0, 15);

        larder_free(family->larder, blocks[i]);
        blocks[i] = larder_alloc(family->larder, random_size(&random, 64 * KIB));
        expect(blocks[i] != NULL);
        if (random_between(&random, 0, 99) == 0)
            larder_trim(family->larder, 10 * KIB);
    }
    for (unsigned i = 0; i < 16; i++)
        larder_free(family->larder, blocks[i]);
}

static void *allocate_in_a_new_thread(void *context)
{
    larder_free(context, larder_alloc(context, 1000));
    return NULL;
}

/* The child's child does the same on a small scale. */
static void fork_again(larder_t *larder)
{
    void *block = larder_alloc(larder, 3000);
    int status = -1;
    pid_t grandchild;

    pattern_fill(block, 3000, 4);
    grandchild = fork();
    expect(grandchild >= 0);
    if (grandchild == 0) {
        expect(pattern_holds(block, 3000, 4));
        larder_free(larder, block);
        for (size_t size = 1; size <= MIB; size *= 4)
            larder_free(larder, larder_alloc(larder, size));
        larder_tick(NULL);
        end_child(0);
    }
    expect(waitpid(grandchild, &status, 0) == grandchild && status == 0);
    expect(pattern_holds(block, 3000, 4));
    larder_free(larder, block);
}

/* In the child; an expect() that fails ends it with a status of its own. */
static void live_on(void *context)
{
    struct family *family = context;
    larder_t *larder = family->larder;
    larder_t *previous = larder_scope_enter(larder);

    for (size_t i = 0; i < LEGACIES; i++) { /* what the parent left it */
        expect(pattern_holds(family->legacies[i], 100 * (i + 1), i));
        larder_free(larder, family->legacies[i]);
    }
    for (size_t size = 1; size <= MIB; size *= 2) {
        void *block = larder_alloc(larder, size), *current = larder_current_alloc(size);

        expect(block && current);
        pattern_fill(block, size, 1);
        pattern_fill(current, size, 2);
        expect(pattern_holds(block, size, 1) && pattern_holds(current, size, 2));
        larder_free(larder, block);
        larder_current_free(current);
    }
    larder_scope_leave(previous);
#if !UNDER_SANITIZER /* they do not start threads after such a fork */
    pthread_t thread;

    expect(pthread_create(&thread, NULL, allocate_in_a_new_thread, larder) == 0);
    expect(pthread_join(thread, NULL) == 0);
#else
    allocate_in_a_new_thread(larder);
#endif
    larder_flush_thread(larder);
    larder_free_cached(larder);
    expect(larder_alloc(larder, 5000) != NULL);
    fork_again(larder);
}

static void fork_or_work(void *context, unsigned index)
{
    struct family *family = context;

    if (index > 0) {
        work_until_done(family, index);
        return;
    }
    time_t begin = time(NULL);

    for (unsigned i = 0; i < FORKS || time(NULL) - begin < (time_t)test_seconds(0); i++) {
        struct child_end end = run_in_child(live_on, family);

        expect(end.signal == 0 && end.status == 0);
        if (end.signal || end.status) {
            fprintf(stderr, "child %u: signal %d, status %d: %s\n", i, end.signal, end.status,
                    end.output);
            break;
        }
    }
    atomic_store(&family->done, true);
}

START_TEST(a_child_of_a_threaded_process_can_allocate_and_the_parent_loses_nothing)
{
    struct family family = {.larder = NULL};
    larder_config_t config;

    if (!variant_config(_i, &config))
        return;
    /* QEMU's own locks do not survive it */
    if (emulated_or_note("fork in a process with threads"))
        return;
    /* what mimalloc does after fork is its own affair, as is the malloc of sanitizers */
    if (UNDER_SANITIZER ? strcmp(variants[_i].backend_name, "mmap") != 0
                        : strcmp(variants[_i].backend_name, "mimalloc") == 0)
        return;
    config.decay_ms = 1;
    family.larder = must_create(&config);
    for (size_t i = 0; i < LEGACIES; i++) {
        family.legacies[i] = larder_alloc(family.larder, 100 * (i + 1));
        pattern_fill(family.legacies[i], 100 * (i + 1), i);
    }
    run_threads(WORKERS + 1, fork_or_work, &family);
    for (size_t i = 0; i < LEGACIES; i++) {
        ck_assert(pattern_holds(family.legacies[i], 100 * (i + 1), i));
        larder_free(family.larder, family.legacies[i]);
    }
    ck_assert_uint_eq(stats_of(family.larder).live_blocks, 0);
    must_destroy(family.larder);
}
END_TEST

static void keep_scope(void *context)
{
    void *block;

    expect(larder_current() == context);
    block = larder_current_alloc(100);
    expect(larder_owner(block) == context);
    larder_current_free(block);
    larder_scope_leave(NULL);
    expect(larder_current() == NULL);
}

START_TEST(a_child_keeps_the_scope_of_the_thread_that_forked)
{
    larder_t *larder = make_instance(LARDER_POLICY_FIT, NULL);
    larder_t *previous = larder_scope_enter(larder);
    struct child_end end;

    end = run_in_child(keep_scope, larder);
    ck_assert_msg(end.signal == 0 && end.status == 0, "signal %d, status %d: %s", end.signal,
                  end.status, end.output);
    larder_scope_leave(previous);
    must_destroy(larder);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("fork");
    TCase *claims = add_claims(suite, "children");

    tcase_add_loop_test(claims,
                        a_child_of_a_threaded_process_can_allocate_and_the_parent_loses_nothing, 0,
                        VARIANT_COUNT);
    tcase_add_test(claims, a_child_keeps_the_scope_of_the_thread_that_forked);
    return run_suite(suite);
}
