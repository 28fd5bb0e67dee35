/* SPDX-License-Identifier: MIT */
/*
 * The formats that traces are read from. A format is a name, a test of the first line, and a
 * function that hands one line to the builder; adding one is a file and a row in format.c.
 */
#ifndef LARDER_TRACE_FORMAT_H
#define LARDER_TRACE_FORMAT_H

#include <stdbool.h>
#include <stddef.h>

#include "builder.h"

struct trace_format {
    const char *name;
    /* Whether a file that begins with this line is of the format, even if the line has mistakes. */
    bool (*recognise)(const char *line);
    /*
     * Reads one line (NUL-terminated, not empty; may be written to). Returns 0, -EINVAL with the
     * reason and what was expected in `why`, or what the builder returned.
     */
    int (*read_line)(struct trace_builder *builder, char *line, char *why, size_t why_size);
};

extern const struct trace_format trace_format_android;

/* The format of a file with this first line, or NULL. */
const struct trace_format *trace_format_of(const char *first_line);

/* Copies text for an error message: at most 24 characters, and '?' for those
 * that do not print. `out` has room for 32 bytes or more. */
const char *trace_quote(const char *text, char *out, size_t out_size);

#endif
