/* SPDX-License-Identifier: MIT */
/*
 * `larder plan`: places for the blocks of a trace, so that one arena as small as can be serves them all.
 *
 * Where nothing is live, what came before and what comes after are planned apart from each other: each such piece only has
 * to stay within the peak of the worst. The plan is judged (plan_check.h) before anything is said about it or written.
 */
#include "plan.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "json.h"
#include "output.h"
#include "plan_check.h"
#include "plan_file.h"
#include "plan_sort.h"
#include "tool.h"

#define SUB "plan"

enum { DEFAULT_TIME_LIMIT = 20, PROGRESS_EVERY_MS = 200, PROGRESS_AFTER_MS = 1000 };

struct options {
    const char *path, *plan, *drawing;
    struct plan_input_options input;
    unsigned time_limit; /* seconds */
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
        return read_count("--time-limit", optarg, 0, 1000000, &options->time_limit);
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

/* ---- the search, watched ---- */

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal)
{
    (void)signal;
    interrupted = 1;
}

/* Ctrl-C ends the search; a second one ends the program. */
static void catch_interrupts(void)
{
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
}

struct watch {
    uint64_t begun_ms, told_ms, limit_ms;
    uint64_t unit, peak, bound; /* of the piece at hand, in units */
    uint32_t piece, pieces;
    bool on_terminal, has_line;
};

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void show_progress(struct watch *watch, uint64_t now)
{
    char peak[32], bound[32];
    watch->told_ms = now;
    watch->has_line = true;
    fprintf(stderr,
            "\rlarder plan: %3" PRIu64 " s, piece %" PRIu32 " of %" PRIu32
            ", peak %s, lower bound %s\033[K",
            (now - watch->begun_ms) / 1000, watch->piece, watch->pieces,
            tool_format_bytes(watch->peak * watch->unit, peak, sizeof peak),
            tool_format_bytes(watch->bound * watch->unit, bound, sizeof bound));
}

static void end_progress(struct watch *watch)
{
    if (watch->has_line)
        fputs("\r\033[K", stderr);
    watch->has_line = false;
}

static bool should_stop(void *context)
{
    struct watch *watch = context;
    uint64_t now = now_ms();
    if (watch->on_terminal && now - watch->begun_ms >= PROGRESS_AFTER_MS &&
        now - watch->told_ms >= PROGRESS_EVERY_MS) {
        show_progress(watch, now);
    }
    return interrupted || now - watch->begun_ms >= watch->limit_ms;
}

static void note_step(void *context, uint64_t peak, uint64_t bound)
{
    struct watch *watch = context;
    watch->peak = peak;
    watch->bound = bound;
}

/* ---- pieces ---- */

struct piece {
    uint32_t first, count; /* in the order by time */
};

struct planning {
    struct plan_blocks *blocks;
    struct watch watch;
    uint32_t *order; /* items by time of beginning */
    struct piece *pieces;
    struct plan_item *items; /* of one piece */
    void *scratch;
};

static void planning_release(struct planning *planning)
{
    free(planning->order);
    free(planning->pieces);
    free(planning->items);
    free(planning->scratch);
}

/* Cuts the blocks wherever nothing is live; returns the longest piece's count, 0 where there is no memory. */
static uint32_t find_pieces(struct planning *planning)
{
    const struct plan_blocks *blocks = planning->blocks;
    uint64_t *keys = malloc(blocks->count * sizeof *keys);
    planning->order = malloc(blocks->count * sizeof *planning->order);
    planning->pieces = malloc(blocks->count * sizeof *planning->pieces);
    if (keys == NULL || planning->order == NULL || planning->pieces == NULL) {
        free(keys);
        return 0;
    }
    for (uint32_t i = 0; i < blocks->count; i++)
        keys[i] = blocks->items[i].begin;
    plan_sort(planning->order, keys, blocks->count);
    free(keys);
    uint32_t longest = 0, end = 0, pieces = 0;
    for (uint32_t i = 0; i < blocks->count; i++) {
        const struct plan_item *item = &blocks->items[planning->order[i]];
        if (i == 0 || item->begin >= end)
            planning->pieces[pieces++] = (struct piece){i, 0};
        uint32_t count = ++planning->pieces[pieces - 1].count;
        longest = count > longest ? count : longest;
        end = item->end > end ? item->end : end;
    }
    planning->watch.pieces = pieces;
    return longest;
}

