/* SPDX-License-Identifier: MIT */
/*
 * What `run` and `record` share: finding the library to preload, and the environment of the command
 * that it is preloaded into.
 */
#ifndef LARDER_TOOLS_PRELOADED_H
#define LARDER_TOOLS_PRELOADED_H

#include <stddef.h>

/* As env(1) and shells have it: the command could not be run, or was not found. */
enum { COMMAND_NOT_RUN = 126, COMMAND_NOT_FOUND = 127 };

/*
 * The path of a library of lib/preload: that in the variable `override`, or beside this program as
 * it was built or installed. Returns 0, or TOOL_FAILED after a message.
 */
int preloaded_find(const char *subcommand, const char *override, const char *name, char *path,
                   size_t path_size);

/* Puts the library before others that are to be preloaded, for commands started from here on. */
int preloaded_set(const char *subcommand, const char *path);

/* Becomes the command (argv ends with NULL); returns an exit code only where that fails. */
int preloaded_exec(const char *subcommand, char **argv);

#endif
