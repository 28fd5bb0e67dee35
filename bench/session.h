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

#include "allocator.h"

/*
 * Called once by each thread of a run, before its loop. Returns the allocator, the same for all of
 * the run's threads, or nullptr once it has marked the run as failed.
 */
const allocator *session_enter(benchmark::State &state, const char *backend);

/* Closes the allocator: for Benchmark::Teardown(). */
void session_leave(const benchmark::State &state);

/* Marks the run as failed, with the reason. The caller leaves its loop. */
void session_fail(benchmark::State &state, const char *why);

/* Whether any run failed so far: the exit code must say so, google-benchmark's does not. */
bool session_any_failed();

#endif
