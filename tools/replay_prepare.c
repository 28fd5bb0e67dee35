/* SPDX-License-Identifier: MIT */
/* From a file to a program that can be run here: see replay_job.h. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "measure.h"
#include "phases.h"
#include "replay_job.h"
#include "tool.h"

#define SUB REPLAY_SUB

/* A replay that sleeps for longer was not meant. */
#define SPAN_NS_MAX (UINT64_C(24) * 3600 * 1000000000)

static int no_memory(const struct replay_job *job)
{
    tool_error(SUB, "%s: no memory to prepare it: close other programs", job->trace);
    return TOOL_FAILED;
}

/* Touching more than there is would end in the kernel killing somebody. */
static bool fits_memory(const struct replay_outcome *outcome)
{
    const struct replay_job *job = outcome->job;
    char needed[32], available[32];
    uint64_t memory = measure_available_memory();
    uint64_t streams = job->replay.settings.streams > 0 ? job->replay.settings.streams : 1;
    uint64_t live = outcome->program.peak_live_bytes;
    if ((job->replay.settings.touch == REPLAY_TOUCH_NONE && !job->verify) ||
        live <= memory / streams) {
        return true;
    }
    tool_error(SUB,
               "%s: %s%s live at once, but this machine has %s free: use --touch none or a machine "
               "with more memory",
               job->trace, streams > 1 ? "each stream has " : "the trace has ",
               tool_format_bytes(live, needed, sizeof needed),
               tool_format_bytes(memory, available, sizeof available));
    return false;
}

/* -- Phases ------------------------------------------------------------------------------------ */

static bool find_mark(const struct trace *trace, const char *name, struct program_options *options)
{
    for (size_t i = 0; i < trace->mark_count; i++) {
        if (strcmp(trace->marks[i].name, name) == 0) {
            options->first_op = trace->marks[i].op;
            options->end_op = i + 1 < trace->mark_count ? trace->marks[i + 1].op : trace->op_count;
            return true;
        }
    }
    return false;
}

/* "3" or "3-7"; false where it is neither. */
static bool read_range(const char *text, uint64_t *from, uint64_t *to)
{
    char first[24];
    const char *dash = strchr(text, '-');
    size_t length = dash != NULL ? (size_t)(dash - text) : strlen(text);
    if (length >= sizeof first) {
        return false;
    }
    memcpy(first, text, length);
    first[length] = '\0';
    if (!tool_read_number(first, 0, UINT32_MAX, from)) {
        return false;
    }
    *to = *from;
    return dash == NULL || tool_read_number(dash + 1, *from, UINT32_MAX, to);
}

static int choose_inferences(const struct replay_job *job, const struct trace *trace, uint64_t from,
                             uint64_t to, struct program_options *options)
{
    struct phases phases;
    if (phases_find(trace, &phases) != 0) {
        return no_memory(job);
    }
    size_t count = phases.count;
    if (to < count) {
        options->first_op = phases.phases[from].begin;
        options->end_op = phases.phases[to].end;
    }
    phases_release(&phases);
    if (count == 0) {
        tool_error(SUB,
                   "%s: no inferences are known in it: record it with marks, or leave --phase out",
                   job->trace);
        return TOOL_FAILED;
    }
    if (to >= count) {
        tool_error(SUB, "%s: --phase %s: its inferences are 0 to %zu", job->trace,
                   job->replay.phase, count - 1);
        return TOOL_FAILED;
    }
    return TOOL_FINE;
}

/* Which part of the trace is replayed. */
static int choose_part(const struct replay_job *job, const struct trace *trace,
                       struct program_options *options)
{
    uint64_t from, to;
    if (job->replay.phase == NULL) {
        return TOOL_FINE;
    }
    if (read_range(job->replay.phase, &from, &to)) {
        return choose_inferences(job, trace, from, to, options);
    }
    if (!find_mark(trace, job->replay.phase, options)) {
        tool_error(SUB,
                   "%s: --phase '%s': no mark of that name: give the number of an inference, "
                   "FROM-TO, or the name of a mark",
                   job->trace, job->replay.phase);
        return TOOL_FAILED;
    }
    return TOOL_FINE;
}

/* -- Pace -------------------------------------------------------------------------------------- */

static bool has_times(const struct trace *trace, const struct program_options *options)
{
    size_t end = options->end_op > 0 ? options->end_op : trace->op_count;
    for (size_t i = options->first_op; trace->times != NULL && i < end; i++) {
        if (trace->times[i].start_ns > 0) {
            return true;
        }
    }
    return false;
}

