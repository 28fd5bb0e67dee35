/* SPDX-License-Identifier: MIT */
/*
 * `larder convert`: a trace from one format to another, with a list of what got lost.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "format.h"
#include "labels.h"
#include "marks.h"
#include "output.h"
#include "progress.h"
#include "tool.h"
#include "trace.h"
#include "writer.h"

#define SUB "convert"
#define LABELS_MAX 64

struct options {
    const char *in;
    const char *out;
    const struct trace_writer *to; /* NULL: by the name of the output file */
    struct trace_options read;
    uint64_t min_size;
    const char *labels[LABELS_MAX]; /* KEY=VALUE */
    size_t label_count;
};

static void print_help(void)
{
    printf(
        "usage: larder convert IN -o OUT [OPTION...]\n"
        "\n"
        "Writes a trace in another format. What the new format cannot carry is listed on stderr.\n"
        "IN may be compressed with gzip or zstd; - stands for standard input or output.\n"
        "\n"
        "  -o, --output OUT  the file to write; it appears when it is whole. Its ending tells the\n"
        "                    format, and .gz or .zst behind that compresses\n"
        "  --from FORMAT     what IN is (default: what it looks like):\n");
    for (size_t i = 0; i < trace_format_count; i++) {
        printf("                      %-11s %s\n", trace_formats[i]->name,
               trace_formats[i]->summary);
    }
    printf("  --to FORMAT       what to write (default: by OUT's ending):\n");
    for (size_t i = 0; i < trace_writer_count; i++) {
        printf("                      %-11s %-9s %s\n", trace_writers[i]->name,
               trace_writers[i]->extension, trace_writers[i]->summary);
    }
    printf(
        "  --min-size SIZE   leave out blocks smaller than SIZE bytes; takes k, m, g\n"
        "  --repair          where IN hands an address out before it notes the free of the block\n"
        "                    that had it, move that free to before the reuse\n"
        "  --label KEY=VALUE set a label (engine, version, settings), which ltr keeps; again for\n"
        "                    each further one\n"
        "  --help            this text\n"
        "\n"
        "Marks of a text trace NAME.txt are in NAME.marks: read with it, and written with it.\n"
        "Addresses in a text are made up; they tell blocks apart, and reading the text gives the\n"
        "same operations again.\n");
}

enum { OPTION_FROM = 256, OPTION_TO, OPTION_MIN_SIZE, OPTION_REPAIR, OPTION_LABEL };

static int read_option(struct options *options, int option)
{
    switch (option) {
    case 'o':
        options->out = optarg;
        return TOOL_FINE;
    case OPTION_FROM:
        options->read.from = optarg;
        return trace_format_named(optarg) != NULL
                   ? TOOL_FINE
                   : tool_usage_error(SUB, "--from: no format '%s'", optarg);
    case OPTION_TO:
        options->to = trace_writer_named(optarg);
        return options->to != NULL ? TOOL_FINE
                                   : tool_usage_error(SUB, "--to: no format '%s'", optarg);
    case OPTION_MIN_SIZE:
        return tool_read_size(optarg, &options->min_size)
                   ? TOOL_FINE
                   : tool_usage_error(SUB, "--min-size takes bytes, such as 1024 or 16k, not '%s'",
                                      optarg);
    case OPTION_REPAIR:
        options->read.repair = true;
        return TOOL_FINE;
    default:
        if (strchr(optarg, '=') == NULL || options->label_count == LABELS_MAX) {
            return tool_usage_error(SUB, "--label takes KEY=VALUE, %d times at most, not '%s'",
                                    LABELS_MAX, optarg);
        }
        options->labels[options->label_count++] = optarg;
        return TOOL_FINE;
    }
}

static int check_options(struct options *options)
{
    if (options->out == NULL) {
        return tool_usage_error(SUB, "no output named: add -o OUT");
    }
    if (options->to == NULL) {
        options->to = trace_writer_for(options->out);
    }
    if (options->to == NULL) {
        return tool_usage_error(SUB, "%s: the ending tells no format: add --to FORMAT",
                                options->out);
    }
    return -1;
}

