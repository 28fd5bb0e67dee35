/* SPDX-License-Identifier: MIT */
/*
 * Blocks allocated and freed by the thread that asked, nothing written to them.
 *
 * A pair is the shortest life a block can have: it measures the latency of the hit path, as one
 * dependent chain from pointer to magazine. Batches hold 16 blocks at a time: freed in
 * reverse, the next batch gets the same addresses in the same order; freed in order, the order of
 * reuse turns around each time. pair_threads asks what threads cost each other: its figure is the
 * throughput of all of them, by the clock on the wall.
 *
 * All backends are called through the same pointers (allocator.h), and every result is checked, so
 * that the harness costs each of them what it costs "none".
 */
#include "families.h"

#include <benchmark/benchmark.h>

#include <cstddef>

#include "session.h"

namespace
{

struct named_size {
    const char *name;
    std::size_t bytes;
};

constexpr std::size_t KiB = 1024;
constexpr std::size_t MiB = 1024 * KiB;

constexpr named_size sizes[] = {
    {"64B", 64},         {"1KiB", KiB},         {"4KiB", 4 * KiB},   {"16KiB", 16 * KiB},
    {"64KiB", 64 * KiB}, {"256KiB", 256 * KiB}, {"1MiB", MiB},       {"1.5MiB", MiB + MiB / 2},
    {"4MiB", 4 * MiB},   {"16MiB", 16 * MiB},   {"64MiB", 64 * MiB},
};

constexpr named_size sizes_of_threads[] = {
    {"4KiB", 4 * KiB},
    {"100kB", 100000},
    {"1.5MiB", MiB + MiB / 2},
};

constexpr int thread_counts[] = {1, 2, 4, 16};

constexpr std::size_t batch_blocks = 16;

/* Untimed rounds before the loop: the first ones pay for what is set up once in a thread. */
constexpr int warm_up_rounds = 16;

struct case_of {
    const char *backend;
    std::size_t bytes;
};

struct pair_round {
    static constexpr std::size_t pairs = 1;

    static inline bool run(const allocator &a, std::size_t bytes)
    {
        void *block = a.allocate(a.context, bytes);
        if (block == nullptr) {
            return false;
        }
        benchmark::DoNotOptimize(block);
        a.release(a.context, block);
        return true;
    }
};

/* Fills `blocks`; on failure gives back what it got. */
inline bool allocate_batch(const allocator &a, std::size_t bytes, void **blocks)
{
    for (std::size_t i = 0; i < batch_blocks; i++) {
        blocks[i] = a.allocate(a.context, bytes);
        if (blocks[i] == nullptr) {
            while (i-- > 0) {
                a.release(a.context, blocks[i]);
            }
            return false;
        }
    }
    return true;
}

struct lifo_round {
    static constexpr std::size_t pairs = batch_blocks;

    static inline bool run(const allocator &a, std::size_t bytes)
    {
        void *blocks[batch_blocks];
        if (!allocate_batch(a, bytes, blocks)) {
            return false;
        }
        for (std::size_t i = batch_blocks; i-- > 0;) {
            a.release(a.context, blocks[i]);
        }
        return true;
    }
};

struct fifo_round {
    static constexpr std::size_t pairs = batch_blocks;

    static inline bool run(const allocator &a, std::size_t bytes)
    {
        void *blocks[batch_blocks];
        if (!allocate_batch(a, bytes, blocks)) {
            return false;
        }
        for (std::size_t i = 0; i < batch_blocks; i++) {
            a.release(a.context, blocks[i]);
        }
        return true;
    }
};

template <typename Round> bool warm_up(const allocator &a, std::size_t bytes)
{
    for (int i = 0; i < warm_up_rounds; i++) {
        if (!Round::run(a, bytes)) {
            return false;
        }
    }
    return true;
}

/* By each thread of a run. */
template <typename Round> void run(benchmark::State &state, case_of c)
{
    const session_processor processor(state);
    const allocator *entered = session_enter(state, c.backend);
    if (entered == nullptr) {
        return;
    }
    const allocator a = *entered; /* in this thread's own cache lines */
    if (!warm_up<Round>(a, c.bytes)) {
        /* Not a return: the other threads, which may be lucky, wait for this one at the loop. */
        session_fail(state, session_no_memory);
    }
    session_begin(state);
    for (auto _ : state) {
        if (!Round::run(a, c.bytes)) {
            session_fail(state, session_no_memory);
            break;
        }
    }
    benchmark::IterationCount pairs =
        state.iterations() * static_cast<benchmark::IterationCount>(Round::pairs);
    state.SetItemsProcessed(pairs);
    session_end(state, 2 * pairs * state.threads());
    /* Seconds; the console prints it as "7.1ns". */
    state.counters["time_per_pair"] = benchmark::Counter(
        static_cast<double>(pairs), benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

template <typename Round>
benchmark::internal::Benchmark *add(const char *family, const char *backend, const named_size &size)
{
    std::string name = std::string(family) + "/" + backend + "/" + size.name;
    return benchmark::RegisterBenchmark(name.c_str(), run<Round>, case_of{backend, size.bytes})
        ->Teardown(session_leave);
}

template <typename Round>
void add_all_sizes(const char *family, const std::vector<const char *> &backends)
{
    for (const named_size &size : sizes) {
        for (const char *backend : backends) {
            add<Round>(family, backend, size);
        }
    }
}

} // namespace

void register_pairs(const std::vector<const char *> &backends)
{
    add_all_sizes<pair_round>("pair", backends);
    add_all_sizes<lifo_round>("batch_lifo", backends);
    add_all_sizes<fifo_round>("batch_fifo", backends);
    for (const named_size &size : sizes_of_threads) {
        for (int threads : thread_counts) {
            for (const char *backend : backends) {
                add<pair_round>("pair_threads", backend, size)->Threads(threads)->UseRealTime();
            }
        }
    }
}
