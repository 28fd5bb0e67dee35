/* SPDX-License-Identifier: MIT */
/* The allocator of the current run: see session.h. */
#include "session.h"

#include <atomic>
#include <condition_variable>
#include <mutex>

namespace
{

enum class phase { closed, open, failed };

struct session {
    std::mutex mutex; /* guards the fields below while threads enter */
    std::condition_variable settled;
    phase current = phase::closed;
    allocator opened = {};
    char why[512] = "";
    std::atomic<bool> any_failed{false}; /* relaxed: read when all threads have been joined */
};

session the_session;

} // namespace

const allocator *session_enter(benchmark::State &state, const char *backend)
{
    session &s = the_session;
    std::unique_lock<std::mutex> lock(s.mutex);
    if (state.thread_index() == 0) {
        bool fine = allocator_open(backend, &s.opened, s.why, sizeof s.why) == 0;
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
