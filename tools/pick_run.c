/* SPDX-License-Identifier: MIT */
/*
 * The replays of `larder pick`: which, how long, in which order.
 *
 * Each replay has a process of its own; they run one after the other. They come in rounds. A round has all
 * allocators on all cases once, in an order that is drawn anew each time from a seed that is printed: a
 * machine that slows down for a while hits everybody, and no allocator always follows the same one.
 *
 * A plan shares the time out. Each allocator is first run for TRIAL_PASSES on each trace (the best pass counts: in the first one
 * or two the allocator meets the trace), untallied,
 * which tells what a pass and a process cost. PICK_HOPELESS times slower than the fastest: that
 * run stays its only one, since it would eat the others' time and nobody will choose it. The rest
 * get as many rounds as a rank test needs to tell them apart, and passes to fill the time: the same time for each
 * replay of a case, so that a slow allocator has fewer passes. Where the user named passes, or wants
 * no limit, there is no plan.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "child.h"
#include "json.h"
#include "measure.h"
#include "pick.h"
#include "pick_run.h"
#include "tool.h"

#define SUB "pick"

/* Rounds: 2 of 12870 ways to deal 8 and 8 apart are the extremes, enough for 300 tests at once. */
#define ROUNDS 8
#define ROUNDS_LEAST 3
#define ROUNDS_OF_GAPS 4
#define ROUNDS_FULL 9
/* Of the time, where some cases have gaps. */
#define SHARE_OF_GAPS 0.35
#define PASSES_LEAST 4
#define TRIAL_PASSES 4
#define PASSES_MOST 2000
#define REPLAY_NS_MOST 1e9

struct cell {
    struct pick_case *of;
    size_t backend;
    unsigned passes; /* 0: as many as the replay likes */
    unsigned rounds;
    double cost_ns; /* of one replay, as far as known */
};

struct plan {
    struct pick *pick;
    struct cell *cells;
    size_t cell_count;
    size_t runs, done;
    uint64_t started_ns, random;
    bool failed;
};

/* The reason in the first line that a child wrote on stderr, without the program's name. */
static const char *first_line(struct child_result *child, const char *subject)
{
    char *text = child->errors;
    char prefix[300];
    snprintf(prefix, sizeof prefix, "larder replay: %s: ", subject);
    char *found = strstr(text, "larder replay: ");
    text = found != NULL ? found : text;
    text[strcspn(text, "\n")] = '\0';
    if (strncmp(text, prefix, strlen(prefix)) == 0) {
        return text + strlen(prefix);
    }
    return found != NULL ? text + strlen("larder replay: ") : text;
}

/* --- which allocators there are ----------------------------------------------------------------- */

int pick_probe_backends(struct pick *pick)
{
    struct child_result child;
    size_t kept = 0;
    for (size_t b = 0; b < pick->backend_count; b++) {
        struct pick_backend *backend = &pick->backends[b];
        const char *const argv[] = {"larder",      "replay",  "--backend",
                                    backend->name, "--probe", NULL};
        int result = child_run(argv, &child);
        if (result == -EINTR) {
            return TOOL_FAILED; /* the caller sees to it */
        }
        if (result != 0) {
            tool_error(SUB, "a replay could not be started: %s", strerror(-result));
            return TOOL_FAILED;
        }
        if (child.exit_code != 0) {
            tool_error(SUB, "%s left out: %s", backend->name,
                       child.exit_code < 0 ? strsignal(child.signal)
                                           : first_line(&child, backend->name));
            continue;
        }
        /* "NAME VERSION" */
        child.output[strcspn(child.output, "\n")] = '\0';
        snprintf(backend->version, sizeof backend->version, "%s",
                 child.output + strlen(backend->name) + 1);
        pick->backends[kept++] = *backend;
    }
    pick->backend_count = kept;
    if (kept == 0) {
        tool_error(SUB, "none of the allocators can be had here");
        return TOOL_FAILED;
    }
    return -1;
}

/* --- one replay --------------------------------------------------------------------------------- */

