/* SPDX-License-Identifier: MIT */
/*
 * The raw recording: what the recorder writes and the merge reads. A file is a row of chunks; a
 * chunk is a header and the entries of one thread, in the order that thread appended them. Order
 * between threads comes from the sequence numbers alone, so chunks need no order in the file.
 *
 * Sequence numbers come from one counter. Whatever gives an address up (free, and the old block of
 * a realloc) takes its number *before* the real call; whatever obtains one takes it *after*. So if
 * two blocks ever had the same address, the release of the first has the smaller number.
 *
 * Native byte order and layout: a raw file is read on the machine that wrote it.
 */
#ifndef LARDER_PRELOAD_RECORD_FORMAT_H
#define LARDER_PRELOAD_RECORD_FORMAT_H

#include <stdint.h>

#define RECORD_CHUNK_MAGIC "LRDRREC1"

enum record_kind {
    RECORD_MALLOC = 1,   /* pointer, size */
    RECORD_CALLOC = 2,   /* pointer, argument = members, size of one member */
    RECORD_MEMALIGN = 3, /* pointer, argument = alignment, size */
    RECORD_REALLOC = 4,  /* pointer = new, argument = old, size; both sequence numbers */
    RECORD_FREE = 5,     /* pointer */
    RECORD_MARK = 6,     /* name */
    RECORD_WINDOW = 7,   /* the recorded window opens here */
};

struct record_chunk_header {
    char magic[8];
    uint32_t process;
    uint32_t thread;
    uint32_t count;       /* entries that follow */
    uint32_t entry_bytes; /* sizeof(struct record_entry) of the writer */
    uint64_t lost;        /* entries the whole process had lost when this chunk was written */
};

struct record_entry {
    uint64_t sequence;       /* the number for RECORD_REALLOC's release of the old block */
    uint64_t sequence_after; /* RECORD_REALLOC: the number for obtaining the new one; else 0 */
    union {
        struct {
            uint64_t pointer;
            uint64_t argument;
            uint64_t size;
        } call;
        char name[24]; /* RECORD_MARK: NUL-terminated */
    } of;
    uint32_t kind; /* enum record_kind */
    uint32_t reserved;
};

#endif
