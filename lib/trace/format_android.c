/* SPDX-License-Identifier: MIT */
/*
 * Android's memory_replay text, as a phone's record_allocs and larder's recorder write it:
 *
 *   TID: malloc PTR SIZE [START_NS END_NS]
 *   TID: calloc PTR COUNT SIZE [START_NS END_NS]
 *   TID: memalign PTR ALIGNMENT SIZE [START_NS END_NS]
 *   TID: realloc NEW_PTR OLD_PTR SIZE [START_NS END_NS [PRESENT_BYTES]]
 *   TID: free PTR [START_NS END_NS [PRESENT_BYTES]]
 *   TID: thread_done 0x0 [END_NS]
 *
 * PTR is hexadecimal with 0x, everything else decimal. Files of older recorders have no times;
 * both kinds are read. Source: memory_replay/ in Android's platform/system/extras.
 *
 * The reader is a cursor over the line: no scanf, since a trace has millions of lines.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "format.h"

struct cursor {
    char *at;
    const char *wanted; /* what the failed step looked for; NULL: nothing failed */
};

static void skip_blanks(struct cursor *cursor)
{
    while (*cursor->at == ' ' || *cursor->at == '\t') {
        cursor->at++;
    }
}

static bool ends_word(char c)
{
    return c == '\0' || c == ' ' || c == '\t';
}

static unsigned digit_of(char c)
{
    if (c >= '0' && c <= '9') {
        return (unsigned)(c - '0');
    }
    char lower = (char)(c | 0x20);
    return lower >= 'a' && lower <= 'f' ? (unsigned)(lower - 'a') + 10 : 99;
}

/* Reads digits up to `end`'s test; leaves the cursor at the number's start on failure. */
static uint64_t read_digits(struct cursor *cursor, char *start, unsigned base, bool colon_ends,
                            const char *wanted)
{
    uint64_t value = 0;
    char *p = start;
    for (; digit_of(*p) < base; p++) {
        if (value > (UINT64_MAX - digit_of(*p)) / base) {
            cursor->wanted = wanted;
            return 0;
        }
        value = value * base + digit_of(*p);
    }
    if (p == start || !(colon_ends ? *p == ':' : ends_word(*p))) {
        cursor->wanted = wanted;
        return 0;
    }
    cursor->at = p;
    return value;
}

static uint64_t read_decimal(struct cursor *cursor, const char *wanted)
{
    if (cursor->wanted != NULL) {
        return 0;
    }
    skip_blanks(cursor);
    return read_digits(cursor, cursor->at, 10, false, wanted);
}

static uint64_t read_pointer(struct cursor *cursor, const char *wanted)
{
    if (cursor->wanted != NULL) {
        return 0;
    }
    skip_blanks(cursor);
    if (cursor->at[0] != '0' || (cursor->at[1] | 0x20) != 'x') {
        cursor->wanted = wanted;
        return 0;
    }
    return read_digits(cursor, cursor->at + 2, 16, false, wanted);
}

static bool at_end(struct cursor *cursor)
{
    skip_blanks(cursor);
    return *cursor->at == '\0';
}

/* Sizes that no machine could serve are taken for a damaged file. */
static uint64_t read_size(struct cursor *cursor)
{
    char *start = cursor->at;
    uint64_t size = read_decimal(cursor, "a size in bytes");
    if (size > INT64_MAX) {
        cursor->at = start;
        cursor->wanted = "a size below 2^63";
    }
    return size;
}

static void read_times(struct cursor *cursor, struct trace_event *event, bool present_bytes)
{
    if (cursor->wanted != NULL || at_end(cursor)) {
        return;
    }
    event->has_time = true;
    event->time.start_ns = read_decimal(cursor, "a start time in ns");
    event->time.end_ns = read_decimal(cursor, "an end time in ns");
    if (present_bytes && cursor->wanted == NULL && !at_end(cursor)) {
        (void)read_decimal(cursor, "a number of present bytes");
    }
}

static void read_malloc(struct cursor *cursor, struct trace_event *event)
{
    event->address = read_pointer(cursor, "a pointer such as 0x7f00");
    event->size = read_size(cursor);
    read_times(cursor, event, false);
}

static void read_calloc(struct cursor *cursor, struct trace_event *event)
{
    event->address = read_pointer(cursor, "a pointer such as 0x7f00");
    uint64_t count = read_decimal(cursor, "a number of elements");
    char *start = cursor->at;
    event->size = read_size(cursor);
    if (count > 0 && event->size > INT64_MAX / count) {
        cursor->at = start;
        cursor->wanted = "count x size below 2^63";
    }
    event->size *= count;
    read_times(cursor, event, false);
}

