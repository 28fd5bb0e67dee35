/* SPDX-License-Identifier: MIT */
/*
 * `larder pick`: every allocator here on the given traces, each replay in a process of its own, and
 * which allocator to use. This file has the options and the traces; see pick.h for the rest.
 */
#include "pick.h"

#include <errno.h>
#include <getopt.h>
#include <glob.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend.h"
#include "child.h"
#include "measure.h"
#include "output.h"
#include "pick_html.h"
#include "pick_run.h"
#include "pick_series.h"
#include "tool.h"

#define SUB "pick"
#define TIME_S 240 /* by default */
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
         "                     jemalloc,tcmalloc,tbbmalloc,scudo,scudo-android,ncnn-pool,\n"
         "                     bfc-arena,c10-design,none");
    replay_options_print_help(stdout,
                              "1024: tensors, not the engine's small objects; 0 for everything");
    printf(
        "  --gaps LIST        milliseconds between passes, separated by commas; the first\n"
        "                     decides, the others show what waiting changes, on the two traces\n"
        "                     with the most live bytes (default 0,33,300)\n"
        "  --prefer WHAT      balanced (default), time or memory; see below\n"
        "  --time SECONDS     for all replays together (default %d); shared out by what they\n"
        "                     cost; with --passes or --full only where named\n"
        "  --repetitions N    replays of each allocator and trace (default: as the time allows,\n"
        "                     3 to 8; 8 with --passes, 9 with --full)\n"
        "  --full             all gaps on all traces, each replay about a second long\n"
        "  --seed N           of the random order (default: another each time; it is printed)\n"
        "  --json FILE        also write the figures to FILE, one line of JSON for each trace and\n"
        "                     allocator; - prints them instead of the tables\n"
        "  --html FILE        also write a report with charts, one file that needs no network;\n"
        "                     takes python3 and gnuplot\n"
        "  --default-traces DIR  where no trace is named: every *.txt, .txt.gz, .txt.zst there\n"
        "  --help             this text\n"
        "\n"
        "How it chooses: by time x square root of peak RSS, each compared to the best of the\n"
        "trace; twice the time weighs as much as four times the memory. --prefer time counts\n"
        "time alone, --prefer memory peak RSS x square root of time. A difference counts if it\n"
        "is over 2 %% and a rank test (Mann-Whitney with Holm's correction, level 0.05) tells it\n"
        "from chance; among the rest, fewer page faults decide. With --touch none time alone\n"
        "counts. c10, c10-design, ncnn-pool, bfc-arena, larder-passthrough and none are there\n"
        "to compare with and never recommended.\n",
        TIME_S);
}

enum {
    OPTION_BACKENDS = REPLAY_OPTION_END,
    OPTION_GAPS,
    OPTION_PREFER,
    OPTION_TIME,
    OPTION_REPETITIONS,
    OPTION_THREADS,
    OPTION_FULL,
    OPTION_SEED,
    OPTION_JSON,
    OPTION_HTML,
    OPTION_DEFAULT_TRACES
};

static int read_gaps(struct pick_options *options, const char *text)
{
    char word[32];
    options->gap_count = 0;
    do {
        size_t length = strcspn(text, ",");
        uint64_t gap;
        snprintf(word, sizeof word, "%.*s", (int)(length < sizeof word ? length : 0), text);
        if (options->gap_count == PICK_GAPS_MAX || !tool_read_number(word, 0, 3600000, &gap)) {
            return tool_usage_error(SUB,
                                    "--gaps takes up to %d numbers of milliseconds separated by "
                                    "commas, such as 0,33,300",
                                    PICK_GAPS_MAX);
        }
        options->gaps[options->gap_count++] = (unsigned)gap;
        text += length + 1;
    } while (text[-1] == ',');
    return TOOL_FINE;
}

static int read_preference(struct pick_options *options, const char *word)
{
    static const char *const words[] = {"balanced", "time", "memory"};
    for (unsigned i = 0; i < PICK_PREFERENCES; i++) {
        if (strcmp(words[i], word) == 0) {
            options->preference = (enum pick_preference)i;
            return TOOL_FINE;
        }
    }
    return tool_usage_error(SUB, "--prefer takes balanced, time or memory, not '%s'", word);
}

/* Options and what belongs to them while they are read. */
struct reading {
    struct pick_options *options;
    const char *default_traces;
    glob_t found;
    bool time_named;
};

static int read_option(struct reading *reading, int option)
{
    struct pick_options *options = reading->options;
    switch (option) {
    case OPTION_BACKENDS:
        options->backends = optarg;
        return TOOL_FINE;
    case OPTION_GAPS:
        return read_gaps(options, optarg);
    case OPTION_PREFER:
        return read_preference(options, optarg);
    case OPTION_TIME:
        reading->time_named = true;
        return replay_options_read_count(SUB, "--time", optarg, 1, 1000000, &options->time_s);
    case OPTION_REPETITIONS:
        return replay_options_read_count(SUB, "--repetitions", optarg, 1, PICK_REPETITIONS_MAX,
                                         &options->repetitions);
    case OPTION_THREADS:
        options->replay.parallel = true;
        return TOOL_FINE;
    case OPTION_FULL:
        options->full = true;
        return TOOL_FINE;
    case OPTION_SEED:
        if (!tool_read_number(optarg, 0, UINT64_MAX, &options->seed)) {
            return tool_usage_error(SUB, "--seed takes a number, not '%s'", optarg);
        }
        return TOOL_FINE;
    case OPTION_JSON:
        options->json = optarg;
        return TOOL_FINE;
    case OPTION_HTML:
        options->html = optarg;
        return TOOL_FINE;
    case OPTION_DEFAULT_TRACES:
        reading->default_traces = optarg;
        return TOOL_FINE;
    default:
        if (option == REPLAY_OPTION_GAP) {
            options->gap_count = 0; /* no others beside it */
        }
        return replay_options_read(SUB, &options->replay, option, optarg);
    }
}

