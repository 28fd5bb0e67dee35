/* SPDX-License-Identifier: MIT */
/* The allocator of the current run: see session.h. */
#include "session.h"

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>

#include "backends.h"

extern "C" {
#include "measure.h"
}

namespace
{

enum class phase { closed, open, failed };

struct session {
    std::mutex mutex; /* guards the fields below while threads enter */
    std::condition_variable settled;
    phase current = phase::closed;
    allocator opened = {};
    char why[512] = "";
    allocator_report before = {}; /* the first thread's, as the next */
    std::uint64_t faults_before = 0;
    std::atomic<bool> any_failed{false}; /* relaxed: read when all threads have been joined */
};

session the_session;

} // namespace

session_processor::session_processor(const benchmark::State &state)
{
    CPU_ZERO(&before);
    if (state.threads() < 2 || sched_getaffinity(0, sizeof before, &before) != 0 ||
        CPU_COUNT(&before) < state.threads()) {
        return;
    }
    int left = state.thread_index();
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &before) && left-- == 0) {
            cpu_set_t own;
            CPU_ZERO(&own);
            CPU_SET(cpu, &own);
            pinned = sched_setaffinity(0, sizeof own, &own) == 0;
            return;
        }
    }
}

session_processor::~session_processor()
{
    if (pinned) {
        sched_setaffinity(0, sizeof before, &before);
    }
}

const allocator *session_enter(benchmark::State &state, const char *backend)
{
    session &s = the_session;
    std::unique_lock<std::mutex> lock(s.mutex);
    if (state.thread_index() == 0) {
        bool fine = backends_open(backend, &s.opened, s.why, sizeof s.why) == 0;
        s.current = fine ? phase::open : phase::failed;
        s.settled.notify_all();
    } else {
        s.settled.wait(lock, [] { return the_session.current != phase::closed; });
    }
    if (s.current == phase::failed) {
        session_fail(state, s.why);
        return nullptr;
    }
    return &s.opened;
}

void session_begin(const benchmark::State &state)
{
    if (state.thread_index() == 0) {
        allocator_get_report(&the_session.opened, &the_session.before);
        the_session.faults_before = measure_minor_faults();
    }
}

/* The loop's end was a barrier: all threads have made their last call. */
void session_end(benchmark::State &state, benchmark::IterationCount calls)
{
    if (state.thread_index() != 0 || calls == 0) {
        return;
    }
    const session &s = the_session;
    const std::uint64_t faults = measure_minor_faults() - s.faults_before;
    allocator_report after;
    allocator_get_report(&s.opened, &after);
    const auto add = [&](const char *name, std::uint64_t count) {
        state.counters[name] = static_cast<double>(count) / static_cast<double>(calls);
    };
    add("faults_per_call", faults);
    if (after.lock_acquisitions != UINT64_MAX) {
        add("locks_per_call", after.lock_acquisitions - s.before.lock_acquisitions);
        add("exchanges_per_call", after.depot_exchanges - s.before.depot_exchanges);
        add("backend_calls_per_call", after.backend_calls - s.before.backend_calls);
    }
    if (after.metadata_bytes != UINT64_MAX) {
        state.counters["metadata_bytes"] = static_cast<double>(after.metadata_bytes);
    }
    if (after.peak_held_bytes != UINT64_MAX) {
        state.counters["held_bytes"] = static_cast<double>(after.peak_held_bytes);
    }
}

void session_leave(const benchmark::State &)
{
    session &s = the_session;
    std::lock_guard<std::mutex> lock(s.mutex);
    if (s.current == phase::open) {
        allocator_close(&s.opened);
    }
    s.current = phase::closed;
}

void session_fail(benchmark::State &state, const char *why)
{
    the_session.any_failed.store(true, std::memory_order_relaxed);
    state.SkipWithError(why);
}

bool session_any_failed()
{
    return the_session.any_failed.load(std::memory_order_relaxed);
}
