/* SPDX-License-Identifier: MIT */
/*
 * `larder replay`: what its parts share. replay.c reads the options and runs the job,
 * replay_prepare.c makes the program of the trace, replay_report.c prints.
 */
#ifndef LARDER_TOOLS_REPLAY_JOB_H
#define LARDER_TOOLS_REPLAY_JOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "allocator.h"
#include "program.h"
#include "replay.h"
#include "replay_options.h"
#include "trace.h"

#define REPLAY_SUB "replay"

struct replay_job {
    const char *trace;
    const char *backend;
    struct replay_options replay;
    bool json;
    bool verify;
    bool probe;
    bool preloaded; /* this process was started again for an allocator that replaces malloc */
};

/* All that is known when the passes are over. */
struct replay_outcome {
    const struct replay_job *job;
    struct allocator allocator;
    const char *format;
    struct trace_notes notes;
    size_t trace_threads;
    size_t trace_ops;
    size_t lanes_missing; /* threads that had to share one, as the machine gives no more */
    struct program program;
    struct replay_result result;
    struct replay_verified verified; /* instead of `result` */
    struct allocator_report report;
};

/* Loads the trace and builds outcome->program. Returns an exit code; what is wrong has been told. */
int replay_prepare(struct replay_outcome *outcome);

/* Prints what came out, in the job's form. */
void replay_print(const struct replay_outcome *outcome);

#endif
