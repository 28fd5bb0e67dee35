/* SPDX-License-Identifier: MIT */
/*
 * The replay engine, against an allocator that writes down what it is asked: which calls a pass
 * makes, that passes repeat, what is touched, and what happens when memory runs out. No test looks
 * at a time.
 */
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "program.h"
#include "replay.h"
#include "trace.h"

/* -- An allocator that takes notes ------------------------------------------------------------- */

#define NOTES_MAX 4096

struct note {
    char call; /* a: allocate, l: aligned, r: reallocate, f: release */
    size_t size;
    size_t alignment;
    unsigned block; /* by order of allocation, from 0; of the argument for r and f */
};

struct recorder {
    struct note notes[NOTES_MAX];
    size_t note_count;
    void *blocks[NOTES_MAX]; /* NULL: released */
    size_t sizes[NOTES_MAX];
    unsigned block_count;
    uint64_t calls;
    uint64_t fail_at;       /* the allocating call of that number, from 1; 0: none */
    size_t untouched_pages; /* of blocks released, pages without a byte written */
    size_t unwritten_bytes; /* of blocks released */
};

static struct recorder recorder;

static unsigned number_of(const void *block)
{
    for (unsigned i = 0; i < recorder.block_count; i++) {
        if (recorder.blocks[i] == block) {
            return i;
        }
    }
    ck_abort_msg("a pointer that is not live");
    return 0;
}

static void note(char call, size_t size, size_t alignment, unsigned block)
{
    ck_assert_uint_lt(recorder.note_count, NOTES_MAX);
    recorder.notes[recorder.note_count++] = (struct note){call, size, alignment, block};
}

static bool may_fail(void)
{
    return ++recorder.calls == recorder.fail_at;
}

static void *keep(size_t size, size_t alignment)
{
    void *block = aligned_alloc(alignment, (size + alignment) & ~(alignment - 1));
    ck_assert_ptr_nonnull(block);
    memset(block, 0, size);
    recorder.sizes[recorder.block_count] = size;
    recorder.blocks[recorder.block_count++] = block;
    return block;
}

static void *note_allocate(void *context, size_t size)
{
    (void)context;
    note('a', size, 0, recorder.block_count);
    return may_fail() ? NULL : keep(size, 16);
}

static void *note_allocate_aligned(void *context, size_t alignment, size_t size)
{
    (void)context;
    note('l', size, alignment, recorder.block_count);
    return may_fail() ? NULL : keep(size, alignment);
}

static void *note_reallocate(void *context, void *ptr, size_t size)
{
    unsigned block = number_of(ptr);
    (void)context;
    note('r', size, 0, block);
    if (may_fail()) {
        return NULL;
    }
    recorder.blocks[block] = realloc(ptr, size + 1);
    recorder.sizes[block] = size;
    memset(recorder.blocks[block], 0, size);
    return recorder.blocks[block];
}

static void count_untouched(const unsigned char *bytes, size_t size)
{
    const uintptr_t page_size = (uintptr_t)sysconf(_SC_PAGESIZE);
    bool touched = true;
    for (size_t i = 0; i < size; i++) {
        recorder.unwritten_bytes += bytes[i] == 0;
        if (i == 0 || ((uintptr_t)bytes + i) % page_size == 0) {
            recorder.untouched_pages += !touched;
            touched = false;
        }
        touched = touched || bytes[i] != 0;
    }
    recorder.untouched_pages += !touched;
}

static void note_release(void *context, void *ptr)
{
    unsigned block = number_of(ptr);
    (void)context;
    note('f', 0, 0, block);
    count_untouched(ptr, recorder.sizes[block]);
    free(ptr);
    recorder.blocks[block] = NULL;
}

static const struct allocator noting = {
    .name = "noting",
    .version = "-",
    .policy = "-",
    .allocate = note_allocate,
    .allocate_aligned = note_allocate_aligned,
    .reallocate = note_reallocate,
    .release = note_release,
};

static void reset(void)
{
    recorder = (struct recorder){0};
}

static void assert_nothing_live(void)
{
    for (unsigned i = 0; i < recorder.block_count; i++) {
        ck_assert_ptr_null(recorder.blocks[i]);
    }
}

/* -- Programs ---------------------------------------------------------------------------------- */

static struct program build(const char *text)
{
    char path[] = "/tmp/larder-test-replay-XXXXXX", why[512];
    struct trace trace;
    struct program program;
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    int result = trace_load(path, NULL, &trace, why, sizeof why);
    unlink(path);
    ck_assert_msg(result == 0, "%s", why);
    ck_assert_int_eq(program_build(&trace, &program), 0);
    trace_unload(&trace);
    return program;
}

