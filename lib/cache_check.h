/* SPDX-License-Identifier: MIT */
/*
 * The invariants of an instance, checked in builds with -Dchecks=full; nothing in others.
 *
 * Of a thread, at its slow paths: what is in a bin is cached, of its class, and within its allotment; allotments and room make
 * up the lease. Of accounts: nothing is taken off that was not put on. Of an instance that ends, with nothing live: nothing is left of it anywhere,
 * so nothing was lost. (But in a child of fork, which loses what other threads had.)
 */
#ifndef LARDER_CACHE_CHECK_H
#define LARDER_CACHE_CHECK_H

#include <stdint.h>

struct larder;
struct thread_cache;

#ifdef LARDER_CHECKS_FULL
/* All end the process with a line if something does not hold. The first is for the owner. */
void cache_check_bin(const struct larder *instance, struct thread_cache *cache, unsigned c);
void cache_check_end(struct larder *instance);
/* `bytes` have been taken off an account that had `before`. */
void cache_check_account(uint64_t before, uint64_t bytes);
/* In the child of a fork. */
void cache_check_forked(void);
#else
static inline void cache_check_bin(const struct larder *instance, struct thread_cache *cache,
                                   unsigned c)
{
    (void)instance;
    (void)cache;
    (void)c;
}
static inline void cache_check_end(struct larder *instance)
{
    (void)instance;
}
static inline void cache_check_account(uint64_t before, uint64_t bytes)
{
    (void)before;
    (void)bytes;
}
static inline void cache_check_forked(void)
{
}
#endif

#endif
