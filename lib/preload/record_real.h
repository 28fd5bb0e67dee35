/* SPDX-License-Identifier: MIT */
/*
 * The allocator behind the recorder: the next malloc family in the process's search order, and a
 * small arena for the calls that dlsym itself makes while that family is being looked up.
 */
#ifndef LARDER_PRELOAD_RECORD_REAL_H
#define LARDER_PRELOAD_RECORD_REAL_H

#include <stdbool.h>
#include <stddef.h>

struct record_real {
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

/*
 * The family behind. NULL only in the thread that is looking it up right now: that call must be
 * served by record_bootstrap_allocate.
 */
const struct record_real *record_real(void);

/* From the arena: zeroed, never reused; NULL once it is used up. alignment: a power of two. */
void *record_bootstrap_allocate(size_t alignment, size_t size);

/* Whether the block came from the arena, and how many bytes may be read from its start. */
bool record_bootstrap_owns(const void *block);
size_t record_bootstrap_readable(const void *block);

#endif
