/* SPDX-License-Identifier: MIT */
/*
 * The raw file of one process, and the count of what did not get there. Never calls the malloc
 * family; keeps errno; is no cancellation point.
 */
#ifndef LARDER_PRELOAD_RECORD_FILE_H
#define LARDER_PRELOAD_RECORD_FILE_H

#include "record_format.h"

#include <stdbool.h>

/*
 * The file will be PREFIX.PID.raw, made with the first chunk. A relative prefix is taken from the
 * current directory. False: the path is too long. Call once, before a second thread exists.
 */
bool record_file_init(const char *prefix);

/* Whether this is the process that called record_file_init: fork and vfork make others. */
bool record_file_is_ours(void);

/* Fills in all but the count, for the calling thread. */
void record_file_begin_chunk(struct record_chunk_header *header);

/* Writes the header and the header->count entries that follow it in memory; counts what it cannot
   write as lost. Nothing is written for a count of 0. */
void record_file_write(struct record_chunk_header *header);

void record_file_count_lost(uint64_t entries);

/* One line on stderr if anything was lost. */
void record_file_report(void);

#endif
