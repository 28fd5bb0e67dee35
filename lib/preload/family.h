/* SPDX-License-Identifier: MIT */
/*
 * The malloc family as a program sees it, shared by the interposers. family.c exports every call,
 * checks arguments, serves what dlsym itself allocates while the next family is looked up, and
 * keeps to each call's manners about errno. What then happens is the interposer's: it defines the
 * behind_... functions. All of them get the next family, which is known by then, and a `block` that
 * came from it or from themselves, never NULL.
 */
#ifndef LARDER_PRELOAD_FAMILY_H
#define LARDER_PRELOAD_FAMILY_H

#include "next.h"

/* Which call asks for an alignment: they differ in what they accept and report. */
enum family_aligned { FAMILY_POSIX_MEMALIGN, FAMILY_ALIGNED_ALLOC, FAMILY_MEMALIGN };

/* A block, or NULL with errno set. */
void *behind_malloc(const struct next_family *next, size_t size);
/* total = members * size, which does not overflow. */
void *behind_calloc(const struct next_family *next, size_t members, size_t size, size_t total);
/* The alignment has been checked for posix_memalign only. */
void *behind_aligned(const struct next_family *next, enum family_aligned call, size_t alignment,
                     size_t size);
void *behind_realloc(const struct next_family *next, void *block, size_t size);
void behind_free(const struct next_family *next, void *block);
size_t behind_usable_size(const struct next_family *next, void *block);

/* What behind_aligned does where the next family is to serve: the same call of it, or one that it has. */
void *family_next_aligned(const struct next_family *next, enum family_aligned call,
                          size_t alignment, size_t size);

#endif
