/* SPDX-License-Identifier: MIT */
/*
 * From addresses to blocks: see builder.h.
 *
 * Blocks that share an address form a chain from oldest to youngest, linked by `successor`; the
 * map's entry holds both ends. Leaving an address takes the oldest block off the chain. If it has
 * a successor, then the operation that took it off came too late, and so did everything that
 * happened to the block since: those are the moves of the repair. A move goes to the operation
 * that gave the successor the address.
 */
#include "builder.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "pages.h"
#include "threads.h"

static int find_thread(struct trace_builder *builder, uint64_t thread_id, uint32_t *thread)
{
    struct trace *trace = builder->trace;
    if (trace->thread_count > 0 && builder->last_thread_id == thread_id) {
        *thread = builder->last_thread;
        return 0;
    }
    struct address_entry *entry = address_map_find(&builder->thread_of, thread_id + 1);
    if (entry == NULL) {
        if (pages_reserve(&trace->thread_ids, sizeof *trace->thread_ids, trace->thread_count,
                          &trace->thread_capacity) != 0) {
            return -ENOMEM;
        }
        entry = address_map_insert(&builder->thread_of, thread_id + 1);
        if (entry == NULL) {
            return -ENOMEM;
        }
        entry->first = (uint32_t)trace->thread_count;
        trace->thread_ids[trace->thread_count++] = (uint32_t)thread_id;
    }
    builder->last_thread_id = thread_id;
    builder->last_thread = entry->first;
    *thread = entry->first;
    return 0;
}

static uint8_t log2_of(uint64_t alignment)
{
    uint8_t log2 = 0;
    while (alignment > 1) {
        alignment /= 2;
        log2++;
    }
    return log2;
}

static int append_time(struct trace *trace, const struct trace_event *event)
{
    /* Files without times never make the array; in a mixed file the operations before have 0. */
    if (trace->times == NULL && !event->has_time) {
        return 0;
    }
    while (trace->op_count >= trace->time_capacity) {
        if (pages_reserve(&trace->times, sizeof *trace->times, trace->time_capacity,
                          &trace->time_capacity) != 0) {
            return -ENOMEM;
        }
    }
    assert(trace->times != NULL);
    trace->times[trace->op_count] = event->time;
    return 0;
}

static int append(struct trace_builder *builder, enum trace_op_kind kind, uint32_t block,
                  const struct trace_event *event)
{
    struct trace *trace = builder->trace;
    uint32_t thread;
    if (trace->op_count >= UINT32_MAX - 1) {
        return -E2BIG;
    }
    if (find_thread(builder, event->thread_id, &thread) != 0 ||
        pages_reserve(&trace->ops, sizeof *trace->ops, trace->op_count, &trace->op_capacity) != 0 ||
        append_time(trace, event) != 0) {
        return -ENOMEM;
    }
    trace->ops[trace->op_count++] = (struct trace_op){
        .size = event->size,
        .block = block,
        .thread = thread,
        .kind = (uint8_t)kind,
        .alignment_log2 = log2_of(event->alignment),
    };
    return 0;
}

/*
 * Notes that the operation to be appended next came after `successor` got the address, but belongs
 * before that. Returns 1 where it did, 0 where no repair is possible or wanted.
 */
static int note_move(struct trace_builder *builder, uint32_t successor)
{
    const struct builder_block *later = &builder->blocks[successor];
    if (!builder->repair || later->acquired_late) {
        return 0;
    }
    if (pages_reserve(&builder->moves, sizeof *builder->moves, builder->move_count,
                      &builder->move_capacity) != 0) {
        return -ENOMEM;
    }
    builder->moves[builder->move_count++] =
        (struct repair_move){.from = (uint32_t)builder->trace->op_count, .to = later->acquired_by};
    return 1;
}

static bool next_is_moved(const struct trace_builder *builder)
{
    return builder->move_count > 0 &&
           builder->moves[builder->move_count - 1].from == builder->trace->op_count;
}

/* Puts `block` at an address, by the operation to be appended next. */
static int acquire(struct trace_builder *builder, uint64_t address, uint32_t block)
{
    builder->blocks[block] =
        (struct builder_block){.successor = TRACE_NO_BLOCK,
                               .acquired_by = (uint32_t)builder->trace->op_count,
                               .acquired_late = next_is_moved(builder)};
    struct address_entry *entry = address_map_find(&builder->blocks_at, address);
    if (entry != NULL) {
        builder->blocks[entry->last].successor = block;
        entry->last = block;
        builder->trace->notes.early_reuses++;
        return 0;
    }
    entry = address_map_insert(&builder->blocks_at, address);
    if (entry == NULL) {
        return -ENOMEM;
    }
    entry->first = block;
    entry->last = block;
    return 0;
}

