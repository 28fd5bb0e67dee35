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
}

/* The bias has been lost: the next one takes more to earn, or less, if this one has lasted. */
static void note_loss(heap_lock_t *lock)
{
    if (os_is_idle(lock->since_ms, os_now_ms(), HEAP_LOCK_PAYS_MS)) {
        if (lock->streak_needed > HEAP_LOCK_FIRST_STREAK)
            lock->streak_needed /= 2;
    } else if (lock->streak_needed < HEAP_LOCK_LAST_STREAK) {
        lock->streak_needed *= 2;
    }
}

/* One more entry of `self`, which may earn it the bias. */
static void count_entry(heap_lock_t *lock, heap_lock_user_t *self)
{
    lock->passes = 0;
    if (self == NULL || self != lock->last) {
        lock->last = self;
        lock->streak = 0;
        return;
    }
    if (lock->streak_needed == 0)
        lock->streak_needed = HEAP_LOCK_FIRST_STREAK;
    if (++lock->streak >= lock->streak_needed && os_barrier_is_remote()) {
        lock->streak = 0;
        lock->since_ms = os_now_ms();
        /* relaxed: only this thread may take it for granted */
        atomic_store_explicit(&lock->owner, self, memory_order_relaxed);
    }
}

/* Takes the spinlock, and the bias from another than `self`, who is returned. */
static heap_lock_user_t *take_over(heap_lock_t *lock, const heap_lock_user_t *self,
                                   enum spinlock_wait *waited)
{
    *waited = spinlock_lock_telling(&lock->spin);
    heap_lock_user_t *owner = atomic_load_explicit(&lock->owner, memory_order_relaxed);
    bool anothers = owner != NULL && owner != self;
    if (anothers)
        revoke(lock, owner);
    lock->by_bias = NULL;
    return anothers ? owner : NULL;
}

__attribute__((noinline)) unsigned heap_lock_enter_slow(heap_lock_t *lock, heap_lock_user_t *self)
{
    enum spinlock_wait waited;
    bool taken_over = take_over(lock, self, &waited) != NULL;
    if (taken_over)
        note_loss(lock);
    count_entry(lock, self);
    if (taken_over || waited == SPINLOCK_PARKED)
        return HEAP_LOCK_LONG;
    return waited == SPINLOCK_SPUN;
}

void heap_lock_enter_passing(heap_lock_t *lock, heap_lock_user_t *self)
{
    enum spinlock_wait waited;
    lock->lent = take_over(lock, self, &waited);
    if (self != lock->last && ++lock->passes < HEAP_LOCK_FIRST_STREAK)
        return;
    heap_lock_forfeit(lock);
    count_entry(lock, self);
}

void heap_lock_enter_visiting(heap_lock_t *lock, heap_lock_user_t *self)
{
    enum spinlock_wait waited;
    lock->lent = take_over(lock, self, &waited);
}

void heap_lock_forfeit(heap_lock_t *lock)
{
    if (lock->lent != NULL)
        note_loss(lock);
    lock->lent = NULL;
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
    lock->lent = NULL;
}
