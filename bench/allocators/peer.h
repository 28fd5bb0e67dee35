/* SPDX-License-Identifier: MIT */
/*
 * Allocators that are measured by replacing malloc: jemalloc, tcmalloc, tbbmalloc, scudo, and
 * "preload:PATH" for any other. A tool starts itself again with LD_PRELOAD set to peer_library()
 * and there calls peer_malloc_open().
 */
#ifndef LARDER_BENCH_PEER_H
#define LARDER_BENCH_PEER_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* scudo with settings of its own, which peer_malloc_open() makes. */
#define PEER_SCUDO_ANDROID "scudo-android"

/* Whether the name is one of them. */
bool peer_is_one(const char *name);

/*
 * The value for LD_PRELOAD: a path, or a name that the dynamic linker finds. Returns 0, or -ENODEV
 * with the reason and how to get the library in `why`. May start a short-lived process to ask the
 * linker.
 */
int peer_library(const char *name, char *out, size_t out_size, char *why, size_t why_size);

/* Their names, ended by NULL, without "preload:PATH". */
const char *const *peer_names(void);

/* One line about the peer of that name, or NULL. */
const char *peer_summary(const char *name);

#ifdef __cplusplus
}
#endif

#endif
