/* SPDX-License-Identifier: MIT */
/*
 * Writes ordered events as Android's memory_replay text: one line a call, "TID: call ...", the
 * thread in decimal, addresses in hexadecimal, all else decimal. The format has no comments, so
 * marks go to a file of their own. Output goes aside and is renamed when it is whole.
 */
#include "record_merge.h"

#include "record_events.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct output {
    const char *path;
    char *aside;
    FILE *stream;
};

static int output_open(struct output *output, const char *path)
{
    size_t size = strlen(path) + sizeof ".partial";
    output->path = path;
    output->aside = malloc(size);
    output->stream = NULL;
    if (output->aside) {
        snprintf(output->aside, size, "%s.partial", path);
        output->stream = fopen(output->aside, "we");
    }
    if (output->stream)
        return 0;
    fprintf(stderr, "%s: cannot write: %s\n", path, strerror(errno));
    free(output->aside);
    return -1;
}

static void output_abandon(struct output *output)
{
    fclose(output->stream);
    remove(output->aside);
    free(output->aside);
}

static int output_commit(struct output *output)
{
    bool failed = ferror(output->stream) != 0;
    failed |= fclose(output->stream) != 0;
    failed = failed || rename(output->aside, output->path) != 0;
    if (failed) {
        fprintf(stderr, "%s: cannot write: %s\n", output->path, strerror(errno));
        remove(output->aside);
    }
    free(output->aside);
    return failed ? -1 : 0;
}

/* With the time, where it was noted: one instant, so the call begins and ends there. */
static void end_line(FILE *stream, const struct record_entry *entry, bool is_call,
                     struct record_merge_summary *summary)
{
    if (entry->time_ns != 0 && is_call)
        fprintf(stream, " %" PRIu64, entry->time_ns);
    if (entry->time_ns != 0)
        fprintf(stream, " %" PRIu64, entry->time_ns);
    fputc('\n', stream);
    summary->operations++;
}

static void write_free(FILE *stream, const struct record_event *event, uint64_t address,
                       struct record_merge_summary *summary)
{
    fprintf(stream, "%" PRIu32 ": free 0x%" PRIx64, event->thread, address);
    end_line(stream, event->entry, true, summary);
}

static void write_acquired(FILE *stream, const struct record_event *event,
                           struct record_merge_summary *summary)
{
    const struct record_entry *entry = event->entry;
    uint64_t pointer = entry->of.call.pointer, argument = entry->of.call.argument;
    uint64_t size = entry->of.call.size;

    fprintf(stream, "%" PRIu32 ": ", event->thread);
    if (entry->kind == RECORD_CALLOC)
        fprintf(stream, "calloc 0x%" PRIx64 " %" PRIu64 " %" PRIu64, pointer, argument, size);
    else if (entry->kind == RECORD_MEMALIGN)
        fprintf(stream, "memalign 0x%" PRIx64 " %" PRIu64 " %" PRIu64, pointer, argument, size);
    else if (entry->kind == RECORD_REALLOC && event->verdict == RECORD_KEEP)
        fprintf(stream, "realloc 0x%" PRIx64 " 0x%" PRIx64 " %" PRIu64, pointer, argument, size);
    else
        fprintf(stream, "malloc 0x%" PRIx64 " %" PRIu64, pointer, size);
    end_line(stream, entry, true, summary);
}

static void write_point(FILE *trace, FILE *marks, const struct record_point *point,
                        struct record_merge_summary *summary)
{
    const struct record_event *event = point->event;
    uint32_t kind = event->entry->kind;
    if (kind == RECORD_MARK) {
        if (marks)
            fprintf(marks, "%" PRIu64 " %.*s\n", summary->operations,
                    (int)sizeof event->entry->of.name, event->entry->of.name);
    } else if (point->acquires) {
        if (event->implied_free)
            write_free(trace, event, point->address, summary);
        write_acquired(trace, event, summary);
    } else if (event->verdict == (kind == RECORD_REALLOC ? RECORD_SPLIT : RECORD_KEEP) &&
               kind != RECORD_THREAD_DONE) {
        write_free(trace, event, point->address, summary);
    }
    if (point->ends_thread) {
        fprintf(trace, "%" PRIu32 ": thread_done 0x0", event->thread);
        end_line(trace, event->entry, false, summary);
    }
}

static int write_text(const struct record_recording *recording, const char *trace_path,
                      const char *marks_path, struct record_merge_summary *summary)
{
    struct output trace, marks = {0};
    if (output_open(&trace, trace_path) != 0)
        return -1;
    if (marks_path && output_open(&marks, marks_path) != 0) {
        output_abandon(&trace);
        return -1;
    }
    for (size_t i = 0; i < recording->point_count; i++)
        write_point(trace.stream, marks.stream, &recording->points[i], summary);
    if (output_commit(&trace) != 0) {
        if (marks_path)
            output_abandon(&marks);
        return -1;
    }
    return marks_path ? output_commit(&marks) : 0;
}

int record_merge_to_text(const char *raw_path, const char *trace_path, const char *marks_path,
                         struct record_merge_summary *summary)
{
    struct record_merge_summary own;
    struct record_recording recording;
    if (!summary)
        summary = &own;
    memset(summary, 0, sizeof *summary);
    if (record_recording_open(&recording, raw_path, summary) != 0)
        return -1;
    int result = write_text(&recording, trace_path, marks_path, summary);
    record_recording_close(&recording);
    return result;
}

void record_merge_report(const char *trace, const struct record_merge_summary *summary)
{
    fprintf(stderr, "%s: %" PRIu64 " operations, %" PRIu64 " blocks live at the end\n", trace,
            summary->operations, summary->live_at_end);
    if (summary->unknown_frees)
        fprintf(stderr, "  %" PRIu64 " frees of blocks that were not recorded are left out\n",
                summary->unknown_frees);
    if (summary->implied_frees)
        fprintf(stderr, "  %" PRIu64 " frees that were not seen are added\n",
                summary->implied_frees);
    if (summary->split_reallocs)
        fprintf(stderr, "  %" PRIu64 " reallocs are written as free and malloc\n",
                summary->split_reallocs);
    if (summary->truncated_bytes)
        fprintf(stderr, "  the last %" PRIu64 " bytes are an unfinished chunk, left out\n",
                summary->truncated_bytes);
    if (summary->lost)
        fprintf(stderr, "  %" PRIu64 " entries were lost while recording: the trace has holes\n",
                summary->lost);
}
