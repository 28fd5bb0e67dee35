/* SPDX-License-Identifier: MIT */
/*
 * Replays with more than one thread: what each thread performs and in which order, what waits for
 * what, that contents survive, and how failures end. No test looks at a time.
 */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <larder/larder.h>

#include "allocator.h"
#include "program.h"
#include "replay.h"
#include "trace.h"

/* -- An allocator that notes who asked for what ------------------------------------------------ */

#define NOTES_MAX 256

struct notes {
    pthread_t thread;
    size_t count;
    char calls[NOTES_MAX][16];
};

static struct {
    pthread_mutex_t lock;
    struct notes notes[16]; /* by thread, in order of their first call */
    size_t thread_count;
    size_t live;
    uint64_t calls, fail_at;
    bool damage; /* of each block of 77 bytes, the last byte */
} log_;

static struct notes *notes_of_this_thread(void)
{
    for (size_t i = 0; i < log_.thread_count; i++) {
        if (pthread_equal(log_.notes[i].thread, pthread_self())) {
            return &log_.notes[i];
        }
    }
    ck_assert_uint_lt(log_.thread_count, 16);
    log_.notes[log_.thread_count].thread = pthread_self();
    return &log_.notes[log_.thread_count++];
}

static void note(char call, size_t size)
{
    struct notes *notes = notes_of_this_thread();
    ck_assert_uint_lt(notes->count, NOTES_MAX);
    snprintf(notes->calls[notes->count++], sizeof notes->calls[0], "%c%zu", call, size);
}

static void *log_allocate(void *context, size_t size)
{
    (void)context;
    pthread_mutex_lock(&log_.lock);
    note('a', size);
    bool fails = ++log_.calls == log_.fail_at;
    log_.live += !fails;
    pthread_mutex_unlock(&log_.lock);
    size_t *block = fails ? NULL : malloc(sizeof *block + size + 1);
    if (block != NULL) {
        *block = size;
    }
    return block != NULL ? block + 1 : NULL;
}

static void log_release(void *context, void *ptr)
{
    size_t *block = (size_t *)ptr - 1;
    (void)context;
    pthread_mutex_lock(&log_.lock);
    note('f', *block);
    log_.live--;
    pthread_mutex_unlock(&log_.lock);
    free(block);
}

static char *left_behind[2];
static size_t left_behind_count;

static void *log_allocate_and_damage(void *context, size_t size)
{
    static char *damaged; /* guarded by the order of the one thread */
    if (damaged != NULL && log_.damage) {
        damaged[76] = (char)~damaged[76];
    }
    char *block = log_allocate(context, size);
    damaged = size == 77 ? block : NULL;
    if (log_.damage && block != NULL) { /* the replay will stop before it frees them */
        left_behind[left_behind_count++ % 2] = block;
    }
    return block;
}

static const struct allocator logging = {.name = "logging",
                                         .version = "-",
                                         .policy = "-",
                                         .allocate = log_allocate,
                                         .release = log_release};

static void reset(void)
{
    memset(&log_, 0, sizeof log_);
    pthread_mutex_init(&log_.lock, NULL);
}

/* -- Programs ---------------------------------------------------------------------------------- */

static struct trace load(const char *text)
{
    char path[] = "/tmp/larder-test-replay-XXXXXX", why[512];
    struct trace trace;
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    int result = trace_load(path, NULL, &trace, why, sizeof why);
    unlink(path);
    ck_assert_msg(result == 0, "%s", why);
    return trace;
}

static struct program build(const char *text, struct program_options options)
{
    struct trace trace = load(text);
    struct program program;
    ck_assert_int_eq(program_build_with(&trace, &options, &program), 0);
    trace_unload(&trace);
    return program;
}

static struct program build_parallel(const char *text)
{
    return build(text, (struct program_options){.parallel = true});
}

static int verify(const struct program *program, const struct allocator *allocator,
                  unsigned streams)
{
    struct replay_settings settings = {.passes = 3, .streams = streams};
    struct replay_verified verified;
    char why[256] = "";
    int result = replay_verify(program, allocator, &settings, &verified, why, sizeof why);
    if (result != 0) {
        fprintf(stderr, "%s\n", why);
    }
    return result;
}

/* Two threads hand blocks to each other, a third one lives for a while in between. */
static const char example[] = "1: malloc 0x10 11\n"
                              "1: malloc 0x20 12\n"
                              "2: malloc 0x30 21\n"
                              "2: free 0x10\n"
                              "3: malloc 0x40 31\n"
                              "3: free 0x30\n"
                              "3: thread_done 0x0\n"
                              "1: free 0x40\n"
                              "1: malloc 0x10 13\n"
                              "2: free 0x20\n"
                              "3: malloc 0x50 32\n"
                              "2: free 0x10\n"
                              "3: free 0x50\n"
                              "3: thread_done 0x0\n"
                              "1: malloc 0x60 14\n";

