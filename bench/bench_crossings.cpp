/* SPDX-License-Identifier: MIT */
/*
 * Blocks that one thread allocates and another frees: a pipeline's stages hand tensors on.
 *
 * The two threads share a ring of pointers, each index written by one of them only. The ring bounds
 * what is on its way: 256 blocks, fewer of large ones. Where it is full or empty a thread spins
 * for a moment and then yields its processor. A backend that lets one side wait for a lock, or pile
 * up what the other side could use again, shows it here in time and in `held_bytes`.
 *
 * An iteration is one block: allocated, handed over, freed. `time_per_pair` is that by the clock on the
 * wall; google-benchmark's own Time halves it, since two threads took part. "none" shows what the
 * ring costs.
 */
#include "families.h"

#include <benchmark/benchmark.h>

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>

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
    {"64B", 64},           {"1KiB", KiB}, {"4KiB", 4 * KiB}, {"64KiB", 64 * KiB},
    {"256KiB", 256 * KiB}, {"1MiB", MiB}, {"4MiB", 4 * MiB},
};

constexpr std::uint64_t slots_max = 256;
constexpr std::uint64_t slots_min = 4;
constexpr std::size_t bytes_on_their_way = 16 * MiB;

/* A power of two for each of the sizes above. */
std::uint64_t slots_for(std::size_t bytes)
{
    return std::clamp<std::uint64_t>(bytes_on_their_way / bytes, slots_min, slots_max);
}

/* Filled by the first thread of a run and emptied by the second. Indices only grow. */
struct ring {
    alignas(64) std::atomic<std::uint64_t> filled{0};  /* release: the slot before it is written */
    alignas(64) std::atomic<std::uint64_t> emptied{0}; /* release: the slot before it was read */
    alignas(64) std::atomic<bool> broken{false};       /* no more blocks will come */
    std::uint64_t slots = slots_max;
    void *blocks[slots_max] = {};
};

ring the_ring;

struct case_of {
    const char *backend;
    std::size_t bytes;
};

inline void wait_a_moment(unsigned &waited)
{
    constexpr unsigned spins = 200;
    if (++waited < spins) {
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#endif
        return;
    }
    sched_yield();
}

/* False where the other side has given up, or the allocator has nothing left. */
inline bool send(const allocator &a, std::size_t bytes)
{
    ring &r = the_ring;
    std::uint64_t at = r.filled.load(std::memory_order_relaxed); /* this thread's own */
    for (unsigned waited = 0; at - r.emptied.load(std::memory_order_acquire) == r.slots;) {
        wait_a_moment(waited);
    }
    void *block = a.allocate(a.context, bytes);
    if (block == nullptr) {
        r.broken.store(true, std::memory_order_release);
        return false;
    }
    r.blocks[at & (r.slots - 1)] = block;
    r.filled.store(at + 1, std::memory_order_release);
    return true;
}

inline bool receive(const allocator &a)
{
    ring &r = the_ring;
    std::uint64_t at = r.emptied.load(std::memory_order_relaxed); /* this thread's own */
    for (unsigned waited = 0; at == r.filled.load(std::memory_order_acquire);) {
        if (r.broken.load(std::memory_order_acquire) &&
            at == r.filled.load(std::memory_order_acquire)) {
            return false;
        }
        wait_a_moment(waited);
    }
    void *block = r.blocks[at & (r.slots - 1)];
    r.emptied.store(at + 1, std::memory_order_release);
    a.release(a.context, block);
    return true;
}

inline bool step(const allocator &a, std::size_t bytes, bool sender)
{
    return sender ? send(a, bytes) : receive(a);
}

/* By each of the two threads of a run; both make the same number of steps. */
void run(benchmark::State &state, case_of c)
{
    const session_processor processor(state);
    const bool sender = state.thread_index() == 0;
    if (sender) {
        the_ring.filled.store(0, std::memory_order_relaxed);
        the_ring.emptied.store(0, std::memory_order_relaxed);
        the_ring.broken.store(false, std::memory_order_relaxed);
        the_ring.slots = slots_for(c.bytes);
    }
    const allocator *entered = session_enter(state, c.backend);
    if (entered == nullptr) {
        return;
    }
    const allocator a = *entered;
    bool fine = true;
    for (std::uint64_t i = 0; fine && i < 4 * slots_for(c.bytes); i++) {
        fine = step(a, c.bytes, sender);
    }
    session_begin(state);
    for (auto _ : state) {
        if (!fine || !step(a, c.bytes, sender)) {
            session_fail(state, session_no_memory);
            break;
        }
    }
    if (sender) {
        state.SetItemsProcessed(state.iterations());
        state.counters["time_per_pair"] =
            benchmark::Counter(static_cast<double>(state.iterations()),
                               benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
        state.counters["ring_bytes"] = static_cast<double>(c.bytes * slots_for(c.bytes));
    }
    session_end(state, 2 * state.iterations());
}

} // namespace

void register_crossings(const std::vector<const char *> &backends)
{
    for (const named_size &size : sizes) {
        for (const char *backend : backends) {
            std::string name = std::string("crossing/") + backend + "/" + size.name;
            benchmark::RegisterBenchmark(name.c_str(), run, case_of{backend, size.bytes})
                ->Threads(2)
                ->UseRealTime()
                ->Teardown(session_leave);
        }
    }
}
