/* SPDX-License-Identifier: MIT */
/*
 * Random operations on a whole instance against a model that knows nothing of spans: a table of the blocks that should be live. What the
 * instance says of itself is compared with the table, and its heaps are walked (heap_invariants.h).
 *
 * Contents: each block carries a pattern of its own, so one that overlaps another, or whose pages were
 * given back, is found out when it is freed, moved or looked at.
 */
#ifndef LARDER_TESTS_HEAP_MODEL_H
#define LARDER_TESTS_HEAP_MODEL_H

#include "support.h"

enum { SLOTS = 96, LAYERS = 60, INFERENCES = 1200, WEIGHTS = 16 };
#define LARGEST (8 * MIB)

struct block {
    void *ptr; /* NULL: none */
    size_t size;
    uint64_t pattern;
};

struct model {
    struct larder *larder;
    struct random random;
    struct block blocks[SLOTS];
    unsigned slots;
    size_t largest;
    uint64_t last_pattern;
    uint64_t live_blocks, live_bytes, allocations, frees;
};

/* Settings under which all must hold; `decay_ms` 0: what is free at a tick goes back. */
struct setting {
    const char *backend;
    size_t max_cached_bytes, alignment, redzone, max_cached_size;
    uint32_t decay_ms;
    larder_checks_t checks;
};

enum { SETTING_COUNT = 7 };
extern const struct setting settings[SETTING_COUNT];

struct larder *instance_with(const struct setting *setting);

/* Frees a block, the contents of which must be there. */
void block_goes(struct model *model, struct block *block);
void all_blocks_go(struct model *model);

/* Takes, frees or resizes; `dice` of 0 to 99 says which. */
void operate_on_block(struct model *model, struct block *block, unsigned dice);

/* The same with a block of any slot, and now and then a trim, a tick or a flush. */
void operate(struct model *model);

/* A network is a list of places: a tensor is taken where there is none, else given back. */
struct network {
    unsigned places[2 * LAYERS];
    size_t sizes[2 * LAYERS];
    unsigned steps;
};

void make_network(struct network *network, struct random *random);

/* One inference, with things that no loop expects if `deviating`. */
void infer(struct model *model, const struct network *network, bool deviating);

void assert_statistics_are(struct larder *larder, const struct model *model);
void assert_instance_is_sound(struct larder *larder);

/* Nothing is live, and no thread but the caller has magazines: all is one free span a region, and goes back. */
void assert_all_coalesces(struct larder *larder);

#endif
