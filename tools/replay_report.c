/* SPDX-License-Identifier: MIT */
/* What came out of a replay, for people and for scripts: see replay_job.h. */
#include <inttypes.h>
#include <stdio.h>

#include "json.h"
#include "replay_job.h"
#include "tool.h"

static const char *mode_of(const struct replay_job *job)
{
    return job->replay.parallel ? "parallel" : "serial";
}

static unsigned streams_of(const struct replay_job *job)
{
    return job->replay.settings.streams > 0 ? job->replay.settings.streams : 1;
}

/* -- JSON -------------------------------------------------------------------------------------- */

static void put_job(struct json_line *line, const struct replay_outcome *outcome)
{
    const struct replay_job *job = outcome->job;
    json_string(line, "trace", job->trace);
    json_string(line, "backend", job->backend);
    json_string(line, "version", outcome->allocator.version);
    json_string(line, "policy", outcome->allocator.policy);
    json_string(line, "mode", mode_of(job));
    json_count(line, "streams", streams_of(job));
    json_string(line, "phase", job->replay.phase != NULL ? job->replay.phase : "");
    json_boolean(line, "paced", job->replay.paced);
}

static void put_touching(struct json_line *line, const struct replay_job *job)
{
    json_string(line, "touch", job->replay.touch);
    json_boolean(line, "read_before_free", job->replay.settings.read_before_free);
    json_count(line, "gap_ms", job->replay.settings.gap_ms);
    json_count(line, "min_size", job->replay.min_size);
}

static void put_figures(struct json_line *line, const struct replay_outcome *outcome)
{
    const struct replay_result *result = &outcome->result;
    json_count(line, "threads", result->threads);
    json_count(line, "passes", result->passes);
    json_count(line, "ops_per_pass", result->ops_per_pass);
    json_number(line, "ns_per_op", result->ns_per_op, 2);
    json_number(line, "ns_per_op_min", result->ns_per_op_min, 2);
    json_number(line, "ns_per_op_max", result->ns_per_op_max, 2);
    json_number(line, "pass_ns", result->pass_ns, 0);
    json_number(line, "cpu_ns_per_op", result->cpu_ns_per_op, 2);
    json_number(line, "cpus_busy", result->cpus_busy, 3);
    json_number(line, "waiting_ns", result->waiting_ns, 0);
    json_number(line, "waits", result->waits, 1);
    json_numbers(line, "busy", result->busy, result->busy_count, 3);
    json_number(line, "faults_per_pass", result->faults_per_pass, 1);
    json_count(line, "peak_rss_bytes", result->peak_rss_bytes);
    json_count(line, "measured_peak_live_bytes",
               result->peak_live_was_counted ? result->peak_live_bytes : UINT64_MAX);
    json_count(line, "held_bytes", outcome->report.held_bytes);
    json_count(line, "peak_held_bytes", outcome->report.peak_held_bytes);
}

static void put_verified(struct json_line *line, const struct replay_verified *verified)
{
    json_count(line, "threads", verified->threads);
    json_count(line, "passes", verified->passes);
    json_count(line, "ops_per_pass", verified->ops_per_pass);
    json_count(line, "verified_blocks", verified->blocks);
}

static void put_trace(struct json_line *line, const struct replay_outcome *outcome)
{
    const struct program *program = &outcome->program;
    json_count(line, "peak_live_bytes", program->peak_live_bytes);
    json_count(line, "peak_live_blocks", program->peak_live_blocks);
    json_count(line, "trace_threads", outcome->trace_threads);
    json_count(line, "threads_sharing", outcome->lanes_missing);
    json_count(line, "crossings", program->crossings);
    json_count(line, "edges", program->wait_count);
    json_count(line, "setup_blocks", program->setup_count);
    json_count(line, "never_freed", program->added_frees);
    json_count(line, "allocated_anew", program->added_allocates);
    json_count(line, "unknown_frees", outcome->notes.unknown_frees);
    json_count(line, "early_reuses", outcome->notes.early_reuses);
    json_count(line, "repaired", outcome->notes.repaired);
}

static void print_json(const struct replay_outcome *outcome)
{
    struct json_line line;
    json_begin(&line, stdout);
    put_job(&line, outcome);
    if (outcome->job->verify) {
        put_verified(&line, &outcome->verified);
    } else {
        put_touching(&line, outcome->job);
        put_figures(&line, outcome);
    }
    put_trace(&line, outcome);
    json_end(&line);
}

/* -- Text -------------------------------------------------------------------------------------- */

static void print_note(uint64_t count, const char *text)
{
    if (count > 0) {
        printf("note       %" PRIu64 " %s\n", count, text);
    }
}

