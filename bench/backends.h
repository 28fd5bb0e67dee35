/* SPDX-License-Identifier: MIT */
/*
 * Which allocators a run of larder-bench compares: all that can live in this process, or those named.
 *
 * An allocator that has to replace malloc (peer.h) needs a process of its own: this program starts
 * itself again with the library preloaded, and measures "system" there under the peer's name.
 */
#ifndef LARDER_BENCH_BACKENDS_H
#define LARDER_BENCH_BACKENDS_H

#include <cstddef>
#include <string>
#include <vector>

#include "allocator.h"

/*
 * Takes "name,name"; nothing stands for all that can live in this process. False, with a line in
 * `why`, for a name that is not known, and for a peer beside others.
 */
bool backends_choose(const std::string &list, std::string &why);

/* Whether the one chosen has to replace malloc, which in this process it has not yet. */
bool backends_need_preload();

/*
 * Starts this program again with the arguments given (argv[0] included, ended by nullptr) and the
 * library preloaded. Returns only on failure, with the reason in `why`.
 */
void backends_restart_preloaded(char **argv, std::string &why);

/*
 * Those chosen that can be had here, in the order of the tables, each added to the context; one
 * that cannot is told on stderr. The names stay valid.
 */
std::vector<const char *> backends_find();

/* As allocator_open(), and for the peer that was preloaded. */
int backends_open(const char *name, allocator *out, char *why, std::size_t why_size);

#endif