static const char example[] = "1: malloc 0x10 100\n"
                              "2: memalign 0x20 256 9000\n"
                              "1: realloc 0x30 0x10 5000\n"
                              "1: calloc 0x10 10 7\n"
                              "2: free 0x20\n"
                              "2: malloc 0x40 20000\n"
                              "2: thread_done 0x0\n"
                              "1: free 0x10\n";
#define EXAMPLE_OPS 9 /* seven of the trace and the frees of two blocks that it keeps */

static int run(const struct program *program, const struct replay_settings *settings,
               struct replay_result *result, char *why, size_t why_size)
{
    return replay_run(program, &noting, settings, result, why, why_size);
}

static struct replay_result must_run(const struct program *program, enum replay_touch touch,
                                     unsigned passes)
{
    struct replay_settings settings = {.touch = touch, .passes = passes};
    struct replay_result result;
    char why[256] = "";
    ck_assert_msg(run(program, &settings, &result, why, sizeof why) == 0, "%s", why);
    return result;
}

START_TEST(slots_are_taken_again_by_the_next_allocation)
{
    struct program program = build("1: malloc 0x10 1\n1: free 0x10\n1: malloc 0x20 2\n"
                                   "1: malloc 0x30 3\n1: free 0x20\n1: malloc 0x40 4\n");
    ck_assert_uint_eq(program.slot_count, 2);
    ck_assert_uint_eq(program.ops[5].slot, program.ops[4].slot);
    program_release(&program);
}
END_TEST

START_TEST(blocks_never_freed_are_freed_at_the_end_in_order_of_allocation)
{
    struct program program = build("1: malloc 0x10 1\n1: malloc 0x20 2\n1: malloc 0x30 3\n"
                                   "1: free 0x20\n");
    ck_assert_uint_eq(program.op_count, 6);
    ck_assert_uint_eq(program.added_frees, 2);
    ck_assert_int_eq(program.ops[4].kind, PROGRAM_FREE);
    ck_assert_uint_eq(program.ops[4].slot, program.ops[0].slot);
    ck_assert_uint_eq(program.ops[5].slot, program.ops[2].slot);
    program_release(&program);
}
END_TEST

/* -- Passes ------------------------------------------------------------------------------------ */

START_TEST(a_pass_makes_the_recorded_calls_in_order)
{
    static const struct note expected[EXAMPLE_OPS] = {
        {'a', 100, 0, 0},   {'l', 9000, 256, 1}, {'r', 5000, 0, 0}, {'a', 70, 0, 2}, {'f', 0, 0, 1},
        {'a', 20000, 0, 3}, {'f', 0, 0, 2},      {'f', 0, 0, 0},    {'f', 0, 0, 3},
    };
    struct program program = build(example);
    struct replay_result result = must_run(&program, REPLAY_TOUCH_NONE, 1);
    ck_assert_uint_eq(result.ops_per_pass, EXAMPLE_OPS);
    ck_assert_uint_eq(recorder.note_count, EXAMPLE_OPS);
    for (size_t i = 0; i < EXAMPLE_OPS; i++) {
        ck_assert_int_eq(recorder.notes[i].call, expected[i].call);
        ck_assert_uint_eq(recorder.notes[i].size, expected[i].size);
        ck_assert_uint_eq(recorder.notes[i].alignment, expected[i].alignment);
        ck_assert_uint_eq(recorder.notes[i].block, expected[i].block);
    }
    program_release(&program);
}
END_TEST

START_TEST(every_pass_makes_the_same_calls_and_leaves_nothing)
{
    struct program program = build(example);
    struct replay_result result = must_run(&program, REPLAY_TOUCH_NONE, 7);
    ck_assert_uint_eq(result.passes, 7);
    ck_assert_uint_eq(recorder.note_count, 7 * EXAMPLE_OPS);
    for (size_t i = EXAMPLE_OPS; i < recorder.note_count; i++) {
        ck_assert_int_eq(recorder.notes[i].call, recorder.notes[i - EXAMPLE_OPS].call);
        ck_assert_uint_eq(recorder.notes[i].size, recorder.notes[i - EXAMPLE_OPS].size);
    }
    assert_nothing_live();
    program_release(&program);
}
END_TEST

START_TEST(touching_none_writes_nothing)
{
    struct program program = build(example);
    must_run(&program, REPLAY_TOUCH_NONE, 1);
    ck_assert_uint_eq(recorder.unwritten_bytes, 5000 + 9000 + 70 + 20000);
    program_release(&program);
}
END_TEST

START_TEST(touching_pages_writes_to_each_page_and_little_else)
{
    struct program program = build(example);
    must_run(&program, REPLAY_TOUCH_PAGE, 3);
    ck_assert_uint_eq(recorder.untouched_pages, 0);
    ck_assert_uint_gt(recorder.unwritten_bytes, 3 * (5000 + 9000 + 70 + 20000 - 64));
    program_release(&program);
}
END_TEST

