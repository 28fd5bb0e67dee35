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

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void count_events(struct record_recording *recording, struct record_merge_summary *summary)
{
    for (size_t i = 0; i < recording->chunks.count; i++)
        recording->event_count += recording->chunks.at[i].count;
    summary->lost = recording->chunks.lost;
    summary->truncated_bytes = recording->chunks.truncated_bytes;
}

static void add_point(struct record_recording *recording, struct record_event *event,
                      uint64_t sequence, uint64_t address, bool acquires)
{
    struct record_point *point = &recording->points[recording->point_count++];
    *point = (struct record_point){sequence, address, event, acquires, false};
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
        add_point(recording, event, record_acquired_at(entry), entry->of.call.pointer, true);
        return true;
    case RECORD_FREE:
        add_point(recording, event, entry->sequence, entry->of.call.pointer, false);
        return true;
    case RECORD_MARK:
    case RECORD_THREAD_DONE:
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
    struct record_event *event = recording->events;
    for (size_t c = 0; c < recording->chunks.count; c++) {
        const struct record_chunk *chunk = &recording->chunks.at[c];
        for (uint32_t i = 0; i < chunk->count; i++, event++) {
            *event =
                (struct record_event){.entry = &chunk->entries[i], .thread = chunk->header->thread};
            if (add_points(recording, event))
                continue;
            fprintf(stderr, "%s: an entry of unknown kind %" PRIu32 "; the file is damaged\n", path,
                    event->entry->kind);
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
           next->sequence < record_acquired_at(release->event->entry);
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
        if (point->address == 0) {
            summary->marks += point->event->entry->kind == RECORD_MARK;
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

/* ---- ends of threads ---- */

struct thread {
    uint32_t id;
    bool done;
    struct record_point *last; /* NULL: an empty entry of the table */
};

/* The thread's entry, or the empty one where it belongs. size is a power of two, never all in use. */
static struct thread *find_thread(struct thread *threads, size_t size, uint32_t id)
{
    size_t i = id * (size_t)2654435761u;
    while (threads[i & (size - 1)].last && threads[i & (size - 1)].id != id)
        i++;
    return &threads[i & (size - 1)];
}

static struct thread *grow(struct thread *threads, size_t size)
{
    struct thread *larger = calloc(2 * size, sizeof *larger);
    for (size_t i = 0; larger && i < size; i++) {
        if (threads[i].last)
            *find_thread(larger, 2 * size, threads[i].id) = threads[i];
    }
    free(threads);
    return larger;
}

/*
 * A thread may free after the recorder has seen its end, and its id may be another thread's later:
 * the trace has one end for an id, behind the last that it did. False: no memory.
 */
static bool place_thread_ends(struct record_recording *recording)
{
    size_t size = 64, used = 0;
    struct thread *threads = calloc(size, sizeof *threads);
    for (size_t i = 0; threads && i < recording->point_count; i++) {
        struct record_point *point = &recording->points[i];
        struct thread *thread = find_thread(threads, size, point->event->thread);
        used += !thread->last;
        thread->id = point->event->thread;
        thread->last = point;
        thread->done |= point->event->entry->kind == RECORD_THREAD_DONE;
        if (2 * used > size) {
            threads = grow(threads, size);
            size *= 2;
        }
    }
    for (size_t i = 0; threads && i < size; i++) {
        if (threads[i].last && threads[i].done)
            threads[i].last->ends_thread = true;
    }
    bool placed = threads != NULL;
    free(threads);
    return placed;
}

int record_recording_open(struct record_recording *recording, const char *path,
                          struct record_merge_summary *summary)
{
    memset(recording, 0, sizeof *recording);
    if (record_chunks_open(&recording->chunks, path) != 0)
        return -1;
    count_events(recording, summary);
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
    if (!place_thread_ends(recording)) {
        fprintf(stderr, "%s: not enough memory for its threads\n", path);
        record_recording_close(recording);
        return -1;
    }
    return 0;
}

void record_recording_close(struct record_recording *recording)
{
    free(recording->points);
    free(recording->events);
    record_chunks_close(&recording->chunks);
    memset(recording, 0, sizeof *recording);
}
