/* SPDX-License-Identifier: MIT */
/*
 * The replays of `larder pick`: which, how long, in which order, and until when.
 *
 * Each replay has a process of its own; they run one after the other. They come in rounds. A round has all
 * allocators on all cases once, in an order that is drawn anew each time from a seed that is printed: a
 * machine that slows down for a while hits everybody, and no allocator always follows the same one.
 *
 * First all are tried (pick_trial.c); then there are as many rounds as a rank test needs to tell them
 * apart, and passes to fill the time (pick_pace.h).
 *
 * With a time limit, nothing goes on past it: no replay is begun that should not end in time, and one
 * that does not is killed. What was wanted and did not fit is noted (pick_note_cut()) and printed with
 * the results. In this order: pauses between passes, repetitions, traces. What no round reached keeps the
 * figures of its trial.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "child.h"
#include "measure.h"
#include "pick.h"
#include "pick_plan.h"
#include "pick_replay.h"
#include "tool.h"

#define SUB "pick"

/* Rounds: 2 of 12870 ways to deal 8 and 8 apart are the extremes, enough for 300 tests at once. */
#define ROUNDS 8
#define ROUNDS_OF_GAPS 4
#define ROUNDS_FULL 9
/* Of the time limit, for the report. */
#define SHARE_OF_REPORT 0.15
#define REPORT_NS_MOST 45e9

/* --- the clock ---------------------------------------------------------------------------------- */

double pick_elapsed_ns(const struct pick *pick)
{
    return (double)(measure_now_ns() - pick->started_ns);
}

double pick_time_left_ns(const struct pick *pick)
{
    unsigned limit = pick->options->time_limit_s;
    return limit > 0 ? 1e9 * limit - pick_elapsed_ns(pick) : (double)INFINITY;
}

void pick_note_cut(struct pick *pick, const char *format, ...)
{
    va_list arguments;
    if (pick->cut_count < PICK_CUTS_MAX) {
        va_start(arguments, format);
        vsnprintf(pick->cuts[pick->cut_count], sizeof pick->cuts[0], format, arguments);
        va_end(arguments);
        pick->cut_count++;
    }
}

static double replays_left_ns(const struct pick_plan *plan)
{
    return plan->replays_ns - pick_elapsed_ns(plan->pick);
}

/* When replays have to have ended. */
static double replays_end(const struct pick_options *options)
{
    double limit = 1e9 * options->time_limit_s;
    if (options->time_limit_s == 0) {
        return (double)INFINITY;
    }
    return options->html != NULL ? limit - fmin(REPORT_NS_MOST, SHARE_OF_REPORT * limit) : limit;
}

/* --- one replay --------------------------------------------------------------------------------- */

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

void pick_show_progress(const struct pick_plan *plan, const struct pick_case *one, size_t backend,
                        const char *doing)
{
    char gap[32] = "", left[48] = "";
    if (!isatty(STDERR_FILENO)) {
        return;
    }
    if (one->gap_ms > 0) {
        snprintf(gap, sizeof gap, ", %u ms gaps", one->gap_ms);
    }
    if (plan->pick->options->time_limit_s > 0) {
        double seconds = fmax(0, pick_time_left_ns(plan->pick) / 1e9);
        snprintf(left, sizeof left, " %.0f s at most", seconds);
    }
    fprintf(stderr, "\r\033[K[%zu/%zu]%s %s%s%s: %s", plan->done, plan->runs, left, doing,
            base_name(one->path), gap, plan->pick->backends[backend].name);
}

static void clear_progress(void)
{
    if (isatty(STDERR_FILENO)) {
        fputs("\r\033[K", stderr);
    }
}

int pick_run_replay(struct pick_plan *plan, struct pick_case *one, size_t backend, unsigned passes,
                    struct pick_sample *sample)
{
    struct pick_row *row = &one->rows[backend];
    struct pick_replayed replayed;
    double left = replays_left_ns(plan);
    uint64_t most = isfinite(left) ? (uint64_t)fmax(left, 1) : UINT64_MAX;
    int result = pick_replay(plan->pick, one, backend, passes, most, &replayed);
    if (child_interrupted()) {
        return -EINTR;
    }
    clear_progress();
    if (result == -EIO) {
        tool_error(SUB, "%s: %s failed: %s", one->path, plan->pick->backends[backend].name,
                   replayed.why);
        row->failed = true;
        plan->failed = true;
        return 0;
    }
    if (result == 0) {
        *sample = replayed.sample;
        memcpy(row->policy, replayed.policy, sizeof row->policy);
    }
    return result;
}