static bool read_sample(const char *text, struct pick_sample *sample)
{
    return json_get_number(text, "ns_per_op", &sample->ns_per_op) &&
           json_get_number(text, "ns_per_op_min", &sample->ns_per_op_min) &&
           json_get_number(text, "ns_per_op_max", &sample->ns_per_op_max) &&
           json_get_number(text, "faults_per_pass", &sample->faults_per_pass) &&
           json_get_count(text, "peak_rss_bytes", &sample->peak_rss_bytes) &&
           json_get_count(text, "held_bytes", &sample->held_bytes) &&
           json_get_count(text, "peak_held_bytes", &sample->peak_held_bytes) &&
           json_get_count(text, "passes", &sample->passes) &&
           json_get_count(text, "threads", &sample->threads) &&
           json_get_count(text, "ops_per_pass", &sample->ops_per_pass);
}

static void show_progress(const struct plan *plan, const struct cell *cell, const char *doing)
{
    char gap[32] = "";
    if (!isatty(STDERR_FILENO)) {
        return;
    }
    if (cell->of->gap_ms > 0) {
        snprintf(gap, sizeof gap, ", %u ms gaps", cell->of->gap_ms);
    }
    fprintf(stderr, "\r\033[K[%zu/%zu] %s%s%s: %s", plan->done, plan->runs, doing, cell->of->path,
            gap, plan->pick->backends[cell->backend].name);
}

static void clear_progress(void)
{
    if (isatty(STDERR_FILENO)) {
        fputs("\r\033[K", stderr);
    }
}

/* Runs one replay and returns its figures; a failure is told and noted. Returns 0 or -EINTR. */
static int run_replay(struct plan *plan, struct cell *cell, unsigned passes,
                      struct pick_sample *sample)
{
    const char *name = plan->pick->backends[cell->backend].name;
    struct pick_case *one = cell->of;
    struct pick_row *row = &one->rows[cell->backend];
    struct replay_options options = plan->pick->options->replay;
    struct child_result child;
    struct replay_arguments arguments;
    const char *argv[5 + REPLAY_ARGUMENTS_MAX + 3] = {"larder", "replay", "--backend", name,
                                                      "--json"};
    size_t argc = 5;
    options.settings.gap_ms = one->gap_ms;
    options.settings.passes = passes;
    replay_options_to_arguments(&options, &arguments);
    memcpy(argv + argc, arguments.words, arguments.count * sizeof arguments.words[0]);
    argc += arguments.count;
    argv[argc++] = "--";
    argv[argc++] = one->path;
    int result = child_run(argv, &child);
    if (result == -EINTR) {
        return result;
    }
    if (result != 0 || child.exit_code != 0 || !read_sample(child.output, sample)) {
        clear_progress();
        tool_error(SUB, "%s: %s failed: %s", one->path, name,
                   result != 0           ? strerror(-result)
                   : child.exit_code < 0 ? strsignal(child.signal)
                                         : first_line(&child, one->path));
        row->failed = true;
        plan->failed = true;
        return 0;
    }
    json_get_string(child.output, "policy", row->policy, sizeof row->policy);
    return 0;
}

