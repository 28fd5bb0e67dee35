/* SPDX-License-Identifier: MIT */
/*
 * A spinlock that becomes nearly free for a thread that is alone with it.
 *
 * In an inference process one thread usually makes all large allocations. When one thread has taken the lock STREAK times
 * in a row, the lock is biased to it: `owner` names it, and from then on it enters by storing a word of its own, `busy`, and
 * loading `owner` again, plain instructions. (Measured 2026-11: 1 ns for enter and leave, 5.3 ns with an
 * exchange.) Another thread that wants the lock takes the spinlock, clears `owner`, makes every running thread of the process
 * execute a full barrier (membarrier on Linux), and waits until the owner's `busy` is 0. The barrier settles the store-load race on the
 * owner's side: either the visitor sees busy = 1, or the owner, loading after the barrier, sees that it is owner no more
 * and goes the way of everybody. From then on it is a plain spinlock, and each loss of the bias doubles the
 * streak needed for the next, so threads that alternate do not pay the system call again and again. But where the bias has lasted for
 * HEAP_LOCK_PAYS_MS it halves it: threads that take turns by the scheduler's slices, since there are more of them than processors, soon have
 * nearly all of each slice. A loss costs as much as some 2000 entries without a bias do more than with it, so a streak of LAST_STREAK is enough even for
 * threads that alternate as badly as can be.
 *
 * `busy` belongs to the thread, not to the lock: one that has found itself to be the owner, and is preempted before it stores
 * busy, may go on when another has become the owner, and would then set and clear the other's. (tests/model/heap_lock.pml
 * has that as a wrong variant.) So a thread is inside one lock by its bias at a time; whoever takes several, as before a fork,
 * uses heap_lock_enter_slow(). A visitor looks at the owner's busy with the spinlock held, which heap_lock_disown() takes, so it is
 * there as long as anybody looks.
 *
 * Who looks after the heap now and then (statistics, decay, the budget of memory) gives the bias back where he leaves: `lent`. And one that
 * finds no bias and does not come often (a thread that frees what another takes) breaks no streak: heap_lock_enter_passing().
 *
 * Invariant: inside is whoever holds the spinlock with owner = NULL or owner = itself, or is the owner and busy;
 * owner changes only under the spinlock (a visitor that gives the bias back has done all else). What one holder wrote the next one sees through the release and acquire of the
 * spinlock word, or of busy.
 *
 * Where there is no such barrier the lock is never biased.
 *
 * Source: D. Dice, H. Huang, M. Yang, "Asymmetric Dekker Synchronization", 2001; K. Kawachiya et al., "Lock
 * Reservation", 2002; membarrier(2).
 */
#ifndef LARDER_HEAP_LOCK_H
#define LARDER_HEAP_LOCK_H

#include "spinlock.h"

enum {
    HEAP_LOCK_FIRST_STREAK = 64,
    HEAP_LOCK_LAST_STREAK = 1 << 14,
    HEAP_LOCK_PAYS_MS = 1, /* a bias that lasted so long was worth what its loss costs, some us */
    HEAP_LOCK_LONG = 4
};

/* A thread, to its locks. */
typedef struct heap_lock_user {
    _Atomic uint32_t
        busy; /* inside a lock that is biased to it, or about to look; written by the thread */
} heap_lock_user_t;

typedef struct heap_lock {
    /* to whom the lock is biased; written under spin. On a line of its own: the owner reads it with each call, and others, whether
     * there is one */
    _Alignas(64) _Atomic(heap_lock_user_t *) owner;
    _Alignas(64) spinlock_t spin;
    /* guarded by the lock */
    const heap_lock_user_t *last;
    heap_lock_user_t *lent;         /* gets the bias back when the present holder leaves */
    uint32_t streak, streak_needed; /* 0: HEAP_LOCK_FIRST_STREAK */
    uint32_t since_ms;              /* when the bias was earned last */
    uint32_t passes;                /* by heap_lock_enter_passing() since `last` came last */
    heap_lock_user_t *by_bias;      /* the present holder if it entered by its bias, else NULL */
    uint64_t revocations;
} heap_lock_t;

