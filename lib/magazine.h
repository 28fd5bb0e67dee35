/* SPDX-License-Identifier: MIT */
/*
 * Magazines: fixed arrays of free blocks of one class (Bonwick & Adams, 2001).
 *
 * A round holds the block's address and that of its state, so that taking one needs no lookup. A
 * magazine belongs to one thread, or to a depot under its lock; it is never shared. Blocks in it are in
 * state CACHED.
 */
#ifndef LARDER_MAGAZINE_H
#define LARDER_MAGAZINE_H

#include "region.h"

struct round {
    void *ptr;
    struct block_state *state;
};

struct magazine {
    uint32_t count; /* not kept while a thread has the magazine loaded */
    uint32_t capacity;
    struct magazine *next; /* in a depot's stack */
    struct round rounds[];
};

/* Stands for no magazine: nothing can be taken from it and nothing put into it. */
extern struct magazine empty_magazine;

enum { MAGAZINE_MAX_ROUNDS = 32 };

/* Rounds in a magazine for blocks of this size: fewer for larger blocks. */
uint32_t magazine_capacity(size_t block_size);

/* An empty magazine with room for `capacity` rounds (of magazine_capacity()), or NULL. */
struct magazine *magazine_get(uint32_t capacity);
void magazine_put(struct magazine *magazine);

size_t magazine_size(uint32_t capacity);

void magazine_fork_lock(void);
void magazine_fork_unlock(void);
void magazine_fork_child(void);

#endif
