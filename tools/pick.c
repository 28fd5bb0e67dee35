/* SPDX-License-Identifier: MIT */
/*
 * `larder pick`: every allocator here on the given traces, each replay in a process of its own.
 *
 * The repetitions are interleaved: all allocators once, then all again, so that a machine that
 * slows down for a while hits everybody's first repetition and not one allocator's three; medians
 * drop it. Replays run one after the other, never at once.
 */
#include "pick.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend.h"
#include "child.h"
#include "json.h"
#include "output.h"
#include "tool.h"

#define SUB "pick"
#define ALL_BACKENDS                                                                               \
    "larder,larder-exact,larder-mimalloc,system,mimalloc,jemalloc,tcmalloc,tbbmalloc,scudo,"       \
    "scudo-android,ncnn-pool,bfc-arena,c10-design,none"

static void print_help(void)
{
    puts("usage: larder pick TRACE... [OPTION...]\n"
         "\n"
         "Replays traces through every allocator that this machine has and says which one to use,\n"
         "be it larder or another. Each replay has a process of its own; they run one after\n"
         "the other, so leave the machine alone meanwhile.\n"
         "\n"
         "  --backends LIST    allocators, separated by commas (see `larder replay --help`);\n"
         "                     default: larder,larder-exact,larder-mimalloc,system,mimalloc,\n"
         "                     jemalloc,tcmalloc,scudo,c10-design,none");
    replay_options_print_help(stdout,
                              "1024: tensors, not the engine's small objects; 0 for everything");
    puts(
        "  --repetitions N    replays of each allocator and trace; medians count (default 3)\n"
        "  --json FILE        also write the figures to FILE, one line of JSON for each trace and\n"
        "                     allocator; - prints them instead of the tables\n"
        "  --help             this text\n"
        "\n"
        "How it chooses: by time x square root of peak RSS, each compared to the best of the\n"
        "trace; twice the time weighs as much as four times the memory. Within 5 % the one with\n"
        "fewer page faults. With --touch none by time alone. c10, c10-design,\n"
        "larder-passthrough and none are there to compare with and never recommended.");
}

enum { OPTION_BACKENDS = REPLAY_OPTION_END, OPTION_REPETITIONS, OPTION_JSON };

static int read_option(struct pick_options *options, int option)
{
    switch (option) {
    case OPTION_BACKENDS:
        options->backends = optarg;
        return TOOL_FINE;
    case OPTION_REPETITIONS:
        return replay_options_read_count(SUB, "--repetitions", optarg, 1, PICK_REPETITIONS_MAX,
                                         &options->repetitions);
    case OPTION_JSON:
        options->json = optarg;
        return TOOL_FINE;
    default:
        return replay_options_read(SUB, &options->replay, option, optarg);
    }
}

/* Returns an exit code, or -1 to go on. */
static int read_options(int argc, char **argv, struct pick_options *options)
{
    static const struct option long_options[] = {
        {"backends", required_argument, NULL, OPTION_BACKENDS},
        REPLAY_OPTION_ROWS,
        {"repetitions", required_argument, NULL, OPTION_REPETITIONS},
        {"json", required_argument, NULL, OPTION_JSON},
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
    if (optind == argc) {
        return tool_usage_error(SUB, "no trace named");
    }
    options->traces = (const char *const *)argv + optind;
    options->trace_count = (size_t)(argc - optind);
    for (size_t t = 0; t < options->trace_count; t++) {
        if (strcmp(options->traces[t], "-") == 0) {
            return tool_usage_error(SUB, "a trace is read many times: name a file instead of -");
        }
    }
    return -1;
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
        backend->candidate =
            strcmp(backend->name, "none") != 0 && strcmp(backend->name, "c10") != 0 &&
            strcmp(backend->name, "c10-design") != 0 && strcmp(backend->name, "ncnn-pool") != 0 &&
            strcmp(backend->name, "bfc-arena") != 0 &&
            strcmp(backend->name, "larder-passthrough") != 0;
        pick->backend_count++;
        at += length + (at[length] == ',');
    }
    if (pick->backend_count == 0) {
        return tool_usage_error(SUB, "--backends names none");
    }
    return TOOL_FINE;
}

/* The reason in the first line that a child wrote on stderr, without the program's name. */
static const char *first_line(struct child_result *child, const char *backend)
{
    char *text = child->errors;
    char prefix[300];
    snprintf(prefix, sizeof prefix, "larder replay: %s: ", backend);
    char *found = strstr(text, "larder replay: ");
    text = found != NULL ? found : text;
    text[strcspn(text, "\n")] = '\0';
    if (strncmp(text, prefix, strlen(prefix)) == 0) {
        return text + strlen(prefix);
    }
    return found != NULL ? text + strlen("larder replay: ") : text;
}