static int choose_pace(const struct replay_job *job, const struct trace *trace,
                       struct program_options *options)
{
    if (!job->replay.paced) {
        return TOOL_FINE;
    }
    if (has_times(trace, options)) {
        options->pace = PROGRAM_BY_TIMES;
        return TOOL_FINE;
    }
    if (trace->mark_count == 0 || job->replay.settings.gap_ms == 0) {
        tool_error(SUB, "%s: --paced: the trace has no times%s", job->trace,
                   trace->mark_count == 0 ? " and no marks: record it with either"
                                          : ": say with --gap-ms how long an inference is apart "
                                            "from the next");
        return TOOL_FAILED;
    }
    options->pace = PROGRAM_BY_MARKS;
    options->mark_ms = job->replay.settings.gap_ms;
    return TOOL_FINE;
}

/* -- The program ------------------------------------------------------------------------------- */

static int build(struct replay_outcome *outcome, const struct trace *trace,
                 const struct program_options *options)
{
    int result = program_build_with(trace, options, &outcome->program);
    if (result == -EINVAL) {
        tool_error(SUB, "%s: --phase %s holds no operation: choose another", outcome->job->trace,
                   outcome->job->replay.phase);
        return TOOL_FAILED;
    }
    return result == 0 ? TOOL_FINE : no_memory(outcome->job);
}

/* With as many threads as there can be. */
static int build_lanes(struct replay_outcome *outcome, const struct trace *trace,
                       struct program_options *options)
{
    const struct replay_job *job = outcome->job;
    struct program *program = &outcome->program;
    size_t streams = job->replay.settings.streams > 0 ? job->replay.settings.streams : 1;
    options->parallel = job->replay.parallel;
    options->lanes_max = REPLAY_THREADS_MAX / streams;
    int result = build(outcome, trace, options);
    size_t threads = program->lane_count * streams;
    if (result != TOOL_FINE || threads == 1) {
        return result;
    }
    size_t possible = replay_count_threads(threads);
    if (possible < streams) {
        tool_error(SUB,
                   "%s: %zu threads can be had here, and %zu streams need one each: raise the "
                   "limit (ulimit -u), or use fewer",
                   job->trace, possible, streams);
        program_release(program);
        return TOOL_FAILED;
    }
    if (possible < threads) {
        program_release(program);
        options->lanes_max = possible / streams;
        result = build(outcome, trace, options);
    }
    if (result == TOOL_FINE && job->replay.parallel) {
        outcome->lanes_missing = program->thread_count - program->lane_count;
    }
    return result;
}

/* What the program asks for that this machine does not have. */
static int check_program(const struct replay_outcome *outcome)
{
    const struct program *program = &outcome->program;
    if (program->largest_bytes > (uint64_t)PTRDIFF_MAX) {
        tool_error(SUB,
                   "%s: a block of %" PRIu64 " bytes is more than this machine can address: replay "
                   "it on a 64-bit one",
                   outcome->job->trace, program->largest_bytes);
        return TOOL_FAILED;
    }
    if (program->span_ns > SPAN_NS_MAX) {
        tool_error(SUB, "%s: --paced: its times reach over %.0f days: are they right?",
                   outcome->job->trace, (double)program->span_ns / 86400e9);
        return TOOL_FAILED;
    }
    return fits_memory(outcome) ? TOOL_FINE : TOOL_FAILED;
}

static int prepare(struct replay_outcome *outcome, struct trace *trace)
{
    const struct replay_job *job = outcome->job;
    struct program_options options = {0};
    if (job->replay.min_size > 0 && trace_filter_min_size(trace, job->replay.min_size) != 0) {
        return no_memory(job);
    }
    if (trace->block_count == 0) {
        tool_error(SUB, "%s: no block has %" PRIu64 " bytes or more: choose a smaller --min-size",
                   job->trace, job->replay.min_size);
        return TOOL_FAILED;
    }
    int result = choose_part(job, trace, &options);
    if (result == TOOL_FINE) {
        result = choose_pace(job, trace, &options);
    }
    if (result == TOOL_FINE) {
        result = build_lanes(outcome, trace, &options);
    }
    if (result != TOOL_FINE) {
        return result;
    }
    outcome->format = trace->format;
    outcome->notes = trace->notes;
    outcome->trace_threads = trace->thread_count;
    outcome->trace_ops = trace->op_count;
    result = check_program(outcome);
    if (result != TOOL_FINE) {
        program_release(&outcome->program);
    }
    return result;
}

int replay_prepare(struct replay_outcome *outcome)
{
    struct trace_options trace_options = {.repair = outcome->job->replay.repair};
    struct trace trace;
    char why[512];
    if (trace_load(outcome->job->trace, &trace_options, &trace, why, sizeof why) != 0) {
        tool_error(SUB, "%s", why);
        return TOOL_FAILED;
    }
    int result = prepare(outcome, &trace);
    trace_unload(&trace);
    return result;
}
