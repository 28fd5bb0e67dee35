/* SPDX-License-Identifier: MIT */
/*
 * Where writers of formats put their bytes: a file, perhaps through gzip or zstd.
 *
 * Errors are kept, not returned by each call: a writer writes to its end, and sink_close() tells.
 */
#ifndef LARDER_TRACE_SINK_H
#define LARDER_TRACE_SINK_H

#include <stddef.h>
#include <stdio.h>

enum sink_packing { SINK_PLAIN, SINK_GZIP, SINK_ZSTD };

struct sink;

/*
 * Starts writing to a file that stays the caller's. Returns 0, -ENOMEM, or -ENOTSUP where this build
 * lacks the library.
 */
int sink_open(struct sink **out, FILE *file, enum sink_packing packing);

void sink_write(struct sink *sink, const void *bytes, size_t size);

/* A text of 4000 bytes at most. */
__attribute__((format(printf, 2, 3))) void sink_print(struct sink *sink, const char *format, ...);

/*
 * Writes what is left and releases the sink. Returns 0, -EIO where the file took no more, or what a
 * library returned.
 */
int sink_close(struct sink *sink);

#endif
