/* SPDX-License-Identifier: MIT */
/*
 * Memory for traces and replays, straight from the kernel.
 *
 * The allocator under measurement may be this process's own malloc. Had the parser used malloc,
 * its freed megabytes would lie in that allocator's lists when the first pass begins (and glibc
 * would have raised its mmap threshold), so nothing in this directory calls malloc between opening
 * a trace and reading the last result.
 */
#ifndef LARDER_TRACE_PAGES_H
#define LARDER_TRACE_PAGES_H

#include <stddef.h>

/* Zeroed pages for `bytes` bytes, or NULL with errno ENOMEM. 0 bytes give one page. */
void *pages_allocate(size_t bytes);

/* The same contents with room for `new_bytes`; may move. NULL: errno ENOMEM and `pages` is kept. */
void *pages_grow(void *pages, size_t old_bytes, size_t new_bytes);

/* Takes back what pages_allocate(bytes) returned. NULL is ignored. */
void pages_free(void *pages, size_t bytes);

/*
 * Makes room for one element more in an array that holds `count` of `capacity` elements, doubling
 * it. `array` points to the array's pointer, which may be NULL. Returns 0 or -ENOMEM.
 */
int pages_reserve(void *array, size_t element_bytes, size_t count, size_t *capacity);

#endif
