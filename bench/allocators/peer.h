/* SPDX-License-Identifier: MIT */
/*
 * Allocators that are measured by replacing malloc: jemalloc, tcmalloc, scudo, and "preload:PATH"
 * for any other. A tool starts itself again with LD_PRELOAD set to peer_library() and there opens
 * "system".
 */
#ifndef LARDER_BENCH_PEER_H
#define LARDER_BENCH_PEER_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Whether the name is one of them. */
bool peer_is_one(const char *name);

/*
 * The value for LD_PRELOAD: a path, or a name that the dynamic linker finds. Returns 0, or -ENODEV
 * with the reason and how to get the library in `why`. May start a short-lived process to ask the
 * linker.
 */
int peer_library(const char *name, char *out, size_t out_size, char *why, size_t why_size);

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

/* Their names, ended by NULL, without "preload:PATH". */
const char *const *peer_names(void);

/* One line about the peer of that name, or NULL. */
const char *peer_summary(const char *name);

#ifdef __cplusplus
}
#endif

#endif
