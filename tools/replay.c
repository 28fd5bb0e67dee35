/* SPDX-License-Identifier: MIT */
/*
 * `larder replay`: one trace through one allocator, measured.
 *
 * An allocator that has to replace malloc gets a process of its own: this program starts itself
 * again with the library preloaded and an option that says so, checks there that malloc really
 * comes from that library, and measures "system" under the allocator's name.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "allocator.h"
#include "backend.h"
#include "measure.h"
#include "replay_job.h"
#include "tool.h"

#define SUB REPLAY_SUB

static void print_help(void)
{
    printf("usage: larder replay TRACE --backend NAME [OPTION...]\n"
           "       larder replay --backend NAME --probe\n"
           "\n"
           "Runs the operations of a trace again and again through one allocator and measures "
           "time,\n"
           "page faults and memory. TRACE may be compressed with gzip or zstd; - stands for "
           "standard\n"
           "input.\n"
           "\n"
           "  --backend NAME     the allocator:\n");
    backend_print_list(stdout);
    replay_options_print_help(stdout, "0: everything");
    printf(
        "  --verify           do not measure, but test the allocator: fill each block, and look\n"
        "                     whether its contents are still there when it is resized or freed\n"
        "                     (%u passes)\n"
        "  --json             print one line of JSON instead of lines for people\n"
        "  --probe            only say whether the allocator can be had here, and its version\n"
        "  --help             this text\n"
        "\n"
        "How to read the figures:\n"
        "  time       ns an operation: median, least and most over the last two thirds of the\n"
        "             passes. What the harness itself costs is in it: --backend none shows how\n"
        "             much (with several threads: with --touch none, as its blocks are all one).\n"
        "             Of several threads, each one's own time, without what it waited\n"
        "  threads    CPU time of the process over the time of a pass, and how much of the pass\n"
        "             each thread spent in operations. More threads than CPUs take turns: then\n"
        "             ns an operation has the turns of others in it, cpu_ns_per_op (--json) has "
        "not\n"
        "  waiting    how often threads had to wait for another's operation, and how long\n"
        "  faults     minor page faults a pass, median over the same passes\n"
        "  peak RSS   highest resident size in all passes, over that before the first, by when\n"
        "             all code is mapped: what counts is memory that the allocator writes to or\n"
        "             hands out\n"
        "  peak live  highest sum of sizes asked for and not freed: with one thread, what follows\n"
        "             from the trace; with several, as counted in passes made for that before\n"
        "             the timed ones, since it depends on how the threads run\n"
        "A replay on one thread has a second one asleep, so that locks and atomic operations cost\n"
        "what they cost in an engine, which has threads. Blocks that the trace never frees are\n"
        "freed at the end of each pass, inside of the timing; frees of blocks from before the\n"
        "recording are left out; calloc is replayed as malloc.\n",
        REPLAY_VERIFY_PASSES);
}

enum {
    OPTION_BACKEND = REPLAY_OPTION_END,
    OPTION_VERIFY,
    OPTION_JSON,
    OPTION_PROBE,
    OPTION_PRELOADED
};

static int read_option(struct replay_job *job, int option)
{
    switch (option) {
    case OPTION_BACKEND:
        job->backend = optarg;
        return TOOL_FINE;
    case OPTION_VERIFY:
        job->verify = true;
        return TOOL_FINE;
    case OPTION_JSON:
        job->json = true;
        return TOOL_FINE;
    case OPTION_PROBE:
        job->probe = true;
        return TOOL_FINE;
    case OPTION_PRELOADED:
        job->preloaded = true;
        return TOOL_FINE;
    default:
        return replay_options_read(SUB, &job->replay, option, optarg);
    }
}

/* Returns an exit code, or -1 to go on. */
static int read_options(int argc, char **argv, struct replay_job *job)
{
    static const struct option long_options[] = {
        {"backend", required_argument, NULL, OPTION_BACKEND},
        REPLAY_OPTION_ROWS,
        {"verify", no_argument, NULL, OPTION_VERIFY},
        {"json", no_argument, NULL, OPTION_JSON},
        {"probe", no_argument, NULL, OPTION_PROBE},
        {"preloaded", no_argument, NULL, OPTION_PRELOADED},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":h", long_options, NULL)) != -1) {
        if (option == 'h') {
            print_help();
            return TOOL_FINE;
        }
        if (option == '?' || option == ':') {
            return tool_bad_option(SUB, option, optopt, argv);
        }
        int result = read_option(job, option);
        if (result != TOOL_FINE) {
            return result;
        }
    }
    if (job->backend == NULL) {
        return tool_usage_error(SUB, "no allocator named: add --backend NAME");
    }
    if (!backend_is_known(job->backend)) {
        return tool_usage_error(SUB, "unknown backend '%s'", job->backend);
    }
    if (argc - optind != (job->probe ? 0 : 1)) {
        return tool_usage_error(SUB, job->probe       ? "--probe takes no trace"
                                     : argc == optind ? "no trace named"
                                                      : "more than one trace named");
    }
    job->trace = argv[optind];
    int result = replay_options_check(SUB, &job->replay);
    return result == TOOL_FINE ? -1 : result;
}

