/* SPDX-License-Identifier: MIT */
/*
 * The malloc family, as the program sees it: call the real one, note what happened.
 *
 * The order is the whole point (record_format.h): a release takes its sequence number before the
 * real call, an acquisition after it. A realloc does both; it is noted once, after the call, with
 * both numbers, so one that fails leaves no trace. A free is noted before the call as well: after
 * it, the thread may be descheduled and the same address handed out, noted and freed elsewhere.
 *
 * Frees of blocks that were never noted (too small, or allocated outside the window) are left to
 * the merge to drop; those that are surely too small are not noted at all.
 */
#include "record_log.h"
#include "record_real.h"

#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

/* Not every C library declares these; where it has none, nobody calls them. */
EXPORT void *reallocarray(void *block, size_t members, size_t size);
EXPORT void *valloc(size_t size);
EXPORT void *pvalloc(size_t size);

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
static bool surely_too_small(const struct record_real *real, void *block)
{
    size_t minimum = record_log_min_size();
    return minimum > 1 && real->usable_size && real->usable_size(block) < minimum;
}

EXPORT void *malloc(size_t size)
{
    const struct record_real *real = record_real();
    if (!real)
        return record_bootstrap_allocate(1, size);
    void *block = real->malloc(size);
    note_acquired(RECORD_MALLOC, block, 0, size, size);
    return block;
}

EXPORT void *calloc(size_t members, size_t size)
{
    const struct record_real *real = record_real();
    size_t total;
    bool overflow = __builtin_mul_overflow(members, size, &total);
    if (!real)
        return overflow ? NULL : record_bootstrap_allocate(1, total);
    void *block = real->calloc(members, size);
    note_acquired(RECORD_CALLOC, block, members, size, total);
    return block;
}

EXPORT void free(void *block)
{
    if (!block || record_bootstrap_owns(block))
        return;
    const struct record_real *real = record_real();
    if (!real)
        return;
    if (record_log_is_open() && !surely_too_small(real, block))
        note_released(record_log_next(), block);
    real->free(block);
}

static void *realloc_bootstrap(const struct record_real *real, const void *block, size_t size)
{
    void *moved = real ? real->malloc(size) : record_bootstrap_allocate(1, size);
    if (!moved)
        return NULL;
    size_t readable = record_bootstrap_readable(block);
    memcpy(moved, block, size < readable ? size : readable);
    if (real)
        note_acquired(RECORD_MALLOC, moved, 0, size, size);
    return moved;
}

static void *realloc_noted(const struct record_real *real, void *block, size_t size)
{
    bool old_small = surely_too_small(real, block);
    uint64_t old_address = (uint64_t)(uintptr_t)block;
    uint64_t before = record_log_next();
    void *moved = real->realloc(block, size);
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
        .sequence_after = record_log_next(),
        .of.call = {.pointer = (uint64_t)(uintptr_t)moved, .argument = old_address, .size = size},
        .kind = RECORD_REALLOC,
    };
    if (size < record_log_min_size()) {
        if (old_small)
            return moved;
        entry.kind = RECORD_FREE;
        entry.sequence_after = 0;
        entry.of.call.pointer = old_address;
    }
    record_log_append(&entry);
    return moved;
}

EXPORT void *realloc(void *block, size_t size)
{
    if (!block)
        return malloc(size);
    const struct record_real *real = record_real();
    if (!real || record_bootstrap_owns(block))
        return realloc_bootstrap(real, block, size);
    if (!record_log_is_open())
        return real->realloc(block, size);
    return realloc_noted(real, block, size);
}

EXPORT void *reallocarray(void *block, size_t members, size_t size)
{
    size_t total;
    if (__builtin_mul_overflow(members, size, &total)) {
        errno = ENOMEM;
        return NULL;
    }
    return realloc(block, total);
}

EXPORT int posix_memalign(void **block, size_t alignment, size_t size)
{
    const struct record_real *real = record_real();
    if (!real) {
        *block = record_bootstrap_allocate(alignment, size);
        return *block ? 0 : ENOMEM;
    }
    int result = real->posix_memalign(block, alignment, size);
    if (result == 0)
        note_acquired(RECORD_MEMALIGN, *block, alignment, size, size);
    return result;
}

/* Not every C library has the older calls; where one is missing, posix_memalign serves. */
static void *aligned(void *(*function)(size_t, size_t), size_t alignment, size_t size)
{
    const struct record_real *real = record_real();
    void *block = NULL;
    if (!real)
        return record_bootstrap_allocate(alignment, size);
    if (function) {
        block = function(alignment, size);
    } else {
        size_t accepted = alignment < sizeof(void *) ? sizeof(void *) : alignment;
        int error = real->posix_memalign(&block, accepted, size);
        if (error != 0) {
            errno = error;
            return NULL;
        }
    }
    note_acquired(RECORD_MEMALIGN, block, alignment, size, size);
    return block;
}

EXPORT void *aligned_alloc(size_t alignment, size_t size)
{
    const struct record_real *real = record_real();
    return aligned(real ? real->aligned_alloc : NULL, alignment, size);
}

EXPORT void *memalign(size_t alignment, size_t size)
{
    const struct record_real *real = record_real();
    return aligned(real ? real->memalign : NULL, alignment, size);
}

EXPORT void *valloc(size_t size)
{
    return aligned(NULL, (size_t)sysconf(_SC_PAGESIZE), size);
}

EXPORT void *pvalloc(size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t padded;
    if (__builtin_add_overflow(size, page - 1, &padded)) {
        errno = ENOMEM;
        return NULL;
    }
    padded &= ~(page - 1);
    return aligned(NULL, page, padded ? padded : page);
}

/* Destructors do not run: flush first. */
static _Noreturn void exit_now(int status)
{
    record_log_finish();
    const struct record_real *real = record_real();
    if (real && real->exit_now)
        real->exit_now(status);
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
