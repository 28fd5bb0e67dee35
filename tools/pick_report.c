/* SPDX-License-Identifier: MIT */
/*
 * What `larder pick` prints: a table and a sentence a trace, what gaps between passes change, and a
 * sentence over all.
 *
 * Rows are sorted by score, best first, so that the place in the table is the answer.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

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

static bool is_before(const struct pick *pick, const struct pick_row *rows, size_t a, size_t b)
{
    bool a_ran = rows[a].sample_count > 0, b_ran = rows[b].sample_count > 0;
    if (pick->backends[a].candidate != pick->backends[b].candidate) {
        return pick->backends[a].candidate;
    }
    return a_ran && b_ran ? rows[a].score < rows[b].score : a_ran && !b_ran;
}

/* The backends, best score first, then the references in the same way. */
static void sort_rows(const struct pick *pick, const struct pick_row *rows, size_t *order)
{
    for (size_t b = 0; b < pick->backend_count; b++) {
        size_t at = b;
        for (; at > 0 && is_before(pick, rows, b, order[at - 1]); at--) {
            order[at] = order[at - 1];
        }
        order[at] = b;
    }
}

static void print_facts(const struct pick *pick, const struct pick_case *one)
{
    char live[32], largest[32], min_size[32];
    printf("%s\n  %zu operations, %zu thread%s recorded, %s live at the peak, largest block %s",
           one->path, one->ops, one->threads, one->threads == 1 ? "" : "s",
           tool_format_bytes(one->facts.peak_live_bytes, live, sizeof live),
           tool_format_bytes(one->facts.largest_bytes, largest, sizeof largest));
    if (pick->options->replay.min_size > 0) {
        printf("; blocks from %s on",
               tool_format_bytes(pick->options->replay.min_size, min_size, sizeof min_size));
    }
    printf("; touch %s", pick->options->replay.touch);
    if (one->gap_ms > 0) {
        printf(", %u ms between passes", one->gap_ms);
    }
    puts("\n");
}

static void print_footprint(const struct pick_case *one, size_t backend)
{
    char bytes[32];
    uint64_t rss = one->rows[backend].median.peak_rss_bytes;
    if (rss == UINT64_MAX) {
        printf("  %10s   %6s ", "unknown", "");
        return;
    }
    printf("  %10s   %5.2fx%c", tool_format_bytes(rss, bytes, sizeof bytes),
           (double)rss / (double)one->facts.peak_live_bytes,
           backend == one->verdict.smallest ? '*' : ' ');
}

static bool is_calmest(const struct pick *pick, const struct pick_case *one, size_t backend)
{
    size_t calmest = one->verdict.calmest;
    return pick->backends[backend].candidate && calmest != PICK_NOBODY &&
           one->rows[backend].median.faults_per_pass <= one->rows[calmest].median.faults_per_pass;
}

static void print_row(const struct pick *pick, const struct pick_case *one, size_t backend,
                      const struct widths *widths)
{
    const struct pick_row *row = &one->rows[backend];
    const struct pick_backend *about = &pick->backends[backend];
    char name[sizeof about->name + 2], interval[48];
    snprintf(name, sizeof name, about->candidate ? "%s" : "(%s)", about->name);
    printf("%c %-*s  %-*s",
           backend == one->verdict.choice   ? '>'
           : row->close && about->candidate ? '='
                                            : ' ',
           widths->name, name, widths->version, about->version);
    if (row->sample_count == 0) {
        puts(row->failed ? "      failed" : "      no time for it");
        return;
    }
    if (row->sample_count == 1) {
        snprintf(interval, sizeof interval, "one run");
    } else {
        snprintf(interval, sizeof interval, "%.1f-%.1f", row->ns_interval.low,
                 row->ns_interval.high);
    }
    printf("  %9.1f%c %-17s %6.2fx  %11.0f%c", row->median.ns_per_op,
           backend == one->verdict.fastest ? '*' : ' ', interval, row->time_ratio,
           row->median.faults_per_pass, is_calmest(pick, one, backend) ? '*' : ' ');
    print_footprint(one, backend);
    puts(row->failed ? "  (a run failed)" : "");
}

