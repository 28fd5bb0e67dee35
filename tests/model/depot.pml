/* SPDX-License-Identifier: MIT */
/*
 * Magazines between threads and depot, flushes on request, and the end of threads and of the instance
 * (lib/depot.c, lib/fit_magazines.c, lib/thread_state.c).
 *
 * One class, magazines of ROUNDS blocks. A thread allocates and frees through `loaded` and `previous`
 * (fit_take_round, fit_put_round), exchanges whole magazines with the depot (depot_take_full,
 * depot_give_full), empties them into runs (drain_magazine), flushes when it finds that it is wanted
 * (thread_cache_get, restore_hit_path), and gives everything up at its end (teardown). The
 * trimmer drains the depot (depot_detach_full) and asks for flushes (thread_caches_want_flush); then it
 * destroys the instance (thread_caches_drop), at which a thread may be just ending. Each section under the
 * depot's lock is one step (lock.pml is about the lock); the figures kept outside of it (depot_bytes) are
 * steps of their own.
 *
 * Properties:
 *   - no block is lost or doubled: the blocks in threads, depot, on their way and in runs are always BLOCKS;
 *   - depot_bytes is the sum over the full magazines once nobody is inside;
 *   - a wish to flush is not lost: when all is quiet, a thread whose hit path is open (id set) has
 *     no wish pending;
 *   - each cache is retired exactly once, by its thread's end or by the instance's, and everything has come
 *     back to the runs in the end.
 *
 * Memory model: sequential consistency. The wish and the id are stored and loaded seq_cst in
 * the code; everything else is handed over under locks.
 *
 * Wrong variants, each of which must be caught:
 *   WRONG_RESTORE    after a flush, id is restored without looking at the wish again
 *   WRONG_UNLOCKED   the depot's stack is read and changed in two steps
 *   WRONG_KEEP       a full magazine is given to the depot and kept as well
 *   WRONG_DETACH     the end of a thread and the end of the instance look and clear in two steps
 *   WRONG_BYTES      a trim does not take what it drains off depot_bytes
 */
#define THREADS 2
#define ROUNDS 2
#define BLOCKS 8
#define IN_RUNS 1 /* at first; the others are live */
#ifndef CALLS
#define CALLS 1
#endif
#ifndef WISHES
#define WISHES 2 /* of the trimmer */
#endif
#define ID 1

/* the instance */
byte depot_full;    /* full magazines in the depot's stack */
byte depot_bytes;   /* in blocks; room is reserved before a magazine comes in */
byte runs = IN_RUNS; /* free blocks in runs */
#define DEPOT_LIMIT 4

/* thread caches */
byte loaded[THREADS], previous[THREADS];
byte live[THREADS];    /* blocks that the thread's caller has */
byte moving[THREADS];  /* ghost: blocks on their way, in the hands of the thread */
byte trimmed;          /* ghost: the same for the trimmer */
byte id[THREADS] = ID;
bool flush_wanted[THREADS];
bool attached[THREADS] = true; /* cache->instance != NULL */
bool linked[THREADS] = true;   /* in the instance's list */
byte retired[THREADS];         /* ghost: how often */
bool quiet[THREADS];           /* ghost: the thread is between two calls, for good */
bool started;

#define ALL_BLOCKS                                                                                 \
    (loaded[0] + previous[0] + live[0] + moving[0] + loaded[1] + previous[1] + live[1] +           \
     moving[1] + trimmed + depot_full * ROUNDS + runs)

/* thread_cache_flush() of thread t: into runs */
inline flush(t) {
    atomic {
        moving[t] = moving[t] + loaded[t] + previous[t];
        loaded[t] = 0;
        previous[t] = 0
    }
    atomic { runs = runs + moving[t]; moving[t] = 0 }
}

/* thread_cache_get(): what was wished for is done first */
inline enter() {
    if
    :: id[_pid] != ID ->
        if
        :: flush_wanted[_pid] ->
            flush_wanted[_pid] = false;
            flush(_pid);
            /* restore_hit_path() */
            id[_pid] = ID
#ifndef WRONG_RESTORE
            ;
            if
            :: flush_wanted[_pid] -> id[_pid] = 0
            :: else
            fi
#endif
        :: else
        fi
    :: else
    fi
}

/* full = depot_take_full() */
inline take_full(GOT) {
#ifdef WRONG_UNLOCKED
    GOT = (depot_full > 0);
    if
    :: GOT -> atomic { depot_full = depot_full - 1; moving[_pid] = moving[_pid] + ROUNDS }
    :: else
    fi
#else
    atomic {
        GOT = (depot_full > 0);
        if
        :: GOT -> depot_full--; moving[_pid] = moving[_pid] + ROUNDS
        :: else
        fi
    }
#endif
}

/* retire_magazine() of `previous`: into the depot if there is room, else into runs */
inline retire_previous() {
    atomic { reserved = (depot_bytes + ROUNDS <= DEPOT_LIMIT); depot_bytes = depot_bytes + ROUNDS };
    if
    :: reserved ->
        atomic {
            depot_full++;
#ifndef WRONG_KEEP
            previous[_pid] = 0
#endif
        }
    :: else ->
        atomic { depot_bytes = depot_bytes - ROUNDS };
        atomic { moving[_pid] = moving[_pid] + previous[_pid]; previous[_pid] = 0 };
        atomic { runs = runs + moving[_pid]; moving[_pid] = 0 }
    fi;
    reserved = false
}

