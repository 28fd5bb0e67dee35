/* SPDX-License-Identifier: MIT */
/*
 * The lock that spins, then parks (lib/spinlock.[ch]).
 *
 * spinlock_try_lock() is one step (a compare-and-swap of 0 for 1); spinlock_lock_slow() looks, tries, exchanges the word
 * for 2, and sleeps while it is 2 unless it was 0; spinlock_unlock() loads the word, stores 0, and wakes one if it was 2.
 * os_wait() is futex: compare and fall asleep in one step, wake by os_wake() or when PARK_US are over.
 *
 * Properties: at most one thread is inside; each thread gets in and ends (no thread sleeps for ever); the
 * lock is free in the end.
 *
 * Memory model: sequential consistency. What the lock knowingly allows is that a waiter exchanges the word between an unlock's
 * load of it and its store. The model shows what that costs: with it, the bound on sleeping is needed; without it (-DORDERED,
 * an unlock by exchange), nobody ever has to wake by himself, which the model asserts. That acquire and
 * release order the sections themselves is left out.
 *
 * Wrong variants, each of which must be caught:
 *   WRONG_UNBOUNDED    the sleep has no bound
 *   WRONG_TRY          the compare-and-swap is a load and a store
 *   WRONG_UNANNOUNCED  the waiter sleeps while the word is 1, without writing 2, and without a bound
 *   WRONG_FORGETS      who has slept takes the lock as 1 (unlocks being exchanges): the next sleeper is forgotten
 */
#if defined(WRONG_FORGETS) && !defined(ORDERED)
#define ORDERED
#endif
#ifndef THREADS
#define THREADS 3
#endif
#ifndef ROUNDS
#define ROUNDS 2
#endif

byte word; /* 0 free, 1 held, 2 held and wanted */
byte inside;
bool asleep[THREADS];

#ifdef WRONG_UNANNOUNCED
#define SLEEPS_ON 1
#else
#define SLEEPS_ON 2
#endif

/* got = spinlock_try_lock() */
inline try_lock(got) {
#ifdef WRONG_TRY
    got = word == 0;
    if
    :: got -> word = 1
    :: else
    fi
#else
    atomic {
        got = word == 0;
        if
        :: got -> word = 1
        :: else
        fi
    }
#endif
}

/* got = the exchange of a waiter */
inline want_lock(got) {
#if defined(WRONG_UNANNOUNCED)
    try_lock(got)
#elif defined(WRONG_FORGETS)
    atomic {
        got = word == 0;
        word = (got -> 1 : 2)
    }
#else
    atomic {
        got = word == 0;
        word = 2
    }
#endif
}

/* os_wait(&word, 2, PARK_US) */
inline park() {
    atomic {
        if
        :: word == SLEEPS_ON -> asleep[_pid] = true
        :: else
        fi
    }
    if
    :: !asleep[_pid]
#if !defined(WRONG_UNBOUNDED) && !defined(WRONG_UNANNOUNCED)
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
#ifdef ORDERED
    atomic { seen = word; word = 0 };
#else
    seen = word;
    word = 0;
#endif
    if
    :: seen == 2 -> wake()
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
                do
                :: want_lock(got);
                    if
                    :: got -> break
                    :: else -> park()
                    fi
                od
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
    assert(_pid != 0 || word == 0)
}
