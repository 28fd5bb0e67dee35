/* SPDX-License-Identifier: MIT */
/*
 * A thread of a replay, at its lane. Private to replay*.c.
 *
 * A *section* is what threads perform between two times that all of them meet: one pass, or several *laps*, each a pass.
 * From lap to lap a lane does not wait for the others: it goes on at once, as the threads of an engine that is called again and
 * again do, and works in the other one of its stream's two sets of slots. Only the lap before the last one has to be
 * over, for all lanes, before its slots are used again. So threads that have little to wait for within a pass keep busy, and what it
 * costs to wake all of them, as much as a pass of a small network, is paid once a section.
 *
 * A lane's time is the sum of its steps: from its first operation to its last, less what it waited,
 * slept for the pace or woke others. The clock is read where a lane really has to wait, so a step that may go on at once
 * costs nothing more than the look. It is the time on the wall: threads that outnumber the CPUs also
 * count what others ran meanwhile; the CPU time of the process tells.
 */
#ifndef LARDER_TRACE_REPLAY_LANE_H
#define LARDER_TRACE_REPLAY_LANE_H

#include "replay_gate.h"
#include "replay_stream.h"
#include "replay_thread.h"

struct worker;

/* What the workers of a section share. */
struct section {
    replay_kernel *kernel;
    size_t laps;
    struct worker *workers; /* all of them */
    size_t worker_count;
    unsigned looks; /* before a wait sleeps */
    pthread_mutex_t lock;
    struct worker *failed; /* the first one; lock, as its operation */
    size_t failed_op;
    _Alignas(REPLAY_LINE) _Atomic uint64_t go_ns; /* when it began; 0: not yet */
    _Atomic bool aborted;
};

struct worker {
    struct gate
        gate; /* what other threads look at; the rest is this worker's. Counts steps of all laps. */
    struct section *section;
    struct stream *stream;
    const struct program_lane *lane;
    struct worker *lanes; /* of the stream */
    struct replay_thread thread;
    void *owner; /* of whoever has the thread */
    uint64_t start_ns, end_ns, waited_ns, waits;
    uint64_t
        apart_ns;     /* asleep for the pace, or telling the allocator that a pass begins or ends */
    size_t lap, done; /* laps that are over, and operations of the one that is not */
};

/* Before a section; while no thread is in one. */
void lane_reset(struct worker *worker);

/* All laps of the section, or until it is aborted. */
void lane_run(struct worker *self);

/* How many operations of lap `lap` the lane has performed. */
size_t lane_done(const struct worker *worker, size_t lap);

/* The time that the lane spent in operations. */
uint64_t lane_busy_ns(const struct worker *worker);

/* Makes every waiter of the section return. */
void section_abort(struct section *section);

#endif
