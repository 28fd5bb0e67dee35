/* SPDX-License-Identifier: MIT */
#include "spinlock.h"

enum {
    SPIN_PAUSES = 100, /* about 2 us on x86-64, more than any section under a lock lasts */
    PARK_US = 500
};

__attribute__((noinline)) enum spinlock_wait spinlock_lock_slow(spinlock_t *lock)
{
    for (int i = 0; i < SPIN_PAUSES; i++) {
        os_pause();
        if (atomic_load_explicit(&lock->word, memory_order_relaxed) == SPINLOCK_FREE &&
            spinlock_try_lock(lock)) {
            spinlock_count(&lock->contended, 1);
            return SPINLOCK_SPUN;
        }
    }
    /* acquire: as in spinlock_try_lock() */
    while (atomic_exchange_explicit(&lock->word, SPINLOCK_WANTED, memory_order_acquire) !=
           SPINLOCK_FREE) {
        os_wait(&lock->word, SPINLOCK_WANTED, PARK_US);
    }
    spinlock_count(&lock->contended, 1);
    return SPINLOCK_PARKED;
}
