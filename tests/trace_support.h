/* SPDX-License-Identifier: MIT */
/* What the tests of trace formats share: a temporary directory, files in it, and comparing traces. */
#ifndef LARDER_TESTS_TRACE_SUPPORT_H
#define LARDER_TESTS_TRACE_SUPPORT_H

#include <check.h>
#include <stdbool.h>
#include <stddef.h>

#include "trace.h"

/* What the last failing call said. */
extern char why[512];

/* A test case, each of whose tests has a directory of its own. */
TCase *add_file_claims(Suite *suite, const char *name);

int run_file_suite(Suite *suite);

/* The path of a file in that directory, in one of a few buffers that take turns. */
const char *path_of(const char *name);

void write_file(const char *name, const void *bytes, size_t size);
void write_text(const char *name, const char *text);
/* The whole file, NUL-terminated, to be freed by the caller. */
char *read_whole(const char *name, size_t *size);

/* Reads a file of that directory; fails the test with the reason. */
struct trace must_read(const char *name);
struct trace must_read_text(const char *name, const char *text);

/* Fails unless reading it fails, with each of the parts (NULL-terminated) in one line of `why`. */
void assert_refused(const char *name, const char *const *parts);

/* Every field of every operation, times, thread ids and names, marks and labels. */
void assert_same_trace(const struct trace *a, const struct trace *b);
/* The operations alone, in every field. */
void assert_same_ops(const struct trace *a, const struct trace *b);

/* The lifetimes that trace.h promises. */
void assert_lifetimes(const struct trace *trace);

#endif
