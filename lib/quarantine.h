/* SPDX-License-Identifier: MIT */
/*
 * Freed blocks that nobody gets yet: where it is on, a block that is freed waits in a queue, first in first out, before it
 * becomes memory to be handed out.
 *
 * While a block waits its state is cached, so a second free of it is caught as ever, and as its address cannot have been handed
 * out again meanwhile, that holds however much has been allocated in between. When its turn comes it must still have the
 * bytes that it was filled with, redzones included: whoever wrote to it meanwhile has used it after free. Then it becomes live for the
 * moment of an ordinary free.
 *
 * The queue is bounded in bytes (the setting) and in blocks. It is for debugging: it takes a lock at every free, and
 * its instance has no hit path. Blocks in the arena of a plan do not wait: their places are fixed.
 */
#ifndef LARDER_QUARANTINE_H
#define LARDER_QUARANTINE_H

#include "spinlock.h"

struct larder;
struct lookup;
struct thread_cache;

enum { QUARANTINE_BLOCKS = 16384 };

struct quarantine {
    spinlock_t lock;
    struct quarantined *blocks; /* QUARANTINE_BLOCKS; NULL: there is no quarantine. Fixed */
    uint32_t first, count;      /* guarded by lock */
    _Atomic uint64_t bytes;     /* written under lock */
};

/* Sets it up if the configuration wants one; 0 or -ENOMEM. */
int quarantine_init(struct larder *instance);

/* True if a block that has been found live is to wait; else it is to be freed now. */
bool quarantine_wants(struct larder *instance, const struct lookup *found, bool is_record);

/* Frees it under the name of `call`, into the queue, and those at the other end of it for good. False: it is not live any more. No lock may be held. */
bool quarantine_free(struct larder *instance, struct thread_cache *cache,
                     const struct lookup *found, bool is_record, void *ptr, const char *call);

/* Frees all that waits. No lock may be held. */
void quarantine_empty(struct larder *instance);

/* The same, and ends the quarantine. */
void quarantine_end(struct larder *instance);

/* What waits, and what the queue itself takes. */
uint64_t quarantine_bytes(struct larder *instance);
uint64_t quarantine_blocks(struct larder *instance);
uint64_t quarantine_metadata_bytes(const struct larder *instance);

#endif
