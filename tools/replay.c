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
#include "json.h"
#include "measure.h"
#include "program.h"
#include "replay.h"
#include "replay_options.h"
#include "tool.h"
#include "trace.h"

#define SUB "replay"

struct options {
    const char *trace;
    const char *backend;
    struct replay_options replay;
    bool json;
    bool probe;
    bool preloaded; /* this process was started again by start_preloaded() */
};

/* All that is known when the passes are over. */
struct outcome {
    const struct options *options;
    struct allocator allocator;
    const char *format;
    struct trace_notes notes;
    struct trace_facts facts;
    size_t trace_threads;
    size_t trace_ops;
    size_t added_frees;
    struct replay_result result;
    struct allocator_report report;
};

static void print_help(void)
{
    printf("usage: larder replay TRACE --backend NAME [OPTION...]\n"
           "       larder replay --backend NAME --probe\n"
           "\n"
           "Runs the operations of a trace again and again through one allocator, in recorded "
           "order on\n"
           "one thread, and measures time, page faults and memory. TRACE is in Android's "
           "memory_replay\n"
           "format, plain or compressed with gzip or zstd; - stands for standard input.\n"
           "\n"
           "  --backend NAME     the allocator:\n");
    backend_print_list(stdout);
    replay_options_print_help(stdout, "0: everything");
    printf(
        "  --json             print one line of JSON instead of lines for people\n"
        "  --probe            only say whether the allocator can be had here, and its version\n"
        "  --help             this text\n"
        "\n"
        "How to read the figures:\n"
        "  ns per operation  median, least and most over the last two thirds of the passes. What "
        "the\n"
        "                    harness itself costs is in it: --backend none shows how much.\n"
        "  faults            minor page faults a pass, median over the same passes\n"
        "  peak RSS          highest resident size in all passes, over that before the first\n"
        "  peak live         highest sum of sizes asked for and not freed, from the trace\n"
        "A second thread sleeps during the passes, so that locks and atomic operations cost what "
        "they\ncost in an engine, which has threads.\n"
        "Blocks that the trace never frees are freed at the end of each pass, inside of the "
        "timing;\n"
        "frees of blocks from before the recording are left out; calloc is replayed as malloc.\n");
}

enum { OPTION_BACKEND = REPLAY_OPTION_END, OPTION_JSON, OPTION_PROBE, OPTION_PRELOADED };

static int read_option(struct options *options, int option)
{
    switch (option) {
    case OPTION_BACKEND:
        options->backend = optarg;
        return TOOL_FINE;
    case OPTION_JSON:
        options->json = true;
        return TOOL_FINE;
    case OPTION_PROBE:
        options->probe = true;
        return TOOL_FINE;
    case OPTION_PRELOADED:
        options->preloaded = true;
        return TOOL_FINE;
    default:
        return replay_options_read(SUB, &options->replay, option, optarg);
    }
}

/* Returns an exit code, or -1 to go on. */
static int read_options(int argc, char **argv, struct options *options)
{
    static const struct option long_options[] = {
        {"backend", required_argument, NULL, OPTION_BACKEND},
        REPLAY_OPTION_ROWS,
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
        int result = read_option(options, option);
        if (result != TOOL_FINE) {
            return result;
        }
    }
    if (options->backend == NULL) {
        return tool_usage_error(SUB, "no allocator named: add --backend NAME");
    }
    if (!backend_is_known(options->backend)) {
        return tool_usage_error(SUB, "unknown backend '%s'", options->backend);
    }
    if (argc - optind != (options->probe ? 0 : 1)) {
        return tool_usage_error(SUB, options->probe   ? "--probe takes no trace"
                                     : argc == optind ? "no trace named"
                                                      : "more than one trace named");
    }
    options->trace = argv[optind];
    return -1;
}

static int probe(const struct options *options, const struct allocator *allocator)
{
    printf("%s %s\n", options->backend, allocator->version);
    return TOOL_FINE;
}

/* Touching more than there is would end in the kernel killing somebody. */
static bool fits_memory(const struct outcome *outcome)
{
    char needed[32], available[32];
    uint64_t memory = measure_available_memory();
    if (outcome->options->replay.settings.touch == REPLAY_TOUCH_NONE ||
        outcome->facts.peak_live_bytes <= memory) {
        return true;
    }
    tool_error(SUB,
               "%s: the trace has %s live at once, but this machine has %s free: use --touch none "
               "or a machine with more memory",
               outcome->options->trace,
               tool_format_bytes(outcome->facts.peak_live_bytes, needed, sizeof needed),
               tool_format_bytes(memory, available, sizeof available));
    return false;
}

