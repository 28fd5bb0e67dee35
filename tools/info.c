/* SPDX-License-Identifier: MIT */
/*
 * `larder info`: what is in a trace, without running it.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <langinfo.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>

#include "census.h"
#include "format.h"
#include "info.h"
#include "json.h"
#include "phases.h"
#include "progress.h"
#include "tool.h"
#include "trace.h"

#define SUB "info"

struct options {
    const char *trace;
    struct trace_options read;
    uint64_t min_size;
    bool json;
    bool ascii;
};

static void print_help(void)
{
    printf(
        "usage: larder info TRACE [OPTION...]\n"
        "\n"
        "Tells what is in a trace: operations, threads, sizes, lifetimes, live bytes over time, "
        "and\n"
        "the inferences. TRACE is in any format that `larder convert --help` lists, plain or\n"
        "compressed with gzip or zstd; - stands for standard input.\n"
        "\n"
        "  --from FORMAT    what TRACE is (default: what it looks like)\n"
        "  --min-size SIZE  leave out blocks smaller than SIZE bytes; takes k, m, g\n"
        "  --repair         where TRACE hands an address out before it notes the free of the "
        "block\n"
        "                   that had it, move that free to before the reuse\n"
        "  --ascii          draw with # only (default: where the locale is not UTF-8)\n"
        "  --json           print one line of JSON instead of lines for people\n"
        "  --help           this text\n"
        "\n"
        "How to read it:\n"
        "  peak live         highest sum of sizes asked for and not freed: no allocator can do "
        "with\n"
        "                    less, whatever it does\n"
        "  exact-size cache  what a cache comes to hold that keeps every freed block for the next\n"
        "                    request of exactly its size\n"
        "  inferences        from the marks that the program set; without any, what repeats\n"
        "  alike             identical: the same operations and sizes as the inference before; "
        "and\n"
        "                    the share of sizes that both ask for\n");
}

enum { OPTION_FROM = 256, OPTION_MIN_SIZE, OPTION_REPAIR, OPTION_JSON, OPTION_ASCII };

static int read_option(struct options *options, int option)
{
    switch (option) {
    case OPTION_FROM:
        options->read.from = optarg;
        return trace_format_named(optarg) != NULL
                   ? TOOL_FINE
                   : tool_usage_error(SUB, "--from: no format '%s'", optarg);
    case OPTION_MIN_SIZE:
        return tool_read_size(optarg, &options->min_size)
                   ? TOOL_FINE
                   : tool_usage_error(SUB, "--min-size takes bytes, such as 1024 or 16k, not '%s'",
                                      optarg);
    case OPTION_REPAIR:
        options->read.repair = true;
        return TOOL_FINE;
    case OPTION_JSON:
        options->json = true;
        return TOOL_FINE;
    default:
        options->ascii = true;
        return TOOL_FINE;
    }
}

/* Returns an exit code, or -1 to go on. */
static int read_options(int argc, char **argv, struct options *options)
{
    static const struct option long_options[] = {
        {"from", required_argument, NULL, OPTION_FROM},
        {"min-size", required_argument, NULL, OPTION_MIN_SIZE},
        {"repair", no_argument, NULL, OPTION_REPAIR},
        {"json", no_argument, NULL, OPTION_JSON},
        {"ascii", no_argument, NULL, OPTION_ASCII},
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
    if (argc - optind != 1) {
        return tool_usage_error(SUB,
                                argc == optind ? "no trace named" : "more than one trace named");
    }
    options->trace = argv[optind];
    return -1;
}

/* -- JSON ---------------------------------------------------------------------------------------- */

static void print_json(const struct info *info)
{
    const struct trace *trace = info->trace;
    const struct census *census = &info->census;
    const char *source = info->phases.source == PHASES_MARKS    ? "marks"
                         : info->phases.source == PHASES_PERIOD ? "period"
                                                                : "none";
    struct json_line line;
    json_begin(&line, stdout);
    json_string(&line, "trace", info->path);
    json_string(&line, "format", trace->format);
    json_count(&line, "operations", trace->op_count);
    json_count(&line, "threads", trace->thread_count);
    json_count(&line, "marks", trace->mark_count);
    json_boolean(&line, "times", trace->times != NULL);
    json_count(&line, "duration_ns", census->last_ns - census->first_ns);
    json_count(&line, "allocations", info->facts.allocations);
    json_count(&line, "reallocations", info->facts.reallocations);
    json_count(&line, "frees", info->facts.frees);
    json_count(&line, "never_freed", info->facts.never_freed);
    json_count(&line, "foreign_frees", census->foreign_frees);
    json_count(&line, "foreign_reallocations", census->foreign_reallocations);
    json_count(&line, "needed_edges", info->needed_edges);
    json_count(&line, "crossings", info->crossings);
    json_count(&line, "peak_live_bytes", info->facts.peak_live_bytes);
    json_count(&line, "peak_live_blocks", info->facts.peak_live_blocks);
    json_count(&line, "exact_cache_bytes", census->exact_cache_bytes);
    json_count(&line, "largest_bytes", info->facts.largest_bytes);
    json_count(&line, "requested_bytes", info->facts.requested_bytes);
    json_count(&line, "distinct_sizes", census->distinct_sizes);
    json_counts(&line, "size_counts", census->size_counts, CENSUS_CLASSES);
    json_counts(&line, "size_bytes", census->size_bytes, CENSUS_CLASSES);
    json_counts(&line, "alignment_counts", census->alignment_counts, 64);
    json_counts(&line, "lifetime_ops", census->lifetime_ops, CENSUS_CLASSES);
    json_counts(&line, "lifetime_ns", census->lifetime_ns, CENSUS_CLASSES);
    json_counts(&line, "live_bytes", info->live_bytes, INFO_COLUMNS);
    json_string(&line, "inferences_from", source);
    json_count(&line, "inferences", info->phases.count);
    if (info->phases.count > 1) {
        json_count(&line, "identical", info->likeness.identical);
        json_number(&line, "sizes_in_common_least", info->likeness.least, 4);
        json_number(&line, "sizes_in_common_median", info->likeness.median, 4);
    }
    json_count(&line, "unknown_frees", trace->notes.unknown_frees);
    json_count(&line, "failed_allocations", trace->notes.failed_allocations);
    json_count(&line, "early_reuses", trace->notes.early_reuses);
    json_count(&line, "repaired", trace->notes.repaired);
    json_end(&line);
}

/* -- The job ------------------------------------------------------------------------------------- */

static int study(struct info *info)
{
    const struct trace *trace = info->trace;
    struct lanes lanes;
    int result = trace_get_facts(trace, &info->facts);
    if (result == 0) {
        result = census_take(trace, &info->census);
    }
    if (result == 0) {
        result = census_live_bytes(trace, info->live_bytes, INFO_COLUMNS);
    }
    if (result == 0) {
        result = lanes_build(trace, &lanes);
    }
    if (result == 0) {
        info->needed_edges = lanes.edge_count;
        info->crossings = lanes.crossings;
        lanes_release(&lanes);
        result = phases_find(trace, &info->phases);
    }
    if (result == 0 && info->phases.count > 1) {
        result = census_compare(trace, &info->phases, &info->likeness);
    }
    return result;
}

static bool is_utf8(void)
{
    return setlocale(LC_CTYPE, "") != NULL && strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
}

static int tell(const struct options *options, struct trace *trace)
{
    static struct info info;
    info = (struct info){.path = options->trace, .trace = trace};
    int result = options->min_size > 0 ? trace_filter_min_size(trace, options->min_size) : 0;
    if (result == 0 && trace->block_count == 0) {
        progress_end();
        tool_error(SUB, "%s: no block has %" PRIu64 " bytes or more: choose a smaller --min-size",
                   options->trace, options->min_size);
        return TOOL_FAILED;
    }
    if (result == 0) {
        result = study(&info);
    }
    progress_end();
    if (result != 0) {
        tool_error(SUB, "%s: no memory to look at it: close other programs", options->trace);
    } else if (options->json) {
        print_json(&info);
    } else {
        info_print(&info, options->ascii || !is_utf8());
    }
    phases_release(&info.phases);
    return result == 0 ? TOOL_FINE : TOOL_FAILED;
}

int info_main(int argc, char **argv)
{
    struct options options = {0};
    struct trace trace;
    char why[512];
    int result = read_options(argc, argv, &options);
    if (result >= 0) {
        return result;
    }
    progress_tell(SUB, "reading", options.trace);
    if (trace_load(options.trace, &options.read, &trace, why, sizeof why) != 0) {
        progress_end();
        tool_error(SUB, "%s", why);
        return TOOL_FAILED;
    }
    result = tell(&options, &trace);
    trace_unload(&trace);
    return result;
}
