/* SPDX-License-Identifier: MIT */
/*
 * The invariants of the allocation map's tables, checked after each insertion and removal in builds with -Dchecks=full; nothing in
 * others.
 *
 * A lookup of the key just changed finds what it should. A table has as many keys as its shard says, at most half full; each
 * stands once, in the shard of its hash, with a value, and with no empty slot between its home and its place.
 * (Whether the records are those of the addresses is checked where they are: depot_check.c, span_check.c, exact_check.c.)
 */
#ifndef LARDER_MAP_CHECK_H
#define LARDER_MAP_CHECK_H

#include <stdint.h>

struct shard;

#ifdef LARDER_CHECKS_FULL
/* `value` is what `key` should have now; NULL: it has gone. `shift` is the map's, see shard_number(). Ends the process with a line if something does not hold. The shard's lock is held. */
void map_check(struct shard *shard, unsigned shift, uintptr_t key, const void *value);
#else
static inline void map_check(struct shard *shard, unsigned shift, uintptr_t key, const void *value)
{
    (void)shard;
    (void)shift;
    (void)key;
    (void)value;
}
#endif

#endif