/* Filters the trace, and makes the program of it. */
static int prepare(struct outcome *outcome, struct trace *trace, struct program *program)
{
    const struct options *options = outcome->options;
    int result =
        options->replay.min_size > 0 ? trace_filter_min_size(trace, options->replay.min_size) : 0;
    if (result == 0 && trace->block_count == 0) {
        tool_error(SUB, "%s: no block has %" PRIu64 " bytes or more: choose a smaller --min-size",
                   options->trace, options->replay.min_size);
        return TOOL_FAILED;
    }
    if (result == 0) {
        result = trace_get_facts(trace, &outcome->facts);
    }
    if (result == 0 && outcome->facts.largest_bytes > (uint64_t)PTRDIFF_MAX) {
        tool_error(SUB,
                   "%s: a block of %" PRIu64 " bytes is more than this machine can address: replay "
                   "it on a 64-bit one",
                   options->trace, outcome->facts.largest_bytes);
        return TOOL_FAILED;
    }
    if (result != 0 || program_build(trace, program) != 0) {
        tool_error(SUB, "%s: no memory to prepare it: close other programs", options->trace);
        return TOOL_FAILED;
    }
    outcome->format = trace->format;
    outcome->notes = trace->notes;
    outcome->trace_threads = trace->thread_count;
    outcome->trace_ops = trace->op_count;
    outcome->added_frees = program->added_frees;
    return TOOL_FINE;
}

static int load(struct outcome *outcome, struct program *program)
{
    struct trace_options trace_options = {.repair = outcome->options->replay.repair};
    struct trace trace;
    char why[512];
    if (trace_load(outcome->options->trace, &trace_options, &trace, why, sizeof why) != 0) {
        tool_error(SUB, "%s", why);
        return TOOL_FAILED;
    }
    int result = prepare(outcome, &trace, program);
    trace_unload(&trace);
    return result;
}

static void print_json(const struct outcome *outcome)
{
    const struct options *options = outcome->options;
    const struct replay_result *result = &outcome->result;
    struct json_line line;
    json_begin(&line, stdout);
    json_string(&line, "trace", options->trace);
    json_string(&line, "backend", options->backend);
    json_string(&line, "version", outcome->allocator.version);
    json_string(&line, "policy", outcome->allocator.policy);
    json_count(&line, "threads", 1);
    json_string(&line, "touch", options->replay.touch);
    json_count(&line, "gap_ms", options->replay.settings.gap_ms);
    json_count(&line, "min_size", options->replay.min_size);
    json_count(&line, "passes", result->passes);
    json_count(&line, "ops_per_pass", result->ops_per_pass);
    json_number(&line, "ns_per_op", result->ns_per_op, 2);
    json_number(&line, "ns_per_op_min", result->ns_per_op_min, 2);
    json_number(&line, "ns_per_op_max", result->ns_per_op_max, 2);
    json_number(&line, "faults_per_pass", result->faults_per_pass, 1);
    json_count(&line, "peak_rss_bytes", result->peak_rss_bytes);
    json_count(&line, "peak_live_bytes", outcome->facts.peak_live_bytes);
    json_count(&line, "peak_live_blocks", outcome->facts.peak_live_blocks);
    json_count(&line, "held_bytes", outcome->report.held_bytes);
    json_count(&line, "peak_held_bytes", outcome->report.peak_held_bytes);
    json_count(&line, "trace_threads", outcome->trace_threads);
    json_count(&line, "never_freed", outcome->added_frees);
    json_count(&line, "unknown_frees", outcome->notes.unknown_frees);
    json_count(&line, "early_reuses", outcome->notes.early_reuses);
    json_count(&line, "repaired", outcome->notes.repaired);
    json_end(&line);
}

static void print_note(uint64_t count, const char *text)
{
    if (count > 0) {
        printf("note       %" PRIu64 " %s\n", count, text);
    }
}

