/* SPDX-License-Identifier: MIT */
/* Labels and names: see labels.h. */
#include "labels.h"

#include <errno.h>
#include <string.h>

#include "pages.h"

static bool is_key_character(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
}

/* Control characters would end the line, or play tricks on whoever prints it. */
static bool is_value_character(char c)
{
    return (unsigned char)c >= ' ' && c != 0x7f;
}

/* The length of the key that `text` begins with and '=' ends; 0: there is none. */
static size_t key_length(const char *text, size_t bytes)
{
    size_t length = 0;
    while (length < bytes && is_key_character(text[length])) {
        length++;
    }
    return length < bytes && text[length] == '=' ? length : 0;
}

/* Where the line with this key begins, or label_bytes. */
static size_t find_line(const struct trace *trace, const char *key)
{
    size_t length = strlen(key), at = 0;
    while (at < trace->label_bytes) {
        if (trace->label_bytes - at > length && memcmp(trace->labels + at, key, length) == 0 &&
            trace->labels[at + length] == '=') {
            return at;
        }
        const char *end = memchr(trace->labels + at, '\n', trace->label_bytes - at);
        at = (size_t)(end - trace->labels) + 1;
    }
    return at;
}

static size_t line_length(const struct trace *trace, size_t at)
{
    const char *end = memchr(trace->labels + at, '\n', trace->label_bytes - at);
    return (size_t)(end - (trace->labels + at)) + 1;
}

static int make_room(struct trace *trace, size_t bytes)
{
    while (trace->label_capacity < trace->label_bytes + bytes) {
        if (pages_reserve(&trace->labels, 1, trace->label_capacity, &trace->label_capacity) != 0) {
            return -ENOMEM;
        }
    }
    return 0;
}

static bool is_line(const char *text, size_t bytes)
{
    size_t key = key_length(text, bytes);
    if (key == 0 || bytes > LABEL_LINE_MAX || text[bytes - 1] != '\n') {
        return false;
    }
    for (size_t i = key + 1; i < bytes - 1; i++) {
        if (!is_value_character(text[i])) {
            return false;
        }
    }
    return true;
}

int labels_set(struct trace *trace, const char *key, const char *value)
{
    char line[LABEL_LINE_MAX];
    size_t key_bytes = strlen(key), value_bytes = strlen(value);
    size_t bytes = key_bytes + value_bytes + 2;
    if (bytes > sizeof line) {
        return -EINVAL;
    }
    memcpy(line, key, key_bytes);
    line[key_bytes] = '=';
    memcpy(line + key_bytes + 1, value, value_bytes);
    line[bytes - 1] = '\n';
    if (!is_line(line, bytes)) {
        return -EINVAL;
    }
    if (make_room(trace, bytes) != 0) {
        return -ENOMEM;
    }
    size_t at = find_line(trace, key);
    size_t old = at < trace->label_bytes ? line_length(trace, at) : 0;
    memmove(trace->labels + at + bytes, trace->labels + at + old, trace->label_bytes - at - old);
    memcpy(trace->labels + at, line, bytes);
    trace->label_bytes += bytes - old;
    return 0;
}

const char *labels_get(const struct trace *trace, const char *key, size_t *length)
{
    size_t at = find_line(trace, key), key_bytes = strlen(key);
    if (at == trace->label_bytes) {
        return NULL;
    }
    *length = line_length(trace, at) - key_bytes - 2;
    return trace->labels + at + key_bytes + 1;
}

int labels_parse(struct trace *trace, const char *text, size_t bytes, size_t *offset)
{
    trace->label_bytes = 0;
    if (bytes == 0) {
        return 0;
    }
    for (size_t at = 0; at < bytes;) {
        const char *end = memchr(text + at, '\n', bytes - at);
        size_t length = end == NULL ? 0 : (size_t)(end - (text + at)) + 1;
        *offset = at;
        if (length == 0 || !is_line(text + at, length)) {
            return -EINVAL;
        }
        at += length;
    }
    if (make_room(trace, bytes) != 0) {
        return -ENOMEM;
    }
    memcpy(trace->labels, text, bytes);
    trace->label_bytes = bytes;
    return 0;
}

int labels_name_thread(struct trace *trace, size_t thread, const char *name)
{
    while (trace->thread_name_capacity <= thread) {
        if (pages_reserve(&trace->thread_names, sizeof *trace->thread_names,
                          trace->thread_name_capacity, &trace->thread_name_capacity) != 0) {
            return -ENOMEM;
        }
    }
    char *out = trace->thread_names[thread].text;
    size_t length = strnlen(name, TRACE_NAME_BYTES - 1);
    for (size_t i = 0; i < length; i++) {
        out[i] = is_value_character(name[i]) ? name[i] : '?';
    }
    memset(out + length, 0, TRACE_NAME_BYTES - length);
    return 0;
}

const char *labels_thread_name(const struct trace *trace, size_t thread)
{
    return thread < trace->thread_name_capacity ? trace->thread_names[thread].text : "";
}
