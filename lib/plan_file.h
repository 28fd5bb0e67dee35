/* SPDX-License-Identifier: MIT */
/*
 * Plans in a file: text, with a version in its first line and a checksum in its last.
 *
 *   larder-plan 1
 *   plan KEY BLOCKS PEAK              as often as there are plans; then its blocks, in order of request:
 *   BEGIN END SIZE ALIGNMENT OFFSET   times are numbers of operations, the rest is bytes
 *   end CHECKSUM                      FNV-1a (64 bit) of all bytes before this line, in hexadecimal
 *
 * All numbers but the checksum are decimal. A reader looks at the whole file before it gives anything away, so one that is damaged or cut off is
 * refused at once; whether a plan is sound is for plan_check() to say.
 */
#ifndef LARDER_PLAN_FILE_H
#define LARDER_PLAN_FILE_H

#include <stdint.h>
#include <stdio.h>

struct plan_head {
    uint64_t key, peak;
    uint32_t blocks;
};

struct plan_row {
    uint32_t begin, end, alignment;
    uint64_t size, offset;
};

/* ---- writing: begin, then for each plan its head and that many rows, then end ---- */

struct plan_writer {
    FILE *file;
    uint64_t sum;
    int failed;
};

void plan_write_begin(struct plan_writer *writer, FILE *file);
void plan_write_head(struct plan_writer *writer, const struct plan_head *head);
void plan_write_row(struct plan_writer *writer, const struct plan_row *row);
/* 0, or -EIO if anything could not be written. */
int plan_write_end(struct plan_writer *writer);

/* ---- reading: begin, then heads as long as there are any, and the rows of each ---- */

struct plan_reader {
    FILE *file;
    unsigned long line; /* of the file, for reports */
};

/*
 * Checks the whole file, which must be one that can be read twice: 0, -EINVAL for what is not such a file, is damaged or cut
 * off, -ENOTSUP for another version, -EIO.
 */
int plan_read_begin(struct plan_reader *reader, FILE *file);
/* 1 with a head, 0 after the last plan, or -EINVAL. */
int plan_read_head(struct plan_reader *reader, struct plan_head *head);
/* 0 or -EINVAL. */
int plan_read_row(struct plan_reader *reader, struct plan_row *row);

#endif
