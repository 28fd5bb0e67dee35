/* SPDX-License-Identifier: MIT */
/*
 * From a trace to a plan and from there into an instance: what `larder plan -o` writes, larder_plan_load() reads, and an
 * inference as in the trace is then served from the plan without having been recorded. The argument is the tool.
 */
#include "support.h"

#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STEPS = 24 };

static const char *tool;
static char trace[64], plan[64];

/* Step i allocates block i and frees block i - 2. */
static size_t size_of(int step)
{
    return step % 3 == 2 ? (size_t)2500 : (size_t)(10 + step * 7 % 11) * 1024 + 8;
}

static void write_trace(void)
{
    FILE *file = fopen(trace, "w");
    ck_assert_ptr_nonnull(file);
    for (int i = 0; i < STEPS + 2; i++) {
        if (i < STEPS)
            fprintf(file, "1: malloc %#x %zu\n", 0x1000 * (i + 1), size_of(i));
        if (i >= 2)
            fprintf(file, "1: free %#x\n", 0x1000 * (i - 1));
    }
    ck_assert_int_eq(fclose(file), 0);
}

/* Runs `larder plan TRACE -o PLAN --alignment A` and returns its status. */
static int run_tool(const char *alignment)
{
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        if (freopen("/dev/null", "w", stdout) != NULL)
            execl(tool, tool, "plan", trace, "-o", plan, "--alignment", alignment, (char *)NULL);
        _exit(127);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void infer(larder_t *larder, char **blocks)
{
    ck_assert_int_eq(larder_plan_begin(larder, 0), 0);
    for (int i = 0; i < STEPS + 2; i++) {
        if (i < STEPS) {
            blocks[i] = larder_alloc(larder, size_of(i));
            pattern_fill(blocks[i], size_of(i), (uint64_t)i);
        }
        if (i >= 2) {
            ck_assert(pattern_holds(blocks[i - 2], size_of(i - 2), (uint64_t)(i - 2)));
            larder_free(larder, blocks[i - 2]);
        }
    }
    ck_assert_int_eq(larder_plan_end(larder), 0);
}

static larder_t *make_loaded(const char *alignment)
{
    snprintf(trace, sizeof trace, "/tmp/larder-plan-tool-%ld.txt", (long)getpid());
    snprintf(plan, sizeof plan, "/tmp/larder-plan-tool-%ld.plan", (long)getpid());
    write_trace();
    ck_assert_int_eq(run_tool(alignment), 0);
    larder_t *larder = make_bare_instance(LARDER_POLICY_PLANNED, larder_backend_mmap());
    ck_assert_int_eq(larder_plan_load(larder, plan), 1);
    return larder;
}

static void end(larder_t *larder)
{
    must_destroy(larder);
    unlink(trace);
    unlink(plan);
}

START_TEST(the_first_inference_is_served_from_a_plan_that_the_tool_has_made)
{
    larder_t *larder = make_loaded("64");
    char *blocks[STEPS];

    infer(larder, blocks);
    ck_assert_uint_eq(stats_of(larder).plans, 1);
    ck_assert_uint_eq(stats_of(larder).plan_hits, STEPS);
    ck_assert_uint_eq(stats_of(larder).plan_deviations, 0);
    end(larder);
}
END_TEST

/* Offsets at multiples of what arenas are divided into are taken as they are. */
START_TEST(blocks_lie_where_the_tool_has_put_them)
{
    larder_t *larder = make_loaded("512");
    char *blocks[STEPS];
    unsigned long offsets[STEPS], begin, finish, size, alignment;

    FILE *file = fopen(plan, "r");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(fscanf(file, "larder-plan 1\nplan 0 24 %lu", &size), 1);
    for (int i = 0; i < STEPS; i++) {
        ck_assert_int_eq(
            fscanf(file, "%lu %lu %lu %lu %lu", &begin, &finish, &size, &alignment, &offsets[i]),
            5);
        ck_assert_uint_eq(size, size_of(i));
    }
    fclose(file);
    infer(larder, blocks);
    for (int i = 1; i < STEPS; i++)
        ck_assert_int_eq(blocks[i] - blocks[0], (long)offsets[i] - (long)offsets[0]);
    end(larder);
}
END_TEST

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: test_plan_tool LARDER\n");
        return 2;
    }
    tool = argv[1];
    Suite *suite = suite_create("plan_tool");
    TCase *claims = add_claims(suite, "plan_tool");
    tcase_add_test(claims, the_first_inference_is_served_from_a_plan_that_the_tool_has_made);
    tcase_add_test(claims, blocks_lie_where_the_tool_has_put_them);
    return run_suite(suite);
}
