/* SPDX-License-Identifier: MIT */
/*
 * Every entry becomes one or two points (sequence, address). Sorted by address first, each address
 * has a history that must alternate: acquired, released, acquired. Where it does not, the recording
 * began or paused in between, or memory went through a door the recorder does not see:
 *   released while free      the block is older than the recording: the release is dropped;
 *   acquired while live      its release was not seen: a free is implied just before.
 *
 * A realloc is one line in most formats, but two points here. It is written at its second point,
 * which delays the release of the old address; that is right unless somebody else got that address
 * in between, and then the realloc is split. Acquisitions never move, so delaying is always safe.
 *
 * Sorted by sequence then, the points are the trace. Two sorts, no table of live blocks.
 */
#include "record_events.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int map_file(struct record_recording *recording, const char *path)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    if (file < 0 || fstat(file, &status) != 0) {
        fprintf(stderr, "%s: cannot open the raw recording: %s\n", path, strerror(errno));
        if (file >= 0)
            close(file);
        return -1;
    }
    recording->size = (size_t)status.st_size;
    recording->bytes = NULL;
    if (recording->size > 0) {
        void *bytes = mmap(NULL, recording->size, PROT_READ, MAP_PRIVATE, file, 0);
        if (bytes == MAP_FAILED) {
            fprintf(stderr, "%s: cannot map the raw recording: %s\n", path, strerror(errno));
            close(file);
            return -1;
        }
        recording->bytes = bytes;
    }
    close(file);
    return 0;
}

/*
 * The chunk at *offset. 1: *header is it, and *offset is behind it; 0: the end, or the torn rest of
 * a file whose writer was killed; -1: not a recording.
 */
static int next_chunk(const struct record_recording *recording, const char *path, size_t *offset,
                      const struct record_chunk_header **header)
{
    size_t left = recording->size - *offset;
    if (left < sizeof **header)
        return 0;
    const struct record_chunk_header *chunk =
        (const void *)((const char *)recording->bytes + *offset);
    if (memcmp(chunk->magic, RECORD_CHUNK_MAGIC, sizeof chunk->magic) != 0 ||
        chunk->entry_bytes != sizeof(struct record_entry)) {
        fprintf(stderr,
                "%s: byte %zu: not a chunk of this recorder's version; record again with the "
                "recorder of this build\n",
                path, *offset);
        return -1;
    }
    size_t bytes = sizeof *chunk + (size_t)chunk->count * sizeof(struct record_entry);
    if (left < bytes)
        return 0;
    *offset += bytes;
    *header = chunk;
    return 1;
}

static int count_events(struct record_recording *recording, const char *path,
                        struct record_merge_summary *summary)
{
    const struct record_chunk_header *header;
    size_t offset = 0;
    int more;
    while ((more = next_chunk(recording, path, &offset, &header)) == 1) {
        recording->event_count += header->count;
        if (summary->lost < header->lost)
            summary->lost = header->lost;
    }
    summary->truncated_bytes = recording->size - offset;
    return more;
}

static void add_point(struct record_recording *recording, struct record_event *event,
                      uint64_t sequence, uint64_t address, bool acquires)
{
    struct record_point *point = &recording->points[recording->point_count++];
    *point = (struct record_point){sequence, address, event, acquires};
}

/* False: a kind this version does not know. */
static bool add_points(struct record_recording *recording, struct record_event *event)
{
    const struct record_entry *entry = event->entry;
    switch (entry->kind) {
    case RECORD_MALLOC:
    case RECORD_CALLOC:
    case RECORD_MEMALIGN:
        add_point(recording, event, entry->sequence, entry->of.call.pointer, true);
        return true;
    case RECORD_REALLOC:
        add_point(recording, event, entry->sequence, entry->of.call.argument, false);
        add_point(recording, event, entry->sequence_after, entry->of.call.pointer, true);
        return true;
    case RECORD_FREE:
        add_point(recording, event, entry->sequence, entry->of.call.pointer, false);
        return true;
    case RECORD_MARK:
        add_point(recording, event, entry->sequence, 0, false);
        return true;
    case RECORD_WINDOW:
        return true;
    default:
        return false;
    }
}

