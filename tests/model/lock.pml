/* SPDX-License-Identifier: MIT */
/*
 * The lock that spins, then parks (lib/spinlock.[ch]).
 *
 * spinlock_try_lock() is one step (an atomic exchange); spinlock_lock_slow() looks, tries, announces itself
 * in `waiters`, and sleeps while word is 1; spinlock_unlock() stores 0 and then loads `waiters`.
 * os_wait() is futex: compare and fall asleep in one step, wake by os_wake() or when PARK_US are over.
 *
 * Properties: at most one thread is inside; each thread gets in and ends (no thread sleeps for ever); the
 * waiters are counted down to 0 in the end.
 *
 * Memory model: sequential consistency, but for the one reordering that the lock knowingly allows: an
 * unlock's load of `waiters` may come before its store of `word` is seen by others (both orders are
 * tried). The model shows what that costs: with it, the bound on sleeping is needed; without it (-DORDERED,
 * an unlock by exchange), nobody ever has to wake by himself, which the model asserts. That acquire and
 * release order the sections themselves is left out.
 *
 * Wrong variants, each of which must be caught:
 *   WRONG_UNBOUNDED   the sleep has no bound
 *   WRONG_TRY         the exchange is a load and a store
 *   WRONG_NO_WAITERS  the waiter sleeps without announcing itself, and without a bound
 */
#ifndef THREADS
#define THREADS 3
#endif
#ifndef ROUNDS
#define ROUNDS 2
#endif

bit word;
byte waiters;
byte inside;
bool asleep[THREADS];

/* got = spinlock_try_lock() */
inline try_lock(got) {
#ifdef WRONG_TRY
    got = !word;
    word = 1
#else
    atomic { got = !word; word = 1 }
#endif
}

/* os_wait(&word, 1, PARK_US) */
inline park() {
    atomic {
        if
        :: word == 1 -> asleep[_pid] = true
        :: else
        fi
    }
    if
    :: !asleep[_pid]
#if !defined(WRONG_UNBOUNDED) && !defined(WRONG_NO_WAITERS)
    /* the bound: Promela's timeout holds where nobody else can move */
    :: timeout ->
#ifdef ORDERED
        assert(false);
#endif
        asleep[_pid] = false
#endif
    fi
}

/* os_wake(&word): one of the sleepers, or nobody */
inline wake() {
    atomic {
        if
        :: asleep[0] -> asleep[0] = false
        :: asleep[1] -> asleep[1] = false
#if THREADS > 2
        :: asleep[2] -> asleep[2] = false
#endif
        :: else
        fi
    }
}

inline unlock() {
    if
    :: word = 0;
       seen = waiters
#ifndef ORDERED
    :: seen = waiters; /* the store waits in the store buffer meanwhile */
       word = 0
#endif
    fi;
    if
    :: seen != 0 -> wake()
    :: else
    fi
}

active[THREADS] proctype thread() {
    byte round, seen;
    bool got;
    do
    :: round < ROUNDS ->
        try_lock(got);
        if
        :: got
        :: else -> /* spinlock_lock_slow(): the look of one spin, or none */
            if
            :: word == 0 -> try_lock(got)
            :: true
            fi;
            if
            :: got
            :: else ->
#ifndef WRONG_NO_WAITERS
                atomic { waiters++ };
#endif
                do
                :: try_lock(got);
                    if
                    :: got -> break
                    :: else -> park()
                    fi
                od;
#ifndef WRONG_NO_WAITERS
                atomic { waiters-- }
#endif
            fi
        fi;
        inside++;
        assert(inside == 1);
        inside--;
        unlock();
        atomic { round++; got = false; seen = 0 }
    :: else -> break
    od;
    (_nr_pr == 1 || _pid != 0); /* the first to be made ends last */
    assert(_pid != 0 || waiters == 0)
}
