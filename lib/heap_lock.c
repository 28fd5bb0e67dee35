/* SPDX-License-Identifier: MIT */
#include "heap_lock.h"

/* Takes the bias away from its owner; the spinlock is held. */
static void revoke(heap_lock_t *lock, heap_lock_user_t *owner)
{
    /* seq_cst and the barrier: before the owner's next look, or after its store of busy */
    atomic_store_explicit(&lock->owner, NULL, memory_order_seq_cst);
    os_barrier_everywhere();
    for (int i = 0; atomic_load_explicit(&owner->busy, memory_order_acquire) != 0; i++) {
        if (i < 100) {
            os_pause();
        } else {
            os_yield(); /* preempted inside */
        }
    }
    lock->revocations++;
    lock->streak_needed = lock->streak_needed < HEAP_LOCK_LAST_STREAK ? lock->streak_needed * 2
                                                                      : HEAP_LOCK_LAST_STREAK;
}

__attribute__((noinline)) unsigned heap_lock_enter_slow(heap_lock_t *lock, heap_lock_user_t *self)
{
    enum spinlock_wait waited = spinlock_lock_telling(&lock->spin);
    unsigned met = waited == SPINLOCK_PARKED ? HEAP_LOCK_LONG : waited == SPINLOCK_SPUN;
    heap_lock_user_t *owner = atomic_load_explicit(&lock->owner, memory_order_relaxed);
    if (owner != NULL && owner != self) {
        revoke(lock, owner);
        met = HEAP_LOCK_LONG;
    }
    lock->by_bias = NULL;
    if (self == NULL || self != lock->last) {
        lock->last = self;
        lock->streak = 0;
        return met;
    }
    if (lock->streak_needed == 0)
        lock->streak_needed = HEAP_LOCK_FIRST_STREAK;
    if (++lock->streak >= lock->streak_needed && os_barrier_is_remote()) {
        lock->streak = 0;
        /* relaxed: only this thread may take it for granted */
        atomic_store_explicit(&lock->owner, self, memory_order_relaxed);
    }
    return met;
}

void heap_lock_disown(heap_lock_t *lock, const heap_lock_user_t *self)
{
    /* Not without the spinlock, though another be the owner already: he may still be looking at busy. */
    spinlock_lock(&lock->spin);
    spinlock_uncount(&lock->spin);
    if (atomic_load_explicit(&lock->owner, memory_order_relaxed) == self) {
        atomic_store_explicit(&lock->owner, NULL, memory_order_relaxed);
    }
    if (lock->last == self)
        lock->last = NULL;
    spinlock_unlock(&lock->spin);
}

void heap_lock_reset(heap_lock_t *lock)
{
    spinlock_reset(&lock->spin);
    atomic_store_explicit(&lock->owner, NULL, memory_order_relaxed);
    lock->last = NULL;
}