static int load_events(struct record_recording *recording, const char *path)
{
    const struct record_chunk_header *header;
    struct record_event *event = recording->events;
    size_t offset = 0;
    while (next_chunk(recording, path, &offset, &header) == 1) {
        const struct record_entry *entries = (const void *)(header + 1);
        for (uint32_t i = 0; i < header->count; i++, event++) {
            *event = (struct record_event){.entry = &entries[i], .thread = header->thread};
            if (add_points(recording, event))
                continue;
            fprintf(stderr,
                    "%s: byte %zu: entry of unknown kind %" PRIu32 "; the file is damaged\n", path,
                    (size_t)((const char *)&entries[i] - (const char *)recording->bytes),
                    entries[i].kind);
            return -1;
        }
    }
    return 0;
}

static int by_sequence(const void *left, const void *right)
{
    const struct record_point *a = left, *b = right;
    return (a->sequence > b->sequence) - (a->sequence < b->sequence);
}

static int by_address(const void *left, const void *right)
{
    const struct record_point *a = left, *b = right;
    if (a->address != b->address)
        return a->address > b->address ? 1 : -1;
    return by_sequence(left, right);
}

/* Whether somebody else touches the realloc's old address before its second point. */
static bool used_in_between(const struct record_point *release, const struct record_point *next,
                            const struct record_point *end)
{
    return next < end && next->address == release->address && next->event != release->event &&
           next->sequence < release->event->entry->sequence_after;
}

static void resolve_release(const struct record_point *point, const struct record_point *end,
                            bool live, struct record_merge_summary *summary)
{
    if (!live) {
        point->event->verdict = RECORD_DROP;
        summary->unknown_frees++;
    } else if (point->event->entry->kind == RECORD_REALLOC &&
               used_in_between(point, point + 1, end)) {
        point->event->verdict = RECORD_SPLIT;
        summary->split_reallocs++;
    }
}

/* points are ordered by address, then sequence. */
static void resolve(struct record_recording *recording, struct record_merge_summary *summary)
{
    const struct record_point *end = recording->points + recording->point_count;
    bool live = false;
    for (struct record_point *point = recording->points; point < end; point++) {
        bool last = point + 1 == end || point[1].address != point->address;
        if (point->event->entry->kind == RECORD_MARK) {
            summary->marks++;
            continue;
        }
        if (!point->acquires) {
            resolve_release(point, end, live, summary);
        } else if (live) {
            point->event->implied_free = true;
            summary->implied_frees++;
        }
        live = point->acquires;
        if (last) {
            summary->live_at_end += live;
            live = false;
        }
    }
}

int record_recording_open(struct record_recording *recording, const char *path,
                          struct record_merge_summary *summary)
{
    memset(recording, 0, sizeof *recording);
    if (map_file(recording, path) != 0)
        return -1;
    if (count_events(recording, path, summary) != 0) {
        record_recording_close(recording);
        return -1;
    }
    /* At least one element, so that NULL means no memory. */
    recording->events = calloc(recording->event_count + 1, sizeof *recording->events);
    recording->points = calloc(2 * recording->event_count + 1, sizeof *recording->points);
    if (!recording->events || !recording->points) {
        fprintf(stderr, "%s: not enough memory to order %zu entries\n", path,
                recording->event_count);
        record_recording_close(recording);
        return -1;
    }
    if (load_events(recording, path) != 0) {
        record_recording_close(recording);
        return -1;
    }
    qsort(recording->points, recording->point_count, sizeof *recording->points, by_address);
    resolve(recording, summary);
    qsort(recording->points, recording->point_count, sizeof *recording->points, by_sequence);
    return 0;
}

void record_recording_close(struct record_recording *recording)
{
    free(recording->points);
    free(recording->events);
    if (recording->bytes)
        munmap(recording->bytes, recording->size);
    memset(recording, 0, sizeof *recording);
}
