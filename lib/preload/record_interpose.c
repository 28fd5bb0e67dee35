/* SPDX-License-Identifier: MIT */
/*
 * The recorder behind the malloc family: call the next one, note what happened.
 *
 * The order is the whole point (record_format.h): a release takes its sequence number before the
 * real call, an acquisition after it. A realloc does both; it is noted once, after the call, with
 * both numbers, so one that fails leaves no trace. A free is noted before the call as well: after
 * it, the thread may be descheduled and the same address handed out, noted and freed elsewhere.
 *
 * Frees of blocks that were never noted (too small, or allocated outside the window) are left to
 * the merge to drop; those that are surely too small are not noted at all.
 */
#include "family.h"
#include "record_log.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

static void note_acquired(enum record_kind kind, const void *block, size_t argument, size_t size,
                          size_t requested)
{
    if (!block || !record_log_is_open() || requested < record_log_min_size())
        return;
    struct record_entry entry = {
        .sequence = record_log_next(),
        .of.call = {.pointer = (uint64_t)(uintptr_t)block, .argument = argument, .size = size},
        .kind = (uint32_t)kind,
    };
    record_log_append(&entry);
}

static void note_released(uint64_t before, const void *block)
{
    struct record_entry entry = {
        .sequence = before,
        .of.call = {.pointer = (uint64_t)(uintptr_t)block},
        .kind = RECORD_FREE,
    };
    record_log_append(&entry);
}

/* A block whose usable size is below the bound was requested with fewer bytes still. */
static bool surely_too_small(const struct next_family *next, void *block)
{
    size_t minimum = record_log_min_size();
    return minimum > 1 && next->usable_size && next->usable_size(block) < minimum;
}

void *behind_malloc(const struct next_family *next, size_t size)
{
    void *block = next->malloc(size);
    note_acquired(RECORD_MALLOC, block, 0, size, size);
    return block;
}

void *behind_calloc(const struct next_family *next, size_t members, size_t size, size_t total)
{
    void *block = next->calloc(members, size);
    note_acquired(RECORD_CALLOC, block, members, size, total);
    return block;
}

void *behind_aligned(const struct next_family *next, enum family_aligned call, size_t alignment,
                     size_t size)
{
    void *block = family_next_aligned(next, call, alignment, size);
    note_acquired(RECORD_MEMALIGN, block, alignment, size, size);
    return block;
}

void behind_free(const struct next_family *next, void *block)
{
    if (record_log_is_open() && !surely_too_small(next, block))
        note_released(record_log_next(), block);
    next->free(block);
}

size_t behind_usable_size(const struct next_family *next, void *block)
{
    return next->usable_size ? next->usable_size(block) : 0;
}

static void *realloc_noted(const struct next_family *next, void *block, size_t size)
{
    bool old_small = surely_too_small(next, block);
    uint64_t old_address = (uint64_t)(uintptr_t)block;
    uint64_t before = record_log_next();
    void *moved = next->realloc(block, size);
    if (!moved) {
        /* Out of memory: the old block still lives. But size 0 answered with NULL has freed it. */
        if (size == 0 && !old_small) {
            struct record_entry freed = {
                .sequence = before, .of.call.pointer = old_address, .kind = RECORD_FREE};
            record_log_append(&freed);
        }
        return NULL;
    }
    struct record_entry entry = {
        .sequence = before,
        .later = (uint32_t)(record_log_next() - before),
        .of.call = {.pointer = (uint64_t)(uintptr_t)moved, .argument = old_address, .size = size},
        .kind = RECORD_REALLOC,
    };
    if (size < record_log_min_size()) {
        if (old_small)
            return moved;
        entry.kind = RECORD_FREE;
        entry.later = 0;
        entry.of.call.pointer = old_address;
    }
    record_log_append(&entry);
    return moved;
}

void *behind_realloc(const struct next_family *next, void *block, size_t size)
{
    if (!record_log_is_open())
        return next->realloc(block, size);
    return realloc_noted(next, block, size);
}

/* Destructors do not run: flush first. */
static _Noreturn void exit_now(int status)
{
    record_log_finish();
    const struct next_family *next = next_family();
    if (next && next->exit_now)
        next->exit_now(status);
    for (;;)
        syscall(SYS_exit_group, status);
}

EXPORT _Noreturn void _exit(int status)
{
    exit_now(status);
}

EXPORT _Noreturn void _Exit(int status)
{
    exit_now(status);
}
