/* SPDX-License-Identifier: MIT */
/* The options of `larder pick`: see pick_options.h. */
#include "pick_options.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "measure.h"
#include "tool.h"

#define SUB "pick"

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
        "  --time-limit S     seconds until all is done, the report included (default %d; 0: no\n"
        "                     limit); shared out by what replays cost; what it leaves no room\n"
        "                     for is said; with --passes or --full only where named\n"
        "  --repetitions N    replays of each allocator and trace (default: as the time allows,\n"
        "                     up to 8; 8 with --passes, 9 with --full)\n"
        "  --full             all gaps on all traces, for the references, too; each replay about\n"
        "                     a second long\n"
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
        PICK_TIME_LIMIT_S);
}

enum {
    OPTION_BACKENDS = REPLAY_OPTION_END,
    OPTION_GAPS,
    OPTION_PREFER,
    OPTION_TIME_LIMIT,
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

static int read_option(struct pick_reading *reading, int option)
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
    case OPTION_TIME_LIMIT:
        reading->time_named = true;
        return replay_options_read_count(SUB, "--time-limit", optarg, 0, 1000000,
                                         &options->time_limit_s);
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
static int find_traces(struct pick_reading *reading)
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
static int complete_options(struct pick_reading *reading, int count, char **names)
{
    struct pick_options *options = reading->options;
    if (options->gap_count == 0) {
        options->gaps[options->gap_count++] = options->replay.settings.gap_ms;
    }
    if (!reading->time_named && (options->full || options->replay.settings.passes > 0)) {
        options->time_limit_s = 0;
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

int pick_read_options(int argc, char **argv, struct pick_reading *reading)
{
    static const struct option long_options[] = {
        {"backends", required_argument, NULL, OPTION_BACKENDS},
        REPLAY_OPTION_ROWS,
        {"gaps", required_argument, NULL, OPTION_GAPS},
        {"prefer", required_argument, NULL, OPTION_PREFER},
        {"time-limit", required_argument, NULL, OPTION_TIME_LIMIT},
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
    *reading->options = (struct pick_options){.gaps = {0, 33, 300},
                                              .gap_count = 3,
                                              .time_limit_s = PICK_TIME_LIMIT_S,
                                              .seed = measure_now_ns() % 1000000};
    replay_options_init(&reading->options->replay);
    reading->options->replay.min_size = 1024;
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
