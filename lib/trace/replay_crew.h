/* SPDX-License-Identifier: MIT */
/*
 * The threads of a replay that has more than one: a thread for each lane of each stream. Private to
 * replay*.c.
 *
 * Threads whose recorded thread does not end stay from pass to pass, and sleep in between; the
 * others are started in each pass when their time has come and end with their lane, so that an
 * allocator's end of a thread is part of the replay. All that are there at the beginning of a pass
 * are let go at once, when the last of them is awake.
 *
 * A lane's time is the sum of its steps: from its first operation to its last, less what it waited,
 * slept for the pace or woke others. The clock is read where a lane really has to wait, so a step that may go on at once
 * costs nothing more than the look. It is the time on the wall: threads that outnumber the CPUs also
 * count what others ran meanwhile; the CPU time of the process tells.
 *
 * Stacks are this module's and are written to beforehand, so that page faults and resident size of
 * starting threads are not taken for the allocator's.
 */
#ifndef LARDER_TRACE_REPLAY_CREW_H
#define LARDER_TRACE_REPLAY_CREW_H

#include "replay_stream.h"

struct crew;

struct crew_pass {
    uint64_t wall_ns;   /* from the beginning to the end of the last lane */
    uint64_t op_ns;     /* sum over lanes */
    uint64_t waited_ns; /* likewise */
    uint64_t slept_ns;  /* likewise, for the pace */
    uint64_t waits;     /* that were not over at once */
};

/*
 * Starts the threads that stay. `streams` outlive the crew. Returns 0, -ENOMEM or -EAGAIN: no
 * thread is left.
 */
int crew_open(struct crew **out, struct stream *streams, size_t stream_count);

/*
 * One pass. Returns 0; -ENOMEM: an operation failed (crew_failure()); -EAGAIN: no thread is left. The
 * latter two leave blocks live.
 */
int crew_run(struct crew *crew, replay_kernel *kernel, struct crew_pass *out);

/* The operation that failed first, and its lane. */
const struct program_op *crew_failure(const struct crew *crew, uint32_t *lane, size_t *number);

/* How far the lanes of a stream came in the last pass. */
void crew_get_done(const struct crew *crew, size_t stream, size_t *done);

/* The share of the last pass that a lane spent in its operations, mean over the streams. */
double crew_busy_share(const struct crew *crew, size_t lane);

void crew_close(struct crew *crew);

/* How many threads could be alive at once now, up to `wanted`. */
size_t crew_count_threads(size_t wanted);

#endif
