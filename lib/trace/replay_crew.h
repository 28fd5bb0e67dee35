/* SPDX-License-Identifier: MIT */
/*
 * The threads of a replay that has more than one: a thread for each lane of each stream. Private to
 * replay*.c.
 *
 * Threads whose recorded thread does not end stay from section to section (replay_lane.h), and sleep in between; the
 * others are started in each pass when their time has come and end with their lane, so that an
 * allocator's end of a thread is part of the replay. All that are there at the beginning of a section
 * are let go at once, when the last of them is awake.
 */
#ifndef LARDER_TRACE_REPLAY_CREW_H
#define LARDER_TRACE_REPLAY_CREW_H

#include "replay_stream.h"

struct crew;

/* Of all laps of a section together. */
struct crew_figures {
    uint64_t wall_ns;   /* from the beginning to the end of the last lane */
    uint64_t op_ns;     /* sum over lanes */
    uint64_t waited_ns; /* likewise */
    uint64_t waits;     /* that were not over at once */
};

/*
 * How many sets of slots streams of a program need. With STREAM_SETS, a section may have more than one lap; not where threads end
 * or something lives from pass to pass.
 */
size_t crew_sets(const struct program *program);

/* The most laps that a section may have. */
size_t crew_laps_most(const struct crew *crew);

/*
 * Starts the threads that stay. `streams` outlive the crew. Returns 0, -ENOMEM or -EAGAIN: no
 * thread is left.
 */
int crew_open(struct crew **out, struct stream *streams, size_t stream_count);

/*
 * One section. Returns 0; -ENOMEM: an operation failed (crew_failure()); -EAGAIN: no thread is left. The
 * latter two leave blocks live.
 */
int crew_run(struct crew *crew, replay_kernel *kernel, size_t laps, struct crew_figures *out);

/* The operation that failed first, and its lane. */
const struct program_op *crew_failure(const struct crew *crew, uint32_t *lane, size_t *number);

/* How far the lanes of a stream came, in the last section, with what is in this set of slots. */
void crew_get_done(const struct crew *crew, size_t stream, size_t set, size_t *done);

/* The share of the last section that a lane spent in its operations, mean over the streams. */
double crew_busy_share(const struct crew *crew, size_t lane);

void crew_close(struct crew *crew);

#endif