/* For everyone but the owner. `self` may be NULL: never to be biased to.
 * Another thread was in the way: HEAP_LOCK_LONG if it cost a system call, 1 if less, 0 if not. */
unsigned heap_lock_enter_slow(heap_lock_t *lock, heap_lock_user_t *self);

/*
 * The same for a thread that only puts: it neither breaks the streak of another nor keeps its bias, unless it comes more often than that one. (It may
 * have waited for the one who earned the bias meanwhile.)
 */
void heap_lock_enter_passing(heap_lock_t *lock, heap_lock_user_t *self);

/* For visitors: an owner has its bias back after heap_lock_leave(), unless heap_lock_forfeit(), by the visitor, says no. */
void heap_lock_enter_visiting(heap_lock_t *lock, heap_lock_user_t *self);
void heap_lock_forfeit(heap_lock_t *lock);

/* True if another thread than `self` has the bias. */
static inline bool heap_lock_is_anothers(const heap_lock_t *lock, const heap_lock_user_t *self)
{
    /* relaxed: a hint */
    const heap_lock_user_t *owner =
        atomic_load_explicit(&((heap_lock_t *)(uintptr_t)lock)->owner, memory_order_relaxed);
    return owner != NULL && owner != self;
}

/* For the owner; false if `self` is not. heap_lock_leave_biased() ends it. */
static inline bool heap_lock_enter_short(heap_lock_t *lock, heap_lock_user_t *self)
{
    if (__builtin_expect(atomic_load_explicit(&lock->owner, memory_order_relaxed) != self, 0)) {
        return false;
    }
    atomic_store_explicit(&self->busy, 1, memory_order_relaxed);
    /* for the compiler only: the processor's order is the visitor's business, see above */
    atomic_signal_fence(memory_order_seq_cst);
    /* acquire: what follows stays behind it */
    if (__builtin_expect(atomic_load_explicit(&lock->owner, memory_order_acquire) != self, 0)) {
        atomic_store_explicit(&self->busy, 0, memory_order_release);
        return false;
    }
    witness_take(SPINLOCK_RANK(&lock->spin));
    return true;
}

/* The same for heap_lock_leave(). */
static inline bool heap_lock_enter_biased(heap_lock_t *lock, heap_lock_user_t *self)
{
    if (!heap_lock_enter_short(lock, self))
        return false;
    lock->by_bias = self;
    return true;
}

static inline void heap_lock_enter(heap_lock_t *lock, heap_lock_user_t *self)
{
    if (self != NULL && heap_lock_enter_biased(lock, self))
        return;
    heap_lock_enter_slow(lock, self);
}

/* After heap_lock_enter_short() or heap_lock_enter_biased() has said true. */
static inline void heap_lock_leave_biased(heap_lock_t *lock, heap_lock_user_t *self)
{
    (void)lock; /* but for the witness */
    witness_leave(SPINLOCK_RANK(&lock->spin));
    /* release: pairs with the acquire load of busy in revoke() */
    atomic_store_explicit(&self->busy, 0, memory_order_release);
}

static inline void heap_lock_leave(heap_lock_t *lock)
{
    heap_lock_user_t *by_bias = lock->by_bias;
    if (__builtin_expect(by_bias != NULL, 1)) {
        heap_lock_leave_biased(lock, by_bias);
        return;
    }
    if (__builtin_expect(lock->lent != NULL, 0)) {
        heap_lock_user_t *lent = lock->lent;
        lock->lent = NULL;
        /* release: pairs with the acquire in heap_lock_enter_biased() */
        atomic_store_explicit(&lock->owner, lent, memory_order_release);
    }
    spinlock_unlock(&lock->spin);
}

/* A thread that ends must not stay the owner; nobody looks at *self afterwards. */
void heap_lock_disown(heap_lock_t *lock, const heap_lock_user_t *self);

/* For the child of a fork. */
void heap_lock_reset(heap_lock_t *lock);

#endif