/* Takes the oldest block off its address, by the operation to be appended next. */
static int leave(struct trace_builder *builder, struct address_entry *entry)
{
    uint32_t successor = builder->blocks[entry->first].successor;
    if (successor == TRACE_NO_BLOCK) {
        address_map_remove(&builder->blocks_at, entry);
        return 0;
    }
    entry->first = successor;
    int noted = note_move(builder, successor);
    builder->trace->notes.repaired += noted == 1;
    return noted < 0 ? noted : 0;
}

int builder_allocate(struct trace_builder *builder, enum trace_op_kind kind,
                     const struct trace_event *event)
{
    struct trace *trace = builder->trace;
    if (event->address == 0) {
        trace->notes.failed_allocations++;
        return 0;
    }
    if (trace->op_count >= UINT32_MAX - 1) {
        return -E2BIG;
    }
    if (pages_reserve(&builder->blocks, sizeof *builder->blocks, trace->block_count,
                      &builder->block_capacity) != 0) {
        return -ENOMEM;
    }
    uint32_t block = trace->block_count++;
    if (acquire(builder, event->address, block) != 0) {
        return -ENOMEM;
    }
    return append(builder, kind, block, event);
}

int builder_free(struct trace_builder *builder, const struct trace_event *event)
{
    if (event->address == 0) {
        builder->trace->notes.null_frees++;
        return 0;
    }
    struct address_entry *entry = address_map_find(&builder->blocks_at, event->address);
    if (entry == NULL) {
        builder->trace->notes.unknown_frees++;
        return 0;
    }
    uint32_t block = entry->first;
    if (leave(builder, entry) != 0) {
        return -ENOMEM;
    }
    return append(builder, TRACE_FREE, block, event);
}

/* A reallocation whose old block is known and whose result is not NULL. */
static int resize(struct trace_builder *builder, struct address_entry *entry,
                  const struct trace_event *event)
{
    uint32_t block = entry->first;
    uint32_t successor = builder->blocks[block].successor;
    if (event->address == event->old_address) {
        /* It stays where it is; but if the address was reused already, this came late as well. */
        if (successor != TRACE_NO_BLOCK && note_move(builder, successor) < 0) {
            return -ENOMEM;
        }
    } else if (leave(builder, entry) != 0 || acquire(builder, event->address, block) != 0) {
        return -ENOMEM;
    }
    return append(builder, TRACE_REALLOCATE, block, event);
}

int builder_reallocate(struct trace_builder *builder, const struct trace_event *event)
{
    struct address_entry *entry =
        event->old_address == 0 ? NULL : address_map_find(&builder->blocks_at, event->old_address);
    if (event->address == 0 && event->size > 0) {
        builder->trace->notes.failed_allocations++; /* the old block stays */
        return 0;
    }
    if (event->address != 0 && entry != NULL) {
        return resize(builder, entry, event);
    }
    if (event->address == 0) {
        struct trace_event release = *event; /* realloc(ptr, 0) is free(ptr) */
        release.address = event->old_address;
        return builder_free(builder, &release);
    }
    if (event->old_address != 0) {
        builder->trace->notes.unknown_frees++;
    }
    return builder_allocate(builder, TRACE_ALLOCATE, event);
}

int builder_thread_done(struct trace_builder *builder, const struct trace_event *event)
{
    return append(builder, TRACE_THREAD_DONE, TRACE_NO_BLOCK, event);
}

void builder_begin(struct trace_builder *builder, struct trace *trace, bool repair)
{
    *builder = (struct trace_builder){.trace = trace, .repair = repair};
}

void builder_abandon(struct trace_builder *builder)
{
    address_map_clear(&builder->blocks_at);
    address_map_clear(&builder->thread_of);
    pages_free(builder->blocks, builder->block_capacity * sizeof *builder->blocks);
    pages_free(builder->moves, builder->move_capacity * sizeof *builder->moves);
    *builder = (struct trace_builder){0};
}

int builder_end(struct trace_builder *builder)
{
    int result = 0;
    if (builder->move_count > 0) {
        result = repair_apply(builder->trace, builder->moves, builder->move_count);
        if (result == 0) {
            result = threads_renumber(builder->trace);
        }
    }
    builder_abandon(builder);
    return result;
}