/* Returns an exit code, or -1 to go on. */
static int read_options(int argc, char **argv, struct options *options)
{
    static const struct option long_options[] = {
        {"output", required_argument, NULL, 'o'},
        {"from", required_argument, NULL, OPTION_FROM},
        {"to", required_argument, NULL, OPTION_TO},
        {"min-size", required_argument, NULL, OPTION_MIN_SIZE},
        {"repair", no_argument, NULL, OPTION_REPAIR},
        {"label", required_argument, NULL, OPTION_LABEL},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":ho:", long_options, NULL)) != -1) {
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
    if (argc - optind != 1) {
        return tool_usage_error(SUB,
                                argc == optind ? "no trace named" : "more than one trace named");
    }
    options->in = argv[optind];
    return check_options(options);
}

/* -- Reading ------------------------------------------------------------------------------------ */

static int set_labels(const struct options *options, struct trace *trace)
{
    for (size_t i = 0; i < options->label_count; i++) {
        char key[256];
        const char *equals = strchr(options->labels[i], '=');
        size_t length = (size_t)(equals - options->labels[i]);
        snprintf(key, sizeof key, "%.*s", length < sizeof key ? (int)length : 0,
                 options->labels[i]);
        int result = labels_set(trace, key, equals + 1);
        if (result != 0) {
            tool_error(SUB,
                       result == -ENOMEM ? "%s: no memory for the labels"
                                         : "--label %s: a key is letters, digits, '.', '_' and "
                                           "'-', and a value one line of text",
                       result == -ENOMEM ? options->in : options->labels[i]);
            return result == -ENOMEM ? TOOL_FAILED : TOOL_USAGE;
        }
    }
    return TOOL_FINE;
}

static int prepare(const struct options *options, struct trace *trace)
{
    if (options->min_size > 0 && trace_filter_min_size(trace, options->min_size) != 0) {
        tool_error(SUB, "%s: no memory to filter it: close other programs", options->in);
        return TOOL_FAILED;
    }
    if (trace->block_count == 0) {
        tool_error(SUB, "%s: no block has %" PRIu64 " bytes or more: choose a smaller --min-size",
                   options->in, options->min_size);
        return TOOL_FAILED;
    }
    return set_labels(options, trace);
}

/* -- Writing ------------------------------------------------------------------------------------ */

static int write_trace(const struct options *options, const struct trace *trace, FILE *file)
{
    switch (trace_write(trace, options->to, file, options->out)) {
    case 0:
        return TOOL_FINE;
    case -ENOTSUP:
        tool_error(SUB, "%s: this build cannot compress that way: leave the ending out",
                   options->out);
        return TOOL_FAILED;
    case -ENOMEM:
        tool_error(SUB, "%s: no memory to write it: close other programs", options->out);
        return TOOL_FAILED;
    default:
        tool_error(SUB, "%s: cannot be written: %s", options->out,
                   errno != 0 ? strerror(errno) : "the file takes no more");
        return TOOL_FAILED;
    }
}

/* The marks of a text trace, in the file beside it. */
static int write_marks(const struct options *options, const struct trace *trace,
                       struct output *output)
{
    static char path[4096];
    char reason[512];
    if (options->to != &trace_writer_android || trace->mark_count == 0 ||
        !marks_path_of(options->out, path, sizeof path)) {
        return TOOL_FINE;
    }
    if (output_open(output, path, reason, sizeof reason) != 0) {
        tool_error(SUB, "%s", reason);
        return TOOL_FAILED;
    }
    marks_write(trace, output->file);
    return TOOL_FINE;
}

