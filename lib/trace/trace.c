/* SPDX-License-Identifier: MIT */
/*
 * Reading a trace: lines from input.c, to the format that the first of them shows, to the builder.
 * Every failure becomes one line that says file, line, reason and remedy.
 */
#include "trace.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "builder.h"
#include "format.h"
#include "input.h"
#include "pages.h"

struct loading {
    struct input *input;
    const struct trace_format *format; /* NULL until the first line */
    struct trace_builder builder;
    char *why;
    size_t why_size;
};

static int fail_at_line(const struct loading *loading, int result, const char *reason)
{
    snprintf(loading->why, loading->why_size, "%s:%llu: %s%s", input_path(loading->input),
             (unsigned long long)input_line_number(loading->input), reason,
             input_line_was_cut(loading->input)
                 ? " (the file ends here without a line end: was it cut short?)"
                 : "; correct or remove the line");
    return result;
}

static int fail_format(const struct loading *loading, const char *line)
{
    char quoted[40];
    snprintf(loading->why, loading->why_size,
             "%s:%llu: not a trace: it begins with '%s', not with lines like "
             "'202: malloc 0xb4827400 1024'; name a file in Android's memory_replay format",
             input_path(loading->input), (unsigned long long)input_line_number(loading->input),
             trace_quote(line, quoted, sizeof quoted));
    return -EINVAL;
}

static int read_line(struct loading *loading, char *line, size_t length)
{
    char reason[256];
    if (loading->format == NULL) {
        loading->format = trace_format_of(line);
        if (loading->format == NULL) {
            return fail_format(loading, line);
        }
        loading->builder.trace->format = loading->format->name;
    }
    if (memchr(line, '\0', length) != NULL) {
        return fail_at_line(loading, -EINVAL, "the line holds a NUL byte");
    }
    int result = loading->format->read_line(&loading->builder, line, reason, sizeof reason);
    switch (result) {
    case 0:
        return 0;
    case -ENOMEM:
        snprintf(loading->why, loading->why_size, "%s:%llu: out of memory: the trace is too large",
                 input_path(loading->input), (unsigned long long)input_line_number(loading->input));
        return result;
    case -E2BIG:
        snprintf(loading->why, loading->why_size,
                 "%s:%llu: more than 4294967294 operations: split the trace",
                 input_path(loading->input), (unsigned long long)input_line_number(loading->input));
        return result;
    default:
        return fail_at_line(loading, result, reason);
    }
}

static int read_lines(struct loading *loading)
{
    char *line;
    size_t length;
    int result;
    while ((result = input_line(loading->input, &line, &length, loading->why, loading->why_size)) >
           0) {
        if (length == 0) {
            continue;
        }
        result = read_line(loading, line, length);
        if (result != 0) {
            return result;
        }
    }
    return result;
}

/* After the last line. */
static int finish(struct loading *loading)
{
    struct trace *trace = loading->builder.trace;
    if (builder_end(&loading->builder) != 0) {
        snprintf(loading->why, loading->why_size, "%s: out of memory while repairing it",
                 input_path(loading->input));
        return -ENOMEM;
    }
    if (trace->block_count == 0) {
        snprintf(loading->why, loading->why_size, "%s: %s: record one that covers an allocation",
                 input_path(loading->input),
                 input_line_number(loading->input) == 0 ? "the file is empty"
                                                        : "no allocation in the trace");
        return -EINVAL;
    }
    return 0;
}

int trace_load(const char *path, const struct trace_options *options, struct trace *out, char *why,
               size_t why_size)
{
    struct loading loading = {.why = why, .why_size = why_size};
    *out = (struct trace){0};
    int result = input_open(&loading.input, path, why, why_size);
    if (result != 0) {
        return result;
    }
    builder_begin(&loading.builder, out, options != NULL && options->repair);
    result = read_lines(&loading);
    if (result == 0) {
        result = finish(&loading);
    } else {
        builder_abandon(&loading.builder);
    }
    input_close(loading.input);
    if (result != 0) {
        trace_unload(out);
    }
    return result;
}

void trace_unload(struct trace *trace)
{
    pages_free(trace->ops, trace->op_capacity * sizeof *trace->ops);
    pages_free(trace->times, trace->time_capacity * sizeof *trace->times);
    pages_free(trace->thread_ids, trace->thread_capacity * sizeof *trace->thread_ids);
    *trace = (struct trace){0};
}