static int probe(const struct replay_job *job, const struct allocator *allocator)
{
    printf("%s %s\n", job->backend, allocator->version);
    return TOOL_FINE;
}

/* -- Progress ---------------------------------------------------------------------------------- */

/* On a terminal, once the passes take longer than a second. Nothing here allocates. */
struct progress {
    uint64_t start_ns, shown_ns;
    bool shown;
};

static void show_progress(void *context, size_t pass, size_t of)
{
    struct progress *progress = context;
    char text[64];
    uint64_t now = measure_now_ns();
    if (now - progress->start_ns < 1000000000u || now - progress->shown_ns < 100000000u) {
        return;
    }
    int length = snprintf(text, sizeof text, "\r\033[K[%zu/%zu passes]", pass, of);
    progress->shown_ns = now;
    progress->shown = write(STDERR_FILENO, text, (size_t)length) == length;
}

static void clear_progress(const struct progress *progress)
{
    if (progress->shown) {
        fputs("\r\033[K", stderr);
    }
}

/* -- The job ----------------------------------------------------------------------------------- */

static int measure(struct replay_outcome *outcome)
{
    const struct replay_job *job = outcome->job;
    struct progress progress = {.start_ns = measure_now_ns()};
    struct replay_settings settings = job->replay.settings;
    char why[256];
    if (isatty(STDERR_FILENO)) {
        settings.progress = show_progress;
        settings.progress_context = &progress;
    }
    int result = job->verify ? replay_verify(&outcome->program, &outcome->allocator, &settings,
                                             &outcome->verified, why, sizeof why)
                             : replay_run(&outcome->program, &outcome->allocator, &settings,
                                          &outcome->result, why, sizeof why);
    clear_progress(&progress);
    if (result != 0) {
        tool_error(SUB, "%s: %s", job->trace, why);
        return TOOL_FAILED;
    }
    return TOOL_FINE;
}

static int run(const struct replay_job *job)
{
    struct replay_outcome outcome = {.job = job};
    char why[512];
    if (backend_open(job->backend, job->preloaded, &outcome.allocator, why, sizeof why) != 0) {
        tool_error(SUB, "%s: %s", job->backend, why);
        return TOOL_FAILED;
    }
    if (job->probe) {
        return probe(job, &outcome.allocator);
    }
    int result = replay_prepare(&outcome);
    if (result == TOOL_FINE) {
        result = measure(&outcome);
        if (result == TOOL_FINE) {
            allocator_get_report(&outcome.allocator, &outcome.report);
            replay_print(&outcome);
        }
        program_release(&outcome.program);
    }
    allocator_close(&outcome.allocator);
    return result;
}

int replay_main(int argc, char **argv)
{
    struct replay_job job = {0};
    char why[512];
    replay_options_init(&job.replay);
    int result = read_options(argc, argv, &job);
    if (result >= 0) {
        return result;
    }
    if (backend_needs_preload(job.backend) && !job.preloaded) {
        backend_restart_preloaded(job.backend, argc, argv, why, sizeof why);
        tool_error(SUB, "%s: %s", job.backend, why);
        return TOOL_FAILED;
    }
    return run(&job);
}
