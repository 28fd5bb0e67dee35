/* SPDX-License-Identifier: MIT */
/*
 * The biased lock of the span heap (lib/heap_lock.[ch]).
 *
 * Each thread enters by heap_lock_enter(): heap_lock_enter_biased() if it is the owner, else
 * heap_lock_enter_slow(), which takes the spinlock (one step here, see lock.pml), revokes another's bias
 * with os_barrier_everywhere(), waits for the owner's `busy`, and becomes the owner itself after STREAK turns in a row.
 * Any visitor may be one who gives the bias back when he leaves (heap_lock_enter_visiting(), heap_lock_enter_passing()).
 * A thread ends with heap_lock_disown(), after which nobody may look at its `busy`.
 *
 * Properties: at most one thread is inside; each thread ends; nobody who has ended is the owner, or is looked at.
 *
 * Memory model: total store order for the two variables on which the protocol rests. A store of `busy` by
 * the owner goes into a store buffer of its own, from which it reaches memory at any later time, in
 * order; the owner itself reads `owner` from memory meanwhile. An atomic exchange empties the buffer of its thread,
 * the barrier empties all. On processors weaker than that (ARM) the order of plain accesses around `busy` is
 * by acquire and release, which is left out here.
 *
 * Wrong variants, each of which must be caught:
 *   WRONG_SHARED_BUSY  the lock has one `busy` for whoever is the owner, instead of one for each thread
 *   WRONG_NO_BARRIER   the visitor does not make the owner's processor execute a barrier
 *   WRONG_NO_RECHECK   the owner does not look again after storing busy
 *   WRONG_NO_BUSY      the visitor does not wait for busy
 *   WRONG_ORDER        the barrier comes before the owner is cleared
 *   WRONG_LEND         a visitor gives the bias back before he has done all else
 *   WRONG_DISOWN       a thread ends without giving the bias up
 *   WRONG_LOOK         a thread that is not the owner any more ends without taking the spinlock
 */
#ifndef THREADS
#define THREADS 2
#endif
#ifndef ROUNDS
#define ROUNDS 4
#endif
#define STREAK 2
#define NOBODY 255
#define EMPTY 0 /* of a store buffer; else the value stored, plus 1 */

byte owner = NOBODY;
#ifdef WRONG_SHARED_BUSY
bit busy[1];
#define BUSY(t) busy[0]
#else
bit busy[THREADS];
#define BUSY(t) busy[t]
#endif
bit spin;
byte last = NOBODY, streak, lent = NOBODY;
bool by_bias;
byte inside;
bool ended[THREADS];

/* The store buffers; two entries are enough, as a full one delays the next store. */
byte first_stored[THREADS], second_stored[THREADS];

inline store_busy(b) {
    atomic {
        second_stored[_pid] == EMPTY;
        if
        :: first_stored[_pid] == EMPTY -> first_stored[_pid] = b + 1
        :: else -> second_stored[_pid] = b + 1
        fi
    }
}

inline drain_one(t) {
    BUSY(t) = first_stored[t] - 1;
    first_stored[t] = second_stored[t];
    second_stored[t] = EMPTY
}

inline drain(t) {
    do
    :: first_stored[t] != EMPTY -> drain_one(t)
    :: else -> break
    od
}

/* os_barrier_everywhere() */
inline barrier_everywhere() {
    d_step {
        drain(0);
        drain(1)
#if THREADS > 2
        ;
        drain(2)
#endif
    }
}

inline lock_spin() {
    atomic {
        spin == 0;
        drain(_pid); /* an exchange */
        spin = 1
    }
}

/* revoke() */
inline revoke() {
#ifdef WRONG_ORDER
    barrier_everywhere();
    owner = NOBODY;
#else
    atomic { drain(_pid); owner = NOBODY }; /* seq_cst */
#ifndef WRONG_NO_BARRIER
    barrier_everywhere();
#endif
#endif
#ifndef WRONG_NO_BUSY
    atomic { BUSY(was) == 0 -> assert(!ended[was]) }
#else
    skip
#endif
}

/* heap_lock_enter_slow() */
inline enter_slow() {
    lock_spin();
    was = owner;
    visits = false;
    if
    :: was != NOBODY && was != _pid ->
        revoke();
        if
        :: visits = true; lent = was
        :: skip
        fi
    :: else
    fi;
    atomic {
        was = NOBODY;
        by_bias = false;
        if
        :: visits -> skip
        :: !visits && last != _pid -> last = _pid; streak = 0
        :: !visits && last == _pid ->
            streak++;
            if
            :: streak >= STREAK -> streak = 0; owner = _pid
            :: else
            fi
        fi
    }
}

inline give_back() {
    if
    :: !biased && lent != NOBODY ->
        atomic { drain(_pid); owner = lent; lent = NOBODY } /* release */
    :: else
    fi
}

active[THREADS] proctype thread() {
    byte round, was = NOBODY;
    bool biased, visits;
    do
    :: round < ROUNDS ->
        /* heap_lock_enter() */
        biased = false;
        if
        :: owner == _pid ->
            store_busy(1);
#ifndef WRONG_NO_RECHECK
            if
            :: owner == _pid -> atomic { biased = true; by_bias = true }
            :: else -> store_busy(0)
            fi
#else
            atomic { biased = true; by_bias = true }
#endif
        :: else
        fi;
        if
        :: !biased -> enter_slow()
        :: else
        fi;
#ifdef WRONG_LEND
        give_back();
#endif
        inside++;
        assert(inside == 1);
        /* heap_lock_leave(), which believes by_bias */
        assert(by_bias == biased);
        inside--;
        if
        :: by_bias -> store_busy(0)
        :: else ->
            give_back();
            atomic { drain(_pid); spin = 0 } /* what was stored before is seen before */
        fi;
        atomic { round++; biased = false }
    :: else -> break
    od;
#ifndef WRONG_DISOWN
    /* heap_lock_disown() */
#ifdef WRONG_LOOK
    if
    :: owner == _pid ->
#endif
    lock_spin();
    atomic {
        if
        :: owner == _pid -> owner = NOBODY
        :: else
        fi;
        if
        :: last == _pid -> last = NOBODY
        :: else
        fi;
        spin = 0
    }
#ifdef WRONG_LOOK
    :: else
    fi
#endif
    ;
#endif
    atomic { drain(_pid); ended[_pid] = true; assert(owner != _pid) }
}

/* Memory takes what the store buffers hold, whenever it likes. */
active proctype memory() {
end:
    do
    :: atomic { first_stored[0] != EMPTY -> drain_one(0) }
    :: atomic { first_stored[1] != EMPTY -> drain_one(1) }
#if THREADS > 2
    :: atomic { first_stored[2] != EMPTY -> drain_one(2) }
#endif
    od
}
