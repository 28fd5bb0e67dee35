/* SPDX-License-Identifier: MIT */
/*
 * `larder plan`: places for the blocks of a trace, so that one arena as small as can be serves them all.
 * The plan is judged (plan_check.h) before anything is said about it or written.
 */
#include "plan.h"

#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "output.h"
#include "plan_check.h"
#include "plan_file.h"
#include "tool.h"

#define SUB "plan"

enum { DEFAULT_TIME_LIMIT = 20 };

struct options {
    const char *path, *plan, *drawing;
    struct plan_input_options input;
    struct plan_limits limits;
    bool json;
};

static void print_help(void)
{
    printf(
        "usage: larder plan TRACE|CSV [OPTION...]\n"
        "\n"
        "Computes offsets for the blocks of a trace such that no two that live at once overlap "
        "and\n"
        "the whole needs as little memory as can be: greedily, then with an exact search, which\n"
        "ends with a proof, at the time limit, or at Ctrl-C with the best plan so far. CSV is a\n"
        "file with the columns id,lower,upper,size; a block lives from lower up to, and without,\n"
        "upper.\n"
        "\n"
        "  -o, --output PLAN  write the plan: as CSV with a column offset if the name ends in "
        ".csv,\n"
        "                     else as larder_plan_load() reads it\n"
        "  --svg FILE         draw the plan: time from left to right, addresses upwards\n"
        "  --time-limit S     seconds to search for (default %u; 0: only greedily)\n"
        "  --capacity SIZE    be content with a plan within SIZE bytes, and fail where none was "
        "found\n"
        "  --alignment A      of each block, a power of two (default: 64 for a trace, 1 for CSV);\n"
        "                     sizes are rounded up to it\n"
        "  --min-size SIZE    leave out blocks smaller than SIZE bytes; takes k, m, g (default 0)\n"
        "  --inference N      plan only the Nth inference of a trace with marks\n"
        "  --json             print one line of JSON instead of lines for people\n"
        "  --help             this text\n"
        "\n"
        "The lower bound is the most that is live at once, or what the search has proved no plan\n"
        "to be below.\n",
        DEFAULT_TIME_LIMIT);
}

/* ---- options ---- */

static int read_alignment(struct options *options, const char *text)
{
    uint64_t alignment;
    if (!tool_read_size(text, &alignment) || alignment == 0 || alignment > 1 << 30 ||
        (alignment & (alignment - 1)) != 0) {
        return tool_usage_error(SUB, "--alignment must be a power of two, not '%s'", text);
    }
    options->input.alignment = alignment;
    return TOOL_FINE;
}

static int read_count(const char *name, const char *text, uint64_t min, uint64_t max, unsigned *out)
{
    uint64_t number;
    if (!tool_read_number(text, min, max, &number)) {
        return tool_usage_error(SUB,
                                "%s must be a number from %" PRIu64 " to %" PRIu64 ", not '%s'",
                                name, min, max, text);
    }
    *out = (unsigned)number;
    return TOOL_FINE;
}

static int read_option(struct options *options, int option)
{
    switch (option) {
    case 'o':
        options->plan = optarg;
        return TOOL_FINE;
    case 'g':
        options->drawing = optarg;
        return TOOL_FINE;
    case 't':
        return read_count("--time-limit", optarg, 0, 1000000, &options->limits.seconds);
    case 'c':
        if (!tool_read_size(optarg, &options->limits.capacity) || options->limits.capacity == 0)
            return tool_usage_error(SUB, "--capacity must be a size above 0, not '%s'", optarg);
        return TOOL_FINE;
    case 'a':
        return read_alignment(options, optarg);
    case 'm':
        if (!tool_read_size(optarg, &options->input.min_size))
            return tool_usage_error(SUB, "--min-size must be a size, not '%s'", optarg);
        return TOOL_FINE;
    case 'i':
        return read_count("--inference", optarg, 1, UINT32_MAX, &options->input.inference);
    default:
        options->json = true;
        return TOOL_FINE;
    }
}

