/* SPDX-License-Identifier: MIT */
/*
 * From raw recordings to traces.
 *
 * All work is done in the directory of the raw files, which lies beside the output: a result comes
 * to its own name by a rename, whole or not at all. A recording is a process image: exec begins a
 * new one under the same process id, and, if forks are followed, so does each child.
 */
#include "record.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "marks.h"
#include "record_format.h"
#include "record_merge.h"
#include "tool.h"
#include "trace.h"
#include "writer.h"

enum { PATH_BYTES = 4096 };

struct recording {
    char stem[64]; /* of the files' names: run.PID or run.PID-N */
    struct record_merge_summary summary;
};

struct recordings {
    struct recording *at;
    size_t count, capacity;
};

static bool ends_with(const char *text, const char *suffix, size_t *stem)
{
    size_t length = strlen(text), suffix_length = strlen(suffix);
    if (length < suffix_length || strcmp(text + length - suffix_length, suffix) != 0)
        return false;
    *stem = length - suffix_length;
    return true;
}

/* A recording has one of two files, or both. */
static bool add(struct recordings *all, const char *stem, size_t length)
{
    for (size_t i = 0; i < all->count; i++) {
        if (strlen(all->at[i].stem) == length && strncmp(all->at[i].stem, stem, length) == 0)
            return true;
    }
    if (length >= sizeof all->at->stem)
        return true; /* not the recorder's */
    if (all->count == all->capacity) {
        size_t capacity = all->capacity != 0 ? 2 * all->capacity : 16;
        struct recording *at = realloc(all->at, capacity * sizeof *at);
        if (at == NULL)
            return false;
        all->at = at;
        all->capacity = capacity;
    }
    struct recording *recording = &all->at[all->count++];
    memset(recording, 0, sizeof *recording);
    memcpy(recording->stem, stem, length);
    return true;
}

static int find(struct recordings *all, const char *directory)
{
    DIR *entries = opendir(directory);
    bool added = entries != NULL;
    if (entries == NULL) {
        tool_error("record", "%s: %s", directory, strerror(errno));
        return TOOL_FAILED;
    }
    for (struct dirent *entry; added && (entry = readdir(entries)) != NULL;) {
        size_t stem;
        if (ends_with(entry->d_name, RECORD_RAW_SUFFIX, &stem) ||
            ends_with(entry->d_name, RECORD_OPEN_SUFFIX, &stem))
            added = add(all, entry->d_name, stem);
    }
    closedir(entries);
    if (!added)
        tool_error("record", "not enough memory for the list of recordings");
    return added ? TOOL_FINE : TOOL_FAILED;
}

static void work_path(const char *directory, const struct recording *recording, const char *suffix,
                      char *path)
{
    snprintf(path, PATH_BYTES, "%s/%s%s", directory, recording->stem, suffix);
}

/* Most operations first; then by process, so that the order is always the same. */
static int by_size(const void *left, const void *right)
{
    const struct recording *a = left, *b = right;
    if (a->summary.operations != b->summary.operations)
        return a->summary.operations < b->summary.operations ? 1 : -1;
    return strcmp(a->stem, b->stem);
}

static int merge_all(struct recordings *all, const char *directory)
{
    size_t kept = 0;
    for (size_t i = 0; i < all->count; i++) {
        struct recording *recording = &all->at[i];
        char raw[PATH_BYTES], text[PATH_BYTES], marks[PATH_BYTES];
        work_path(directory, recording, RECORD_RAW_SUFFIX, raw);
        work_path(directory, recording, ".txt", text);
        work_path(directory, recording, ".marks", marks);
        if (record_merge_to_text(raw, text, marks, &recording->summary) != 0)
            return TOOL_FAILED;
        if (recording->summary.operations != 0 || recording->summary.lost != 0)
            all->at[kept++] = *recording;
    }
    all->count = kept;
    if (kept > 1)
        qsort(all->at, kept, sizeof *all->at, by_size);
    return TOOL_FINE;
}

