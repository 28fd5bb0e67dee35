/* SPDX-License-Identifier: MIT */
/*
 * One allocator, open for the length of one run of one benchmark.
 *
 * google-benchmark runs a function several times to find how often to repeat it, and starts its
 * threads anew for each run. The allocator is opened by the run's first thread and closed by the
 * teardown, which comes after all threads have ended: no run starts with another's cache, and no
 * thread ends after its allocator. That holds for larder and c10-design; malloc and mimalloc are
 * the process's, and keep what they kept.
 */
#ifndef LARDER_BENCH_SESSION_H
#define LARDER_BENCH_SESSION_H

#include <benchmark/benchmark.h>

#include <sched.h>

#include "allocator.h"

/*
 * While it lives, the calling thread of a run has a processor of its own, where a run of several threads
 * finds one for each: whether the kernel puts two of them on one decides such a figure otherwise.
 */
class session_processor
{
public:
    explicit session_processor(const benchmark::State &state);
    ~session_processor();
    session_processor(const session_processor &) = delete;
    session_processor &operator=(const session_processor &) = delete;

private:
    bool pinned = false;
    cpu_set_t before = {};
};

/*
 * Called once by each thread of a run, before its loop. Returns the allocator, the same for all of
 * the run's threads, or nullptr once it has marked the run as failed.
 */
const allocator *session_enter(benchmark::State &state, const char *backend);

/*
 * Around the loop, by each thread of a run; the first one's calls count. The counters say what one
 * call of the allocator, an allocation or a free, cost in the loop: faults_per_call, and where the
 * allocator tells (larder) locks_per_call, exchanges_per_call (magazines moved between threads and
 * depot) and backend_calls_per_call; its tables, metadata_bytes; and what it held at the most, held_bytes. `calls`: how many
 * all threads made in the loop.
 */
void session_begin(const benchmark::State &state);
void session_end(benchmark::State &state, benchmark::IterationCount calls);

/* What session_fail() is told where an allocation failed. */
inline constexpr char session_no_memory[] =
    "the allocator returned NULL: free memory or raise the limits";

/* Closes the allocator: for Benchmark::Teardown(). */
void session_leave(const benchmark::State &state);

/* Marks the run as failed, with the reason. The caller leaves its loop. */
void session_fail(benchmark::State &state, const char *why);

/* Whether any run failed so far: the exit code must say so, google-benchmark's does not. */
bool session_any_failed();

#endif