/* Returns an exit code, or -1 to go on. */
static int read_options(int argc, char **argv, struct options *options)
{
    static const struct option long_options[] = {
        {"output", required_argument, NULL, 'o'},
        {"svg", required_argument, NULL, 'g'},
        {"time-limit", required_argument, NULL, 't'},
        {"capacity", required_argument, NULL, 'c'},
        {"alignment", required_argument, NULL, 'a'},
        {"min-size", required_argument, NULL, 'm'},
        {"inference", required_argument, NULL, 'i'},
        {"json", no_argument, NULL, 'j'},
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
        if (option == '?' || option == ':')
            return tool_bad_option(SUB, option, optopt, argv);
        int result = read_option(options, option);
        if (result != TOOL_FINE)
            return result;
    }
    if (argc - optind != 1)
        return tool_usage_error(SUB,
                                argc == optind ? "no trace named" : "more than one trace named");
    options->path = argv[optind];
    return -1;
}

/* ---- results ---- */

static bool judge(const struct options *options, const struct plan_blocks *blocks, uint64_t peak)
{
    void *scratch = malloc(plan_check_scratch_bytes(blocks->count));
    if (scratch == NULL) {
        tool_error(SUB, "%s: no memory to check the plan: close other programs", options->path);
        return false;
    }
    struct plan_verdict verdict = plan_check(blocks->items, blocks->count, peak, scratch);
    free(scratch);
    if (verdict.fault == PLAN_FINE)
        return true;
    tool_error(SUB, "%s: the plan is wrong, block %" PRIu32 " %s: please report this",
               options->path, verdict.a, plan_fault_text(verdict.fault));
    return false;
}

static uint64_t time_of(const struct plan_blocks *blocks, uint32_t time)
{
    return blocks->times != NULL ? blocks->times[time] : time;
}

static void write_csv(FILE *file, const struct plan_blocks *blocks)
{
    fputs("id,lower,upper,size,offset\n", file);
    for (uint32_t i = 0; i < blocks->count; i++) {
        const struct plan_item *item = &blocks->items[i];
        if (blocks->names != NULL) {
            fprintf(file, "%s", blocks->names[i]);
        } else {
            fprintf(file, "%" PRIu32, i);
        }
        fprintf(file, ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 "\n",
                time_of(blocks, item->begin), time_of(blocks, item->end), blocks->sizes[i],
                item->offset * blocks->unit);
    }
}

static void write_plan(FILE *file, const struct plan_blocks *blocks,
                       const struct plan_outcome *outcome)
{
    struct plan_writer writer;
    plan_write_begin(&writer, file);
    plan_write_head(&writer, &(struct plan_head){.blocks = blocks->count,
                                                 .peak = outcome->peak * blocks->unit});
    for (uint32_t i = 0; i < blocks->count; i++) {
        const struct plan_item *item = &blocks->items[i];
        uint64_t alignment = (item->alignment > 1 ? item->alignment : 1) * blocks->unit;
        plan_write_row(&writer, &(struct plan_row){
                                    .begin = item->begin,
                                    .end = item->end,
                                    .alignment = (uint32_t)alignment,
                                    .size = blocks->sizes[i],
                                    .offset = item->offset * blocks->unit,
                                });
    }
    plan_write_end(&writer);
}

static bool is_csv_name(const char *path)
{
    size_t length = strlen(path);
    return length >= 4 && strcmp(path + length - 4, ".csv") == 0;
}

static bool write_outputs(const struct options *options, const struct plan_blocks *blocks,
                          const struct plan_outcome *outcome)
{
    struct output output;
    char why[4400];
    if (options->plan != NULL) {
        if (output_open(&output, options->plan, why, sizeof why) != 0) {
            tool_error(SUB, "%s", why);
            return false;
        }
        if (is_csv_name(options->plan)) {
            write_csv(output.file, blocks);
        } else {
            write_plan(output.file, blocks, outcome);
        }
        if (output_commit(&output, why, sizeof why) != 0) {
            tool_error(SUB, "%s", why);
            return false;
        }
    }
    if (options->drawing != NULL) {
        if (output_open(&output, options->drawing, why, sizeof why) != 0) {
            tool_error(SUB, "%s", why);
            return false;
        }
        plan_draw(output.file, options->path, blocks, outcome);
        if (output_commit(&output, why, sizeof why) != 0) {
            tool_error(SUB, "%s", why);
            return false;
        }
    }
    return true;
}

/* Rounded up, so that a plan above its bound never looks like one at it. */
static double ratio_of(const struct plan_outcome *outcome)
{
    if (outcome->peak <= outcome->bound)
        return 1;
    return ceil((double)outcome->peak / (double)outcome->bound * 10000) / 10000;
}

static bool fits(const struct options *options, const struct plan_blocks *blocks,
                 const struct plan_outcome *outcome)
{
    uint64_t capacity = options->limits.capacity;
    return capacity == 0 || outcome->peak * blocks->unit <= capacity;
}

