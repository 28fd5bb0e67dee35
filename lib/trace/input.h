/* SPDX-License-Identifier: MIT */
/*
 * Lines, or bytes, of a file that may be compressed.
 *
 * The first bytes decide: gzip (RFC 1952), zstd (RFC 8878), else plain. All three are read as a
 * stream through fixed buffers, so memory does not depend on the file, and concatenated gzip
 * members or zstd frames read as one text, as gzip -d and zstd -d do.
 */
#ifndef LARDER_TRACE_INPUT_H
#define LARDER_TRACE_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Longest line, in bytes; text traces stay far below. */
#define INPUT_LINE_MAX 4096

struct input;

/* Opens a file ("-": standard input). Returns 0, or a negative errno and the reason in `why`. */
int input_open(struct input **out, const char *path, char *why, size_t why_size);

/*
 * The next line, without its end (LF or CR LF). Returns 1 with a line that is valid until the next
 * call and is followed by a NUL byte, 0 at the end, or a negative errno and the reason in `why`.
 */
int input_line(struct input *input, char **line, size_t *length, char *why, size_t why_size);

/*
 * Up to `size` bytes of what comes next, 4096 at most, without taking them: fewer only at the end.
 * They are valid until the next call. Returns 0, or a negative errno and the reason in `why`.
 */
int input_peek(struct input *input, size_t size, const char **bytes, size_t *got, char *why,
               size_t why_size);

/*
 * The next bytes, for formats without lines; *got is 0 only at the end. Returns 0, or a negative
 * errno and the reason in `why`.
 */
int input_read(struct input *input, void *bytes, size_t size, size_t *got, char *why,
               size_t why_size);

/* From now on a line may be longer: only its first INPUT_LINE_MAX bytes are handed out. */
void input_allow_long_lines(struct input *input);

/* The number of the line that input_line() returned last, from 1. */
uint64_t input_line_number(const struct input *input);

/* Whether that line ended the file without a line end, as in a file that was cut short. */
bool input_line_was_cut(const struct input *input);

const char *input_path(const struct input *input);

void input_close(struct input *input);

#endif
