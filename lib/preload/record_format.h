/* SPDX-License-Identifier: MIT */
/*
 * The raw recording: what the recorder writes and the merge reads, two files for each process image.
 *
 * NAME.raw is a row of chunks; a chunk is a header and the entries of one thread, in the order that
 * thread appended them. Order between threads comes from the sequence numbers alone, so chunks need
 * no order in the file.
 *
 * NAME.open holds the buffers of threads: slots of RECORD_SLOT_BYTES, each a chunk that is still
 * being filled. The recorder's memory is a shared mapping of that file, so whatever a thread has
 * appended is the kernel's to keep, however the process ends. A slot that has been written to
 * NAME.raw begins again under the next serial; killed in between, it is in both files, which
 * slot and serial tell. A recording that ended in order has no NAME.open.
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

#define RECORD_CHUNK_MAGIC "LRDRREC2"
#define RECORD_RAW_SUFFIX ".raw"
#define RECORD_OPEN_SUFFIX ".open"

enum record_kind {
    RECORD_MALLOC = 1,      /* pointer, size */
    RECORD_CALLOC = 2,      /* pointer, argument = members, size of one member */
    RECORD_MEMALIGN = 3,    /* pointer, argument = alignment, size */
    RECORD_REALLOC = 4,     /* pointer = new, argument = old, size; both sequence numbers */
    RECORD_FREE = 5,        /* pointer */
    RECORD_MARK = 6,        /* name */
    RECORD_WINDOW = 7,      /* the recorded window opens here */
    RECORD_THREAD_DONE = 8, /* the thread has ended; what it frees later still comes behind */
};

struct record_chunk_header {
    char magic[8];
    uint32_t process;
    uint32_t thread;
    uint32_t count;       /* entries that follow */
    uint32_t entry_bytes; /* sizeof(struct record_entry) of the writer */
    uint32_t slot;        /* the buffer that it comes from; RECORD_NO_SLOT: none */
    uint32_t serial;      /* of the slot's chunks: ascending */
    uint64_t lost;        /* entries the whole process had lost when this chunk was written */
    uint64_t reserved[2];
};

#define RECORD_NO_SLOT UINT32_MAX

struct record_entry {
    uint64_t sequence; /* RECORD_REALLOC: for the release of the old block */
    union {
        struct {
            uint64_t pointer;
            uint64_t argument;
            uint64_t size;
        } call;
        char name[24]; /* RECORD_MARK: NUL-terminated */
    } of;
    uint64_t time_ns; /* on CLOCK_MONOTONIC; 0: not recorded */
    uint32_t kind;    /* enum record_kind */
    uint32_t later;   /* RECORD_REALLOC: what to add to `sequence` for obtaining the new block */
};

enum { RECORD_SLOT_BYTES = 64 * 1024 };
#define RECORD_SLOT_ENTRIES                                                                        \
    ((RECORD_SLOT_BYTES - sizeof(struct record_chunk_header)) / sizeof(struct record_entry))

/* The sequence number of obtaining what the entry names. */
static inline uint64_t record_acquired_at(const struct record_entry *entry)
{
    return entry->sequence + entry->later;
}

#endif
