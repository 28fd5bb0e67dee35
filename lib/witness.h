/* SPDX-License-Identifier: MIT */
/*
 * The order of locks, and in builds with -Dchecks=full a witness to it (the idea is jemalloc's and FreeBSD's).
 *
 * A lock may be taken while locks of lower rank are held, and no other. So no two threads can wait for each
 * other. Taking a backend's memory, mapping and discarding happen with no lock held at all.
 *
 * The witness keeps, for each thread, how many locks of each rank it holds, and ends the process with a line
 * that names both ranks where a lock is taken out of order. Before a fork everything is taken at once, instance by
 * instance: that thread's witness looks away meanwhile.
 */
#ifndef LARDER_WITNESS_H
#define LARDER_WITNESS_H

enum lock_rank {
    RANK_NONE,       /* not looked at */
    RANK_CACHES,     /* who retires a thread's cache; thread_state.c */
    RANK_INSTANCES,  /* the list of instances; cache.c */
    RANK_INSTANCE,   /* thread caches and records of one; larder->lock */
    RANK_DEPOT,      /* of a class */
    RANK_BUCKET,     /* of the store under `exact` */
    RANK_QUARANTINE, /* blocks that wait */
    RANK_PLANNED,    /* streams and plans of an instance */
    RANK_SMALL_HEAP, /* runs */
    RANK_HEAP,       /* large blocks */
    RANK_BUDGET,     /* of an instance's free memory */
    RANK_RUNS,       /* run records of a region */
    RANK_MAP,        /* preparing the allocation map */
    RANK_SHARD,      /* of the map */
    RANK_POOL,       /* of records */
    RANK_META,       /* their memory */
    RANKS
};

#ifdef LARDER_CHECKS_FULL
/* Before a lock of this rank is taken; after it has been released. */
void witness_take(enum lock_rank rank);
void witness_leave(enum lock_rank rank);
/* Where no lock may be held; `call` is what is about to be done. */
void witness_free_of_locks(const char *call);
/* Around a fork, and in its child. */
void witness_look_away(void);
void witness_look_again(void);
#else
static inline void witness_take(enum lock_rank rank)
{
    (void)rank;
}
static inline void witness_leave(enum lock_rank rank)
{
    (void)rank;
}
static inline void witness_free_of_locks(const char *call)
{
    (void)call;
}
static inline void witness_look_away(void)
{
}
static inline void witness_look_again(void)
{
}
#endif

#endif
