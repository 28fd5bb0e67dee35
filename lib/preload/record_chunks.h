/* SPDX-License-Identifier: MIT */
/*
 * The chunks of a raw recording, from both of its files (record_format.h), each entry once.
 */
#ifndef LARDER_PRELOAD_RECORD_CHUNKS_H
#define LARDER_PRELOAD_RECORD_CHUNKS_H

#include "record_format.h"

#include <stddef.h>

struct record_chunk {
    const struct record_chunk_header *header;
    const struct record_entry *entries; /* that are not in an earlier chunk */
    uint32_t count;
};

struct record_mapping {
    void *bytes; /* NULL: an empty file, or none */
    size_t size;
};

struct record_chunks {
    struct record_mapping raw, open;
    struct record_chunk *at;
    size_t count, capacity;
    uint64_t lost;            /* entries that the recorder could not keep */
    uint64_t truncated_bytes; /* behind the last whole chunk of the raw file */
};

/*
 * `path` is that of the raw file; NAME.open beside NAME.raw is read too, and enough by itself. 0, or
 * -1 after a line on stderr. Release with record_chunks_close.
 */
int record_chunks_open(struct record_chunks *chunks, const char *path);
void record_chunks_close(struct record_chunks *chunks);

#endif