/* Leaves only those in the table that can be had here. Returns an exit code, or -1 to go on. */
static int probe_backends(struct pick *pick)
{
    struct child_result child;
    size_t kept = 0;
    for (size_t b = 0; b < pick->backend_count; b++) {
        struct pick_backend *backend = &pick->backends[b];
        const char *const argv[] = {"larder",      "replay",  "--backend",
                                    backend->name, "--probe", NULL};
        int result = child_run(argv, &child);
        if (result == -EINTR) {
            return TOOL_FAILED; /* the caller sees to it */
        }
        if (result != 0) {
            tool_error(SUB, "a replay could not be started: %s", strerror(-result));
            return TOOL_FAILED;
        }
        if (child.exit_code != 0) {
            tool_error(SUB, "%s left out: %s", backend->name,
                       child.exit_code < 0 ? strsignal(child.signal)
                                           : first_line(&child, backend->name));
            continue;
        }
        /* "NAME VERSION" */
        child.output[strcspn(child.output, "\n")] = '\0';
        snprintf(backend->version, sizeof backend->version, "%s",
                 child.output + strlen(backend->name) + 1);
        pick->backends[kept++] = *backend;
    }
    pick->backend_count = kept;
    if (kept == 0) {
        tool_error(SUB, "none of the allocators can be had here");
        return TOOL_FAILED;
    }
    return -1;
}

/* Reads each trace once, so that a bad one is told before minutes of replays. */
static int read_traces(struct pick *pick)
{
    const struct pick_options *options = pick->options;
    struct trace_options trace_options = {.repair = options->replay.repair};
    char why[512];
    for (size_t t = 0; t < options->trace_count; t++) {
        struct pick_trace *about = &pick->traces[t];
        struct trace trace;
        about->path = options->traces[t];
        if (trace_load(about->path, &trace_options, &trace, why, sizeof why) != 0) {
            tool_error(SUB, "%s", why);
            return TOOL_FAILED;
        }
        int result = trace_filter_min_size(&trace, options->replay.min_size);
        result = result == 0 ? trace_get_facts(&trace, &about->facts) : result;
        about->ops = trace.op_count;
        about->threads = trace.thread_count;
        bool empty = trace.block_count == 0;
        trace_unload(&trace);
        if (result != 0 || empty) {
            tool_error(SUB, "%s: %s", about->path,
                       result != 0 ? "no memory to read it: close other programs"
                                   : "no block is large enough: choose a smaller --min-size");
            return TOOL_FAILED;
        }
    }
    return TOOL_FINE;
}

static bool read_sample(const char *text, struct pick_sample *sample)
{
    return json_get_number(text, "ns_per_op", &sample->ns_per_op) &&
           json_get_number(text, "ns_per_op_min", &sample->ns_per_op_min) &&
           json_get_number(text, "ns_per_op_max", &sample->ns_per_op_max) &&
           json_get_number(text, "faults_per_pass", &sample->faults_per_pass) &&
           json_get_count(text, "peak_rss_bytes", &sample->peak_rss_bytes) &&
           json_get_count(text, "held_bytes", &sample->held_bytes) &&
           json_get_count(text, "peak_held_bytes", &sample->peak_held_bytes) &&
           json_get_count(text, "passes", &sample->passes) &&
           json_get_count(text, "ops_per_pass", &sample->ops_per_pass);
}

/* Runs one replay and keeps its figures; a failure is told and noted. Returns 0 or -EINTR. */
static int run_replay(const struct pick *pick, struct pick_trace *trace, size_t backend)
{
    const struct pick_options *options = pick->options;
    const char *name = pick->backends[backend].name;
    struct pick_row *row = &trace->rows[backend];
    struct child_result child;
    struct replay_arguments arguments;
    const char *argv[5 + REPLAY_ARGUMENTS_MAX + 3] = {"larder", "replay", "--backend", name,
                                                      "--json"};
    size_t argc = 5;
    replay_options_to_arguments(&options->replay, &arguments);
    memcpy(argv + argc, arguments.words, arguments.count * sizeof arguments.words[0]);
    argc += arguments.count;
    argv[argc++] = "--";
    argv[argc++] = trace->path;
    int result = child_run(argv, &child);
    if (result == -EINTR) {
        return result;
    }
    if (result != 0 || child.exit_code != 0 ||
        !read_sample(child.output, &row->samples[row->sample_count])) {
        tool_error(SUB, "%s: %s failed: %s", trace->path, name,
                   result != 0           ? strerror(-result)
                   : child.exit_code < 0 ? strsignal(child.signal)
                                         : first_line(&child, trace->path));
        row->failed = true;
        return 0;
    }
    json_get_string(child.output, "policy", row->policy, sizeof row->policy);
    row->sample_count++;
    return 0;
}

