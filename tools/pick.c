/* SPDX-License-Identifier: MIT */
/*
 * `larder pick`: every allocator here on the given traces, each replay in a process of its own, and
 * which allocator to use. This file has the traces, the files written and the whole; see pick.h for
 * the rest.
 */
#include "pick.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend.h"
#include "child.h"
#include "measure.h"
#include "output.h"
#include "pick_html.h"
#include "pick_options.h"
#include "pick_replay.h"
#include "pick_series.h"
#include "tool.h"

#define SUB "pick"
#define ALL_BACKENDS                                                                               \
    "larder,larder-exact,larder-mimalloc,system,mimalloc,jemalloc,tcmalloc,tbbmalloc,scudo,"       \
    "scudo-android,ncnn-pool,bfc-arena,c10-design,none"

static bool is_candidate_name(const char *name)
{
    static const char *const references[] = {"none",      "c10",       "c10-design",
                                             "ncnn-pool", "bfc-arena", "larder-passthrough"};
    for (size_t i = 0; i < sizeof references / sizeof references[0]; i++) {
        if (strcmp(references[i], name) == 0) {
            return false;
        }
    }
    return true;
}

/* Reads the names into the table. */
static int list_backends(struct pick *pick)
{
    const char *at = pick->options->backends != NULL ? pick->options->backends : ALL_BACKENDS;
    while (*at != '\0') {
        size_t length = strcspn(at, ",");
        struct pick_backend *backend = &pick->backends[pick->backend_count];
        if (pick->backend_count == PICK_BACKENDS_MAX || length >= sizeof backend->name) {
            return tool_usage_error(SUB, "--backends takes up to %d names of up to %zu bytes",
                                    PICK_BACKENDS_MAX, sizeof backend->name - 1);
        }
        memcpy(backend->name, at, length);
        backend->name[length] = '\0';
        if (!backend_is_known(backend->name)) {
            return tool_usage_error(SUB, "unknown backend '%s'", backend->name);
        }
        for (size_t b = 0; b < pick->backend_count; b++) {
            if (strcmp(pick->backends[b].name, backend->name) == 0) {
                return tool_usage_error(SUB, "backend '%s' is named twice", backend->name);
            }
        }
        backend->candidate = is_candidate_name(backend->name);
        pick->backend_count++;
        at += length + (at[length] == ',');
    }
    if (pick->backend_count == 0) {
        return tool_usage_error(SUB, "--backends names none");
    }
    return TOOL_FINE;
}

/* Reads each trace once, so that a bad one is told before minutes of replays. */
static int read_traces(struct pick *pick)
{
    const struct pick_options *options = pick->options;
    struct trace_options trace_options = {.repair = options->replay.repair};
    char why[512];
    for (size_t t = 0; t < options->trace_count; t++) {
        struct pick_case *one = &pick->cases[t];
        struct trace trace;
        one->path = options->traces[t];
        one->gap_ms = options->gaps[0];
        if (trace_load(one->path, &trace_options, &trace, why, sizeof why) != 0) {
            tool_error(SUB, "%s", why);
            return TOOL_FAILED;
        }
        int result = trace_filter_min_size(&trace, options->replay.min_size);
        result = result == 0 ? trace_get_facts(&trace, &one->facts) : result;
        one->ops = trace.op_count;
        one->threads = trace.thread_count;
        bool empty = trace.block_count == 0;
        trace_unload(&trace);
        if (result != 0 || empty) {
            tool_error(SUB, "%s: %s", one->path,
                       result != 0 ? "no memory to read it: close other programs"
                                   : "no block is large enough: choose a smaller --min-size");
            return TOOL_FAILED;
        }
    }
    pick->main_count = pick->case_count = options->trace_count;
    return TOOL_FINE;
}

