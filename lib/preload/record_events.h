/* SPDX-License-Identifier: MIT */
/*
 * A raw recording in memory, in order, with its inconsistencies resolved: the half of the merge
 * that does not know about any trace format.
 */
#ifndef LARDER_PRELOAD_RECORD_EVENTS_H
#define LARDER_PRELOAD_RECORD_EVENTS_H

#include "record_chunks.h"
#include "record_merge.h"

#include <stdbool.h>
#include <stddef.h>

/* What becomes of a realloc; the other kinds use only KEEP and DROP. */
enum record_verdict {
    RECORD_KEEP,  /* as recorded */
    RECORD_DROP,  /* a free, or the release in a realloc, of a block that is not in the trace */
    RECORD_SPLIT, /* a realloc that must be written as free, then malloc */
};

struct record_event {
    const struct record_entry *entry;
    uint32_t thread;
    enum record_verdict verdict;
    bool implied_free; /* the acquired address is still live here: free it first */
};

/* One side of an event: a realloc has two, any other event one. */
struct record_point {
    uint64_t sequence;
    uint64_t address; /* 0: a mark, or the end of a thread */
    struct record_event *event;
    bool acquires;
    bool ends_thread; /* the thread's end stands behind it */
};

struct record_recording {
    struct record_chunks chunks;
    struct record_event *events;
    size_t event_count;
    struct record_point *points; /* ordered by sequence */
    size_t point_count;
};

/* 0, or -1 after a line on stderr; counts into `summary`. Release with record_recording_close. */
int record_recording_open(struct record_recording *recording, const char *path,
                          struct record_merge_summary *summary);
void record_recording_close(struct record_recording *recording);

#endif