static void show_progress(const struct pick *pick, const struct pick_trace *trace, size_t backend,
                          unsigned repetition)
{
    size_t of = pick->options->trace_count * pick->options->repetitions * pick->backend_count;
    size_t done = ((size_t)(trace - pick->traces) * pick->options->repetitions + repetition) *
                      pick->backend_count +
                  backend;
    if (isatty(STDERR_FILENO)) {
        fprintf(stderr, "\r\033[K[%zu/%zu] %s: %s", done + 1, of, trace->path,
                pick->backends[backend].name);
    }
}

static void clear_progress(void)
{
    if (isatty(STDERR_FILENO)) {
        fputs("\r\033[K", stderr);
    }
}

/* Returns 0 or -EINTR. */
static int run_trace(const struct pick *pick, struct pick_trace *trace)
{
    for (unsigned repetition = 0; repetition < pick->options->repetitions; repetition++) {
        for (size_t b = 0; b < pick->backend_count; b++) {
            if (trace->rows[b].failed) {
                continue; /* once is enough */
            }
            show_progress(pick, trace, b, repetition);
            int result = run_replay(pick, trace, b);
            clear_progress();
            if (result != 0 || child_interrupted()) {
                return -EINTR;
            }
        }
    }
    return 0;
}

/* Runs and prints trace after trace. Returns an exit code, or -EINTR. */
static int run_all(struct pick *pick)
{
    bool tables = pick->options->json == NULL || strcmp(pick->options->json, "-") != 0;
    bool failed = false;
    for (size_t t = 0; t < pick->options->trace_count; t++) {
        struct pick_trace *trace = &pick->traces[t];
        if (run_trace(pick, trace) != 0) {
            return -EINTR;
        }
        pick_judge_trace(pick, trace);
        if (tables) {
            pick_print_trace(pick, trace);
            fflush(stdout);
        }
        for (size_t b = 0; b < pick->backend_count; b++) {
            failed = failed || trace->rows[b].failed;
        }
    }
    pick_judge_all(pick);
    if (tables && pick->options->trace_count > 1) {
        pick_print_overall(pick);
    }
    return failed ? TOOL_FAILED : TOOL_FINE;
}

/* All that happens while the JSON file, if one is wanted, is open. */
static int run_with_output(struct pick *pick)
{
    struct output output = {0};
    char why[512];
    const char *path = pick->options->json;
    bool to_file = path != NULL && strcmp(path, "-") != 0;
    if (to_file && output_open(&output, path, why, sizeof why) != 0) {
        tool_error(SUB, "%s", why);
        return TOOL_FAILED;
    }
    int result = run_all(pick);
    if (result == -EINTR) {
        output_abandon(&output);
        child_die_of_interrupt();
    }
    if (path != NULL) {
        pick_print_json(pick, to_file ? output.file : stdout);
    }
    if (to_file && output_commit(&output, why, sizeof why) != 0) {
        tool_error(SUB, "%s", why);
        return TOOL_FAILED;
    }
    return result;
}

int pick_main(int argc, char **argv)
{
    struct pick_options options = {.repetitions = 3};
    replay_options_init(&options.replay);
    options.replay.min_size = 1024;
    int result = read_options(argc, argv, &options);
    if (result >= 0) {
        return result;
    }
    struct pick *pick = calloc(1, sizeof *pick);
    struct pick_trace *traces = calloc(options.trace_count, sizeof *traces);
    if (pick == NULL || traces == NULL) {
        tool_error(SUB, "no memory for the figures: name fewer traces at once");
        free(pick);
        free(traces);
        return TOOL_FAILED;
    }
    pick->options = &options;
    pick->traces = traces;
    result = list_backends(pick);
    if (result == TOOL_FINE) {
        result = read_traces(pick);
    }
    if (result == TOOL_FINE) {
        child_catch_interrupts();
        result = probe_backends(pick);
        if (child_interrupted()) {
            child_die_of_interrupt();
        }
        result = result < 0 ? run_with_output(pick) : result;
    }
    free(traces);
    free(pick);
    return result;
}
