/* SPDX-License-Identifier: MIT */
/* What `larder pick` prints: a table and a sentence a trace, a sentence over all, and JSON. */
#include <inttypes.h>
#include <string.h>

#include "json.h"
#include "pick.h"
#include "tool.h"

struct widths {
    int name;
    int version;
};

static int larger(int a, size_t b)
{
    return (size_t)a > b ? a : (int)b;
}

static struct widths measure_widths(const struct pick *pick)
{
    struct widths widths = {.name = 9, .version = 7};
    for (size_t b = 0; b < pick->backend_count; b++) {
        widths.name = larger(widths.name, strlen(pick->backends[b].name) + 2);
        widths.version = larger(widths.version, strlen(pick->backends[b].version));
    }
    return widths;
}

static void print_facts(const struct pick *pick, const struct pick_trace *trace)
{
    char live[32], largest[32], min_size[32];
    printf(
        "%s\n  %zu operations, %zu thread%s replayed on one, %s live at the peak, largest block %s",
        trace->path, trace->ops, trace->threads, trace->threads == 1 ? "" : "s",
        tool_format_bytes(trace->facts.peak_live_bytes, live, sizeof live),
        tool_format_bytes(trace->facts.largest_bytes, largest, sizeof largest));
    if (pick->options->replay.min_size > 0) {
        printf("; blocks from %s on",
               tool_format_bytes(pick->options->replay.min_size, min_size, sizeof min_size));
    }
    printf("; touch %s", pick->options->replay.touch);
    if (pick->options->replay.settings.gap_ms > 0) {
        printf(", %u ms between passes", pick->options->replay.settings.gap_ms);
    }
    puts("\n");
}

static void print_footprint(const struct pick *pick, const struct pick_trace *trace, size_t backend)
{
    char bytes[32];
    uint64_t rss = trace->rows[backend].median.peak_rss_bytes;
    if (rss == UINT64_MAX) {
        printf("  %10s   %6s ", "unknown", "");
        return;
    }
    printf("  %10s   %5.2fx%c", tool_format_bytes(rss, bytes, sizeof bytes),
           (double)rss / (double)trace->facts.peak_live_bytes,
           backend == trace->verdict.smallest ? '*' : ' ');
    (void)pick;
}

static void print_row(const struct pick *pick, const struct pick_trace *trace, size_t backend,
                      const struct widths *widths)
{
    const struct pick_row *row = &trace->rows[backend];
    const struct pick_backend *about = &pick->backends[backend];
    char name[sizeof about->name + 2];
    snprintf(name, sizeof name, about->candidate ? "%s" : "(%s)", about->name);
    printf("%c %-*s  %-*s", backend == trace->verdict.choice ? '>' : ' ', widths->name, name,
           widths->version, about->version);
    if (row->sample_count == 0) {
        puts("      failed");
        return;
    }
    printf("  %9.1f%c  %11.0f%c", row->median.ns_per_op,
           backend == trace->verdict.fastest ? '*' : ' ', row->median.faults_per_pass,
           about->candidate && trace->verdict.calmest != PICK_NOBODY &&
                   row->median.faults_per_pass <=
                       trace->rows[trace->verdict.calmest].median.faults_per_pass
               ? '*'
               : ' ');
    print_footprint(pick, trace, backend);
    puts(row->failed ? "  (a run failed)" : "");
}

/* "larder-exact comes within 3 % of it." */
static void print_runner_up(const struct pick *pick, const struct pick_row *rows,
                            const struct pick_verdict *verdict)
{
    if (verdict->runner_up == PICK_NOBODY) {
        return;
    }
    double behind = rows[verdict->runner_up].score / rows[verdict->choice].score - 1;
    if (behind < 0) {
        printf(" %s does as well, with more faults.", pick->backends[verdict->runner_up].name);
    } else {
        printf(" %s is within %.0f %% of it.", pick->backends[verdict->runner_up].name,
               behind < 0.01 ? 1.0 : behind * 100);
    }
}

static void print_faults_reason(const struct pick *pick, const struct pick_trace *trace)
{
    const struct pick_verdict *verdict = &trace->verdict;
    double faults = trace->rows[verdict->choice].median.faults_per_pass;
    double fewest = trace->rows[verdict->calmest].median.faults_per_pass;
    if (faults < 0.5) {
        printf(", no page faults");
    } else {
        printf(", %.0f page fault%s a pass", faults, faults < 1.5 ? "" : "s");
        if (fewest < faults) {
            printf(" (fewest: %s, %.0f)", pick->backends[verdict->calmest].name, fewest);
        } else {
            printf(" (the fewest)");
        }
    }
}

static void print_footprint_reason(const struct pick *pick, const struct pick_trace *trace)
{
    const struct pick_verdict *verdict = &trace->verdict;
    const struct pick_row *row = &trace->rows[verdict->choice];
    if (verdict->smallest == PICK_NOBODY) {
        printf("; memory was not compared, since %s", row->median.peak_rss_bytes == UINT64_MAX
                                                          ? "its peak is unknown here"
                                                          : "nothing was touched");
        return;
    }
    double live = (double)trace->facts.peak_live_bytes;
    printf(" and %.2f x the live bytes at its peak", (double)row->median.peak_rss_bytes / live);
    if (row->footprint_ratio <= 1.005) {
        printf(" (the smallest)");
    } else {
        printf(" (smallest: %s, %.2f x)", pick->backends[verdict->smallest].name,
               (double)trace->rows[verdict->smallest].median.peak_rss_bytes / live);
    }
}

