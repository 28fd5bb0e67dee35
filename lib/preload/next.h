/* SPDX-License-Identifier: MIT */
/*
 * The allocator behind an interposer: the next malloc family in the process's search order, and a
 * small arena for the calls that dlsym itself makes while that family is being looked up.
 */
#ifndef LARDER_PRELOAD_NEXT_H
#define LARDER_PRELOAD_NEXT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct next_family {
    void *(*malloc)(size_t size);
    void *(*calloc)(size_t members, size_t size);
    void *(*realloc)(void *block, size_t size);
    void (*free)(void *block);
    int (*posix_memalign)(void **block, size_t alignment, size_t size);
    void *(*aligned_alloc)(size_t alignment, size_t size); /* may be NULL, like those below */
    void *(*memalign)(size_t alignment, size_t size);
    size_t (*usable_size)(void *block);
    void (*exit_now)(int status); /* _exit: looked up with the rest, as dlsym may lock */
};

enum { NEXT_UNKNOWN, NEXT_LOOKING_UP, NEXT_KNOWN, NEXT_ARENA_SIZE = 64 * 1024 };

/* Private to the inline functions below. */
extern struct next_family next_found;
extern _Atomic int next_state;
extern unsigned char next_arena[NEXT_ARENA_SIZE];
const struct next_family *next_family_slow(void);

/*
 * The family behind. NULL only in the thread that is looking it up right now: that call must be
 * served by next_arena_allocate.
 */
static inline const struct next_family *next_family(void)
{
    /* Acquire: pairs with the release in next_family_slow, so the family is complete. */
    if (__builtin_expect(atomic_load_explicit(&next_state, memory_order_acquire) == NEXT_KNOWN, 1))
        return &next_found;
    return next_family_slow();
}

/* From the arena: zeroed, never reused; NULL once it is used up. alignment: a power of two. */
void *next_arena_allocate(size_t alignment, size_t size);

/* Whether the block came from the arena, and how many bytes may be read from its start. */
static inline bool next_arena_owns(const void *block)
{
    return (uintptr_t)block - (uintptr_t)next_arena < NEXT_ARENA_SIZE;
}

size_t next_arena_readable(const void *block);

#endif
