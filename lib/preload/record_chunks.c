/* SPDX-License-Identifier: MIT */
/*
 * A slot's chunks come with ascending serials, and in that order. Two chunks of one slot and serial
 * are the same chunk, seen earlier and later: where the process was killed between writing it out
 * and beginning anew, or where its end was noticed while its thread still appended. Of the later
 * one, only what the earlier one did not have yet counts.
 */
#include "record_chunks.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* What has been taken of a slot's latest chunk. */
struct progress {
    bool seen;
    uint32_t serial, count;
};

struct progress_table {
    struct progress *slots;
    size_t size;
};

enum { MANY_SLOTS = 1 << 20 }; /* more threads at once than a process can have */

static int map_file(struct record_mapping *mapping, const char *path)
{
    struct stat status;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    int result = file >= 0 && fstat(file, &status) == 0 ? 0 : -errno;
    *mapping = (struct record_mapping){NULL, 0};
    if (result == 0 && status.st_size > 0) {
        mapping->size = (size_t)status.st_size;
        mapping->bytes = mmap(NULL, mapping->size, PROT_READ, MAP_PRIVATE, file, 0);
        if (mapping->bytes == MAP_FAILED) {
            result = -errno;
            mapping->bytes = NULL;
        }
    }
    if (file >= 0)
        close(file);
    return result;
}

static struct progress *progress_of(struct progress_table *table, uint32_t slot)
{
    if (slot >= table->size) {
        size_t size = (size_t)slot * 2 + 64;
        struct progress *slots = realloc(table->slots, size * sizeof *slots);
        if (!slots)
            return NULL;
        memset(slots + table->size, 0, (size - table->size) * sizeof *slots);
        table->slots = slots;
        table->size = size;
    }
    return &table->slots[slot];
}

/* 0 or -ENOMEM. */
static int add_chunk(struct record_chunks *chunks, struct progress_table *table,
                     const struct record_chunk_header *header)
{
    uint32_t skipped = 0;
    if (chunks->lost < header->lost)
        chunks->lost = header->lost;
    if (header->slot != RECORD_NO_SLOT) {
        struct progress *progress = progress_of(table, header->slot);
        if (!progress)
            return -ENOMEM;
        if (progress->seen && progress->serial == header->serial)
            skipped = progress->count < header->count ? progress->count : header->count;
        *progress = (struct progress){true, header->serial, header->count};
    }
    if (skipped == header->count)
        return 0;
    if (chunks->count == chunks->capacity) {
        size_t capacity = chunks->capacity ? 2 * chunks->capacity : 256;
        struct record_chunk *at = realloc(chunks->at, capacity * sizeof *at);
        if (!at)
            return -ENOMEM;
        chunks->at = at;
        chunks->capacity = capacity;
    }
    const struct record_entry *entries = (const void *)(header + 1);
    chunks->at[chunks->count++] =
        (struct record_chunk){header, entries + skipped, header->count - skipped};
    return 0;
}

static bool has_magic(const struct record_chunk_header *header)
{
    return memcmp(header->magic, RECORD_CHUNK_MAGIC, sizeof header->magic) == 0;
}

static bool is_of_this_version(const struct record_chunk_header *header)
{
    return header->entry_bytes == sizeof(struct record_entry) &&
           (header->slot < MANY_SLOTS || header->slot == RECORD_NO_SLOT);
}

static int refuse(const char *path, size_t offset)
{
    fprintf(stderr,
            "%s: byte %zu: not a chunk of this recorder's version; record again with the recorder "
            "of this build\n",
            path, offset);
    return -EINVAL;
}

/* What follows the last good chunk is the torn rest of one whose writer was killed. */
static int read_raw(struct record_chunks *chunks, struct progress_table *table, const char *path)
{
    const char *bytes = chunks->raw.bytes;
    size_t offset = 0, size = chunks->raw.size, magic = sizeof RECORD_CHUNK_MAGIC - 1;
    if (size > 0 && memcmp(bytes, RECORD_CHUNK_MAGIC, size < magic ? size : magic) != 0)
        return refuse(path, 0);
    while (size - offset >= sizeof(struct record_chunk_header)) {
        const struct record_chunk_header *header = (const void *)(bytes + offset);
        if (!has_magic(header))
            break;
        if (!is_of_this_version(header))
            return refuse(path, offset);
        size_t left = size - offset - sizeof *header;
        if (header->count > left / sizeof(struct record_entry))
            break;
        int error = add_chunk(chunks, table, header);
        if (error != 0)
            return error;
        offset += sizeof *header + header->count * sizeof(struct record_entry);
    }
    chunks->truncated_bytes = size - offset;
    return 0;
}

static int read_open(struct record_chunks *chunks, struct progress_table *table)
{
    const char *bytes = chunks->open.bytes;
    for (size_t offset = 0; chunks->open.size - offset >= RECORD_SLOT_BYTES;
         offset += RECORD_SLOT_BYTES) {
        const struct record_chunk_header *header = (const void *)(bytes + offset);
        if (!has_magic(header) || !is_of_this_version(header) ||
            header->count > RECORD_SLOT_ENTRIES)
            continue; /* a slot that nobody had yet */
        int error = add_chunk(chunks, table, header);
        if (error != 0)
            return error;
    }
    return 0;
}

static char *open_path_of(const char *raw_path)
{
    size_t length = strlen(raw_path), suffix = strlen(RECORD_RAW_SUFFIX);
    if (length < suffix || strcmp(raw_path + length - suffix, RECORD_RAW_SUFFIX) != 0)
        return NULL;
    char *path = malloc(length + sizeof RECORD_OPEN_SUFFIX);
    if (path)
        snprintf(path, length + sizeof RECORD_OPEN_SUFFIX, "%.*s" RECORD_OPEN_SUFFIX,
                 (int)(length - suffix), raw_path);
    return path;
}

/* One of the two may be missing. */
static int map_both(struct record_chunks *chunks, const char *path)
{
    char *open_path = open_path_of(path);
    int raw = map_file(&chunks->raw, path);
    int open = open_path ? map_file(&chunks->open, open_path) : -ENOENT;
    free(open_path);
    if (raw == 0 || (raw == -ENOENT && open == 0))
        return 0;
    fprintf(stderr, "%s: cannot open the raw recording: %s\n", path, strerror(-raw));
    return -EIO;
}

int record_chunks_open(struct record_chunks *chunks, const char *path)
{
    struct progress_table table = {NULL, 0};
    memset(chunks, 0, sizeof *chunks);
    int error = map_both(chunks, path);
    if (error == 0)
        error = read_raw(chunks, &table, path);
    if (error == 0)
        error = read_open(chunks, &table);
    free(table.slots);
    if (error == -ENOMEM)
        fprintf(stderr, "%s: not enough memory to read it\n", path);
    if (error != 0)
        record_chunks_close(chunks);
    return error == 0 ? 0 : -1;
}

static void unmap(struct record_mapping *mapping)
{
    if (mapping->bytes)
        munmap(mapping->bytes, mapping->size);
}

void record_chunks_close(struct record_chunks *chunks)
{
    free(chunks->at);
    unmap(&chunks->raw);
    unmap(&chunks->open);
    memset(chunks, 0, sizeof *chunks);
}
