/* SPDX-License-Identifier: MIT */
/*
 * What a trace is told about beside its operations: labels, such as the engine that was recorded,
 * its version and settings, and the names of threads.
 *
 * Labels are one text of lines "KEY=VALUE\n", each key once, in the order they were set. A key is
 * made of letters, digits, '.', '_' and '-'; a value is any text on one line.
 */
#ifndef LARDER_TRACE_LABELS_H
#define LARDER_TRACE_LABELS_H

#include <stdbool.h>
#include <stddef.h>

#include "trace.h"

/* Longest "KEY=VALUE\n". */
#define LABEL_LINE_MAX 4096

/* Sets a label, or replaces it. Returns 0, -EINVAL for a bad key or a value of two lines or too
 * long, or -ENOMEM. */
int labels_set(struct trace *trace, const char *key, const char *value);

/* The value of a label, with its length, which no NUL byte follows; NULL: there is none. */
const char *labels_get(const struct trace *trace, const char *key, size_t *length);

/*
 * Takes a text of such lines as the trace's labels. Returns 0, -EINVAL with the offset of the line
 * that is none in *offset, or -ENOMEM.
 */
int labels_parse(struct trace *trace, const char *text, size_t bytes, size_t *offset);

/* Names a thread; cut to fit. Returns 0 or -ENOMEM. */
int labels_name_thread(struct trace *trace, size_t thread, const char *name);

/* The thread's name, or "" where it has none. */
const char *labels_thread_name(const struct trace *trace, size_t thread);

#endif