static void print_sentence(const struct pick *pick, const struct pick_trace *trace)
{
    const struct pick_verdict *verdict = &trace->verdict;
    if (verdict->choice == PICK_NOBODY) {
        puts("  No recommendation: no allocator that could be one ran.\n");
        return;
    }
    const struct pick_row *row = &trace->rows[verdict->choice];
    printf("  Use %s: %.1f ns an operation", pick->backends[verdict->choice].name,
           row->median.ns_per_op);
    if (verdict->fastest == verdict->choice) {
        printf(" (the fastest)");
    } else {
        printf(" (fastest: %s, %.1f)", pick->backends[verdict->fastest].name,
               trace->rows[verdict->fastest].median.ns_per_op);
    }
    print_faults_reason(pick, trace);
    print_footprint_reason(pick, trace);
    printf(".");
    print_runner_up(pick, trace->rows, verdict);
    puts("\n");
}

void pick_print_trace(const struct pick *pick, const struct pick_trace *trace)
{
    struct widths widths = measure_widths(pick);
    print_facts(pick, trace);
    printf("  %-*s  %-*s  %9s   %11s   %10s   %6s\n", widths.name, "allocator", widths.version,
           "version", "ns/op", "faults/pass", "peak RSS", "/ live");
    for (size_t b = 0; b < pick->backend_count; b++) {
        print_row(pick, trace, b, &widths);
    }
    puts("\n  > recommended   * best   (in brackets) for comparison, never recommended");
    print_sentence(pick, trace);
}

void pick_print_overall(const struct pick *pick)
{
    const struct pick_verdict *verdict = &pick->overall;
    if (verdict->choice == PICK_NOBODY) {
        puts("Over all traces: no recommendation, since no allocator ran on every one.");
        return;
    }
    const struct pick_row *row = &pick->overall_rows[verdict->choice];
    printf("Over all %zu traces: use %s, on average %.2f x the time of each trace's fastest",
           pick->options->trace_count, pick->backends[verdict->choice].name, row->time_ratio);
    if (verdict->smallest != PICK_NOBODY) {
        printf(" and %.2f x the memory of its smallest", row->footprint_ratio);
    }
    printf(".");
    print_runner_up(pick, pick->overall_rows, verdict);
    if (verdict->fastest != verdict->choice) {
        printf(" If only time counts: %s (%.2f x).", pick->backends[verdict->fastest].name,
               pick->overall_rows[verdict->fastest].time_ratio);
    }
    if (verdict->smallest != PICK_NOBODY && verdict->smallest != verdict->choice) {
        printf(" If only memory counts: %s (%.2f x).", pick->backends[verdict->smallest].name,
               pick->overall_rows[verdict->smallest].footprint_ratio);
    }
    puts("");
}

static void print_json_row(const struct pick *pick, const struct pick_trace *trace, size_t backend,
                           FILE *out)
{
    const struct pick_row *row = &trace->rows[backend];
    struct json_line line;
    json_begin(&line, out);
    json_string(&line, "trace", trace->path);
    json_string(&line, "backend", pick->backends[backend].name);
    json_string(&line, "version", pick->backends[backend].version);
    json_string(&line, "policy", row->policy);
    json_count(&line, "threads", 1);
    json_string(&line, "touch", pick->options->replay.touch);
    json_count(&line, "gap_ms", pick->options->replay.settings.gap_ms);
    json_count(&line, "min_size", pick->options->replay.min_size);
    json_count(&line, "repetitions", row->sample_count);
    json_count(&line, "passes", row->median.passes);
    json_count(&line, "ops_per_pass", row->median.ops_per_pass);
    json_number(&line, "ns_per_op", row->median.ns_per_op, 2);
    json_number(&line, "ns_per_op_min", row->median.ns_per_op_min, 2);
    json_number(&line, "ns_per_op_max", row->median.ns_per_op_max, 2);
    json_number(&line, "faults_per_pass", row->median.faults_per_pass, 1);
    json_count(&line, "peak_rss_bytes", row->median.peak_rss_bytes);
    json_count(&line, "peak_live_bytes", trace->facts.peak_live_bytes);
    json_count(&line, "held_bytes", row->median.held_bytes);
    json_count(&line, "peak_held_bytes", row->median.peak_held_bytes);
    if (trace->verdict.choice != PICK_NOBODY) {
        json_number(&line, "score", row->score, 4);
    }
    json_boolean(&line, "candidate", pick->backends[backend].candidate);
    json_boolean(&line, "recommended", backend == trace->verdict.choice);
    json_boolean(&line, "recommended_overall", backend == pick->overall.choice);
    json_end(&line);
}

void pick_print_json(const struct pick *pick, FILE *out)
{
    for (size_t t = 0; t < pick->options->trace_count; t++) {
        for (size_t b = 0; b < pick->backend_count; b++) {
            if (pick->traces[t].rows[b].sample_count > 0) {
                print_json_row(pick, &pick->traces[t], b, out);
            }
        }
    }
}