/* Blocks of every length around a page, at whatever address malloc gives them. */
START_TEST(touching_pages_stays_inside_of_the_block)
{
    char text[64];
    for (size_t size = 0; size < 9000;
         size += size < 20 || size % 4096 > 4080 || size % 4096 < 10 ? 1 : 97) {
        snprintf(text, sizeof text, "1: malloc 0x10 %zu\n", size);
        struct program program = build(text);
        reset();
        must_run(&program, REPLAY_TOUCH_PAGE, 1);
        ck_assert_uint_eq(recorder.untouched_pages, 0);
        program_release(&program);
    }
}
END_TEST

START_TEST(touching_full_writes_every_byte)
{
    struct program program = build(example);
    must_run(&program, REPLAY_TOUCH_FULL, 2);
    ck_assert_uint_eq(recorder.unwritten_bytes, 0);
    program_release(&program);
}
END_TEST

/* Threads of this process; 0 where /proc does not tell. */
static size_t count_threads(void)
{
    size_t count = 0;
    DIR *tasks = opendir("/proc/self/task");
    if (tasks == NULL) {
        return 0;
    }
    for (struct dirent *entry; (entry = readdir(tasks)) != NULL;) {
        count += entry->d_name[0] != '.';
    }
    closedir(tasks);
    return count;
}

static size_t fewest_threads;

static void *allocate_and_count_threads(void *context, size_t size)
{
    size_t threads = count_threads();
    fewest_threads = threads < fewest_threads ? threads : fewest_threads;
    (void)context;
    return malloc(size);
}

static void release_to_malloc(void *context, void *block)
{
    (void)context;
    free(block);
}

START_TEST(a_second_thread_is_there_in_every_pass)
{
    const struct allocator counting = {
        .name = "counting",
        .allocate = allocate_and_count_threads,
        .release = release_to_malloc,
    };
    struct program program = build("1: malloc 0x10 100\n1: free 0x10\n");
    struct replay_settings settings = {.passes = 3};
    struct replay_result result;
    char why[256] = "";
    size_t before = count_threads();
    fewest_threads = SIZE_MAX;
    ck_assert_int_eq(replay_run(&program, &counting, &settings, &result, why, sizeof why), 0);
    ck_assert(before == 0 || fewest_threads > before);
    program_release(&program);
}
END_TEST

START_TEST(figures_are_ordered_and_within_the_passes)
{
    struct program program = build(example);
    struct replay_result result = must_run(&program, REPLAY_TOUCH_PAGE, 12);
    ck_assert_double_le(result.ns_per_op_min, result.ns_per_op);
    ck_assert_double_le(result.ns_per_op, result.ns_per_op_max);
    ck_assert_double_gt(result.ns_per_op_max, 0);
    program_release(&program);
}
END_TEST

/* -- Out of memory ----------------------------------------------------------------------------- */

START_TEST(each_failing_call_ends_the_run_and_frees_what_is_live)
{
    const uint64_t allocating_calls = 5; /* of a pass */
    struct program program = build(example);
    for (uint64_t n = 1; n <= 2 * allocating_calls; n++) {
        struct replay_settings settings = {.passes = 3};
        struct replay_result result;
        char why[256] = "";
        reset();
        recorder.fail_at = n;
        ck_assert_int_eq(run(&program, &settings, &result, why, sizeof why), -ENOMEM);
        ck_assert_msg(strstr(why, "noting could not serve") != NULL, "%s", why);
        assert_nothing_live();
    }
    program_release(&program);
}
END_TEST

static TCase *claims(Suite *suite, const char *name)
{
    TCase *tcase = tcase_create(name);
    tcase_add_checked_fixture(tcase, reset, NULL);
    tcase_set_timeout(tcase, 60);
    suite_add_tcase(suite, tcase);
    return tcase;
}

int main(void)
{
    Suite *suite = suite_create("replay");
    TCase *programs = claims(suite, "programs");
    tcase_add_test(programs, slots_are_taken_again_by_the_next_allocation);
    tcase_add_test(programs, blocks_never_freed_are_freed_at_the_end_in_order_of_allocation);

    TCase *passes = claims(suite, "passes");
    tcase_add_test(passes, a_pass_makes_the_recorded_calls_in_order);
    tcase_add_test(passes, every_pass_makes_the_same_calls_and_leaves_nothing);
    tcase_add_test(passes, touching_none_writes_nothing);
    tcase_add_test(passes, touching_pages_writes_to_each_page_and_little_else);
    tcase_add_test(passes, touching_pages_stays_inside_of_the_block);
    tcase_add_test(passes, touching_full_writes_every_byte);
    tcase_add_test(passes, a_second_thread_is_there_in_every_pass);
    tcase_add_test(passes, figures_are_ordered_and_within_the_passes);

    TCase *memory = claims(suite, "out of memory");
    tcase_add_test(memory, each_failing_call_ends_the_run_and_frees_what_is_live);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
