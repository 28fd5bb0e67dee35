/* SPDX-License-Identifier: MIT */
#include "spinlock.h"

enum {
    SPIN_PAUSES = 100, /* about 2 us on x86-64, more than any section under a lock lasts */
    PARK_US = 500
};

__attribute__((noinline)) void spinlock_lock_slow(spinlock_t *lock)
{
    for (int i = 0; i < SPIN_PAUSES; i++) {
        os_pause();
        if (atomic_load_explicit(&lock->word, memory_order_relaxed) == 0 &&
            spinlock_try_lock(lock)) {
            spinlock_count(&lock->contended, 1);
            return;
        }
    }
    atomic_fetch_add_explicit(&lock->waiters, 1, memory_order_relaxed);
    while (!spinlock_try_lock(lock)) {
        os_wait(&lock->word, 1, PARK_US);
    }
    atomic_fetch_sub_explicit(&lock->waiters, 1, memory_order_relaxed);
    spinlock_count(&lock->contended, 1);
}
