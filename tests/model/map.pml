/* SPDX-License-Identifier: MIT */
/*
 * The allocation map (lib/allocation_map.c): lookups without a lock against insertion, removal and growth.
 *
 * One shard. A table of SMALL slots, replaced by one twice the size when it would be more than half full; linear
 * probing; removal closes gaps by moving entries back (map_remove, may_fill), between two steps of
 * `sequence`; a slot is written as key = 0, value, key (slot_set); a replaced table stays as it is
 * (shard_adopt). The reader is map_find() with table_find(), each load a step of its own, and the comparison
 * of the record's own address that lookup_address() makes. Key 1 is there from beginning to end; keys
 * 2 and 3 come and go, each time with a new value. Their home slots are the same
 * or neighbours, across the end of the table, in all combinations.
 *
 * Properties, for each lookup:
 *   - a key that is in the map during the whole lookup is found;
 *   - a key that is not in it during the whole lookup is not found;
 *   - what is found was entered under this very key, and was not dead before the lookup began;
 *   - nothing waits for ever (no invalid end state).
 *
 * Memory model: sequential consistency. It leaves out reordering: that the loads and stores are acquire
 * and release as they need to be is for reading (the pairs are named in the code) and for the runs on
 * emulated ARM and under thread sanitizer. Left out too: the wrap-around of `sequence`.
 *
 * Wrong variants, each of which must be caught:
 *   WRONG_NO_SEQUENCE   a miss is believed without looking at `sequence`
 *   WRONG_ONE_KEY       the key is not read again after the value
 *   WRONG_NO_ZERO       a slot's value is replaced while its key stands
 *   WRONG_UNVERIFIED    the record's own address is not compared
 *   WRONG_REUSE         growth clears the table it replaces
 *   WRONG_TOMBLESS      a removed entry leaves a gap, and nothing is moved
 */
#define SMALL 4
#define LARGE 8
#define TRIES 2 /* LOCKLESS_TRIES */
#ifndef OPERATIONS
#define OPERATIONS 4 /* of the writer */
#endif
#define NONE 0
#define VALUES 6

typedef table_t {
    byte mask;
    byte key[LARGE];
    byte value[LARGE]
}

table_t table[2];
byte current;  /* shard->table */
byte sequence; /* shard->sequence */
bool locked;   /* shard->lock */
byte entries;  /* shard->entries */
byte home[4];  /* the hash of each key */

/* ghosts: what the map means */
byte key_of[VALUES + 1];
byte next_value = 1;
byte latest[4];       /* the value that each key had last */
bool touched[4];      /* the key has begun or ceased to be in the map since the lookup began */
bool in_map[4];       /* from the end of insertion to the beginning of removal */
bool maybe_in_map[4]; /* from the beginning of insertion to the end of removal */

inline lock() { atomic { !locked -> locked = true } }
inline unlock() { locked = false }

/* slot_set() */
inline slot_set(T, I, K, V) {
#ifndef WRONG_NO_ZERO
    table[T].key[I] = NONE;
#endif
    table[T].value[I] = V;
    table[T].key[I] = K
}

/* The writer's own reading of tables happens under the lock: it needs no steps. */
inline find_free(T, K, I) {
    d_step {
        I = home[K] & table[T].mask;
        do
        :: table[T].key[I] != NONE -> I = (I + 1) & table[T].mask
        :: else -> break
        od
    }
}

/* shard_adopt(): the new table is nobody's yet, so filling it is one step; publishing is another. */
inline adopt() {
    d_step {
        table[1].mask = LARGE - 1;
        at = 0;
        do
        :: at < SMALL ->
            if
            :: table[0].key[at] != NONE ->
                j = home[table[0].key[at]] & (LARGE - 1);
                do
                :: table[1].key[j] != NONE -> j = (j + 1) & (LARGE - 1)
                :: else -> break
                od;
                table[1].key[j] = table[0].key[at];
                table[1].value[j] = table[0].value[at]
            :: else
            fi;
            at++
        :: else -> break
        od;
        at = 0;
        j = 0
    }
    current = 1
#ifdef WRONG_REUSE
    ;
    at = 0;
    do
    :: at < SMALL -> table[0].key[at] = NONE; at++
    :: else -> at = 0; break
    od
#endif
}

/* map_insert() of k; the value is new */
inline insert() {
    atomic {
        v = next_value;
        next_value++;
        key_of[v] = k;
        latest[k] = v;
        maybe_in_map[k] = true;
        touched[k] = true
    }
    lock();
    if
    :: (entries + 1) * 2 > table[current].mask + 1 -> adopt()
    :: else
    fi;
    find_free(current, k, at);
    slot_set(current, at, k, v);
    entries++;
    unlock();
    atomic { in_map[k] = true; touched[k] = true; at = 0; v = 0 }
}

