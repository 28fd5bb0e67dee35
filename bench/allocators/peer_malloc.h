/* SPDX-License-Identifier: MIT */
/*
 * The malloc of this process: whose it is, which version, and how it is opened where it was
 * preloaded (peer.h).
 */
#ifndef LARDER_BENCH_PEER_MALLOC_H
#define LARDER_BENCH_PEER_MALLOC_H

#include <stdbool.h>
#include <stddef.h>

#include "allocator.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The file that this process's malloc comes from; false where that cannot be told. */
bool peer_malloc_file(char *out, size_t out_size);

/*
 * Whether this process's malloc is a preloaded library's: neither the C library's nor one that was
 * linked into the program, as sanitizers do.
 */
bool peer_malloc_is_preloaded(void);

/* Whether a file, as peer_malloc_file() tells it, is the C library. */
bool peer_is_libc(const char *file);

/* Product and version of the malloc of this process, which is that of `file`: "jemalloc 5.3.0". */
void peer_version(const char *file, char *out, size_t out_size);

/* What mi_version() returns, as "2.0.9". */
void peer_format_mimalloc_version(int number, char *out, size_t out_size);

/*
 * Opens the allocator that was preloaded for the peer of that name, which must outlive `out`, and
 * sees to it that this process's children have their own malloc again. Returns 0, or a negative
 * errno and the reason in `why`.
 */
int peer_malloc_open(const char *name, struct allocator *out, char *why, size_t why_size);

#ifdef __cplusplus
}
#endif

#endif
