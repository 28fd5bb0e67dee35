/* SPDX-License-Identifier: MIT */
/*
 * The families of benchmarks, each registered for every backend given. Names are
 * FAMILY/BACKEND/CASE; the same case of all backends stands together in the output.
 */
#ifndef LARDER_BENCH_FAMILIES_H
#define LARDER_BENCH_FAMILIES_H

#include <string>
#include <vector>

/* pair, batch_lifo, batch_fifo and pair_threads. The names must outlive the benchmarks. */
void register_pairs(const std::vector<const char *> &backends);

/* crossing. */
void register_crossings(const std::vector<const char *> &backends);

/* queue, thread_churn, trim and foreign; the last two for those that have what they need. */
void register_lives(const std::vector<const char *> &backends);

/* replay, replay_touched and replay_streams, for each of the trace files. */
void register_replays(const std::vector<const char *> &backends,
                      const std::vector<std::string> &traces);

#endif