static int run_cell(struct plan *plan, struct cell *cell)
{
    struct pick_row *row = &cell->of->rows[cell->backend];
    plan->done++;
    show_progress(plan, cell, "");
    int result = run_replay(plan, cell, cell->passes, &row->samples[row->sample_count]);
    row->sample_count += result == 0 && !row->failed;
    clear_progress();
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

static void shuffle(struct plan *plan)
{
    for (size_t i = plan->cell_count; i > 1; i--) {
        size_t j = (size_t)(next_random(&plan->random) % i);
        struct cell swapped = plan->cells[i - 1];
        plan->cells[i - 1] = plan->cells[j];
        plan->cells[j] = swapped;
    }
}

/* --- the plan ----------------------------------------------------------------------------------- */

static bool is_main(const struct plan *plan, const struct cell *cell)
{
    return cell->of < plan->pick->cases + plan->pick->main_count;
}

/* The main case of the same trace. */
static struct pick_case *main_case_of(const struct plan *plan, struct pick_case *one)
{
    if (one < plan->pick->cases + plan->pick->main_count) {
        return one;
    }
    for (size_t c = 0; c < plan->pick->main_count; c++) {
        if (strcmp(plan->pick->cases[c].path, one->path) == 0) {
            return &plan->pick->cases[c];
        }
    }
    return NULL;
}

static int try_cell(struct plan *plan, struct cell *cell)
{
    struct pick_row *row = &cell->of->rows[cell->backend];
    uint64_t begin = measure_now_ns();
    plan->done++;
    show_progress(plan, cell, "trying ");
    int result = run_replay(plan, cell, TRIAL_PASSES, &row->samples[0]);
    clear_progress();
    if (result == 0 && !row->failed) {
        row->cost_ns = (double)(measure_now_ns() - begin);
        row->pass_ns = row->samples[0].ns_per_op_min * (double)row->samples[0].ops_per_pass;
    }
    return result;
}

/* Whoever is much slower than the fastest candidate keeps its one run. */
static void give_up_hopeless(struct plan *plan, struct pick_case *one)
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

static double replay_cost(const struct plan *plan, const struct cell *cell, unsigned passes)
{
    const struct pick_row *row = &main_case_of(plan, cell->of)->rows[cell->backend];
    double start = row->cost_ns - TRIAL_PASSES * row->pass_ns;
    double pass = row->pass_ns + 1e6 * (double)cell->of->gap_ms;
    return (start > 0 ? start : 0) + pass * (double)passes;
}

static unsigned passes_in(const struct plan *plan, const struct cell *cell, double slot_ns)
{
    const struct pick_row *row = &main_case_of(plan, cell->of)->rows[cell->backend];
    double passes = slot_ns / (row->pass_ns + 1e6 * (double)cell->of->gap_ms + 1);
    return passes < PASSES_LEAST  ? PASSES_LEAST
           : passes > PASSES_MOST ? PASSES_MOST
                                  : (unsigned)passes;
}

/* What a round of the main cells, or of the others, costs with replays of that length. */
static double round_cost(const struct plan *plan, bool main_cells, double slot_ns)
{
    double sum = 0;
    for (size_t i = 0; i < plan->cell_count; i++) {
        const struct cell *cell = &plan->cells[i];
        if (is_main(plan, cell) == main_cells) {
            sum += replay_cost(plan, cell, passes_in(plan, cell, slot_ns));
        }
    }
    return sum;
}

/* Sets rounds and passes of the main cells, or of the others, to fill `share_ns`. */
static void share_out(struct plan *plan, bool main_cells, double share_ns, unsigned wanted)
{
    double low = 0, high = REPLAY_NS_MOST;
    double least = round_cost(plan, main_cells, 0);
    unsigned rounds = wanted;
    if (plan->pick->options->repetitions > 0) {
        rounds = plan->pick->options->repetitions;
    } else if (least * rounds > share_ns) {
        rounds = (unsigned)(share_ns / least);
        rounds = rounds < ROUNDS_LEAST ? ROUNDS_LEAST : rounds;
    }
    for (int step = 0; step < 40; step++) {
        double middle = (low + high) / 2;
        if (round_cost(plan, main_cells, middle) * rounds <= share_ns) {
            low = middle;
        } else {
            high = middle;
        }
    }
    for (size_t i = 0; i < plan->cell_count; i++) {
        struct cell *cell = &plan->cells[i];
        if (is_main(plan, cell) == main_cells) {
            cell->rounds = rounds;
            cell->passes = passes_in(plan, cell, low);
            cell->cost_ns = replay_cost(plan, cell, cell->passes);
        }
    }
}

/* Takes cells out whose allocator failed, or is hopeless, on the trace. */
static void drop_cells(struct plan *plan)
{
    size_t kept = 0;
    for (size_t i = 0; i < plan->cell_count; i++) {
        const struct pick_row *row =
            &main_case_of(plan, plan->cells[i].of)->rows[plan->cells[i].backend];
        if (!row->failed && !row->hopeless) {
            plan->cells[kept++] = plan->cells[i];
        }
    }
    plan->cell_count = kept;
}

/* Returns 0 or -EINTR. */
static int make_plan(struct plan *plan)
{
    struct pick *pick = plan->pick;
    plan->runs = pick->main_count * pick->backend_count;
    shuffle(plan);
    for (size_t i = 0; i < plan->cell_count; i++) {
        if (is_main(plan, &plan->cells[i]) && try_cell(plan, &plan->cells[i]) != 0) {
            return -EINTR;
        }
    }
    for (size_t c = 0; c < pick->main_count; c++) {
        give_up_hopeless(plan, &pick->cases[c]);
    }
    drop_cells(plan);
    double left = 1e9 * pick->options->time_s - (double)(measure_now_ns() - plan->started_ns);
    double gaps = pick->case_count > pick->main_count ? SHARE_OF_GAPS : 0;
    left = left > 0 ? left : 0;
    share_out(plan, true, left * (1 - gaps), ROUNDS);
    share_out(plan, false, left * gaps, ROUNDS_OF_GAPS);
    return 0;
}

static void plan_without_limit(struct plan *plan)
{
    const struct pick_options *options = plan->pick->options;
    unsigned rounds = options->full ? ROUNDS_FULL : ROUNDS;
    for (size_t i = 0; i < plan->cell_count; i++) {
        plan->cells[i].rounds = options->repetitions > 0 ? options->repetitions : rounds;
        plan->cells[i].passes = options->replay.settings.passes;
    }
}

/* --- all of it ---------------------------------------------------------------------------------- */

/* Whether another round of this cost would overrun the time by more than a tenth. */
static bool time_is_up(const struct plan *plan, unsigned round, double round_ns)
{
    const struct pick_options *options = plan->pick->options;
    double limit = 1.1e9 * options->time_s;
    return options->time_s > 0 && options->repetitions == 0 && round >= ROUNDS_LEAST &&
           (double)(measure_now_ns() - plan->started_ns) + round_ns > limit;
}

/* Returns 0 or -EINTR. */
static int run_rounds(struct plan *plan)
{
    double round_ns = 0;
    bool left = true;
    plan->done = plan->runs = 0;
    for (size_t i = 0; i < plan->cell_count; i++) {
        plan->runs += plan->cells[i].rounds;
    }
    for (unsigned round = 0; left && !time_is_up(plan, round, round_ns); round++) {
        uint64_t begin = measure_now_ns();
        left = false;
        shuffle(plan);
        for (size_t i = 0; i < plan->cell_count; i++) {
            struct cell *cell = &plan->cells[i];
            if (round >= cell->rounds || cell->of->rows[cell->backend].failed) {
                continue; /* one failure is enough */
            }
            if (run_cell(plan, cell) != 0 || child_interrupted()) {
                return -EINTR;
            }
            left = left || round + 1 < cell->rounds;
        }
        round_ns = (double)(measure_now_ns() - begin);
    }
    return 0;
}

int pick_run(struct pick *pick)
{
    const struct pick_options *options = pick->options;
    struct plan plan = {
        .pick = pick, .started_ns = measure_now_ns(), .random = options->seed, .cell_count = 0};
    plan.cells = calloc(pick->case_count * pick->backend_count, sizeof *plan.cells);
    if (plan.cells == NULL) {
        tool_error(SUB, "no memory for the plan: name fewer traces at once");
        return -1;
    }
    for (size_t c = 0; c < pick->case_count; c++) {
        for (size_t b = 0; b < pick->backend_count; b++) {
            plan.cells[plan.cell_count++] = (struct cell){.of = &pick->cases[c], .backend = b};
        }
    }
    int result = 0;
    if (options->time_s > 0 && options->replay.settings.passes == 0) {
        result = make_plan(&plan);
    } else {
        plan_without_limit(&plan);
    }
    result = result == 0 ? run_rounds(&plan) : result;
    free(plan.cells);
    return result == 0 && plan.failed ? -1 : result;
}
