/* SPDX-License-Identifier: MIT */
/*
 * The formats that traces are read from. Adding one is a file and a row in format.c.
 *
 * Most are text, read a line at a time: such a format is a test of the first line and a function
 * that hands one line to the builder. The others read from the input themselves.
 */
#ifndef LARDER_TRACE_FORMAT_H
#define LARDER_TRACE_FORMAT_H

#include <stdbool.h>
#include <stddef.h>

#include "builder.h"
#include "input.h"

struct trace_format {
    const char *name;
    const char *summary;
    const char *lacks;     /* what such files do not tell; NULL: nothing of importance */
    bool has_marks_beside; /* in a file of their own (marks.h) */
    bool has_long_lines;   /* lines of any length, of which only the beginning matters */
    /* Whether a file that begins with these bytes is of the format; NULL: not told by them. */
    bool (*recognise_bytes)(const char *bytes, size_t size);
    /* Whether a file that begins with this line is of the format, even if the line has mistakes;
     * NULL: not read by lines. */
    bool (*recognise)(const char *line);
    /*
     * Reads one line (NUL-terminated, not empty; may be written to). Returns 0, -EINVAL with the
     * reason and what was expected in `why`, or what the builder returned. builder->state is the
     * format's own, NULL at first.
     */
    int (*read_line)(struct trace_builder *builder, char *line, char *why, size_t why_size);
    /* After the last line, where that makes operations; may be NULL. Returns as read_line does. */
    int (*finish)(struct trace_builder *builder, char *why, size_t why_size);
    /* Releases builder->state, which may be NULL; may itself be NULL. */
    void (*release)(struct trace_builder *builder);
    /* Instead of all these: reads the whole file. `why` is the whole message, with the file. */
    int (*read)(struct trace_builder *builder, struct input *input, char *why, size_t why_size);
};

extern const struct trace_format trace_format_native, trace_format_android, trace_format_pytorch,
    trace_format_heaptrack, trace_format_mtrace, trace_format_minimalloc;

extern const struct trace_format *const trace_formats[];
extern const size_t trace_format_count;

/* The bytes that trace_format_of_bytes() wants to see. */
#define TRACE_FORMAT_BYTES 64

/* The format of a file that begins so, or NULL. */
const struct trace_format *trace_format_of_bytes(const char *bytes, size_t size);

/* The format of a file with this first line, or NULL. */
const struct trace_format *trace_format_of(const char *first_line);

const struct trace_format *trace_format_named(const char *name);

/* Copies text for an error message: at most 24 characters, and '?' for those
 * that do not print. `out` has room for 32 bytes or more. */
const char *trace_quote(const char *text, char *out, size_t out_size);

#endif
