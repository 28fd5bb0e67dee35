/* SPDX-License-Identifier: MIT */
/*
 * The exported names. Each is a few instructions in front of a behind_... function, so a program
 * pays a jump for the layer. Compiled with -fno-builtin: the compiler must not reason about its own
 * calls to the family here.
 *
 * cfree is not among them: no C library has had it for years, and it was free by another name.
 */
#include "family.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define unlikely(x) __builtin_expect(!!(x), 0)

/* Not every C library declares these; where it has none, nobody calls them. */
EXPORT void *reallocarray(void *block, size_t members, size_t size);
EXPORT void *valloc(size_t size);
EXPORT void *pvalloc(size_t size);

static void *no_memory(void)
{
    errno = ENOMEM;
    return NULL;
}

static bool is_power_of_two(size_t number)
{
    return number != 0 && (number & (number - 1)) == 0;
}

EXPORT void *malloc(size_t size)
{
    const struct next_family *next = next_family();
    if (unlikely(!next))
        return next_arena_allocate(1, size);
    return behind_malloc(next, size);
}

EXPORT void *calloc(size_t members, size_t size)
{
    const struct next_family *next = next_family();
    size_t total;
    if (unlikely(__builtin_mul_overflow(members, size, &total)))
        return no_memory();
    if (unlikely(!next))
        return next_arena_allocate(1, total);
    return behind_calloc(next, members, size, total);
}

EXPORT void free(void *block)
{
    if (unlikely(!block || next_arena_owns(block)))
        return;
    const struct next_family *next = next_family();
    if (unlikely(!next))
        return;
    behind_free(next, block);
}

/* Blocks of the arena are not given back: what is left of it is not worth a list. */
static void *realloc_from_arena(const struct next_family *next, const void *block, size_t size)
{
    void *moved = next ? behind_malloc(next, size) : next_arena_allocate(1, size);
    if (!moved)
        return NULL;
    size_t readable = next_arena_readable(block);
    memcpy(moved, block, size < readable ? size : readable);
    return moved;
}

EXPORT void *realloc(void *block, size_t size)
{
    if (!block)
        return malloc(size);
    const struct next_family *next = next_family();
    if (unlikely(!next || next_arena_owns(block)))
        return realloc_from_arena(next, block, size);
    return behind_realloc(next, block, size);
}

EXPORT void *reallocarray(void *block, size_t members, size_t size)
{
    size_t total;
    if (unlikely(__builtin_mul_overflow(members, size, &total)))
        return no_memory();
    return realloc(block, total);
}

static void *aligned(enum family_aligned call, size_t alignment, size_t size)
{
    const struct next_family *next = next_family();
    if (unlikely(!next))
        return next_arena_allocate(is_power_of_two(alignment) ? alignment : 1, size);
    return behind_aligned(next, call, alignment, size);
}

/* Tells by its result, and leaves errno alone. */
EXPORT int posix_memalign(void **block, size_t alignment, size_t size)
{
    if (!is_power_of_two(alignment) || alignment % sizeof(void *) != 0)
        return EINVAL;
    int error = errno;
    void *result = aligned(FAMILY_POSIX_MEMALIGN, alignment, size);
    errno = error;
    if (!result)
        return ENOMEM;
    *block = result;
    return 0;
}

EXPORT void *aligned_alloc(size_t alignment, size_t size)
{
    return aligned(FAMILY_ALIGNED_ALLOC, alignment, size);
}

EXPORT void *memalign(size_t alignment, size_t size)
{
    return aligned(FAMILY_MEMALIGN, alignment, size);
}

EXPORT void *valloc(size_t size)
{
    return aligned(FAMILY_MEMALIGN, (size_t)sysconf(_SC_PAGESIZE), size);
}

EXPORT void *pvalloc(size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t padded;
    if (__builtin_add_overflow(size, page - 1, &padded))
        return no_memory();
    padded &= ~(page - 1);
    return aligned(FAMILY_MEMALIGN, page, padded ? padded : page);
}

EXPORT size_t malloc_usable_size(void *block)
{
    if (!block)
        return 0;
    const struct next_family *next = next_family();
    if (unlikely(!next || next_arena_owns(block)))
        return 0; /* the arena keeps no sizes, and what lies behind is somebody else's */
    return behind_usable_size(next, block);
}

void *family_next_aligned(const struct next_family *next, enum family_aligned call,
                          size_t alignment, size_t size)
{
    if (call == FAMILY_ALIGNED_ALLOC && next->aligned_alloc)
        return next->aligned_alloc(alignment, size);
    if (call == FAMILY_MEMALIGN && next->memalign)
        return next->memalign(alignment, size);
    void *block = NULL;
    size_t accepted = alignment < sizeof(void *) ? sizeof(void *) : alignment;
    int error = next->posix_memalign(&block, accepted, size);
    if (error != 0) {
        errno = error;
        return NULL;
    }
    return block;
}
