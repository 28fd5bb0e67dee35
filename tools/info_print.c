/* SPDX-License-Identifier: MIT */
/* `larder info` for people: figures, bars and a chart. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "info.h"
#include "labels.h"
#include "tool.h"

#define CHART_ROWS 8u
#define BAR_CELLS 30u

/* A bar of `value` out of `most`, in eighths of a cell where characters allow. */
static void print_bar(uint64_t value, uint64_t most, unsigned cells, bool ascii)
{
    static const char *const eighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    double filled = most == 0 ? 0 : (double)value / (double)most * cells;
    unsigned whole = (unsigned)filled;
    for (unsigned i = 0; i < whole; i++) {
        fputs(ascii ? "#" : "█", stdout);
    }
    unsigned part = (unsigned)((filled - whole) * 8);
    if (!ascii) {
        fputs(eighths[part], stdout);
    }
    if (value > 0 && whole == 0 && (ascii || part == 0)) {
        fputs(ascii ? "." : "▏", stdout);
    }
    putchar('\n');
}

static void print_chart(const struct info *info, bool ascii)
{
    static const char *const heights[] = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    uint64_t peak = info->facts.peak_live_bytes;
    char label[32];
    printf("\nlive bytes over time (by operation)\n");
    for (unsigned row = CHART_ROWS; row-- > 0;) {
        bool marked = row == CHART_ROWS - 1 || row == 0;
        tool_format_bytes(row == 0 ? 0 : peak, label, sizeof label);
        printf("%10s %s", marked ? label : "", ascii ? "|" : "│");
        for (unsigned i = 0; i < INFO_COLUMNS; i++) {
            double height =
                peak == 0 ? 0 : (double)info->live_bytes[i] / (double)peak * CHART_ROWS - row;
            unsigned eighths = height <= 0 ? 0 : height >= 1 ? 8 : (unsigned)(height * 8);
            fputs(ascii ? (eighths >= 4 ? "#" : " ") : heights[eighths], stdout);
        }
        putchar('\n');
    }
}

static void print_classes(const char *title, const char *unit, const uint64_t *counts, bool ascii)
{
    uint64_t most = 0;
    unsigned first = CENSUS_CLASSES, last = 0;
    for (unsigned i = 0; i < CENSUS_CLASSES; i++) {
        most = counts[i] > most ? counts[i] : most;
        first = counts[i] > 0 && i < first ? i : first;
        last = counts[i] > 0 ? i : last;
    }
    if (most == 0) {
        return;
    }
    printf("\n%s\n", title);
    for (unsigned i = first; i <= last; i++) {
        char from[32];
        uint64_t value = i == 0 ? 0 : UINT64_C(1) << (i - 1);
        if (unit[0] == 'B') {
            tool_format_bytes(value, from, sizeof from);
        } else if (unit[0] == 'n' && value >= 10000000) {
            snprintf(from, sizeof from, "%" PRIu64 " ms", value / 1000000);
        } else if (unit[0] == 'n' && value >= 10000) {
            snprintf(from, sizeof from, "%" PRIu64 " us", value / 1000);
        } else {
            snprintf(from, sizeof from, "%" PRIu64 "%s", value, unit[0] == 'n' ? " ns" : "");
        }
        printf("%12s %10" PRIu64 " ", from, counts[i]);
        print_bar(counts[i], most, BAR_CELLS, ascii);
    }
}

static void print_threads(const struct info *info)
{
    const struct trace *trace = info->trace;
    const char *name = labels_thread_name(trace, 0);
    printf("threads    %zu", trace->thread_count);
    if (trace->thread_count == 1 && name[0] != '\0') {
        printf(" (%s)", name);
    }
    printf("; %" PRIu64 " frees and %" PRIu64 " reallocations of another thread's block",
           info->census.foreign_frees, info->census.foreign_reallocations);
    printf("\n           %zu waits between threads are needed of %zu in a parallel replay\n",
           info->needed_edges, info->crossings);
}

static void print_alignments(const struct info *info)
{
    const uint64_t *counts = info->census.alignment_counts;
    printf("alignment  %" PRIu64 " ask for none", counts[0]);
    for (unsigned i = 1; i < 64; i++) {
        char bytes[32];
        if (counts[i] > 0) {
            printf(", %" PRIu64 " for %s", counts[i],
                   tool_format_bytes(UINT64_C(1) << i, bytes, sizeof bytes));
        }
    }
    putchar('\n');
}