/* map_remove() of k */
inline remove() {
    atomic { in_map[k] = false; touched[k] = true }
    lock();
    d_step {
        gap = home[k] & table[current].mask;
        do
        :: table[current].key[gap] != k -> gap = (gap + 1) & table[current].mask
        :: else -> break
        od
    }
    sequence++;
#ifndef WRONG_TOMBLESS
    at = (gap + 1) & table[current].mask;
    do
    :: table[current].key[at] == NONE -> break
    :: else ->
        if /* may_fill(); a byte's difference is taken modulo the table */
        :: ((at - home[table[current].key[at]]) & table[current].mask) >=
                ((at - gap) & table[current].mask) ->
            slot_set(current, gap, table[current].key[at], table[current].value[at]);
            gap = at
        :: else
        fi;
        at = (at + 1) & table[current].mask
    od;
#endif
    table[current].key[gap] = NONE;
    entries--;
    sequence++;
    unlock();
    atomic {
        maybe_in_map[k] = false;
        touched[k] = true;
        at = 0;
        gap = 0
    }
}

/* In the small table 3 and 7 are the same, and 0 is the next; in the large one 7 and 0 are neighbours. */
inline choose_home(K) {
    if
    :: home[K] = 0
    :: home[K] = 3
    :: home[K] = 7
    fi
}

active proctype writer() {
    byte at, gap, j, v, k, done;
    /* homes as they come; key 1 is entered before anybody looks */
    atomic {
        choose_home(1);
        choose_home(2);
        choose_home(3);
        table[0].mask = SMALL - 1;
        v = next_value;
        next_value++;
        key_of[v] = 1;
        latest[1] = v;
        at = home[1] & (SMALL - 1);
        /* key 2 first, or not: it may stand before key 1 and push it on */
        if
        :: table[0].key[home[2] & (SMALL - 1)] = 2;
           table[0].value[home[2] & (SMALL - 1)] = next_value;
           key_of[next_value] = 2;
           latest[2] = next_value;
           next_value++;
           entries++;
           in_map[2] = true;
           maybe_in_map[2] = true
        :: skip
        fi;
        do
        :: table[0].key[at] != NONE -> at = (at + 1) & (SMALL - 1)
        :: else -> break
        od;
        table[0].key[at] = 1;
        table[0].value[at] = v;
        entries++;
        in_map[1] = true;
        maybe_in_map[1] = true;
        at = 0;
        v = 0;
        run reader()
    }
    do
    :: done < OPERATIONS && next_value <= VALUES ->
        if
        :: k = 2
        :: k = 3
        fi;
        if
        :: in_map[k] -> remove()
        :: else -> insert()
        fi;
        k = 0;
        done++
    :: else -> break
    od
}

/* table_find() in table t; the result in `value`, NONE for a miss */
inline table_find(T) {
    i = home[key] & table[T].mask;
    probes = 0;
    value = NONE;
    do
    :: probes > table[T].mask -> break
    :: else ->
        found = table[T].key[i];
        if
        :: found == key ->
            value = table[T].value[i];
#ifndef WRONG_ONE_KEY
            if
            :: table[T].key[i] == key -> break
            :: else -> value = NONE
            fi
#else
            break
#endif
        :: else
        fi;
        if
        :: found == NONE -> break
        :: else
        fi;
        atomic { i = (i + 1) & table[T].mask; probes++ }
    od;
    atomic { i = 0; probes = 0; found = 0 }
}

proctype reader() {
    byte key, oldest, before, t, i, probes, found, value, tries;
    bool there, away;
    atomic {
        if
        :: key = 1
        :: key = 2
        fi;
        touched[key] = false;
        there = in_map[key];
        away = !maybe_in_map[key];
        oldest = (away -> next_value : latest[key])
    }
    /* map_find() */
    do
    :: tries < TRIES ->
        before = sequence;
        t = current;
        table_find(t);
        if
        :: value != NONE -> break
        :: else
        fi;
#ifdef WRONG_NO_SEQUENCE
        break;
#else
        if
        :: sequence == before && (before & 1) == 0 -> break
        :: else
        fi;
#endif
        tries++
    :: else ->
        lock();
        table_find(current);
        unlock();
        break
    od;
    atomic {
#ifndef WRONG_UNVERIFIED
        if /* lookup_address(): a record found under another address is not this block's */
        :: value != NONE && key_of[value] != key -> value = NONE
        :: else
        fi;
#endif
        assert(!there || touched[key] || value != NONE);
        assert(!away || touched[key] || value == NONE);
        assert(value == NONE || key_of[value] == key);
        assert(value == NONE || value >= oldest)
    }
}
