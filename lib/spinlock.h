/* SPDX-License-Identifier: MIT */
/*
 * A lock that spins briefly and then parks.
 *
 * Sections under it last tens of nanoseconds, so a waiter spins for about a hundred pauses; if the
 * holder is still there it has most likely been preempted, and spinning on would burn the core that it
 * needs (jemalloc 415 and rpmalloc 325 report the collapse), so the waiter sleeps on the word.
 *
 * Taking costs one compare-and-swap, releasing a plain load and a plain store (measured 2026-11: 5.3 ns
 * for both, 10.6 ns with a second exchange). A waiter that goes to sleep sets the word to WANTED; whoever releases it so wakes one. The one that
 * wakes takes it as WANTED again, since others may sleep, so each is woken by the one before, with one system call for each (a
 * count of waiters had every release call the system until the first of them ran: 190 ns a pair of two threads, not 40). A waiter
 * that sets the word between the release's load and its store misses its wake-up. It therefore never sleeps
 * longer than PARK_US at a time: the race costs a delay of one thread, never a hang (tests/model/lock.pml).
 *
 * Holding one lock, larder never calls a backend, mmap or madvise. The order of locks is written in witness.h.
 */
#ifndef LARDER_SPINLOCK_H
#define LARDER_SPINLOCK_H

#include "os/os.h"
#include "witness.h"

enum { SPINLOCK_FREE, SPINLOCK_HELD, SPINLOCK_WANTED /* held, and somebody may sleep */ };

/* How a lock was got. */
enum spinlock_wait { SPINLOCK_AT_ONCE, SPINLOCK_SPUN, SPINLOCK_PARKED };

typedef struct spinlock {
    _Atomic uint32_t word;
    /* Written by the holder alone, without a locked instruction; read by anyone. */
    _Atomic uint64_t acquisitions;
    _Atomic uint64_t contended; /* of these, those that had to wait */
#ifdef LARDER_CHECKS_FULL
    enum lock_rank rank; /* fixed */
#endif
} spinlock_t;

/* A lock's place in the order: as initialiser, and for one that is zeroed. */
#ifdef LARDER_CHECKS_FULL
#define SPINLOCK_OF(lock_rank)                                                                     \
    {                                                                                              \
        .rank = (lock_rank)                                                                        \
    }
#define SPINLOCK_RANK(lock) ((lock)->rank)
static inline void spinlock_set_rank(spinlock_t *lock, enum lock_rank rank)
{
    lock->rank = rank;
}
#else
#define SPINLOCK_OF(lock_rank)                                                                     \
    {                                                                                              \
        0                                                                                          \
    }
#define SPINLOCK_RANK(lock) RANK_NONE
static inline void spinlock_set_rank(spinlock_t *lock, enum lock_rank rank)
{
    (void)lock;
    (void)rank;
}
#endif

/* The slow half of spinlock_lock(): spins, then parks, until the lock is taken. */
enum spinlock_wait spinlock_lock_slow(spinlock_t *lock);

static inline void spinlock_count(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

/* Takes back the count of an acquisition that should not show; by the holder. */
static inline void spinlock_uncount(spinlock_t *lock)
{
    spinlock_count(&lock->acquisitions, UINT64_MAX);
}

static inline uint64_t spinlock_acquisitions(spinlock_t *lock)
{
    return atomic_load_explicit(&lock->acquisitions, memory_order_relaxed);
}

static inline uint64_t spinlock_contended(spinlock_t *lock)
{
    return atomic_load_explicit(&lock->contended, memory_order_relaxed);
}

static inline bool spinlock_try_lock(spinlock_t *lock)
{
    uint32_t word = SPINLOCK_FREE;
    /* acquire: pairs with the release store in spinlock_unlock() */
    return atomic_compare_exchange_strong_explicit(&lock->word, &word, SPINLOCK_HELD,
                                                   memory_order_acquire, memory_order_relaxed);
}

static inline enum spinlock_wait spinlock_lock_telling(spinlock_t *lock)
{
    witness_take(SPINLOCK_RANK(lock));
    enum spinlock_wait waited = SPINLOCK_AT_ONCE;
    if (__builtin_expect(!spinlock_try_lock(lock), 0))
        waited = spinlock_lock_slow(lock);
    spinlock_count(&lock->acquisitions, 1);
    return waited;
}

static inline void spinlock_lock(spinlock_t *lock)
{
    (void)spinlock_lock_telling(lock);
}

static inline void spinlock_unlock(spinlock_t *lock)
{
    witness_leave(SPINLOCK_RANK(lock));
    /* relaxed: who wants it from now on wakes by itself, see above */
    uint32_t word = atomic_load_explicit(&lock->word, memory_order_relaxed);
    /* release: pairs with the acquire in spinlock_try_lock() */
    atomic_store_explicit(&lock->word, SPINLOCK_FREE, memory_order_release);
    if (__builtin_expect(word == SPINLOCK_WANTED, 0))
        os_wake(&lock->word);
}

/* For the child of a fork, which has no other thread that could hold it. */
static inline void spinlock_reset(spinlock_t *lock)
{
    atomic_store_explicit(&lock->word, SPINLOCK_FREE, memory_order_relaxed);
}

#endif
