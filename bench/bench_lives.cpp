/* SPDX-License-Identifier: MIT */
/*
 * Other lives than a pair's.
 *
 * queue: 64 blocks of several sizes are live, and each new one takes the place of the oldest: first in,
 * first out, as activations between the stages of a network are. thread_churn: a thread is started,
 * makes 32 pairs and ends, as pools that grow and shrink do; what an allocator sets up and takes down
 * for a thread is in it, and so is the thread itself, which "none" shows. trim: 16 blocks are made and freed,
 * then everything cached is given back, so that the next ones come from the kernel again. foreign: a block
 * of malloc's own is released through the allocator, which has to find out that it is not its.
 */
#include "families.h"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <cstdlib>
#include <functional>
#include <system_error>
#include <thread>

#include "backends.h"
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
    {"1KiB", KiB}, {"16KiB", 16 * KiB}, {"256KiB", 256 * KiB}, {"1MiB", MiB}};

struct case_of {
    const char *backend;
    std::size_t bytes;
};

/* One step of a family's life; false where the allocator has nothing left. */
using step_function = bool (*)(const allocator &a, std::size_t bytes);

struct family {
    const char *name;
    step_function step;
    std::size_t pairs; /* of allocate and free, in a step */
    bool (*fits)(const allocator &a);
    void (*end)(const allocator &a); /* after the loop; nullptr: nothing */
};

constexpr std::size_t queue_blocks = 64;
void *queue[queue_blocks];
std::size_t queue_at;

bool queue_step(const allocator &a, std::size_t bytes)
{
    void *&place = queue[queue_at % queue_blocks];
    if (place != nullptr) {
        a.release(a.context, place);
    }
    place = a.allocate(a.context, bytes + queue_at % 8 * bytes / 8);
    queue_at++;
    return place != nullptr;
}

void queue_end(const allocator &a)
{
    for (void *&place : queue) {
        if (place != nullptr) {
            a.release(a.context, place);
            place = nullptr;
        }
    }
}

constexpr std::size_t churn_pairs = 32;

bool churn_step(const allocator &a, std::size_t bytes)
{
    bool fine = true;
    try {
        std::thread([&] {
            for (std::size_t i = 0; i < churn_pairs && fine; i++) {
                void *block = a.allocate(a.context, bytes);
                fine = block != nullptr;
                if (fine) {
                    a.release(a.context, block);
                }
            }
        }).join();
    } catch (const std::system_error &) {
        return false;
    }
    return fine;
}

constexpr std::size_t trim_blocks = 16;

bool trim_step(const allocator &a, std::size_t bytes)
{
    void *blocks[trim_blocks];
    std::size_t got = 0;
    while (got < trim_blocks && (blocks[got] = a.allocate(a.context, bytes)) != nullptr) {
        got++;
    }
    for (std::size_t i = 0; i < got; i++) {
        a.release(a.context, blocks[i]);
    }
    a.trim(a.context);
    return got == trim_blocks;
}

bool foreign_step(const allocator &a, std::size_t bytes)
{
    void *block = std::malloc(bytes);
    benchmark::DoNotOptimize(block);
    if (block == nullptr) {
        return false;
    }
    a.release(a.context, block);
    return true;
}

bool any(const allocator &)
{
    return true;
}

bool has_trim(const allocator &a)
{
    return a.trim != nullptr;
}

bool frees_foreign(const allocator &a)
{
    return a.frees_foreign;
}

constexpr family families[] = {
    {"queue", queue_step, 1, any, queue_end},
    {"thread_churn", churn_step, churn_pairs, any, nullptr},
    {"trim", trim_step, trim_blocks, has_trim, nullptr},
    {"foreign", foreign_step, 1, frees_foreign, nullptr},
};

void run(benchmark::State &state, const family &f, case_of c)
{
    const allocator *entered = session_enter(state, c.backend);
    if (entered == nullptr) {
        return;
    }
    const allocator a = *entered;
    bool fine = true;
    for (int i = 0; i < 16 && fine; i++) {
        fine = f.step(a, c.bytes);
    }
    session_begin(state);
    for (auto _ : state) {
        if (!fine || !f.step(a, c.bytes)) {
            session_fail(state, session_no_memory);
            break;
        }
    }
    const auto pairs = state.iterations() * static_cast<benchmark::IterationCount>(f.pairs);
    state.SetItemsProcessed(pairs);
    session_end(state, 2 * pairs);
    if (f.end != nullptr) {
        f.end(a);
    }
    state.counters["time_per_pair"] = benchmark::Counter(
        static_cast<double>(pairs), benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

/* Whether the backend has what the family needs; it was opened before, so it can be. */
bool fits(const family &f, const char *backend)
{
    allocator opened;
    char why[512];
    if (backends_open(backend, &opened, why, sizeof why) != 0) {
        return false;
    }
    bool result = f.fits(opened);
    allocator_close(&opened);
    return result;
}

} // namespace

void register_lives(const std::vector<const char *> &backends)
{
    for (const family &f : families) {
        for (const named_size &size : sizes) {
            for (const char *backend : backends) {
                if (fits(f, backend)) {
                    std::string name = std::string(f.name) + "/" + backend + "/" + size.name;
                    benchmark::RegisterBenchmark(name.c_str(), run, std::cref(f),
                                                 case_of{backend, size.bytes})
                        ->UseRealTime()
                        ->Teardown(session_leave);
                }
            }
        }
    }
}
