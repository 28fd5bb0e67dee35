/* SPDX-License-Identifier: MIT */
/*
 * What a format's parser calls to make a trace: addresses in, blocks out.
 *
 * The builder knows which block lives at which address. Formats only tell what their file says, in
 * its order; dropping what began before the recording, and addresses reused too early, is settled
 * here once.
 *
 * Early reuse: some recorders write an allocation before the free, by another thread, of the block
 * that had the address before. While two blocks share an address, the older one is taken to be
 * freed first. With repair, the operations that end the older block move to just before the reuse.
 * A reuse by a reallocation that itself has to move is left as it is: the moves of several blocks
 * could otherwise wait for each other. Its count stays out of notes.repaired.
 */
#ifndef LARDER_TRACE_BUILDER_H
#define LARDER_TRACE_BUILDER_H

#include <stdbool.h>
#include <stdint.h>

#include "address_map.h"
#include "repair.h"
#include "trace.h"

/* What the builder knows of a block beside its address. */
struct builder_block {
    uint32_t successor;   /* the block that got the same address too early, or TRACE_NO_BLOCK */
    uint32_t acquired_by; /* the operation that gave it its address */
    bool acquired_late;   /* that operation is itself one that the repair moves */
};

struct trace_builder {
    struct trace *trace;
    struct address_map blocks_at; /* first: oldest, last: youngest block at the address */
    struct address_map thread_of; /* by recorded id + 1 */
    struct builder_block *blocks; /* by block, trace->block_count of them */
    size_t block_capacity;
    struct repair_move *moves; /* ascending by `from` */
    size_t move_count, move_capacity;
    bool repair;
    void *state; /* of the format that is being read (format.h) */
    uint64_t last_thread_id;
    uint32_t last_thread;
};

/* One line of a trace, as every format has it. */
struct trace_event {
    uint64_t thread_id;
    uint64_t address;     /* of the result of an allocation, or the block freed; 0: NULL */
    uint64_t old_address; /* reallocate only */
    uint64_t size;
    uint64_t alignment; /* a power of two; 0 or 1: none asked for */
    struct trace_time time;
    bool has_time;
};

/* Each returns 0, -ENOMEM, or -E2BIG: more than 2^32 - 2 operations. */
int builder_allocate(struct trace_builder *builder, enum trace_op_kind kind,
                     const struct trace_event *event);
int builder_reallocate(struct trace_builder *builder, const struct trace_event *event);
int builder_free(struct trace_builder *builder, const struct trace_event *event);
int builder_thread_done(struct trace_builder *builder, const struct trace_event *event);

/* Starts a builder that adds to an empty trace. */
void builder_begin(struct trace_builder *builder, struct trace *trace, bool repair);

/* Applies the repair, if asked for, and releases what only the builder needed. */
int builder_end(struct trace_builder *builder);

/* Releases it without finishing. */
void builder_abandon(struct trace_builder *builder);

#endif