START_TEST(each_thread_makes_its_recorded_calls_in_order)
{
    static const char *const expected[][6] = {
        {"a11", "a12", "f31", "a13", "a14", "f14"},
        {"a21", "f11", "f12", "f13"},
        {"a31", "f21"},
        {"a32", "f32"},
    };
    struct program program = build_parallel(example);
    ck_assert_uint_eq(program.lane_count, 4); /* the id 3 is used by two */
    for (unsigned pass = 1; pass <= 20; pass++) {
        struct replay_settings settings = {.passes = 1};
        struct replay_result result;
        char why[256] = "";
        reset();
        ck_assert_msg(replay_run(&program, &logging, &settings, &result, why, sizeof why) == 0,
                      "%s", why);
        ck_assert_uint_eq(log_.live, 0);
        for (size_t i = 0; i < log_.thread_count; i++) {
            const struct notes *notes = &log_.notes[i];
            /* Counting passes come before; threads that stay make the calls of all. */
            size_t lane = 0, length = 0;
            while (lane < 4 && strcmp(expected[lane][0], notes->calls[0]) != 0) {
                lane++;
            }
            ck_assert_uint_lt(lane, 4);
            while (length < 6 && expected[lane][length] != NULL) {
                length++;
            }
            ck_assert_uint_eq(notes->count % length, 0);
            for (size_t call = 0; call < notes->count; call++) {
                ck_assert_str_eq(notes->calls[call], expected[lane][call % length]);
            }
        }
    }
    program_release(&program);
}
END_TEST

/* Runs lanes greedily, the last first, as far as their waits allow. */
START_TEST(waits_never_end_in_a_circle_and_order_each_block)
{
    struct program program = build_parallel(example);
    uint32_t steps[4] = {0};
    size_t wait[4], done[4] = {0}, through = 0;
    int live[256] = {0};
    ck_assert_uint_le(program.slot_count, 256);
    for (size_t i = 0; i < 4; i++) {
        wait[i] = program.lanes[i].first_wait;
    }
    for (bool moved = true; moved;) {
        moved = false;
        for (size_t i = 4; i-- > 0 && !moved;) {
            const struct program_lane *lane = &program.lanes[i];
            if (steps[i] == lane->step_count) {
                continue;
            }
            const struct program_step *step = &lane->steps[steps[i]];
            bool ready = true;
            for (size_t w = wait[i]; w < step->waits_end; w++) {
                ready = ready && steps[program.waits[w].lane] >= program.waits[w].steps;
            }
            if (!ready) {
                continue;
            }
            for (; done[i] < step->end; done[i]++) {
                const struct program_op *op = &lane->ops[done[i]];
                ck_assert_uint_lt(op->slot, 256);
                live[op->slot] += op->kind == PROGRAM_FREE ? -1 : 1;
                ck_assert_int_eq(live[op->slot], op->kind != PROGRAM_FREE);
            }
            wait[i] = step->waits_end;
            through += ++steps[i] == lane->step_count;
            moved = true;
        }
    }
    ck_assert_uint_eq(through, 4);
    program_release(&program);
}
END_TEST

START_TEST(threads_share_lanes_where_there_may_be_fewer)
{
    struct program program =
        build(example, (struct program_options){.parallel = true, .lanes_max = 2});
    ck_assert_uint_eq(program.lane_count, 2);
    ck_assert_uint_eq(program.thread_count, 4);
    reset();
    ck_assert_int_eq(verify(&program, &logging, 2), 0);
    ck_assert_uint_eq(log_.live, 0);
    program_release(&program);
}
END_TEST

START_TEST(a_part_finds_what_lived_before_it_and_leaves_it_again)
{
    /* The part: operations 2 to 4. It frees one block of before, resizes none, keeps one. */
    const char text[] = "1: malloc 0x10 1\n1: malloc 0x20 2\n"
                        "1: free 0x10\n1: malloc 0x30 3\n1: malloc 0x40 4\n"
                        "1: free 0x20\n1: free 0x30\n";
    static const char *const expected[] = {"a1", "a2", "f1", "a3", "a4", "f3", "f4", "a1",
                                           "f1", "a3", "a4", "f3", "f4", "a1", "f1", "f2"};
    struct program program = build(text, (struct program_options){.first_op = 2, .end_op = 5});
    struct replay_settings settings = {.passes = 2};
    struct replay_result result;
    char why[256] = "";
    ck_assert_uint_eq(program.peak_live_bytes, 9);
    ck_assert_int_eq(replay_run(&program, &logging, &settings, &result, why, sizeof why), 0);
    ck_assert_uint_eq(log_.thread_count, 1);
    ck_assert_uint_eq(log_.notes[0].count, 16);
    for (size_t i = 0; i < 16; i++) {
        ck_assert_str_eq(log_.notes[0].calls[i], expected[i]);
    }
    program_release(&program);
}
END_TEST

