/* SPDX-License-Identifier: MIT */
/*
 * The invariants of the store and the threads' tables under `exact`, checked at their slow paths in builds with -Dchecks=full; nothing
 * in others.
 *
 * A stack is of one size, the bucket's or the table's of that size, each size once; its blocks are cached, the instance's, and known to the map.
 * What a bucket holds is part of what the store says; what a table holds and the room left make up the thread's lease.
 */
#ifndef LARDER_EXACT_CHECK_H
#define LARDER_EXACT_CHECK_H

struct exact_bucket;
struct larder;
struct thread_cache;

#ifdef LARDER_CHECKS_FULL
/* Both end the process with a line if something does not hold. The bucket's lock is held; the second is for the owner. */
void exact_check_bucket(struct larder *instance, struct exact_bucket *bucket);
void exact_check_table(struct larder *instance, struct thread_cache *cache);
#else
static inline void exact_check_bucket(struct larder *instance, struct exact_bucket *bucket)
{
    (void)instance;
    (void)bucket;
}
static inline void exact_check_table(struct larder *instance, struct thread_cache *cache)
{
    (void)instance;
    (void)cache;
}
#endif

#endif
