/* SPDX-License-Identifier: MIT */
/*
 * The raw files of one process, and the count of what did not get there. Never calls the malloc
 * family; keeps errno; is no cancellation point.
 */
#ifndef LARDER_PRELOAD_RECORD_FILE_H
#define LARDER_PRELOAD_RECORD_FILE_H

#include "record_format.h"

#include <stdatomic.h>
#include <stdbool.h>

/*
 * The files will be PREFIX.PID.raw and .open, made when needed. A relative prefix is taken from the
 * current directory. False: the path is too long. Call once, before a second thread exists.
 */
bool record_file_init(const char *prefix);

/* In the child of a fork that is to record too: from here on its files are its own. */
void record_file_init_in_child(void);

/* Whether this is the process that called record_file_init: fork and vfork make others. */
bool record_file_is_ours(void);

/* Slot number `slot` of the .open file, RECORD_SLOT_BYTES of zeroes in shared memory; NULL: counted
   as an error, and to be reported. */
void *record_file_map_slot(uint32_t slot);

/* Fills in all but count, slot and serial, for the calling thread. */
void record_file_begin_chunk(struct record_chunk_header *header);

/* Says how many entries of the chunk are complete. */
static inline void record_file_publish(struct record_chunk_header *header, uint32_t count)
{
    /* release: the entries come before it, for whoever reads the slot in the end. */
    atomic_store_explicit((_Atomic uint32_t *)&header->count, count, memory_order_release);
}

/* Writes the header and the entries that follow it in memory to the .raw file, and begins the chunk
   anew under the next serial. False: it could not be written, and counts as lost. */
bool record_file_flush(struct record_chunk_header *header);

/* Every slot has been written: the .open file goes. */
void record_file_close_slots(void);

void record_file_count_lost(uint64_t entries);

/* One line on stderr if anything was lost. */
void record_file_report(void);

#endif
