/* SPDX-License-Identifier: MIT */
/* The table of formats: see format.h. */
#include "format.h"

#include <stdio.h>
#include <string.h>

static const struct trace_format *const formats[] = {
    &trace_format_android,
};

const struct trace_format *trace_format_of(const char *first_line)
{
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        if (formats[i]->recognise(first_line)) {
            return formats[i];
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