static struct plan_outcome plan_piece(struct planning *planning, const struct piece *piece,
                                      uint64_t enough)
{
    struct plan_item *all = planning->blocks->items;
    const uint32_t *order = &planning->order[piece->first];
    const struct plan_search_limits limits = {
        .nodes = planning->watch.limit_ms != 0 ? UINT64_MAX : 0,
        .stop = should_stop,
        .tell = note_step,
        .context = &planning->watch,
    };
    planning->watch.piece++;
    for (uint32_t i = 0; i < piece->count; i++)
        planning->items[i] = all[order[i]];
    struct plan_outcome outcome = plan_best(planning->items, piece->count, PLAN_EFFORT_DEFAULT / 4,
                                            enough, &limits, planning->scratch);
    for (uint32_t i = 0; i < piece->count; i++)
        all[order[i]].offset = planning->items[i].offset;
    return outcome;
}

/* The most that lives at once in any piece. */
static uint64_t live_bound(struct planning *planning)
{
    uint64_t most = 0;
    for (uint32_t p = 0; p < planning->watch.pieces; p++) {
        const struct piece *piece = &planning->pieces[p];
        for (uint32_t i = 0; i < piece->count; i++)
            planning->items[i] = planning->blocks->items[planning->order[piece->first + i]];
        uint64_t live = plan_lower_bound(planning->items, piece->count, planning->scratch);
        most = live > most ? live : most;
    }
    return most;
}

/* Plans the blocks; 0 or -ENOMEM. */
static int plan_all(struct planning *planning, struct plan_outcome *whole)
{
    uint32_t longest = find_pieces(planning);
    if (longest == 0)
        return -ENOMEM;
    planning->items = malloc(longest * sizeof *planning->items);
    planning->scratch = aligned_alloc(64, (plan_search_scratch_bytes(longest) + 63) & ~(size_t)63);
    if (planning->items == NULL || planning->scratch == NULL)
        return -ENOMEM;
    *whole = (struct plan_outcome){.bound = live_bound(planning)};
    for (uint32_t p = 0; p < planning->watch.pieces; p++) {
        uint64_t enough = whole->peak > whole->bound ? whole->peak : whole->bound;
        struct plan_outcome outcome = plan_piece(planning, &planning->pieces[p], enough);
        whole->peak = outcome.peak > whole->peak ? outcome.peak : whole->peak;
        whole->bound = outcome.bound > whole->bound ? outcome.bound : whole->bound;
    }
    end_progress(&planning->watch);
    return 0;
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

static void print_json(const struct options *options, const struct plan_blocks *blocks,
                       const struct plan_outcome *outcome, double seconds)
{
    struct json_line line;
    json_begin(&line, stdout);
    json_string(&line, "trace", options->path);
    json_count(&line, "blocks", blocks->count);
    json_count(&line, "alignment", blocks->unit);
    json_count(&line, "peak_bytes", outcome->peak * blocks->unit);
    json_count(&line, "lower_bound_bytes", outcome->bound * blocks->unit);
    json_number(&line, "ratio", ratio_of(outcome), 4);
    json_boolean(&line, "optimal", outcome->peak <= outcome->bound);
    json_number(&line, "seconds", seconds, 3);
    json_end(&line);
}

static void print_lines(const struct options *options, const struct plan_blocks *blocks,
                        const struct plan_outcome *outcome, double seconds)
{
    char text[32];
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
    printf("  optimal      %s\n", outcome->peak <= outcome->bound ? "yes, proven"
                                  : interrupted                   ? "not proven: interrupted"
                                                : "not proven within the time limit");
    printf("  time         %.3f s\n", seconds);
}

static int plan_blocks(const struct options *options, struct plan_blocks *blocks)
{
    struct planning planning = {.blocks = blocks};
    struct plan_outcome outcome;
    planning.watch = (struct watch){
        .begun_ms = now_ms(),
        .limit_ms = (uint64_t)options->time_limit * 1000,
        .unit = blocks->unit,
        .on_terminal = isatty(STDERR_FILENO) != 0,
    };
    catch_interrupts();
    int result = plan_all(&planning, &outcome);
    double seconds = (double)(now_ms() - planning.watch.begun_ms) / 1000;
    planning_release(&planning);
    if (result != 0) {
        tool_error(SUB, "%s: no memory to plan it: leave out small blocks with --min-size",
                   options->path);
        return TOOL_FAILED;
    }
    if (!judge(options, blocks, outcome.peak) || !write_outputs(options, blocks, &outcome))
        return TOOL_FAILED;
    if (options->json) {
        print_json(options, blocks, &outcome, seconds);
    } else {
        print_lines(options, blocks, &outcome, seconds);
    }
    return TOOL_FINE;
}

int plan_main(int argc, char **argv)
{
    struct options options = {.time_limit = DEFAULT_TIME_LIMIT};
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
