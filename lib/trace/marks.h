/* SPDX-License-Identifier: MIT */
/*
 * Marks of a trace (see struct trace_mark), and the file beside a text trace that holds them.
 *
 * Text formats have no place for marks, so a recorder writes them to NAME.marks beside NAME.txt: a
 * line "N NAME" says that N lines of the trace come before the mark.
 */
#ifndef LARDER_TRACE_MARKS_H
#define LARDER_TRACE_MARKS_H

#include <stdint.h>
#include <stdio.h>

#include "trace.h"

/* One line of a marks file. */
struct marks_line {
    uint64_t trace_lines; /* that come before the mark */
    char name[TRACE_NAME_BYTES];
};

/* What is left of a marks file to be put into the trace. Empty: {0}. */
struct marks_file {
    struct marks_line *lines; /* ascending */
    size_t count, capacity;
    size_t used; /* already in the trace */
};

/*
 * Adds a mark before operation `op`, which is not smaller than the last mark's. The name is cut to
 * fit, and characters that do not print become '?'. Returns 0 or -ENOMEM.
 */
int marks_add(struct trace *trace, size_t op, const char *name);

/* Forgets the marks. */
void marks_clear(struct trace *trace);

/* The path of the marks beside a text trace; false where it does not fit or `path` is "-". */
bool marks_path_of(const char *path, char *out, size_t out_size);

/*
 * Reads a marks file; one that does not exist reads as empty. Returns 0, or a negative errno with
 * one line in `why`.
 */
int marks_file_read(const char *path, struct marks_file *out, char *why, size_t why_size);

/*
 * To be called before line `trace_lines` (from 0) of the trace is read, and once after the last:
 * adds the marks that stand there. Returns 0 or -ENOMEM.
 */
int marks_file_advance(struct marks_file *file, struct trace *trace, uint64_t trace_lines);

/* Writes the marks as such a file, for a text trace in which every operation is one line. */
void marks_write(const struct trace *trace, FILE *out);

void marks_file_release(struct marks_file *file);

#endif