/* The second thread's free comes before the first one's last operation, and so before its next pass. */
START_TEST(counted_live_bytes_are_the_traces_where_one_order_is_possible)
{
    struct program program = build_parallel("1: malloc 0x10 100\n2: free 0x10\n"
                                            "2: malloc 0x20 10\n1: free 0x20\n");
    struct replay_settings settings = {.passes = 60};
    struct replay_result result;
    char why[256] = "";
    ck_assert_int_eq(replay_run(&program, &logging, &settings, &result, why, sizeof why), 0);
    ck_assert(result.peak_live_was_counted);
    ck_assert_uint_eq(result.peak_live_bytes, 100);
    ck_assert_uint_eq(result.threads, 2);
    ck_assert_uint_eq(result.passes, 60);
    program_release(&program);
}
END_TEST

/* Each thread may be a pass ahead of the other, not two: their slots are used again. */
START_TEST(threads_go_on_to_the_next_pass_without_each_other_but_not_to_the_one_after)
{
    struct program program = build_parallel("1: malloc 0x10 100\n2: free 0x10\n");
    struct replay_settings settings = {.passes = 60};
    struct replay_result result;
    char why[256] = "";
    ck_assert_int_eq(replay_run(&program, &logging, &settings, &result, why, sizeof why), 0);
    ck_assert_uint_ge(result.peak_live_bytes, 100);
    ck_assert_uint_le(result.peak_live_bytes, 200);
    program_release(&program);
}
END_TEST

/* What each thread does in many passes is what it did in one, again and again. */
START_TEST(a_threads_operations_keep_their_order_from_pass_to_pass)
{
    enum { PASSES = 3, EACH = 4 };
    struct program program = build_parallel("1: malloc 0x10 1\n1: malloc 0x20 2\n2: malloc 0x30 3\n"
                                            "2: free 0x10\n1: free 0x30\n2: malloc 0x40 4\n"
                                            "2: free 0x40\n1: free 0x20\n");
    static const char *const expected[2][EACH] = {{"a1", "a2", "f3", "f2"},
                                                  {"a3", "f1", "a4", "f4"}};
    struct replay_settings settings = {.passes = PASSES};
    struct replay_verified verified;
    char why[256] = "";
    ck_assert_int_eq(replay_verify(&program, &logging, &settings, &verified, why, sizeof why), 0);
    ck_assert_uint_eq(verified.blocks, PASSES * 4);
    ck_assert_uint_eq(log_.thread_count, 2);
    for (size_t t = 0; t < 2; t++) {
        size_t lane = strcmp(log_.notes[t].calls[0], "a1") == 0 ? 0 : 1;
        ck_assert_uint_eq(log_.notes[t].count, PASSES * EACH);
        for (size_t i = 0; i < PASSES * EACH; i++) {
            ck_assert_str_eq(log_.notes[t].calls[i], expected[lane][i % EACH]);
        }
    }
    program_release(&program);
}
END_TEST

START_TEST(threads_of_a_planned_larder_begin_and_end_their_own_passes)
{
    struct allocator allocator;
    char why[512] = "";
    /* all that the first thread allocates is freed before its pass ends */
    struct program program = build_parallel(
        "1: malloc 0x10 20000\n2: malloc 0x20 30000\n2: free 0x10\n2: malloc 0x30 40000\n"
        "1: free 0x30\n1: free 0x20\n");
    ck_assert_int_eq(allocator_open("larder-planned", &allocator, why, sizeof why), 0);
    ck_assert_int_eq(verify(&program, &allocator, 1), 0);
    larder_stats_t stats = {.struct_size = sizeof stats};
    ck_assert_int_eq(larder_stats_get(allocator.context, &stats), 0);
    ck_assert_uint_eq(stats.plans, 2);
    ck_assert_uint_ge(stats.plan_hits, 2);
    allocator_close(&allocator);
    program_release(&program);
}
END_TEST