static int run_cell(struct pick_plan *plan, struct pick_cell *cell)
{
    struct pick_row *row = &cell->of->rows[cell->backend];
    plan->done++;
    pick_show_progress(plan, cell->of, cell->backend, "");
    int result = pick_run_replay(plan, cell->of, cell->backend, cell->pace.passes,
                                 &row->samples[row->sample_count]);
    row->sample_count += result == 0 && !row->failed;
    return result;
}

/* --- the order ---------------------------------------------------------------------------------- */

/* splitmix64 (G. Steele, D. Lea, C. Flood, 2014): any seed will do. */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

void pick_shuffle(struct pick_plan *plan, size_t *numbers, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        size_t j = (size_t)(next_random(&plan->random) % (i + 1));
        numbers[i] = numbers[j];
        numbers[j] = i;
    }
}

/* --- rounds ------------------------------------------------------------------------------------- */

static size_t count_cells(const struct pick_plan *plan, bool with_gap)
{
    size_t count = 0;
    for (size_t i = 0; i < plan->cell_count; i++) {
        count += plan->cells[i].pace.with_gap == with_gap;
    }
    return count;
}

/* Plans the next round, where a plan is wanted: so many passes, or as many as the replay likes, where not. */
static void plan_round(struct pick_plan *plan, struct pace *pace, struct pace_cell *scratch)
{
    const struct pick_options *options = plan->pick->options;
    pace->main_left = pace->main_wanted;
    pace->gap_left = pace->gap_wanted;
    if (options->time_limit_s > 0 && options->replay.settings.passes == 0) {
        for (size_t i = 0; i < plan->cell_count; i++) {
            scratch[i] = plan->cells[i].pace;
        }
        pace->left_ns = replays_left_ns(plan);
        pace_round(pace, scratch, plan->cell_count);
        for (size_t i = 0; i < plan->cell_count; i++) {
            plan->cells[i].pace = scratch[i];
        }
    }
    plan->runs = plan->done + pace->main_left * count_cells(plan, false) +
                 pace->gap_left * count_cells(plan, true);
}

/* Whether a cell should end in time, or there is no saying. */
static bool fits(const struct pick_plan *plan, const struct pace *pace,
                 const struct pick_cell *cell)
{
    double cost = cell->pace.start_ns + cell->pace.pass_ns * (double)cell->pace.passes;
    return cost * pace->slowness <= replays_left_ns(plan);
}

/* All cells of the kinds that have rounds left, once. Returns 0, -EINTR, or -ETIMEDOUT where the clock ended it. */
static int run_round(struct pick_plan *plan, const struct pace *pace, size_t *order,
                     double *expected_ns)
{
    *expected_ns = 0;
    pick_shuffle(plan, order, plan->cell_count);
    for (size_t i = 0; i < plan->cell_count; i++) {
        struct pick_cell *cell = &plan->cells[order[i]];
        unsigned left = cell->pace.with_gap ? pace->gap_left : pace->main_left;
        if (left == 0 || cell->of->rows[cell->backend].failed) {
            continue; /* one failure is enough */
        }
        if (!fits(plan, pace, cell)) {
            return -ETIMEDOUT;
        }
        int result = run_cell(plan, cell);
        if (result != 0) {
            return result;
        }
        *expected_ns += cell->pace.start_ns + cell->pace.pass_ns * (double)cell->pace.passes;
    }
    return 0;
}

/* Rounds until all are done or the time is up. Returns 0 or -EINTR. */
static int run_rounds(struct pick_plan *plan, struct pace *pace, struct pace_cell *scratch,
                      size_t *order)
{
    plan->done = 0;
    for (;;) {
        plan_round(plan, pace, scratch);
        if (pace->main_left + pace->gap_left == 0) {
            return 0;
        }
        double before = pick_elapsed_ns(plan->pick), expected_ns;
        int result = run_round(plan, pace, order, &expected_ns);
        if (result != 0) {
            plan->late = result == -ETIMEDOUT;
            return plan->late ? 0 : result;
        }
        if (expected_ns > 0) {
            /* Half the last round, half those before: loads come and go. */
            double last = (pick_elapsed_ns(plan->pick) - before) / expected_ns;
            pace->slowness = (pace->slowness + last) / 2;
        }
        pace->main_began = true;
        pace->gap_began = pace->gap_began || pace->gap_left > 0;
        pace->main_wanted -= pace->main_left > 0;
        pace->gap_wanted -= pace->gap_left > 0;
    }
}

/* --- what was cut ------------------------------------------------------------------------------- */

