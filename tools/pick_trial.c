/* SPDX-License-Identifier: MIT */
/*
 * The plan of `larder pick`: each allocator is tried for PICK_TRIAL_PASSES on each trace (the best pass
 * counts: in the first one or two the allocator meets the trace), which tells what a pass and a process
 * cost. PICK_HOPELESS times slower than the fastest: that run stays its only one, since it would eat the others'
 * time and nobody will choose it. The rest become cells, an allocator on a case each, that rounds
 * of replays go over.
 */
#include "pick_plan.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "measure.h"
#include "tool.h"

#define SUB "pick"
/* Of the time limit: until then further traces are tried. */
#define SHARE_OF_TRIALS 0.4

/* --- trials ------------------------------------------------------------------------------------- */

/* Returns as pick_run_replay(). */
static int try_one(struct pick_plan *plan, struct pick_case *one, size_t backend)
{
    struct pick_row *row = &one->rows[backend];
    uint64_t begin = measure_now_ns();
    plan->done++;
    pick_show_progress(plan, one, backend, "trying ");
    int result = pick_run_replay(plan, one, backend, PICK_TRIAL_PASSES, &row->samples[0]);
    if (result == 0 && !row->failed) {
        row->cost_ns = (double)(measure_now_ns() - begin);
        row->pass_ns = row->samples[0].ns_per_op_min * (double)row->samples[0].ops_per_pass;
    }
    return result;
}

/* Returns 0 where all allocators were tried, -EINTR, or -ETIMEDOUT. */
static int try_trace(struct pick_plan *plan, struct pick_case *one, double until_ns)
{
    size_t order[PICK_BACKENDS_MAX];
    pick_shuffle(plan, order, plan->pick->backend_count);
    for (size_t i = 0; i < plan->pick->backend_count; i++) {
        if (pick_elapsed_ns(plan->pick) > until_ns) {
            return -ETIMEDOUT;
        }
        int result = try_one(plan, one, order[i]);
        if (result != 0) {
            return result;
        }
    }
    return 0;
}

/* Whoever is much slower than the fastest candidate keeps its one run. */
static void give_up_hopeless(const struct pick_plan *plan, struct pick_case *one)
{
    double fastest = 0;
    for (size_t b = 0; b < plan->pick->backend_count; b++) {
        const struct pick_row *row = &one->rows[b];
        if (plan->pick->backends[b].candidate && row->pass_ns > 0 &&
            (fastest <= 0 || row->pass_ns < fastest)) {
            fastest = row->pass_ns;
        }
    }
    for (size_t b = 0; b < plan->pick->backend_count; b++) {
        struct pick_row *row = &one->rows[b];
        row->hopeless = fastest > 0 && row->pass_ns > PICK_HOPELESS * fastest;
        row->sample_count = row->hopeless ? 1 : 0;
    }
}

/* Traces for whose trials there was no time are left out: all allocators meet the same ones. */
static void leave_traces_out(struct pick_plan *plan, size_t from)
{
    struct pick *pick = plan->pick;
    for (size_t c = from; c < pick->main_count; c++) {
        pick_note_cut(pick, "%s was left out", pick->cases[c].path);
    }
    pick->main_count = pick->case_count = from;
}

/* Returns 0 or -EINTR. */
int pick_try_all(struct pick_plan *plan)
{
    struct pick *pick = plan->pick;
    bool limited = isfinite(plan->replays_ns);
    double until = limited ? SHARE_OF_TRIALS * 1e9 * pick->options->time_limit_s : (double)INFINITY;
    plan->runs = pick->main_count * pick->backend_count;
    for (size_t c = 0; c < pick->main_count; c++) {
        int result = try_trace(plan, &pick->cases[c], c == 0 ? (double)INFINITY : until);
        if (result == -EINTR) {
            return result;
        }
        if (result == -ETIMEDOUT) {
            leave_traces_out(plan, c == 0 ? 1 : c);
        }
        if (c < pick->main_count) {
            give_up_hopeless(plan, &pick->cases[c]);
        }
    }
    return 0;
}

/* --- the cells ---------------------------------------------------------------------------------- */

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

/* The cases with other gaps than the first: the same trace, with rows of their own. */
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
            for (size_t b = 0; b < pick->backend_count; b++) {
                one->rows[b].sample_count = 0;
            }
        }
    }
}

static bool is_main(const struct pick_plan *plan, const struct pick_case *one)
{
    return one < plan->pick->cases + plan->pick->main_count;
}

/* References wait only where --full, or nothing but references, is asked for: pauses are for who may be chosen. */
static bool is_wanted(const struct pick_plan *plan, const struct pick_case *one, size_t backend)
{
    const struct pick *pick = plan->pick;
    bool candidates = false;
    for (size_t b = 0; b < pick->backend_count; b++) {
        candidates = candidates || pick->backends[b].candidate;
    }
    return !one->rows[backend].failed && !one->rows[backend].hopeless &&
           (is_main(plan, one) || pick->options->full || !candidates ||
            pick->backends[backend].candidate);
}

static struct pace_cell pace_of(const struct pick_plan *plan, const struct pick_case *one,
                                size_t backend)
{
    const struct pick_row *row = &one->rows[backend];
    double tried_ns = row->pass_ns + 1e6 * (double)plan->pick->options->gaps[0];
    double start = row->cost_ns - PICK_TRIAL_PASSES * tried_ns;
    return (struct pace_cell){.start_ns = start > 0 ? start : 0,
                              .pass_ns = row->pass_ns + 1e6 * (double)one->gap_ms,
                              .with_gap = !is_main(plan, one),
                              .passes = plan->pick->options->replay.settings.passes};
}

int pick_make_cells(struct pick_plan *plan)
{
    struct pick *pick = plan->pick;
    add_gaps(pick);
    plan->cells = calloc(pick->case_count * pick->backend_count, sizeof *plan->cells);
    if (plan->cells == NULL) {
        tool_error(SUB, "no memory for the plan: name fewer traces at once");
        return -1;
    }
    for (size_t c = 0; c < pick->case_count; c++) {
        for (size_t b = 0; b < pick->backend_count; b++) {
            struct pick_case *one = &pick->cases[c];
            if (is_wanted(plan, one, b)) {
                plan->cells[plan->cell_count++] =
                    (struct pick_cell){.of = one, .backend = b, .pace = pace_of(plan, one, b)};
            }
        }
    }
    return 0;
}