START_TEST(each_failing_call_ends_all_threads_and_frees_what_is_live)
{
    struct program program = build_parallel(example);
    for (uint64_t n = 1; n <= 24; n++) {
        struct replay_settings settings = {.passes = 2};
        struct replay_result result;
        char why[256] = "";
        reset();
        log_.fail_at = n;
        ck_assert_int_eq(replay_run(&program, &logging, &settings, &result, why, sizeof why),
                         -ENOMEM);
        ck_assert_msg(strstr(why, "logging could not serve") != NULL, "%s", why);
        ck_assert_uint_eq(log_.live, 0);
    }
    program_release(&program);
}
END_TEST

START_TEST(a_damaged_byte_is_found)
{
    struct allocator damaging = logging;
    damaging.allocate = log_allocate_and_damage;
    struct program program =
        build("1: malloc 0x10 77\n1: malloc 0x20 5\n1: free 0x10\n1: free 0x20\n",
              (struct program_options){0});
    struct replay_settings settings = {.passes = 1};
    struct replay_verified verified;
    char why[256] = "";
    ck_assert_int_eq(replay_verify(&program, &damaging, &settings, &verified, why, sizeof why), 0);
    ck_assert_uint_eq(verified.blocks, 2);
    log_.damage = true;
    ck_assert_int_eq(replay_verify(&program, &damaging, &settings, &verified, why, sizeof why),
                     -EBADMSG);
    ck_assert_msg(strstr(why, "byte 76") != NULL, "%s", why);
    ck_assert_uint_eq(left_behind_count, 2);
    log_release(NULL, left_behind[0]);
    log_release(NULL, left_behind[1]);
    program_release(&program);
}
END_TEST

/* Many threads that pass blocks around a ring, with resizing, deterministic. */
static char *make_ring(void)
{
    enum { THREADS = 8, ROUNDS = 300 };
    size_t size = 0, room = (size_t)THREADS * ROUNDS * 160;
    char *text = malloc(room);
    ck_assert_ptr_nonnull(text);
    for (int round = 0; round < ROUNDS; round++) {
        for (int t = 0; t < THREADS; t++) {
            int block = round * THREADS + t + 1;
            int length = block * 7919 % 9000 + 1;
            size += (size_t)snprintf(
                text + size, room - size, "%d: malloc 0x%x000 %d\n%d: realloc 0x%x008 0x%x000 %d\n",
                t + 1, block, length, (t + 1) % THREADS + 1, block, block, length * 3 % 7000 + 1);
            if (block > 40) {
                size += (size_t)snprintf(text + size, room - size, "%d: free 0x%x008\n",
                                         (t + 3) % THREADS + 1, block - 40);
            }
        }
    }
    return text;
}

START_TEST(larder_keeps_contents_under_every_policy)
{
    static const char *const names[] = {"larder",          "larder-exact", "larder-passthrough",
                                        "larder-mimalloc", "system",       "mimalloc"};
    char *ring = make_ring();
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct allocator allocator;
        char why[512];
        if (allocator_open(names[i], &allocator, why, sizeof why) != 0) {
            continue; /* this machine lacks it */
        }
        for (int parallel = 0; parallel < 2; parallel++) {
            struct program program =
                build(ring, (struct program_options){.parallel = parallel != 0});
            ck_assert_int_eq(verify(&program, &allocator, 1), 0);
            ck_assert_int_eq(verify(&program, &allocator, 3), 0);
            program_release(&program);
        }
        allocator_close(&allocator);
    }
    free(ring);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("replay_threads");
    TCase *tcase = tcase_create("threads");
    tcase_add_checked_fixture(tcase, reset, NULL);
    tcase_set_timeout(tcase, 60);
    suite_add_tcase(suite, tcase);
    tcase_add_test(tcase, each_thread_makes_its_recorded_calls_in_order);
    tcase_add_test(tcase, waits_never_end_in_a_circle_and_order_each_block);
    tcase_add_test(tcase, threads_share_lanes_where_there_may_be_fewer);
    tcase_add_test(tcase, a_part_finds_what_lived_before_it_and_leaves_it_again);
    tcase_add_test(tcase, counted_live_bytes_are_the_traces_where_one_order_is_possible);
    tcase_add_test(tcase,
                   threads_go_on_to_the_next_pass_without_each_other_but_not_to_the_one_after);
    tcase_add_test(tcase, a_threads_operations_keep_their_order_from_pass_to_pass);
    tcase_add_test(tcase, threads_of_a_planned_larder_begin_and_end_their_own_passes);
    tcase_add_test(tcase, each_failing_call_ends_all_threads_and_frees_what_is_live);
    tcase_add_test(tcase, a_damaged_byte_is_found);
    tcase_add_test(tcase, larder_keeps_contents_under_every_policy);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