static void print_faults_reason(const struct pick *pick, const struct pick_case *one)
{
    const struct pick_verdict *verdict = &one->verdict;
    double faults = one->rows[verdict->choice].median.faults_per_pass;
    double fewest = one->rows[verdict->calmest].median.faults_per_pass;
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

static void print_footprint_reason(const struct pick *pick, const struct pick_case *one)
{
    const struct pick_verdict *verdict = &one->verdict;
    const struct pick_row *row = &one->rows[verdict->choice];
    if (verdict->smallest == PICK_NOBODY) {
        printf("; memory was not compared, since %s", row->median.peak_rss_bytes == UINT64_MAX
                                                          ? "its peak is unknown here"
                                                          : "nothing was touched");
        return;
    }
    double live = (double)one->facts.peak_live_bytes;
    printf(" and %.2f x the live bytes at its peak", (double)row->median.peak_rss_bytes / live);
    if (row->footprint_ratio <= 1.005) {
        printf(" (the smallest)");
    } else {
        printf(" (smallest: %s, %.2f x)", pick->backends[verdict->smallest].name,
               (double)one->rows[verdict->smallest].median.peak_rss_bytes / live);
    }
}

/* " Not told apart from it: a, b." */
static void print_close(const struct pick *pick, const struct pick_row *rows,
                        const struct pick_verdict *verdict)
{
    bool any = false;
    for (size_t b = 0; b < pick->backend_count; b++) {
        if (b != verdict->choice && pick->backends[b].candidate && rows[b].close) {
            printf("%s%s",
                   any ? ", " : " As good, as far as can be told: ", pick->backends[b].name);
            any = true;
        }
    }
    printf("%s", any ? "." : "");
    if (!verdict->tested) {
        printf(" (Too few repetitions for a rank test: scores within 5 %% count as equal.)");
    }
}

/* " If only time counts: a. If memory counts most: b." */
static void print_other_preferences(const struct pick *pick, const struct pick_verdict *verdict)
{
    static const char *const when[] = {"If both count", "If only time counts",
                                       "If memory counts most"};
    bool any = false;
    for (unsigned i = 0; i < PICK_PREFERENCES; i++) {
        if (verdict->by[i] != verdict->choice) {
            printf(" %s: %s.", when[i], pick->backends[verdict->by[i]].name);
            any = true;
        }
    }
    if (!any) {
        printf(" It stays so if only time, or mostly memory, counts.");
    }
}

/* "larder is 2nd of 9 by time, at 1.20 x the fastest" */
static void print_larders_rank(const struct pick *pick, const struct pick_row *rows)
{
    unsigned candidates = 0;
    size_t larder = PICK_NOBODY;
    for (size_t b = 0; b < pick->backend_count; b++) {
        candidates += rows[b].time_rank > 0;
        larder = strcmp(pick->backends[b].name, "larder") == 0 ? b : larder;
    }
    if (larder == PICK_NOBODY || rows[larder].time_rank == 0 || candidates < 2) {
        return;
    }
    printf("  larder is number %u of %u by time, %.2f x the fastest", rows[larder].time_rank,
           candidates, rows[larder].time_ratio);
    if (rows[larder].footprint_ratio > 0) {
        printf(", and at %.2f x the smallest footprint", rows[larder].footprint_ratio);
    }
    puts(".");
}

static void print_sentence(const struct pick *pick, const struct pick_case *one)
{
    const struct pick_verdict *verdict = &one->verdict;
    if (verdict->choice == PICK_NOBODY) {
        puts("  No recommendation: no allocator that could be one ran.\n");
        return;
    }
    const struct pick_row *row = &one->rows[verdict->choice];
    printf("  Use %s: %.1f ns an operation", pick->backends[verdict->choice].name,
           row->median.ns_per_op);
    if (verdict->fastest == verdict->choice) {
        printf(" (the fastest)");
    } else {
        printf(" (fastest: %s, %.1f)", pick->backends[verdict->fastest].name,
               one->rows[verdict->fastest].median.ns_per_op);
    }
    print_faults_reason(pick, one);
    print_footprint_reason(pick, one);
    printf(".");
    print_close(pick, one->rows, verdict);
    print_other_preferences(pick, verdict);
    puts("");
    print_larders_rank(pick, one->rows);
    puts("");
}

void pick_print_case(const struct pick *pick, const struct pick_case *one)
{
    struct widths widths = measure_widths(pick);
    size_t order[PICK_BACKENDS_MAX];
    print_facts(pick, one);
    printf("  %-*s  %-*s  %9s  %-17s %7s  %11s   %10s   %6s\n", widths.name, "allocator",
           widths.version, "version", "ns/op", "of the median", "best", "faults/pass", "peak RSS",
           "/ live");
    sort_rows(pick, one->rows, order);
    for (size_t b = 0; b < pick->backend_count; b++) {
        print_row(pick, one, order[b], &widths);
    }
    puts("\n  > recommended   = as good, as far as can be told   * best   (in brackets) for "
         "comparison, never recommended");
    print_sentence(pick, one);
}

/* --- gaps --------------------------------------------------------------------------------------- */

static void print_gap_cell(const struct pick_row *row)
{
    if (row->sample_count == 0) {
        printf("  %18s", "-");
    } else {
        printf("  %9.1f %8.0f", row->median.ns_per_op, row->median.faults_per_pass);
    }
}

static bool ran_with_any(const struct pick_case *const *with, size_t count, size_t backend)
{
    for (size_t g = 0; g < count; g++) {
        if (with[g]->rows[backend].sample_count > 0) {
            return true;
        }
    }
    return false;
}

static void print_gaps_of(const struct pick *pick, const struct pick_case *main_case,
                          const struct pick_case *const *with, size_t count)
{
    size_t order[PICK_BACKENDS_MAX];
    struct widths widths = measure_widths(pick);
    printf("%s\n  with pauses between passes: ns/op and faults/pass\n\n", main_case->path);
    printf("  %-*s  %15u ms", widths.name, "allocator", main_case->gap_ms);
    for (size_t i = 0; i < count; i++) {
        printf("  %15u ms", with[i]->gap_ms);
    }
    puts("");
    sort_rows(pick, main_case->rows, order);
    for (size_t i = 0; i < pick->backend_count; i++) {
        size_t b = order[i];
        if (!ran_with_any(with, count, b)) {
            continue; /* references wait only with --full */
        }
        printf("  %-*s", widths.name, pick->backends[b].name);
        print_gap_cell(&main_case->rows[b]);
        for (size_t g = 0; g < count; g++) {
            print_gap_cell(&with[g]->rows[b]);
        }
        puts("");
    }
    for (size_t g = 0; g < count; g++) {
        size_t choice = with[g]->verdict.choice;
        if (choice != PICK_NOBODY) {
            printf("%s  With %u ms between passes: %s%s.\n", g == 0 ? "\n" : "", with[g]->gap_ms,
                   choice == main_case->verdict.choice ? "still " : "",
                   pick->backends[choice].name);
        }
    }
    puts("");
}

static bool any_ran(const struct pick *pick, const struct pick_case *one)
{
    for (size_t b = 0; b < pick->backend_count; b++) {
        if (one->rows[b].sample_count > 0) {
            return true;
        }
    }
    return false;
}

void pick_print_gaps(const struct pick *pick)
{
    for (size_t c = 0; c < pick->main_count; c++) {
        const struct pick_case *with[PICK_GAPS_MAX];
        size_t count = 0;
        for (size_t o = pick->main_count; o < pick->case_count; o++) {
            if (pick->cases[o].path == pick->cases[c].path && any_ran(pick, &pick->cases[o])) {
                with[count++] = &pick->cases[o];
            }
        }
        if (count > 0) {
            print_gaps_of(pick, &pick->cases[c], with, count);
        }
    }
}

/* --- over all ----------------------------------------------------------------------------------- */

static void print_rounds(const struct pick *pick)
{
    size_t least = SIZE_MAX, most = 0;
    for (size_t c = 0; c < pick->main_count; c++) {
        for (size_t b = 0; b < pick->backend_count; b++) {
            const struct pick_row *row = &pick->cases[c].rows[b];
            if (row->sample_count > 0 && !row->hopeless) {
                least = row->sample_count < least ? row->sample_count : least;
                most = row->sample_count > most ? row->sample_count : most;
            }
        }
    }
    if (most == 0) {
        return;
    }
    printf("%zu", least);
    if (most > least) {
        printf(" to %zu", most);
    }
    printf(" repetition%s, in random order (seed %" PRIu64 ").\n", most == 1 ? "" : "s",
           pick->options->seed);
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
           pick->main_count, pick->backends[verdict->choice].name, row->time_ratio);
    if (verdict->smallest != PICK_NOBODY) {
        printf(" and %.2f x the memory of its smallest", row->footprint_ratio);
    }
    printf(".");
    print_close(pick, pick->overall_rows, verdict);
    print_other_preferences(pick, verdict);
    puts("");
    print_larders_rank(pick, pick->overall_rows);
    print_rounds(pick);
}

void pick_print_cuts(const struct pick *pick, FILE *out)
{
    if (pick->cut_count == 0) {
        return;
    }
    fprintf(out, "\nCut short by the time limit of %u s:\n", pick->options->time_limit_s);
    for (size_t i = 0; i < pick->cut_count; i++) {
        fprintf(out, "  %s\n", pick->cuts[i]);
    }
    fputs("A longer --time-limit makes up for it; 0 is none.\n", out);
}
