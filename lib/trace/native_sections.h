/* SPDX-License-Identifier: MIT */
/*
 * The frame of a native file: the whole file in memory, its header and table checked, each section
 * with the checksum that the table says, decompressed. What the contents mean is not known here.
 */
#ifndef LARDER_TRACE_NATIVE_SECTIONS_H
#define LARDER_TRACE_NATIVE_SECTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "input.h"
#include "native.h"

struct native_counts {
    uint32_t threads, slots, blocks, ops, edges, marks, runs;
};

struct native_section {
    char tag[5];
    enum native_encoding encoding;
    uint64_t offset, stored_bytes;
    const unsigned char *contents; /* in the file, or `unpacked` */
    uint64_t contents_bytes;
    unsigned char *unpacked; /* NULL: raw */
    bool known;              /* somebody asked for it */
};

struct native_file {
    const char *path;
    unsigned char *bytes;
    size_t size, capacity;
    struct native_counts counts;
    struct native_section sections[NATIVE_SECTIONS_MAX];
    size_t section_count;
    char *why;
    size_t why_size;
};

/*
 * Reads all of the input and checks the frame. Returns 0, or a negative errno and the reason, with
 * section and offset, in `why`, which later calls use as well. To be closed in any case.
 */
int native_file_open(struct native_file *file, struct input *input, char *why, size_t why_size);

/* The section with this tag, or NULL. */
struct native_section *native_find_section(struct native_file *file, const char *tag);

/*
 * The same, where its contents must be `bytes` long; NULL in *out where it is missing and not
 * required. Returns 0, or -EINVAL and the reason.
 */
int native_find_sized(struct native_file *file, const char *tag, uint64_t bytes, bool required,
                      struct native_section **out);

/* Refuses a section that must be known and that nobody asked for. */
int native_refuse_unknown(struct native_file *file);

/* Say what is wrong; return -EINVAL and -ENOMEM. */
int native_fail_section(struct native_file *file, const struct native_section *section,
                        const char *reason);
int native_fail_memory(struct native_file *file);

void native_file_close(struct native_file *file);

#endif
