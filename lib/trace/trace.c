/* SPDX-License-Identifier: MIT */
/*
 * Reading a trace: bytes or lines from input.c, to the format that the first of them show, to the
 * builder.
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
#include "pages.h"

struct loading {
    const char *path;
    struct input *input;
    const struct trace_format *format; /* NULL until the first bytes or the first line tell */
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
    snprintf(
        loading->why, loading->why_size,
        "%s:%llu: not a trace: it begins with '%s', not with lines like "
        "'202: malloc 0xb4827400 1024'; name a file of one of the formats that `larder convert "
        "--help` lists",
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

/* What a format or the builder returned, as a message. */
static int explain(const struct loading *loading, int result, const char *reason)
{
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

/* With the first line, or once it is known without: the format, and the marks beside the file. */
static int begin_format(struct loading *loading, const char *line)
{
    char marks_path[4096];
    if (loading->format == NULL) {
        loading->format = trace_format_of(line);
        if (loading->format == NULL) {
            return fail_format(loading, line);
        }
    }
    loading->builder.trace->format = loading->format->name;
    if (loading->format->has_long_lines) {
        input_allow_long_lines(loading->input);
    }
    if (loading->format->has_marks_beside &&
        marks_path_of(loading->path, marks_path, sizeof marks_path)) {
        return marks_file_read(marks_path, &loading->marks, loading->why, loading->why_size);
    }
    return 0;
}

static int read_line(struct loading *loading, char *line, size_t length)
{
    char reason[256];
    if (loading->lines == 0) {
        int result = begin_format(loading, line);
        if (result != 0) {
            return result;
        }
    }
    if (memchr(line, '\0', length) != NULL) {
        return fail_at_line(loading, -EINVAL, "the line holds a NUL byte");
    }
    if (marks_file_advance(&loading->marks, loading->builder.trace, loading->lines++) != 0) {
        return fail_no_memory(loading);
    }
    int result = loading->format->read_line(&loading->builder, line, reason, sizeof reason);
    return explain(loading, result, reason);
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

/* The marks behind the last line. Any further ones are of another trace. */
static int finish_marks(struct loading *loading)
{
    struct marks_file *marks = &loading->marks;
    if (marks_file_advance(marks, loading->builder.trace, loading->lines) != 0) {
        return fail_no_memory(loading);
    }
    if (marks->used < marks->count) {
        char marks_path[4096];
        (void)marks_path_of(loading->path, marks_path, sizeof marks_path);
        snprintf(
            loading->why, loading->why_size,
            "%.200s: a mark behind line %llu, but %.200s has %llu: remove the file, or name the "
            "trace that it was recorded with",
            marks_path, (unsigned long long)marks->lines[marks->used].trace_lines,
            input_path(loading->input), (unsigned long long)loading->lines);
        return -EINVAL;
    }
    return 0;
}

static int read_text(struct loading *loading)
{
    char reason[256];
    int result = read_lines(loading);
    if (result == 0 && loading->format != NULL && loading->format->finish != NULL) {
        result = explain(loading, loading->format->finish(&loading->builder, reason, sizeof reason),
                         reason);
    }
    return result == 0 ? finish_marks(loading) : result;
}

static int read_any(struct loading *loading)
{
    const char *bytes;
    size_t got;
    int result = input_peek(loading->input, TRACE_FORMAT_BYTES, &bytes, &got, loading->why,
                            loading->why_size);
    if (result != 0) {
        return result;
    }
    if (loading->format == NULL) {
        loading->format = trace_format_of_bytes(bytes, got);
    }
    if (loading->format == NULL || loading->format->read == NULL) {
        return read_text(loading);
    }
    loading->builder.trace->format = loading->format->name;
    return loading->format->read(&loading->builder, loading->input, loading->why,
                                 loading->why_size);
}

/* Releases what only reading needed, and repairs where asked for. */
static int finish(struct loading *loading, int result)
{
    if (loading->format != NULL && loading->format->release != NULL) {
        loading->format->release(&loading->builder);
    }
    marks_file_release(&loading->marks);
    if (result != 0) {
        builder_abandon(&loading->builder);
        return result;
    }
    if (builder_end(&loading->builder) != 0) {
        snprintf(loading->why, loading->why_size, "%s: out of memory while repairing it",
                 input_path(loading->input));
        return -ENOMEM;
    }
    return 0;
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

int trace_load(const char *path, const struct trace_options *options, struct trace *out, char *why,
               size_t why_size)
{
    struct loading loading = {.path = path, .why = why, .why_size = why_size};
    *out = (struct trace){0};
    if (options != NULL && options->from != NULL) {
        loading.format = trace_format_named(options->from);
        if (loading.format == NULL) {
            snprintf(why, why_size, "no format '%s'", options->from);
            return -EINVAL;
        }
    }
    int result = input_open(&loading.input, path, why, why_size);
    if (result != 0) {
        return result;
    }
    builder_begin(&loading.builder, out, options != NULL && options->repair);
    result = finish(&loading, read_any(&loading));
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