/* Bionic rounds an alignment that is not a power of two up to one; so does this. */
static void read_memalign(struct cursor *cursor, struct trace_event *event)
{
    event->address = read_pointer(cursor, "a pointer such as 0x7f00");
    char *start = cursor->at;
    uint64_t asked = read_decimal(cursor, "an alignment");
    if (asked > UINT64_C(1) << 30) {
        cursor->at = start;
        cursor->wanted = "an alignment up to 2^30";
    }
    event->alignment = 1;
    while (cursor->wanted == NULL && event->alignment < asked) {
        event->alignment *= 2;
    }
    event->size = read_size(cursor);
    read_times(cursor, event, false);
}

static void read_realloc(struct cursor *cursor, struct trace_event *event)
{
    event->address = read_pointer(cursor, "the new pointer, such as 0x7f00");
    event->old_address = read_pointer(cursor, "the old pointer, such as 0x7f00");
    event->size = read_size(cursor);
    read_times(cursor, event, true);
}

static void read_free(struct cursor *cursor, struct trace_event *event)
{
    event->address = read_pointer(cursor, "a pointer such as 0x7f00");
    read_times(cursor, event, true);
}

static void read_thread_done(struct cursor *cursor, struct trace_event *event)
{
    (void)read_pointer(cursor, "0x0");
    if (cursor->wanted == NULL && !at_end(cursor)) {
        event->time.end_ns = read_decimal(cursor, "an end time in ns");
        event->has_time = true;
    }
}

static int add_malloc(struct trace_builder *builder, const struct trace_event *event)
{
    return builder_allocate(builder, TRACE_ALLOCATE, event);
}

static int add_calloc(struct trace_builder *builder, const struct trace_event *event)
{
    return builder_allocate(builder, TRACE_CALLOC, event);
}

static const struct action {
    const char *name;
    void (*read)(struct cursor *cursor, struct trace_event *event);
    int (*add)(struct trace_builder *builder, const struct trace_event *event);
} actions[] = {
    {"malloc", read_malloc, add_malloc},
    {"free", read_free, builder_free},
    {"realloc", read_realloc, builder_reallocate},
    {"calloc", read_calloc, add_calloc},
    {"memalign", read_memalign, add_malloc},
    {"thread_done", read_thread_done, builder_thread_done},
};

static const struct action *read_action(struct cursor *cursor)
{
    skip_blanks(cursor);
    size_t length = 0;
    while (!ends_word(cursor->at[length])) {
        length++;
    }
    for (size_t i = 0; i < sizeof actions / sizeof actions[0]; i++) {
        if (strlen(actions[i].name) == length && memcmp(actions[i].name, cursor->at, length) == 0) {
            cursor->at += length;
            return &actions[i];
        }
    }
    return NULL;
}

static uint64_t read_thread_id(struct cursor *cursor)
{
    static const char wanted[] = "a thread id and ':'";
    skip_blanks(cursor);
    char *start = cursor->at;
    uint64_t thread_id = read_digits(cursor, start, 10, true, wanted);
    if (cursor->wanted == NULL && thread_id > INT32_MAX) {
        cursor->at = start;
        cursor->wanted = wanted;
    }
    cursor->at += cursor->wanted == NULL; /* past the ':' */
    return thread_id;
}

/* Says what stands at the cursor instead of what was wanted. */
static int fail(const struct cursor *cursor, char *why, size_t why_size)
{
    char quoted[40];
    const char *at = cursor->at;
    while (*at == ' ' || *at == '\t') {
        at++;
    }
    if (*at == '\0') {
        snprintf(why, why_size, "the line ends where %s should be", cursor->wanted);
    } else {
        snprintf(why, why_size, "expected %s, found '%s'", cursor->wanted,
                 trace_quote(at, quoted, sizeof quoted));
    }
    return -EINVAL;
}

static int android_read_line(struct trace_builder *builder, char *line, char *why, size_t why_size)
{
    struct cursor cursor = {.at = line};
    struct trace_event event = {.thread_id = read_thread_id(&cursor)};
    if (cursor.wanted != NULL) {
        return fail(&cursor, why, why_size);
    }
    const struct action *action = read_action(&cursor);
    if (action == NULL) {
        cursor.wanted = "malloc, calloc, memalign, realloc, free or thread_done";
        return fail(&cursor, why, why_size);
    }
    action->read(&cursor, &event);
    if (cursor.wanted == NULL && !at_end(&cursor)) {
        cursor.wanted = "the end of the line";
    }
    if (cursor.wanted != NULL) {
        return fail(&cursor, why, why_size);
    }
    return action->add(builder, &event);
}

static bool android_recognise(const char *line)
{
    while (*line == ' ' || *line == '\t') {
        line++;
    }
    const char *digits = line;
    while (*line >= '0' && *line <= '9') {
        line++;
    }
    return line > digits && *line == ':';
}

const struct trace_format trace_format_android = {
    .name = "android",
    .summary = "Android's memory_replay text",
    .has_marks_beside = true,
    .recognise = android_recognise,
    .read_line = android_read_line,
};