/* Why the search ended before there was a proof. */
static const char *reason_of(const struct options *options, const struct plan_blocks *blocks,
                             const struct plan_end *end)
{
    return end->interrupted ? "interrupted"
           : options->limits.capacity != 0 && fits(options, blocks, &end->outcome)
               ? "it fits"
               : "the time limit";
}

static void print_json(const struct options *options, const struct plan_blocks *blocks,
                       const struct plan_end *end)
{
    const struct plan_outcome *outcome = &end->outcome;
    struct json_line line;
    json_begin(&line, stdout);
    json_string(&line, "trace", options->path);
    json_count(&line, "blocks", blocks->count);
    json_count(&line, "alignment", blocks->unit);
    json_count(&line, "peak_bytes", outcome->peak * blocks->unit);
    json_count(&line, "lower_bound_bytes", outcome->bound * blocks->unit);
    json_number(&line, "ratio", ratio_of(outcome), 4);
    json_boolean(&line, "optimal", outcome->peak <= outcome->bound);
    json_number(&line, "seconds", end->seconds, 3);
    json_end(&line);
}

static void print_lines(const struct options *options, const struct plan_blocks *blocks,
                        const struct plan_end *end)
{
    char text[32];
    const struct plan_outcome *outcome = &end->outcome;
    uint64_t peak = outcome->peak * blocks->unit, bound = outcome->bound * blocks->unit;
    printf("%s: %" PRIu32 " blocks, alignment %" PRIu64, options->path, blocks->count,
           blocks->unit);
    if (blocks->left_out != 0)
        printf(" (%" PRIu64 " smaller ones left out)", blocks->left_out);
    printf("\n  peak         %" PRIu64 " bytes (%s)\n", peak,
           tool_format_bytes(peak, text, sizeof text));
    printf("  lower bound  %" PRIu64 " bytes (%s)\n", bound,
           tool_format_bytes(bound, text, sizeof text));
    printf("  ratio        %.4f\n", ratio_of(outcome));
    if (outcome->peak <= outcome->bound) {
        printf("  optimal      yes, proven\n");
    } else {
        printf("  optimal      not proven: %s\n", reason_of(options, blocks, end));
    }
    printf("  time         %.3f s\n", end->seconds);
}

static void tell_unfit(const struct options *options, const struct plan_blocks *blocks,
                       const struct plan_outcome *outcome)
{
    uint64_t peak = outcome->peak * blocks->unit, bound = outcome->bound * blocks->unit;
    uint64_t capacity = options->limits.capacity;
    if (bound > capacity) {
        tool_error(SUB, "%s: no plan fits into %" PRIu64 " bytes: %" PRIu64 " are needed at least",
                   options->path, capacity, bound);
    } else {
        tool_error(SUB,
                   "%s: no plan within %" PRIu64 " bytes was found, the lowest has %" PRIu64
                   ": allow more with --capacity or --time-limit",
                   options->path, capacity, peak);
    }
}

static int plan_blocks(const struct options *options, struct plan_blocks *blocks)
{
    struct plan_end end;
    if (plan_pieces(blocks, &options->limits, &end) != 0) {
        tool_error(SUB, "%s: no memory to plan it: leave out small blocks with --min-size",
                   options->path);
        return TOOL_FAILED;
    }
    if (!judge(options, blocks, end.outcome.peak))
        return TOOL_FAILED;
    if (!fits(options, blocks, &end.outcome)) {
        tell_unfit(options, blocks, &end.outcome);
        return TOOL_FAILED;
    }
    if (!write_outputs(options, blocks, &end.outcome))
        return TOOL_FAILED;
    if (options->json) {
        print_json(options, blocks, &end);
    } else {
        print_lines(options, blocks, &end);
    }
    return TOOL_FINE;
}

int plan_main(int argc, char **argv)
{
    struct options options = {.limits.seconds = DEFAULT_TIME_LIMIT};
    struct plan_blocks blocks;
    char why[4400];
    int result = read_options(argc, argv, &options);
    if (result >= 0)
        return result;
    if (plan_input_read(options.path, &options.input, &blocks, why, sizeof why) != 0) {
        tool_error(SUB, "%s", why);
        return TOOL_FAILED;
    }
    result = plan_blocks(&options, &blocks);
    plan_blocks_release(&blocks);
    return result;
}