/* Takes the trials' figures where no round came to a cell; returns how many. */
static size_t keep_trials(struct pick_plan *plan)
{
    size_t kept = 0;
    for (size_t i = 0; i < plan->cell_count; i++) {
        const struct pick_cell *cell = &plan->cells[i];
        struct pick_row *row = &cell->of->rows[cell->backend];
        if (!cell->pace.with_gap && row->sample_count == 0 && row->cost_ns > 0) {
            row->sample_count = 1;
            kept++;
        }
    }
    return kept;
}

/* How many samples the cells of a kind have: the fewest, and the most. */
static size_t count_rounds(const struct pick_plan *plan, bool with_gap, size_t *most)
{
    size_t least = SIZE_MAX;
    *most = 0;
    for (size_t i = 0; i < plan->cell_count; i++) {
        const struct pick_row *row = &plan->cells[i].of->rows[plan->cells[i].backend];
        if (plan->cells[i].pace.with_gap == with_gap && !row->failed) {
            least = row->sample_count < least ? row->sample_count : least;
            *most = row->sample_count > *most ? row->sample_count : *most;
        }
    }
    return least == SIZE_MAX ? 0 : least;
}

static void note_rounds(struct pick_plan *plan, bool with_gap, unsigned wanted)
{
    size_t most, least = count_rounds(plan, with_gap, &most);
    const char *what = with_gap ? "replays with pauses" : "replays";
    if (count_cells(plan, with_gap) == 0 || least >= wanted) {
        return;
    }
    if (most == 0) {
        pick_note_cut(plan->pick, "%s were left out", what);
    } else if (least == most) {
        pick_note_cut(plan->pick, "%s: %zu repetition%s each instead of %u", what, least,
                      least == 1 ? "" : "s", wanted);
    } else {
        pick_note_cut(plan->pick, "%s: %zu to %zu repetitions each instead of %u", what, least,
                      most, wanted);
    }
}

static void note_cuts(struct pick_plan *plan, unsigned mains, unsigned gaps)
{
    size_t kept = keep_trials(plan);
    note_rounds(plan, false, mains);
    note_rounds(plan, true, gaps);
    if (kept > 0) {
        pick_note_cut(plan->pick, "%zu figures are those of the trial, %d passes long", kept,
                      PICK_TRIAL_PASSES);
    }
}

/* --- all of it ---------------------------------------------------------------------------------- */

static int run_all(struct pick_plan *plan)
{
    const struct pick_options *options = plan->pick->options;
    unsigned mains = options->full ? ROUNDS_FULL : ROUNDS;
    mains = options->repetitions > 0 ? options->repetitions : mains;
    bool planned = options->time_limit_s > 0 && options->replay.settings.passes == 0;
    unsigned gaps = planned && options->repetitions == 0 ? ROUNDS_OF_GAPS : mains;
    struct pace pace = {.slowness = 1, .main_wanted = mains};
    pace.gap_wanted = count_cells(plan, true) > 0 ? gaps : 0;
    struct pace_cell *scratch = calloc(plan->cell_count + 1, sizeof *scratch);
    size_t *order = calloc(plan->cell_count + 1, sizeof *order);
    int result = -1;
    if (scratch == NULL || order == NULL) {
        tool_error(SUB, "no memory for the plan: name fewer traces at once");
    } else {
        result = run_rounds(plan, &pace, scratch, order);
    }
    free(scratch);
    free(order);
    if (result == 0) {
        note_cuts(plan, mains, gaps);
    }
    return result;
}

static bool any_sample(const struct pick *pick)
{
    for (size_t c = 0; c < pick->case_count; c++) {
        for (size_t b = 0; b < pick->backend_count; b++) {
            if (pick->cases[c].rows[b].sample_count > 0) {
                return true;
            }
        }
    }
    return false;
}

int pick_run(struct pick *pick)
{
    const struct pick_options *options = pick->options;
    struct pick_plan plan = {
        .pick = pick, .replays_ns = replays_end(options), .random = options->seed};
    int result = 0;
    if (options->time_limit_s > 0 && options->replay.settings.passes == 0) {
        result = pick_try_all(&plan);
    }
    result = result == 0 ? pick_make_cells(&plan) : result;
    result = result == 0 ? run_all(&plan) : result;
    free(plan.cells);
    if (result == 0 && !plan.failed && !any_sample(pick)) {
        tool_error(SUB, "no replay ended within %u s: give it a longer --time-limit",
                   options->time_limit_s);
        return -1;
    }
    return result == 0 && plan.failed ? -1 : result;
}
