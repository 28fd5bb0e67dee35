/* SPDX-License-Identifier: MIT */
/*
 * The frame of a native file: see native_sections.h, and native.h for the layout.
 *
 * Memory stays in proportion to what was really read: the buffer grows with the input, whatever
 * the header says, and a section decompresses to no more than native_contents_max().
 */
#include "native_sections.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "crc32c.h"
#include "decoder.h"
#include "pages.h"

#define FIRST_READ (256 * 1024)

static const char remedy[] =
    "the file is damaged: copy it again, or make it anew with `larder convert`";

bool native_recognise(const char *bytes, size_t size)
{
    return size >= NATIVE_MAGIC_BYTES && memcmp(bytes, native_magic, NATIVE_MAGIC_BYTES) == 0;
}

static int fail_at(struct native_file *file, const char *part, uint64_t offset, const char *reason)
{
    snprintf(file->why, file->why_size, "%s: %s, byte %" PRIu64 ": %s; %s", file->path, part,
             offset, reason, remedy);
    return -EINVAL;
}

int native_fail_section(struct native_file *file, const struct native_section *section,
                        const char *reason)
{
    char part[32];
    snprintf(part, sizeof part, "section %s", section->tag);
    return fail_at(file, part, section->offset, reason);
}

int native_fail_memory(struct native_file *file)
{
    snprintf(file->why, file->why_size, "%s: out of memory: the trace is too large", file->path);
    return -ENOMEM;
}

static int read_all(struct native_file *file, struct input *input)
{
    for (;;) {
        if (file->size == file->capacity) {
            size_t wanted = file->capacity > 0 ? file->capacity * 2 : FIRST_READ;
            unsigned char *bytes = file->bytes == NULL
                                       ? pages_allocate(wanted)
                                       : pages_grow(file->bytes, file->capacity, wanted);
            if (wanted < file->capacity || bytes == NULL) {
                return native_fail_memory(file);
            }
            file->bytes = bytes;
            file->capacity = wanted;
        }
        size_t got;
        int result = input_read(input, file->bytes + file->size, file->capacity - file->size, &got,
                                file->why, file->why_size);
        if (result != 0 || got == 0) {
            return result;
        }
        file->size += got;
    }
}

/* The header, and where the table ends. */
static int check_header(struct native_file *file, size_t *table_end)
{
    const unsigned char *bytes = file->bytes;
    if (file->size < NATIVE_HEADER_BYTES) {
        return fail_at(file, "header", file->size, "the file ends here");
    }
    if (get_u16(bytes + 8) != 1) {
        snprintf(file->why, file->why_size,
                 "%s: header, byte 8: version %u of the format, and this program reads version 1: "
                 "use a newer one",
                 file->path, get_u16(bytes + 8));
        return -ENOTSUP;
    }
    if (get_u32(bytes + 60) != crc32c(bytes, 60)) {
        return fail_at(file, "header", 60, "the checksum of the header does not fit");
    }
    file->section_count = get_u32(bytes + 12);
    if (file->section_count > NATIVE_SECTIONS_MAX) {
        file->section_count = 0;
        return fail_at(file, "header", 12, "more than 64 sections");
    }
    uint64_t said = get_u64(bytes + 16);
    if (said != file->size) {
        return fail_at(file, "header", file->size < said ? file->size : said,
                       file->size < said ? "the file ends here, before the header says"
                                         : "the file goes on here, behind its end");
    }
    *table_end = NATIVE_HEADER_BYTES + file->section_count * NATIVE_ENTRY_BYTES;
    if (*table_end > file->size) {
        return fail_at(file, "section table", file->size, "the file ends here");
    }
    if (get_u32(bytes + 56) !=
        crc32c(bytes + NATIVE_HEADER_BYTES, *table_end - NATIVE_HEADER_BYTES)) {
        return fail_at(file, "section table", NATIVE_HEADER_BYTES,
                       "the checksum of the table does not fit");
    }
    file->counts = (struct native_counts){
        .threads = get_u32(bytes + 24),
        .slots = get_u32(bytes + 28),
        .blocks = get_u32(bytes + 32),
        .ops = get_u32(bytes + 36),
        .edges = get_u32(bytes + 40),
        .marks = get_u32(bytes + 44),
        .runs = get_u32(bytes + 48),
    };
    /* Each has an entry or an operation in some section, but for these. */
    if (file->counts.slots > file->counts.blocks || file->counts.blocks > file->counts.ops) {
        return fail_at(file, "header", 28,
                       "more slots than blocks, or more blocks than operations");
    }
    return 0;
}

static int unpack(struct native_file *file, struct native_section *section)
{
    struct decoder decoder;
    int result = decoder_open_zstd(&decoder);
    if (result == -ENOTSUP) {
        snprintf(file->why, file->why_size,
                 "%s: section %s, byte %" PRIu64 ": is compressed with zstd, which this build "
                 "cannot read: build it with libzstd, or convert the file where that is there",
                 file->path, section->tag, section->offset);
        return result;
    }
    section->unpacked = pages_allocate((size_t)section->contents_bytes);
    if (result != 0 || section->unpacked == NULL) {
        if (result == 0) {
            decoder.close(&decoder);
        }
        return native_fail_memory(file);
    }
    const unsigned char *stored = file->bytes + section->offset;
    size_t in = 0, out = 0;
    const char *problem = NULL;
    for (;;) {
        size_t used, made;
        result = decoder.decode(&decoder, stored + in, (size_t)section->stored_bytes - in, &used,
                                section->unpacked + out, (size_t)section->contents_bytes - out,
                                &made, &problem);
        in += used;
        out += made;
        if (result != 0 || (used == 0 && made == 0)) {
            break;
        }
    }
    bool whole = decoder.at_boundary && in == section->stored_bytes;
    decoder.close(&decoder);
    if (result == -ENOMEM) {
        return native_fail_memory(file);
    }
    if (result != 0 || !whole || out != section->contents_bytes) {
        return native_fail_section(file, section,
                                   problem != NULL ? problem
                                                   : "the zstd frame has another length than said");
    }
    section->contents = section->unpacked;
    return 0;
}

