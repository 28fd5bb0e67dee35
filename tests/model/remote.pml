/* SPDX-License-Identifier: MIT */
/*
 * Large blocks on their way back to another thread's heap (lib/span_remote.[ch], span_heap_put_plain()).
 *
 * The owner takes the blocks and hands them on; each is freed by two of three other threads, in whatever order. A free makes the block's word WAITING by a compare-and-swap, reserves a place by one on `pushed`, and then
 * writes the note; where there is no room it takes the lock, drains and puts the block itself. The owner drains, with the lock held, until it
 * meets an empty place.
 *
 * Properties: a block is put once, and never while it is live; a note is never overwritten; a second free is seen as one; in the
 * end all blocks are free. Every process ends.
 *
 * Each access of a shared variable is a step of its own, in program order; `seen` is left out, since an older `drained` only
 * means less room.
 *
 * Wrong variants, each of which must be caught:
 *   WRONG_PLAIN_MARK   the word is looked at and then stored, not swapped
 *   WRONG_NOTE_FIRST   the block is marked after its note has been written
 *   WRONG_NO_BOUND     a place is reserved without looking whether there is one
 *   WRONG_EARLY        `drained` moves on before the place has been emptied
 *   WRONG_SKIP         the drainer goes on behind a place that is reserved and still empty
 */
#define BLOCKS 3
#define SLOTS 2
#define FREE 0
#define LIVE 1
#define WAITING 2
#define NOTHING 0

byte word[BLOCKS + 1]; /* blocks are numbered from 1; FREE */
byte slot[SLOTS];      /* block, or NOTHING */
byte pushed, drained;
bit locked;
bool out[BLOCKS + 1]; /* the block has been handed out */
byte doubles;         /* second frees that were seen */
byte ended;

inline lock() {
    atomic { locked == 0; locked = 1 }
}

/* span_heap_put_locked() */
inline put(b) {
    assert(word[b] == WAITING);
    word[b] = FREE
}

/* span_heap_drain(); the lock is held */
inline drain() {
    do
    :: b = slot[drained % SLOTS];
        if
        :: b == NOTHING ->
#ifdef WRONG_SKIP
            if
            :: drained != pushed -> drained++
            :: else -> break
            fi
#else
            break
#endif
        :: else ->
#ifdef WRONG_EARLY
            drained++;
            put(b);
            slot[(drained - 1) % SLOTS] = NOTHING
#else
            slot[drained % SLOTS] = NOTHING;
            put(b);
            drained++
#endif
        fi
    od
}

active proctype owner() {
    byte b, taken;
    do
    :: taken < BLOCKS ->
        taken++;
        assert(word[taken] == FREE);
        word[taken] = LIVE;
        out[taken] = true;
        if
        :: lock(); drain(); locked = 0
        :: skip
        fi
    :: else -> break
    od;
    ended == 3;
    lock();
    drain();
    locked = 0;
    assert(pushed == drained && doubles == BLOCKS);
    b = 1;
    do
    :: b <= BLOCKS -> assert(word[b] == FREE); b++
    :: else -> break
    od;
    assert(slot[0] == NOTHING && slot[1] == NOTHING)
}

/* span_remote_push(); `done` says whether there was room */
inline push(m) {
    do
    :: at = pushed;
        room = at - drained;
#ifndef WRONG_NO_BOUND
        if
        :: room >= SLOTS -> done = false; break
        :: else
        fi;
#endif
        if
        :: atomic { pushed == at -> pushed++ };
            assert(slot[at % SLOTS] == NOTHING);
            slot[at % SLOTS] = m;
            done = true;
            break
        :: pushed != at
        fi
    od
}

inline free(m) {
    done = false;
#ifdef WRONG_NOTE_FIRST
    was = word[m];
    if
    :: was == LIVE -> push(m); word[m] = WAITING
    :: else -> doubles++
    fi;
    won = false;
#else
#ifdef WRONG_PLAIN_MARK
    won = (word[m] == LIVE);
    if
    :: won -> word[m] = WAITING
    :: else
    fi;
#else
    atomic {
        won = (word[m] == LIVE);
        if
        :: won -> word[m] = WAITING
        :: else
        fi
    }
#endif
    if
    :: won -> push(m)
    :: else -> doubles++
    fi;
#endif
    if
    :: won && !done ->
        lock();
        drain();
        put(m);
        locked = 0
    :: else
    fi
}

/* Each block is freed by two of these. */
active[3] proctype freer() {
    byte me = _pid - 1, mine, b, at, room, i;
    bool done, won;
#ifdef WRONG_NOTE_FIRST
    byte was;
#endif
    do
    :: i < 2 ->
        mine = (me + i) % BLOCKS + 1;
        out[mine]; /* it has been handed out */
        free(mine);
        i++
    :: else -> break
    od;
    ended++
}