/* OUT.txt for the first, OUT.PID.txt for the others. */
static void name_result(const char *output, const struct recording *recording, bool first,
                        char *path)
{
    const char *slash = strrchr(output, '/');
    const char *dot = strchr(slash != NULL ? slash + 2 : output + 1, '.');
    const char *process = strchr(recording->stem, '.');
    int length = dot != NULL ? (int)(dot - output) : (int)strlen(output);
    if (first || process == NULL)
        snprintf(path, PATH_BYTES, "%s", output);
    else
        snprintf(path, PATH_BYTES, "%.*s%s%s", length, output, process, dot != NULL ? dot : "");
}

static int move(const char *from, const char *to)
{
    if (rename(from, to) == 0)
        return TOOL_FINE;
    tool_error("record", "%s: %s", to, strerror(errno));
    return TOOL_FAILED;
}

static int write_trace(const struct trace *trace, const struct trace_writer *writer,
                       const char *path, const char *output)
{
    FILE *file = fopen(path, "wb");
    int error = file != NULL ? trace_write(trace, writer, file, output) : -errno;
    if (file != NULL && fclose(file) != 0 && error == 0)
        error = -EIO;
    if (error != 0)
        tool_error("record", "%s: %s", output, strerror(-error));
    return error != 0 ? TOOL_FAILED : TOOL_FINE;
}

/* Replaces the text, and with it its marks, by what the output's name asks for. */
static int convert_result(const char *text, const char *output)
{
    const struct trace_writer *writer = trace_writer_for(output);
    if (writer == NULL)
        writer = &trace_writer_android;
    size_t stem;
    bool packed = ends_with(output, ".gz", &stem) || ends_with(output, ".zst", &stem);
    if (writer == &trace_writer_android && !packed)
        return TOOL_FINE;
    struct trace trace;
    char why[512];
    if (trace_load(text, NULL, &trace, why, sizeof why) != 0) {
        tool_error("record", "%s", why);
        return TOOL_FAILED;
    }
    int result = write_trace(&trace, writer, text, output);
    trace_unload(&trace);
    return result;
}

/* The marks first: a trace that is there has its marks. */
static int move_result(const char *directory, const struct recording *recording, const char *output)
{
    char text[PATH_BYTES], marks[PATH_BYTES], marks_to[PATH_BYTES];
    work_path(directory, recording, ".txt", text);
    work_path(directory, recording, ".marks", marks);
    if (convert_result(text, output) != TOOL_FINE)
        return TOOL_FAILED;
    if (marks_path_of(output, marks_to, sizeof marks_to)) {
        if (recording->summary.marks == 0)
            unlink(marks_to); /* of an earlier trace by that name */
        else if (move(marks, marks_to) != TOOL_FINE)
            return TOOL_FAILED;
    }
    return move(text, output);
}

int record_write_results(const struct record_options *options, const char *directory)
{
    struct recordings all = {NULL, 0, 0};
    int result = find(&all, directory);
    if (result == TOOL_FINE)
        result = merge_all(&all, directory);
    if (result == TOOL_FINE && all.count == 0) {
        tool_error("record",
                   "nothing was recorded: %s allocates nothing, is linked statically, or "
                   "has more rights than its caller",
                   options->command[0]);
        result = TOOL_FAILED;
    }
    for (size_t i = 0; result == TOOL_FINE && i < all.count; i++) {
        char path[PATH_BYTES];
        name_result(options->output, &all.at[i], i == 0, path);
        result = move_result(directory, &all.at[i], path);
        if (result == TOOL_FINE)
            record_merge_report(path, &all.at[i].summary);
    }
    free(all.at);
    return result;
}

void record_remove_directory(const char *directory)
{
    DIR *entries = opendir(directory);
    for (struct dirent *entry; entries != NULL && (entry = readdir(entries)) != NULL;) {
        char path[PATH_BYTES];
        if (snprintf(path, sizeof path, "%s/%s", directory, entry->d_name) < (int)sizeof path)
            unlink(path);
    }
    if (entries != NULL)
        closedir(entries);
    rmdir(directory);
}
