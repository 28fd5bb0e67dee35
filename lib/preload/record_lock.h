/* SPDX-License-Identifier: MIT */
/*
 * The recorder's lock: a flag and sched_yield. Nobody contends for it but the flush at the end, so
 * fairness and parking buy nothing; what matters is that it needs no initialisation, never
 * allocates, and can be given up on: an exit in a signal handler may find a lock held by the very
 * thread it interrupted.
 */
#ifndef LARDER_PRELOAD_RECORD_LOCK_H
#define LARDER_PRELOAD_RECORD_LOCK_H

#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>

enum { RECORD_LOCK_PATIENCE_SECONDS = 3 };

/* Acquire: pairs with the release in record_unlock, here and in the two below. */
static inline bool record_trylock(atomic_flag *lock)
{
    return !atomic_flag_test_and_set_explicit(lock, memory_order_acquire);
}

static inline void record_lock(atomic_flag *lock)
{
    while (!record_trylock(lock))
        sched_yield();
}

/* False: given up after a few seconds; the holder will not come back. */
static inline bool record_lock_patiently(atomic_flag *lock)
{
    struct timespec now;
    if (record_trylock(lock))
        return true;
    clock_gettime(CLOCK_MONOTONIC, &now);
    time_t deadline = now.tv_sec + RECORD_LOCK_PATIENCE_SECONDS;
    do {
        sched_yield();
        if (record_trylock(lock))
            return true;
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec <= deadline);
    return false;
}

static inline void record_unlock(atomic_flag *lock)
{
    atomic_flag_clear_explicit(lock, memory_order_release);
}

#endif