static int write_files(const struct options *options, const struct trace *trace)
{
    struct output output, marks = {.file = NULL};
    char reason[512];
    if (output_open(&output, options->out, reason, sizeof reason) != 0) {
        tool_error(SUB, "%s", reason);
        return TOOL_FAILED;
    }
    int result = write_trace(options, trace, output.file);
    if (result == TOOL_FINE) {
        result = write_marks(options, trace, &marks);
    }
    /* The marks first: a text without its marks would be taken for one that has none. */
    if (result == TOOL_FINE &&
        ((marks.file != NULL && output_commit(&marks, reason, sizeof reason) != 0) ||
         output_commit(&output, reason, sizeof reason) != 0)) {
        tool_error(SUB, "%s", reason);
        result = TOOL_FAILED;
    }
    output_abandon(&marks);
    output_abandon(&output);
    return result;
}

/* -- What got lost ------------------------------------------------------------------------------- */

static void note_count(uint64_t count, const char *text)
{
    if (count > 0) {
        fprintf(stderr, "note: %" PRIu64 " %s\n", count, text);
    }
}

static void note_reading(const struct trace *trace, const struct trace_notes *notes)
{
    const struct trace_format *format = trace_format_named(trace->format);
    if (format != NULL && format->lacks != NULL) {
        fprintf(stderr, "note: %s does not tell %s\n", format->name, format->lacks);
    }
    note_count(notes->unknown_frees, "frees of blocks from before the recording: left out");
    note_count(notes->failed_allocations, "allocations that failed when recorded: left out");
    note_count(notes->early_reuses - notes->repaired,
               "addresses handed out again before their free: kept as recorded (--repair)");
    note_count(notes->repaired, "addresses handed out again before their free: repaired");
    note_count(notes->small_blocks, "blocks below --min-size: left out");
}

static void note_losses(const struct options *options, const struct trace *trace)
{
    unsigned lost = trace_features(trace) & ~options->to->carries;
    if (options->to == &trace_writer_android && strcmp(options->out, "-") == 0) {
        lost |= trace->mark_count > 0 ? TRACE_HAS_MARKS : 0u;
    }
    for (unsigned i = 0; i < TRACE_FEATURE_COUNT; i++) {
        if ((lost & 1u << i) != 0) {
            fprintf(stderr, "note: %s cannot carry %s\n", options->to->name,
                    trace_feature_loss(1u << i));
        }
    }
}

static void print_summary(const struct options *options, const struct trace *trace)
{
    struct stat status;
    char size[32];
    if (strcmp(options->out, "-") == 0 || stat(options->out, &status) != 0) {
        return;
    }
    printf("%s: %s, %zu operations, %" PRIu32 " blocks, %zu thread%s, %zu marks, %s\n",
           options->out, options->to->name, trace->op_count, trace->block_count,
           trace->thread_count, trace->thread_count == 1 ? "" : "s", trace->mark_count,
           tool_format_bytes((uint64_t)status.st_size, size, sizeof size));
}

static int convert(const struct options *options, struct trace *trace)
{
    int result = prepare(options, trace);
    if (result != TOOL_FINE) {
        return result;
    }
    progress_tell(SUB, "writing", options->out);
    errno = 0;
    if (strcmp(options->out, "-") == 0) {
        result = write_trace(options, trace, stdout);
    } else {
        result = write_files(options, trace);
    }
    progress_end();
    if (result == TOOL_FINE) {
        note_reading(trace, &trace->notes);
        note_losses(options, trace);
        print_summary(options, trace);
    }
    return result;
}

int convert_main(int argc, char **argv)
{
    struct options options = {0};
    struct trace trace;
    char why[512];
    int result = read_options(argc, argv, &options);
    if (result >= 0) {
        return result;
    }
    output_remove_on_signals();
    progress_tell(SUB, "reading", options.in);
    result = trace_load(options.in, &options.read, &trace, why, sizeof why);
    progress_end();
    if (result != 0) {
        tool_error(SUB, "%s", why);
        return TOOL_FAILED;
    }
    result = convert(&options, &trace);
    trace_unload(&trace);
    return result;
}