static void print_notes(const struct outcome *outcome)
{
    const struct trace_notes *notes = &outcome->notes;
    print_note(outcome->added_frees,
               "blocks are never freed in the trace: freed at the end of each pass, timed");
    print_note(notes->unknown_frees, "frees of blocks from before the recording: left out");
    print_note(notes->failed_allocations, "allocations that failed when recorded: left out");
    print_note(notes->early_reuses - notes->repaired,
               "addresses handed out again before their free: kept as recorded (--repair)");
    print_note(notes->repaired, "addresses handed out again before their free: repaired");
    print_note(notes->small_blocks, "blocks below --min-size: left out");
}

static void print_memory(const struct outcome *outcome)
{
    char peak[32], live[32], held[32];
    uint64_t rss = outcome->result.peak_rss_bytes;
    uint64_t live_bytes = outcome->facts.peak_live_bytes;
    tool_format_bytes(live_bytes, live, sizeof live);
    if (rss == UINT64_MAX) {
        printf("peak RSS   unknown: /proc/self/clear_refs cannot be written here; peak live %s\n",
               live);
    } else {
        printf("peak RSS   %s, %.2f x the peak of live bytes, %s\n",
               tool_format_bytes(rss, peak, sizeof peak),
               live_bytes > 0 ? (double)rss / (double)live_bytes : 0, live);
    }
    if (outcome->report.peak_held_bytes != UINT64_MAX) {
        printf("held       %s at the peak, %s at the end, by its own account\n",
               tool_format_bytes(outcome->report.peak_held_bytes, peak, sizeof peak),
               tool_format_bytes(outcome->report.held_bytes, held, sizeof held));
    }
}

static void print_text(const struct outcome *outcome)
{
    const struct options *options = outcome->options;
    const struct replay_result *result = &outcome->result;
    printf("trace      %s (%s, %zu operations, %zu thread%s)\n", options->trace, outcome->format,
           outcome->trace_ops, outcome->trace_threads, outcome->trace_threads == 1 ? "" : "s");
    printf("allocator  %s, version %s, policy %s\n", options->backend, outcome->allocator.version,
           outcome->allocator.policy);
    printf("passes     %zu of %zu operations on one thread, touch %s, gap %u ms\n", result->passes,
           result->ops_per_pass, options->replay.touch, options->replay.settings.gap_ms);
    printf("time       %.2f ns an operation (%.2f to %.2f)\n", result->ns_per_op,
           result->ns_per_op_min, result->ns_per_op_max);
    printf("faults     %.15g a pass\n", result->faults_per_pass);
    print_memory(outcome);
    print_notes(outcome);
}

static int measure(struct outcome *outcome)
{
    struct program program;
    char why[256];
    int result = load(outcome, &program);
    if (result != TOOL_FINE) {
        return result;
    }
    if (!fits_memory(outcome)) {
        result = TOOL_FAILED;
    } else if (replay_run(&program, &outcome->allocator, &outcome->options->replay.settings,
                          &outcome->result, why, sizeof why) != 0) {
        tool_error(SUB, "%s: %s", outcome->options->trace, why);
        result = TOOL_FAILED;
    }
    program_release(&program);
    return result;
}

static int run(const struct options *options)
{
    struct outcome outcome = {.options = options};
    char why[512];
    if (backend_open(options->backend, options->preloaded, &outcome.allocator, why, sizeof why) !=
        0) {
        tool_error(SUB, "%s: %s", options->backend, why);
        return TOOL_FAILED;
    }
    if (options->probe) {
        return probe(options, &outcome.allocator);
    }
    int result = measure(&outcome);
    if (result == TOOL_FINE) {
        allocator_get_report(&outcome.allocator, &outcome.report);
        if (options->json) {
            print_json(&outcome);
        } else {
            print_text(&outcome);
        }
    }
    allocator_close(&outcome.allocator);
    return result;
}

int replay_main(int argc, char **argv)
{
    struct options options = {0};
    char why[512];
    replay_options_init(&options.replay);
    int result = read_options(argc, argv, &options);
    if (result >= 0) {
        return result;
    }
    if (backend_needs_preload(options.backend) && !options.preloaded) {
        backend_restart_preloaded(options.backend, argc, argv, why, sizeof why);
        tool_error(SUB, "%s: %s", options.backend, why);
        return TOOL_FAILED;
    }
    return run(&options);
}
