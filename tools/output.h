/* SPDX-License-Identifier: MIT */
/*
 * A result file that is either whole or not there: written beside its name, renamed when complete.
 */
#ifndef LARDER_TOOLS_OUTPUT_H
#define LARDER_TOOLS_OUTPUT_H

#include <stddef.h>
#include <stdio.h>

struct output {
    FILE *file; /* NULL: not open */
    const char *path;
    char temporary[4096];
};

/* Returns 0, or a negative errno and the reason in `why`. `path` must outlive it. */
int output_open(struct output *output, const char *path, char *why, size_t why_size);

/* Makes the file appear under its name; on failure nothing is left. */
int output_commit(struct output *output, char *why, size_t why_size);

/* From now on an interrupt (SIGINT, SIGTERM, SIGHUP) removes what outputs have written so far before it
 * ends the program. For programs that handle these signals in no other way. */
void output_remove_on_signals(void);

/* Removes what was written. An output that is not open is ignored. */
void output_abandon(struct output *output);

#endif