static void print_memory(const struct info *info)
{
    char peak[32], cache[32], largest[32];
    uint64_t live = info->facts.peak_live_bytes;
    printf("peak live  %s in %" PRIu64 " blocks: the least that any allocator needs\n",
           tool_format_bytes(live, peak, sizeof peak), info->facts.peak_live_blocks);
    printf("exact-size cache would come to hold %s, %.2f x the peak\n",
           tool_format_bytes(info->census.exact_cache_bytes, cache, sizeof cache),
           live > 0 ? (double)info->census.exact_cache_bytes / (double)live : 0);
    printf("sizes      %" PRIu64 " different, the largest %s\n", info->census.distinct_sizes,
           tool_format_bytes(info->facts.largest_bytes, largest, sizeof largest));
}

static void print_phases(const struct info *info)
{
    const struct phases *phases = &info->phases;
    if (phases->count == 0) {
        puts("inferences none found: no marks, and nothing repeats for long");
        return;
    }
    uint32_t shortest = UINT32_MAX, longest = 0;
    for (size_t i = 0; i < phases->count; i++) {
        uint32_t length = phases->phases[i].end - phases->phases[i].begin;
        shortest = length < shortest ? length : shortest;
        longest = length > longest ? length : longest;
    }
    printf("inferences %zu, %s, of %" PRIu32, phases->count,
           phases->source == PHASES_MARKS ? "by marks" : "found by period", shortest);
    if (longest != shortest) {
        printf(" to %" PRIu32, longest);
    }
    puts(" operations");
    if (phases->count > 1) {
        printf("alike      %zu of %zu identical to the one before; sizes in common %.1f %% in the "
               "median, %.1f %% at least\n",
               info->likeness.identical, phases->count - 1, info->likeness.median * 100,
               info->likeness.least * 100);
    }
}

static void print_labels(const struct trace *trace)
{
    const char *at = trace->labels;
    const char *end = at == NULL ? NULL : at + trace->label_bytes;
    while (at != end) {
        const char *equals = memchr(at, '=', (size_t)(end - at));
        const char *line_end = memchr(at, '\n', (size_t)(end - at));
        printf("label      %.*s: %.*s\n", (int)(equals - at), at, (int)(line_end - equals - 1),
               equals + 1);
        at = line_end + 1;
    }
}

static void print_note(uint64_t count, const char *text)
{
    if (count > 0) {
        printf("note       %" PRIu64 " %s\n", count, text);
    }
}

void info_print(const struct info *info, bool ascii)
{
    const struct trace *trace = info->trace;
    const struct trace_notes *notes = &trace->notes;
    printf("trace      %s (%s)\n", info->path, trace->format);
    print_labels(trace);
    printf("operations %zu: %" PRIu64 " allocations, %" PRIu64 " reallocations, %" PRIu64
           " frees; %" PRIu64 " blocks are never freed\n",
           trace->op_count, info->facts.allocations, info->facts.reallocations, info->facts.frees,
           info->facts.never_freed);
    if (info->census.last_ns > info->census.first_ns) {
        printf("time       %.3f s\n", (double)(info->census.last_ns - info->census.first_ns) / 1e9);
    }
    print_threads(info);
    print_memory(info);
    print_alignments(info);
    print_phases(info);
    print_note(notes->unknown_frees, "frees of blocks from before the recording: left out");
    print_note(notes->failed_allocations, "allocations that failed when recorded: left out");
    print_note(notes->early_reuses - notes->repaired,
               "addresses handed out again before their free: kept as recorded (--repair)");
    print_note(notes->repaired, "addresses handed out again before their free: repaired");
    print_note(notes->small_blocks, "blocks below --min-size: left out");
    print_chart(info, ascii);
    print_classes("allocations by size, from", "B", info->census.size_counts, ascii);
    print_classes("lifetimes in operations, from", "", info->census.lifetime_ops, ascii);
    print_classes("lifetimes in time, from", "ns", info->census.lifetime_ns, ascii);
}