static void print_notes(const struct replay_outcome *outcome)
{
    const struct trace_notes *notes = &outcome->notes;
    const struct program *program = &outcome->program;
    print_note(program->setup_count,
               "blocks are live before the part begins: allocated once, not timed");
    print_note(program->added_frees,
               "blocks are never freed in it: freed at the end of each pass, timed");
    print_note(program->added_allocates,
               "blocks it freed or resized: allocated anew at the end of each pass, timed");
    print_note(outcome->lanes_missing,
               "recorded threads share a thread with others: no more can be had here");
    print_note(notes->unknown_frees, "frees of blocks from before the recording: left out");
    print_note(notes->failed_allocations, "allocations that failed when recorded: left out");
    print_note(notes->early_reuses - notes->repaired,
               "addresses handed out again before their free: kept as recorded (--repair)");
    print_note(notes->repaired, "addresses handed out again before their free: repaired");
    print_note(notes->small_blocks, "blocks below --min-size: left out");
}

static void print_memory(const struct replay_outcome *outcome)
{
    char peak[32], live[32], held[32];
    const struct replay_result *result = &outcome->result;
    uint64_t rss = result->peak_rss_bytes;
    tool_format_bytes(result->peak_live_bytes, live, sizeof live);
    if (rss == UINT64_MAX) {
        printf("peak RSS   unknown: /proc/self/clear_refs cannot be written here; peak live %s\n",
               live);
    } else {
        printf("peak RSS   %s, %.2f x the peak of live bytes, %s%s\n",
               tool_format_bytes(rss, peak, sizeof peak),
               result->peak_live_bytes > 0 ? (double)rss / (double)result->peak_live_bytes : 0,
               live, result->peak_live_was_counted ? " as counted" : "");
    }
    if (outcome->report.peak_held_bytes != UINT64_MAX) {
        printf("held       %s at the peak, %s at the end, by its own account\n",
               tool_format_bytes(outcome->report.peak_held_bytes, peak, sizeof peak),
               tool_format_bytes(outcome->report.held_bytes, held, sizeof held));
    }
}

static void print_head(const struct replay_outcome *outcome)
{
    const struct replay_job *job = outcome->job;
    printf("trace      %s (%s, %zu operations, %zu thread%s)%s%s\n", job->trace, outcome->format,
           outcome->trace_ops, outcome->trace_threads, outcome->trace_threads == 1 ? "" : "s",
           job->replay.phase != NULL ? ", phase " : "",
           job->replay.phase != NULL ? job->replay.phase : "");
    printf("allocator  %s, version %s, policy %s\n", job->backend, outcome->allocator.version,
           outcome->allocator.policy);
}

/* "on one thread", "on 2 threads", "on 8 threads of 4 streams" */
static void print_threads(const struct replay_outcome *outcome, size_t threads)
{
    unsigned streams = streams_of(outcome->job);
    if (threads == 1) {
        printf(" on one thread");
    } else {
        printf(" on %zu threads", threads);
    }
    if (streams > 1) {
        printf(" of %u streams", streams);
    }
}

/* How busy threads were, with those of the streams together. */
static void print_busy(const struct replay_result *result)
{
    const size_t shown_max = 8;
    size_t shown = result->busy_count < shown_max ? result->busy_count : shown_max;
    printf("threads    %.2f CPUs busy; in operations", result->cpus_busy);
    for (size_t i = 0; i < shown; i++) {
        printf("%s %.0f", i == 0 ? "" : ",", 100 * result->busy[i]);
    }
    printf(" %%%s of a pass of %.3f ms\n", result->busy_count > shown ? " (the first ones)" : "",
           result->pass_ns / 1e6);
}

static void print_parallel(const struct replay_outcome *outcome)
{
    const struct replay_result *result = &outcome->result;
    print_busy(result);
    printf("waiting    %.0f times a pass at %zu edges, %.3f ms in all threads; not in the time\n",
           result->waits, outcome->program.wait_count, result->waiting_ns / 1e6);
}

static void print_figures(const struct replay_outcome *outcome)
{
    const struct replay_job *job = outcome->job;
    const struct replay_result *result = &outcome->result;
    printf("passes     %zu of %zu operations", result->passes, result->ops_per_pass);
    print_threads(outcome, result->threads);
    printf(", touch %s%s, gap %u ms%s\n", job->replay.touch,
           job->replay.settings.read_before_free ? " and read" : "", job->replay.settings.gap_ms,
           job->replay.paced ? ", paced" : "");
    printf("time       %.2f ns an operation (%.2f to %.2f)\n", result->ns_per_op,
           result->ns_per_op_min, result->ns_per_op_max);
    if (result->threads > 1) {
        print_parallel(outcome);
    }
    printf("faults     %.15g a pass\n", result->faults_per_pass);
    print_memory(outcome);
}

static void print_verified(const struct replay_outcome *outcome)
{
    const struct replay_verified *verified = &outcome->verified;
    printf("verified   %zu passes of %zu operations", verified->passes, verified->ops_per_pass);
    print_threads(outcome, verified->threads);
    printf(": %" PRIu64 " blocks kept their contents\n", verified->blocks);
}

void replay_print(const struct replay_outcome *outcome)
{
    if (outcome->job->json) {
        print_json(outcome);
        return;
    }
    print_head(outcome);
    if (outcome->job->verify) {
        print_verified(outcome);
    } else {
        print_figures(outcome);
    }
    print_notes(outcome);
}