/* Those of the directory. Returns an exit code, or -1 to go on. */
static int find_traces(struct reading *reading)
{
    static const char *const endings[] = {"txt", "txt.gz", "txt.zst"};
    char pattern[4096];
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        snprintf(pattern, sizeof pattern, "%s/*.%s", reading->default_traces, endings[i]);
        glob(pattern, i > 0 ? GLOB_APPEND : 0, NULL, &reading->found);
    }
    if (reading->found.gl_pathc == 0) {
        tool_error(SUB, "%s: no traces (*.txt, .txt.gz, .txt.zst) there: name some",
                   reading->default_traces);
        return TOOL_FAILED;
    }
    reading->options->traces = (const char *const *)reading->found.gl_pathv;
    reading->options->trace_count = reading->found.gl_pathc;
    return -1;
}

/* What follows from several options together. Returns an exit code, or -1 to go on. */
static int complete_options(struct reading *reading, int count, char **names)
{
    struct pick_options *options = reading->options;
    if (options->gap_count == 0) {
        options->gaps[options->gap_count++] = options->replay.settings.gap_ms;
    }
    if (!reading->time_named && (options->full || options->replay.settings.passes > 0)) {
        options->time_s = 0;
    }
    int checked = replay_options_check(SUB, &options->replay);
    if (checked != TOOL_FINE) {
        return checked;
    }
    options->traces = (const char *const *)names;
    options->trace_count = (size_t)count;
    if (count == 0) {
        return reading->default_traces != NULL ? find_traces(reading)
                                               : tool_usage_error(SUB, "no trace named");
    }
    for (size_t t = 0; t < options->trace_count; t++) {
        if (strcmp(options->traces[t], "-") == 0) {
            return tool_usage_error(SUB, "a trace is read many times: name a file instead of -");
        }
    }
    return -1;
}

/* Returns an exit code, or -1 to go on. */
static int read_options(int argc, char **argv, struct reading *reading)
{
    static const struct option long_options[] = {
        {"backends", required_argument, NULL, OPTION_BACKENDS},
        REPLAY_OPTION_ROWS,
        {"gaps", required_argument, NULL, OPTION_GAPS},
        {"prefer", required_argument, NULL, OPTION_PREFER},
        {"time", required_argument, NULL, OPTION_TIME},
        {"repetitions", required_argument, NULL, OPTION_REPETITIONS},
        {"threads", no_argument, NULL, OPTION_THREADS},
        {"full", no_argument, NULL, OPTION_FULL},
        {"seed", required_argument, NULL, OPTION_SEED},
        {"json", required_argument, NULL, OPTION_JSON},
        {"html", required_argument, NULL, OPTION_HTML},
        {"default-traces", required_argument, NULL, OPTION_DEFAULT_TRACES},
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
        int result = read_option(reading, option);
        if (result != TOOL_FINE) {
            return result;
        }
    }
    return complete_options(reading, argc - optind, argv + optind);
}

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

/* Whether fewer than two traces have more live bytes: where gaps matter most. */
static bool is_among_the_two_largest(const struct pick *pick, size_t trace)
{
    size_t larger = 0;
    uint64_t live = pick->cases[trace].facts.peak_live_bytes;
    for (size_t t = 0; t < pick->main_count; t++) {
        uint64_t other = pick->cases[t].facts.peak_live_bytes;
        larger += other > live || (other == live && t < trace);
    }
    return larger < 2;
}

/* The cases with other gaps than the first. */
static void add_gaps(struct pick *pick)
{
    const struct pick_options *options = pick->options;
    for (size_t t = 0; t < pick->main_count; t++) {
        if (!options->full && !is_among_the_two_largest(pick, t)) {
            continue;
        }
        for (size_t g = 1; g < options->gap_count; g++) {
            struct pick_case *one = &pick->cases[pick->case_count++];
            *one = pick->cases[t];
            one->gap_ms = options->gaps[g];
        }
    }
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

static int finish_files(const struct pick *pick, struct files *files)
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
    add_gaps(pick);
    child_catch_interrupts();
    result = pick_probe_backends(pick);
    if (child_interrupted()) {
        child_die_of_interrupt();
    }
    return result < 0 ? run_with_output(pick) : result;
}

int pick_main(int argc, char **argv)
{
    struct pick_options options = {
        .gaps = {0, 33, 300}, .gap_count = 3, .time_s = TIME_S, .seed = measure_now_ns() % 1000000};
    struct reading reading = {.options = &options};
    replay_options_init(&options.replay);
    options.replay.min_size = 1024;
    if (pick_series_asked(argc, argv)) {
        return pick_series_main(argc, argv);
    }
    int result = read_options(argc, argv, &reading);
    if (result < 0) {
        struct pick *pick = calloc(1, sizeof *pick);
        struct pick_case *cases = calloc(options.trace_count * options.gap_count, sizeof *cases);
        if (pick == NULL || cases == NULL) {
            tool_error(SUB, "no memory for the figures: name fewer traces at once");
            result = TOOL_FAILED;
        } else {
            pick->options = &options;
            pick->cases = cases;
            result = run(pick);
        }
        free(cases);
        free(pick);
    }
    globfree(&reading.found);
    return result;
}