static bool is_tag(const unsigned char *tag)
{
    for (int i = 0; i < 4; i++) {
        if (tag[i] < ' ' || tag[i] > '~') {
            return false;
        }
    }
    return true;
}

/* Takes over an entry of the table; `end` is where the part of the file before it ends. */
static int check_entry(struct native_file *file, size_t index, uint64_t *end)
{
    size_t at = NATIVE_HEADER_BYTES + index * NATIVE_ENTRY_BYTES;
    const unsigned char *bytes = file->bytes + at;
    struct native_section *section = &file->sections[index];
    if (!is_tag(bytes)) {
        return fail_at(file, "section table", at, "a tag that is no text");
    }
    memcpy(section->tag, bytes, 4);
    for (size_t i = 0; i < index; i++) {
        if (memcmp(file->sections[i].tag, section->tag, 4) == 0) {
            return fail_at(file, "section table", at, "a tag that occurs twice");
        }
    }
    uint32_t encoding = get_u32(bytes + 4);
    section->encoding = encoding == NATIVE_ZSTD ? NATIVE_ZSTD : NATIVE_RAW;
    section->offset = get_u64(bytes + 8);
    section->stored_bytes = get_u64(bytes + 16);
    section->contents_bytes = get_u64(bytes + 24);
    uint64_t begin =
        (*end + NATIVE_SECTION_ALIGNMENT - 1) & ~(uint64_t)(NATIVE_SECTION_ALIGNMENT - 1);
    if (encoding > NATIVE_ZSTD || section->offset != begin || section->offset > file->size ||
        section->stored_bytes > file->size - section->offset) {
        return fail_at(file, "section table", at,
                       "an unknown encoding, or a place that is not free");
    }
    if (section->encoding == NATIVE_RAW
            ? section->contents_bytes != section->stored_bytes
            : section->contents_bytes > native_contents_max(section->stored_bytes) ||
                  section->contents_bytes > SIZE_MAX / 2) {
        return fail_at(file, "section table", at + 24, "contents too long for the bytes stored");
    }
    for (uint64_t i = *end; i < begin; i++) {
        if (file->bytes[i] != 0) {
            return fail_at(file, "padding", i, "not zero");
        }
    }
    *end = section->offset + section->stored_bytes;
    return 0;
}

static int read_section(struct native_file *file, size_t index)
{
    struct native_section *section = &file->sections[index];
    const unsigned char *entry = file->bytes + NATIVE_HEADER_BYTES + index * NATIVE_ENTRY_BYTES;
    const unsigned char *stored = file->bytes + section->offset;
    if (get_u32(entry + 32) != crc32c(stored, (size_t)section->stored_bytes)) {
        return native_fail_section(file, section, "the checksum of the section does not fit");
    }
    section->contents = stored;
    return section->encoding == NATIVE_ZSTD ? unpack(file, section) : 0;
}

int native_file_open(struct native_file *file, struct input *input, char *why, size_t why_size)
{
    size_t table_end;
    *file = (struct native_file){.path = input_path(input), .why = why, .why_size = why_size};
    int result = read_all(file, input);
    if (result == 0) {
        result = check_header(file, &table_end);
    }
    if (result != 0) {
        return result;
    }
    uint64_t end = table_end;
    for (size_t i = 0; result == 0 && i < file->section_count; i++) {
        result = check_entry(file, i, &end);
    }
    if (result == 0 && end != file->size) {
        return fail_at(file, "section table", end, "bytes behind the last section");
    }
    for (size_t i = 0; result == 0 && i < file->section_count; i++) {
        result = read_section(file, i);
    }
    return result;
}

struct native_section *native_find_section(struct native_file *file, const char *tag)
{
    for (size_t i = 0; i < file->section_count; i++) {
        if (strcmp(file->sections[i].tag, tag) == 0) {
            file->sections[i].known = true;
            return &file->sections[i];
        }
    }
    return NULL;
}

int native_find_sized(struct native_file *file, const char *tag, uint64_t bytes, bool required,
                      struct native_section **out)
{
    *out = native_find_section(file, tag);
    if (*out == NULL && required) {
        char part[32];
        snprintf(part, sizeof part, "section %s", tag);
        return fail_at(file, part, file->size, "it is missing");
    }
    if (*out != NULL && (*out)->contents_bytes != bytes) {
        return native_fail_section(file, *out, "its length does not fit the counts in the header");
    }
    return 0;
}

int native_refuse_unknown(struct native_file *file)
{
    for (size_t i = 0; i < file->section_count; i++) {
        const struct native_section *section = &file->sections[i];
        if (!section->known && section->tag[0] >= 'A' && section->tag[0] <= 'Z') {
            snprintf(file->why, file->why_size,
                     "%s: section %s, byte %" PRIu64 ": not known to this program, and not to be "
                     "ignored: use a newer one",
                     file->path, section->tag, section->offset);
            return -ENOTSUP;
        }
    }
    return 0;
}

void native_file_close(struct native_file *file)
{
    for (size_t i = 0; i < file->section_count; i++) {
        pages_free(file->sections[i].unpacked, (size_t)file->sections[i].contents_bytes);
    }
    pages_free(file->bytes, file->capacity);
    file->bytes = NULL;
    file->section_count = 0;
}
