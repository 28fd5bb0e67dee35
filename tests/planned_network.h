/* SPDX-License-Identifier: MIT */
/*
 * A network to plan for: each layer has an output, which the next but one frees, and work space of its own. Each block carries a
 * pattern of its own, which is looked at when it is freed.
 */
#ifndef PLANNED_NETWORK_H
#define PLANNED_NETWORK_H

#include "support.h"

enum { LAYERS = 12, BLOCKS = 3 * LAYERS };

struct network {
    size_t output[LAYERS], work[LAYERS];
};

struct run {
    larder_t *larder;
    void *blocks[BLOCKS + 8];
    size_t sizes[BLOCKS + 8];
    uint64_t seed;
};

/* An instance under the policy `planned`, over mmap. */
larder_t *make_planned(void);

/* Sizes from 9 to 300 KiB, other ones for each `stream`. */
struct network make_network(uint64_t stream);

/* Allocates a block into the slot; frees it, if there is one. */
void *take(struct run *run, int slot, size_t size);
void give(struct run *run, int slot);

/* One inference. The outputs' addresses go to `places` (NULL: nowhere). */
void infer(larder_t *larder, const struct network *network, uint64_t key, void **places);

#endif
