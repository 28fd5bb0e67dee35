/* SPDX-License-Identifier: MIT */
/* Marks, in a trace and in a file beside it: see marks.h. */
#include "marks.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "format.h"
#include "input.h"
#include "pages.h"

/* Marks beyond this are no sensible file: a mark is an inference. */
#define MARKS_MAX 10000000u

/* Copies a name, cut to fit; what does not print would spoil reports and other files. */
static void copy_name(char *out, const char *name)
{
    size_t length = strnlen(name, TRACE_NAME_BYTES - 1);
    for (size_t i = 0; i < length; i++) {
        out[i] = name[i] >= ' ' && name[i] <= '~' ? name[i] : '?';
    }
    memset(out + length, 0, TRACE_NAME_BYTES - length);
}

int marks_add(struct trace *trace, size_t op, const char *name)
{
    if (pages_reserve(&trace->marks, sizeof *trace->marks, trace->mark_count,
                      &trace->mark_capacity) != 0) {
        return -ENOMEM;
    }
    struct trace_mark *mark = &trace->marks[trace->mark_count++];
    mark->op = (uint32_t)op;
    copy_name(mark->name, name);
    return 0;
}

void marks_clear(struct trace *trace)
{
    pages_free(trace->marks, trace->mark_capacity * sizeof *trace->marks);
    trace->marks = NULL;
    trace->mark_count = 0;
    trace->mark_capacity = 0;
}

static bool remove_ending(char *path, const char *ending)
{
    size_t length = strlen(path), ending_length = strlen(ending);
    if (length <= ending_length || strcmp(path + length - ending_length, ending) != 0) {
        return false;
    }
    path[length - ending_length] = '\0';
    return true;
}

bool marks_path_of(const char *path, char *out, size_t out_size)
{
    if (strcmp(path, "-") == 0 || strlen(path) + sizeof ".marks" > out_size) {
        return false;
    }
    strcpy(out, path);
    if (!remove_ending(out, ".gz")) {
        (void)remove_ending(out, ".zst");
    }
    (void)remove_ending(out, ".txt");
    strcat(out, ".marks");
    return true;
}

/* "N NAME", with N not smaller than in the line before. */
static const char *read_line(struct marks_file *file, char *line)
{
    char *end = line;
    uint64_t lines = 0;
    for (; *end >= '0' && *end <= '9'; end++) {
        if (lines > UINT32_MAX) {
            return "a number of lines beyond 2^32";
        }
        lines = lines * 10 + (uint64_t)(*end - '0');
    }
    if (end == line || *end != ' ' || end[1] == '\0') {
        return "expected a number of lines, a blank and a name, such as '5132 inference 1'";
    }
    if (file->count > 0 && lines < file->lines[file->count - 1].trace_lines) {
        return "the marks do not ascend";
    }
    struct marks_line *added = &file->lines[file->count++];
    added->trace_lines = lines;
    copy_name(added->name, end + 1);
    return NULL;
}

static int read_lines(struct input *input, struct marks_file *file, char *why, size_t why_size)
{
    char *line;
    size_t length;
    int result;
    while ((result = input_line(input, &line, &length, why, why_size)) > 0) {
        if (length == 0) {
            continue;
        }
        if (file->count >= MARKS_MAX ||
            pages_reserve(&file->lines, sizeof *file->lines, file->count, &file->capacity) != 0) {
            snprintf(why, why_size, "%s: too many marks for the memory here", input_path(input));
            return -ENOMEM;
        }
        const char *problem = read_line(file, line);
        if (problem != NULL) {
            snprintf(why, why_size, "%s:%" PRIu64 ": %s; correct the line or remove the file",
                     input_path(input), input_line_number(input), problem);
            return -EINVAL;
        }
    }
    return result;
}

int marks_file_read(const char *path, struct marks_file *out, char *why, size_t why_size)
{
    struct input *input;
    *out = (struct marks_file){0};
    if (access(path, F_OK) != 0) {
        return 0;
    }
    int result = input_open(&input, path, why, why_size);
    if (result != 0) {
        return result;
    }
    result = read_lines(input, out, why, why_size);
    input_close(input);
    if (result != 0) {
        marks_file_release(out);
    }
    return result;
}

int marks_file_advance(struct marks_file *file, struct trace *trace, uint64_t trace_lines)
{
    while (file->used < file->count && file->lines[file->used].trace_lines <= trace_lines) {
        int result = marks_add(trace, trace->op_count, file->lines[file->used++].name);
        if (result != 0) {
            return result;
        }
    }
    return 0;
}

void marks_write(const struct trace *trace, FILE *out)
{
    for (size_t i = 0; i < trace->mark_count; i++) {
        fprintf(out, "%" PRIu32 " %s\n", trace->marks[i].op, trace->marks[i].name);
    }
}

void marks_file_release(struct marks_file *file)
{
    pages_free(file->lines, file->capacity * sizeof *file->lines);
    *file = (struct marks_file){0};
}
