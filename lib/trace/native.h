/* SPDX-License-Identifier: MIT */
/*
 * The native format of traces, `.ltr`: all that a struct trace holds, ready for replays by thread.
 *
 * Layout, version 1. Numbers are little-endian and unsigned. All that is not described is zero.
 *
 *   header        64 bytes
 *   section table 40 bytes for each section
 *   sections      each at an offset that is a multiple of 64, in the order of the table, with zero
 *                 bytes between; the file ends where the last section does
 *
 * Header:
 *    0  8  magic: 89 'L' 'T' 'R' 0d 0a 1a 0a (a transfer as text damages it)
 *    8  2  major version, 1: another one is not readable
 *   10  2  minor version, 0: a larger one is readable; it adds what readers may ignore
 *   12  4  number of sections, 64 at most
 *   16  8  size of the file in bytes
 *   24  4  threads
 *   28  4  slots
 *   32  4  blocks: as many as there are operations of kind 0 and 1
 *   36  4  operations
 *   40  4  edges
 *   44  4  marks
 *   48  4  runs of the recorded order
 *   52  4  zero
 *   56  4  CRC-32C of the section table
 *   60  4  CRC-32C of these 60 bytes
 *
 * Entry of the section table:
 *    0  4  tag: four characters
 *    4  4  encoding: 0 raw, 1 one zstd frame
 *    8  8  offset in the file
 *   16  8  bytes in the file
 *   24  8  bytes of the contents: raw, the same; zstd, what it decompresses to, at most 64 MiB +
 *          1024 x the bytes in the file
 *   32  4  CRC-32C of the bytes in the file
 *   36  4  zero
 * No tag occurs twice. A reader that does not know a tag refuses the file if it begins with a
 * capital letter, and ignores the section otherwise. A raw section can be used where the file is
 * mapped.
 *
 * THRD, 48 bytes a thread, in the order in which they first appear in the recording:
 *    0  4  the recorded thread id, another for each
 *    4  4  its operations: at least 1
 *    8  4  its edges
 *   12 28  its name, ended by a zero byte, or zero
 *
 * OPS (with a blank at its end), 16 bytes an operation: those of the first thread, in their order,
 * then those of the second, and so on:
 *    0  8  requested size, below 2^63; of a free and a thread's end, zero
 *    8  4  slot; of a thread's end, ffffffff
 *   12  1  kind: 0 allocate, 1 allocate zeroed, 2 reallocate, 3 free, 4 the thread ended
 *   13  1  log2 of the alignment asked for, at most 30, or 0
 *   14  2  flags: 1 it waits (an edge leads to it), 2 it is waited for
 * A live block has a slot, from its allocation until its free; a reallocation keeps it. In
 * recorded order, and in any order that the threads and the edges allow, an allocation's slot is
 * free, and the slot of anything else is in use, by the block it is about.
 *
 * EDGE, 12 bytes an edge: those of the first thread, ascending by operation, then those of the
 * second, and so on:
 *    0  4  the operation that waits: its index among those of its thread; one edge at most for each
 *    4  4  the other thread
 *    8  4  the operation that it waits for: its index among those of the other thread
 * An edge leads from an earlier operation in recorded order to a later one. Edges that follow from
 * others and the threads' own order are not there.
 *
 * ORDR, 8 bytes a run: the recorded order of all operations
 *    0  4  thread
 *    4  4  how many of its next operations come now: at least 1
 *
 * MARK (only if there are marks), 32 bytes a mark, ascending:
 *    0  4  operations of the recorded order that come before it
 *    4 28  name: printable ASCII, ended by a zero byte
 *
 * TIME (only if there are times), 16 bytes an operation, in the order of OPS:
 *    0  8  when the call began, in nanoseconds on the recorder's clock; of a thread's end, zero
 *    8  8  when it returned
 *
 * meta (only if there are labels): UTF-8 text, lines "KEY=VALUE\n" (see labels.h)
 *
 * note (optional), 48 bytes, what had to be dropped or mended on the way from the first recording:
 *    0  8  frees of blocks from before the recording
 *    8  8  frees of NULL
 *   16  8  allocations that failed
 *   24  8  addresses handed out again before their free
 *   32  8  of these, repaired
 *   40  8  blocks dropped as too small
 */
#ifndef LARDER_TRACE_NATIVE_H
#define LARDER_TRACE_NATIVE_H

#include <stdbool.h>
#include <stddef.h>

#include "input.h"
#include "sink.h"
#include "trace.h"

/* How many bytes native_recognise() wants to see. */
#define NATIVE_MAGIC_BYTES 8

bool native_recognise(const char *bytes, size_t size);

/*
 * Reads a file from an input that nothing was read from yet. Returns 0, or a negative errno with a
 * line in `why` that names file, section and byte offset; `out` must be empty, and may be left with
 * parts that trace_unload() releases.
 */
int native_read(struct input *input, struct trace *out, char *why, size_t why_size);

/* Whether this build can compress. */
bool native_can_compress(void);

/* Writes the trace; compressed where asked for and where this build can. Returns 0 or -ENOMEM. */
int native_write(const struct trace *trace, bool compress, struct sink *sink);

/* -- For native_read.c and native_write.c -------------------------------------------------------- */

enum {
    NATIVE_HEADER_BYTES = 64,
    NATIVE_ENTRY_BYTES = 40,
    NATIVE_SECTION_ALIGNMENT = 64,
    NATIVE_SECTIONS_MAX = 64,
    NATIVE_THREAD_BYTES = 48,
    NATIVE_OP_BYTES = 16,
    NATIVE_EDGE_BYTES = 12,
    NATIVE_RUN_BYTES = 8,
    NATIVE_MARK_BYTES = 32,
    NATIVE_TIME_BYTES = 16,
    NATIVE_NOTE_BYTES = 48,
    NATIVE_ALIGNMENT_LOG2_MAX = 30
};

enum native_encoding { NATIVE_RAW, NATIVE_ZSTD };

extern const unsigned char native_magic[NATIVE_MAGIC_BYTES];

/* Most that a section of so many bytes in the file may hold: no small file takes much memory. */
static inline uint64_t native_contents_max(uint64_t stored_bytes)
{
    return stored_bytes > UINT64_MAX / 2048 ? UINT64_MAX
                                            : (UINT64_C(64) << 20) + 1024 * stored_bytes;
}

#endif
