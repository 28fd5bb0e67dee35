/* SPDX-License-Identifier: MIT */
/*
 * The names behind --backend: allocators of this process and those that need one of their own,
 * with the second kind served by starting this program again.
 */
#ifndef LARDER_TOOLS_BACKEND_H
#define LARDER_TOOLS_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "allocator.h"

bool backend_is_known(const char *name);

/* Whether it has to replace malloc. */
bool backend_needs_preload(const char *name);

/*
 * Starts this program again with the same arguments, --preloaded and the backend's library.
 * Returns only on failure, with the reason in `why`. argv[0] is the subcommand's name.
 */
void backend_restart_preloaded(const char *name, int argc, char **argv, char *why, size_t why_size);

/*
 * Opens it. `preloaded`: in a process that backend_restart_preloaded() began. Returns 0, or a
 * negative errno and the reason in `why`.
 */
int backend_open(const char *name, bool preloaded, struct allocator *out, char *why,
                 size_t why_size);

/* Prints the names with a line about each, for help texts. */
void backend_print_list(FILE *out);

#endif