/* larder_alloc() */
inline allocate() {
    if
    :: loaded[_pid] > 0 -> atomic { loaded[_pid]--; live[_pid]++ }
    :: loaded[_pid] == 0 && previous[_pid] > 0 ->
        atomic { loaded[_pid] = previous[_pid]; previous[_pid] = 0 };
        atomic { loaded[_pid]--; live[_pid]++ }
    :: loaded[_pid] == 0 && previous[_pid] == 0 ->
        take_full(got); /* load_from_depot() */
        if
        :: got ->
            atomic { depot_bytes = depot_bytes - ROUNDS };
            atomic { loaded[_pid] = moving[_pid]; moving[_pid] = 0 };
            atomic { loaded[_pid]--; live[_pid]++ }
        :: else -> /* load_from_runs(): half a magazine */
            atomic {
                if
                :: runs > 0 -> runs--; live[_pid]++
                :: else
                fi
            }
        fi;
        got = false
    fi
}

/* larder_free() */
inline release() {
    if
    :: loaded[_pid] == ROUNDS ->
        if
        :: previous[_pid] == ROUNDS -> retire_previous()
        :: previous[_pid] > 0 && previous[_pid] < ROUNDS ->
            atomic { moving[_pid] = moving[_pid] + previous[_pid]; previous[_pid] = 0 };
            atomic { runs = runs + moving[_pid]; moving[_pid] = 0 }
        :: previous[_pid] == 0
        fi;
        atomic { previous[_pid] = previous[_pid] + loaded[_pid]; loaded[_pid] = 0 }
    :: else
    fi;
    atomic { live[_pid]--; loaded[_pid]++ }
}

/* cache_detach(): true for one of the two who try */
inline detach(t, won) {
#ifdef WRONG_DETACH
    won = attached[t];
    attached[t] = false
#else
    atomic { won = attached[t]; attached[t] = false }
#endif
}

/* cache_retire() */
inline retire(t) {
    flush(t);
    id[t] = 0;
    atomic { linked[t] = false; retired[t]++; assert(retired[t] == 1) }
}

active[THREADS] proctype thread() {
    byte calls;
    bool got, reserved;
    started;
    do
    :: calls < CALLS ->
        enter();
        if
        :: live[_pid] < 6 -> allocate()
        :: live[_pid] > 0 -> release()
        fi;
        atomic { calls++; assert(ALL_BLOCKS == BLOCKS) }
    :: else -> break
    od;
    do /* its blocks go back; then it ends, or sleeps until the instance ends */
    :: live[_pid] > 0 -> enter(); release()
    :: else -> break
    od;
    calls = 0;
    quiet[_pid] = true;
    if
    :: true -> /* teardown() */
        detach(_pid, got);
        if
        :: got -> retire(_pid)
        :: else
        fi
    :: true
    fi
}

active proctype trimmer() {
    byte count, t, wishes = WISHES;
    bool got;
    atomic { live[0] = 5; live[1] = BLOCKS - IN_RUNS - 5; started = true };
    do
    :: wishes > 0 ->
        /* thread_caches_want_flush(), under the instance's lock: threads do not leave its list meanwhile */
        t = 0;
        do
        :: t < THREADS && linked[t] -> flush_wanted[t] = true; id[t] = 0; t++
        :: t < THREADS && !linked[t] -> t++
        :: else -> break
        od;
        /* fit_drain_depots(): depot_detach_full(), then the magazines' blocks into runs */
        atomic { count = depot_full; trimmed = trimmed + count * ROUNDS; depot_full = 0 };
        atomic { runs = runs + trimmed; trimmed = 0 };
#ifndef WRONG_BYTES
        depot_bytes = depot_bytes - count * ROUNDS;
#endif
        count = 0;
        atomic { wishes--; assert(ALL_BLOCKS == BLOCKS) }
    :: else -> break
    od;
    /* larder_destroy(): no thread is inside a call any more, but one may be ending */
    quiet[0] && quiet[1];
    assert(!(attached[0] && id[0] == ID && flush_wanted[0]));
    assert(!(attached[1] && id[1] == ID && flush_wanted[1]));
    t = 0;
    do /* thread_caches_drop() */
    :: t < THREADS && linked[t] ->
        detach(t, got);
        if
        :: got -> retire(t)
        :: else -> !linked[t] /* its thread will unlink it */
        fi;
        t++
    :: t < THREADS && !linked[t] -> t++
    :: else -> break
    od;
    atomic { trimmed = trimmed + depot_full * ROUNDS; count = depot_full; depot_full = 0 };
    atomic { runs = runs + trimmed; trimmed = 0 };
    depot_bytes = depot_bytes - count * ROUNDS;
    assert(retired[0] == 1 && retired[1] == 1);
    assert(runs == BLOCKS);
    assert(depot_bytes == 0)
}
