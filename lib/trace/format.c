/* SPDX-License-Identifier: MIT */
/* The table of formats: see format.h. */
#include "format.h"

#include <stdio.h>
#include <string.h>

#include "native.h"

static int read_native(struct trace_builder *builder, struct input *input, char *why,
                       size_t why_size)
{
    return native_read(input, builder->trace, why, why_size);
}

const struct trace_format trace_format_native = {
    .name = "ltr",
    .summary = "larder's own format",
    .recognise_bytes = native_recognise,
    .read = read_native,
};

const struct trace_format *const trace_formats[] = {
    &trace_format_native,    &trace_format_android, &trace_format_pytorch,
    &trace_format_heaptrack, &trace_format_mtrace,  &trace_format_minimalloc,
};
const size_t trace_format_count = sizeof trace_formats / sizeof trace_formats[0];

const struct trace_format *trace_format_of_bytes(const char *bytes, size_t size)
{
    for (size_t i = 0; i < trace_format_count; i++) {
        const struct trace_format *format = trace_formats[i];
        if (format->recognise_bytes != NULL && format->recognise_bytes(bytes, size)) {
            return format;
        }
    }
    return NULL;
}

const struct trace_format *trace_format_of(const char *first_line)
{
    for (size_t i = 0; i < trace_format_count; i++) {
        const struct trace_format *format = trace_formats[i];
        if (format->recognise != NULL && format->recognise(first_line)) {
            return format;
        }
    }
    return NULL;
}

const struct trace_format *trace_format_named(const char *name)
{
    for (size_t i = 0; i < trace_format_count; i++) {
        if (strcmp(trace_formats[i]->name, name) == 0) {
            return trace_formats[i];
        }
    }
    return NULL;
}

const char *trace_quote(const char *text, char *out, size_t out_size)
{
    int shown = snprintf(out, out_size, "%.24s%s", text, strnlen(text, 25) > 24 ? "..." : "");
    for (int i = 0; i < shown; i++) {
        if (out[i] < ' ' || out[i] > '~') {
            out[i] = '?';
        }
    }
    return out;
}
