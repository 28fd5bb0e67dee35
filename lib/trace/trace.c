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
#include "marks.h"
#include "native.h"
#include "pages.h"

struct loading {
    struct input *input;
    const struct trace_format *format; /* NULL until the first line */
    struct trace_builder builder;
    struct marks_file marks;
    uint64_t lines; /* read, without empty ones */
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

static int fail_no_memory(const struct loading *loading)
{
    snprintf(loading->why, loading->why_size, "%s:%llu: out of memory: the trace is too large",
             input_path(loading->input), (unsigned long long)input_line_number(loading->input));
    return -ENOMEM;
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
        return fail_no_memory(loading);
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
        if (marks_file_advance(&loading->marks, loading->builder.trace, loading->lines++) != 0) {
            return fail_no_memory(loading);
        }
        result = read_line(loading, line, length);
        if (result != 0) {
            return result;
        }
    }
    return result;
}

/* The marks behind the last line. Any further ones are of another trace. */
static int finish_marks(struct loading *loading, const char *marks_path)
{
    struct marks_file *marks = &loading->marks;
    if (marks_file_advance(marks, loading->builder.trace, loading->lines) != 0) {
        return fail_no_memory(loading);
    }
    if (marks->used < marks->count) {
        snprintf(loading->why, loading->why_size,
                 "%s: a mark behind line %llu, but %s has %llu: remove the file, or name the trace "
                 "that it was recorded with",
                 marks_path, (unsigned long long)marks->lines[marks->used].trace_lines,
                 input_path(loading->input), (unsigned long long)loading->lines);
        return -EINVAL;
    }
    return 0;
}

/* The lines of the trace, with the marks of the file beside it. */
static int read_text(struct loading *loading, const char *path)
{
    char marks_path[4096];
    bool have_path = marks_path_of(path, marks_path, sizeof marks_path);
    int result = have_path
                     ? marks_file_read(marks_path, &loading->marks, loading->why, loading->why_size)
                     : 0;
    if (result == 0) {
        result = read_lines(loading);
    }
    if (result == 0) {
        result = finish_marks(loading, marks_path);
    }
    marks_file_release(&loading->marks);
    return result;
}

static int fail_empty(const struct loading *loading, const struct trace *trace)
{
    snprintf(loading->why, loading->why_size, "%s: %s: record one that covers an allocation",
             input_path(loading->input),
             trace->format == NULL && input_line_number(loading->input) == 0
                 ? "the file is empty"
                 : "no allocation in the trace");
    return -EINVAL;
}

/* After the last line. */
static int finish(struct loading *loading)
{
    if (builder_end(&loading->builder) != 0) {
        snprintf(loading->why, loading->why_size, "%s: out of memory while repairing it",
                 input_path(loading->input));
        return -ENOMEM;
    }
    return 0;
}

static int read_any(struct loading *loading, const char *path, bool repair, struct trace *out)
{
    const char *bytes;
    size_t got;
    int result = input_peek(loading->input, NATIVE_MAGIC_BYTES, &bytes, &got, loading->why,
                            loading->why_size);
    if (result != 0) {
        return result;
    }
    if (native_recognise(bytes, got)) {
        return native_read(loading->input, out, loading->why, loading->why_size);
    }
    builder_begin(&loading->builder, out, repair);
    result = read_text(loading, path);
    if (result == 0) {
        return finish(loading);
    }
    builder_abandon(&loading->builder);
    return result;
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
    result = read_any(&loading, path, options != NULL && options->repair, out);
    if (result == 0 && out->block_count == 0) {
        result = fail_empty(&loading, out);
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
    pages_free(trace->thread_names, trace->thread_name_capacity * sizeof *trace->thread_names);
    pages_free(trace->marks, trace->mark_capacity * sizeof *trace->marks);
    pages_free(trace->labels, trace->label_capacity);
    *trace = (struct trace){0};
}