/* Judges and prints what was run. */
static void conclude(struct pick *pick, bool tables)
{
    for (size_t c = 0; c < pick->case_count; c++) {
        pick_judge_case(pick, &pick->cases[c]);
    }
    pick_judge_all(pick);
    if (!tables) {
        return;
    }
    for (size_t c = 0; c < pick->main_count; c++) {
        pick_print_case(pick, &pick->cases[c]);
    }
    pick_print_gaps(pick);
    if (pick->main_count > 1) {
        pick_print_overall(pick);
    }
    fflush(stdout);
}

/* The files that are written, open for as long as the replays run: a bad path is told before. */
struct files {
    struct output json, html;
};

static int open_files(const struct pick_options *options, struct files *files)
{
    char why[512];
    bool json = options->json != NULL && strcmp(options->json, "-") != 0;
    if ((json && output_open(&files->json, options->json, why, sizeof why) != 0) ||
        (options->html != NULL && output_open(&files->html, options->html, why, sizeof why) != 0)) {
        output_abandon(&files->json);
        tool_error(SUB, "%s", why);
        return TOOL_FAILED;
    }
    return TOOL_FINE;
}

static int finish_files(struct pick *pick, struct files *files)
{
    char why[512];
    int result = TOOL_FINE;
    if (pick->options->json != NULL) {
        pick_print_json(pick, files->json.file != NULL ? files->json.file : stdout);
    }
    if (files->json.file != NULL && output_commit(&files->json, why, sizeof why) != 0) {
        tool_error(SUB, "%s", why);
        result = TOOL_FAILED;
    }
    if (files->html.file == NULL) {
        return result;
    }
    if (pick_write_html(pick, files->html.file, why, sizeof why) != 0) {
        output_abandon(&files->html);
    } else if (output_commit(&files->html, why, sizeof why) == 0) {
        return result;
    }
    if (child_interrupted()) {
        child_die_of_interrupt();
    }
    tool_error(SUB, "%s", why);
    return TOOL_FAILED;
}

static int run_with_output(struct pick *pick)
{
    const struct pick_options *options = pick->options;
    struct files files = {0};
    int result = open_files(options, &files);
    if (result != TOOL_FINE) {
        return result;
    }
    bool tables = options->json == NULL || strcmp(options->json, "-") != 0;
    int ran = pick_run(pick);
    if (ran == -EINTR) {
        output_abandon(&files.json);
        output_abandon(&files.html);
        child_die_of_interrupt();
    }
    conclude(pick, tables);
    result = finish_files(pick, &files);
    pick_print_cuts(pick, tables ? stdout : stderr);
    fflush(stdout);
    return ran != 0 ? TOOL_FAILED : result;
}

static int run(struct pick *pick)
{
    int result = list_backends(pick);
    if (result == TOOL_FINE) {
        result = read_traces(pick);
    }
    if (result != TOOL_FINE) {
        return result;
    }
    child_catch_interrupts();
    result = pick_probe_backends(pick);
    if (child_interrupted()) {
        child_die_of_interrupt();
    }
    return result < 0 ? run_with_output(pick) : result;
}

int pick_main(int argc, char **argv)
{
    uint64_t started_ns = measure_now_ns();
    struct pick_options options;
    struct pick_reading reading = {.options = &options};
    if (pick_series_asked(argc, argv)) {
        return pick_series_main(argc, argv);
    }
    int result = pick_read_options(argc, argv, &reading);
    if (result < 0) {
        struct pick *pick = calloc(1, sizeof *pick);
        struct pick_case *cases = calloc(options.trace_count * options.gap_count, sizeof *cases);
        if (pick == NULL || cases == NULL) {
            tool_error(SUB, "no memory for the figures: name fewer traces at once");
            result = TOOL_FAILED;
        } else {
            pick->options = &options;
            pick->started_ns = started_ns;
            pick->cases = cases;
            result = run(pick);
        }
        free(cases);
        free(pick);
    }
    globfree(&reading.found);
    return result;
}
