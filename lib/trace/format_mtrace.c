/* SPDX-License-Identifier: MIT */
/*
 * What glibc's mtrace() writes:
 *
 *   = Start
 *   [@ CALLER] + PTR SIZE      an allocation
 *   [@ CALLER] - PTR           a free
 *   [@ CALLER] < OLD           a reallocation: the block before it,
 *   [@ CALLER] > NEW SIZE      and after it, in the next line
 *   [@ CALLER] ! OLD SIZE      a reallocation that failed
 *   = End
 *
 * Numbers are hexadecimal; a zero comes without 0x. CALLER may hold blanks, so a line is read from
 * its end. Source: malloc/mtrace-impl.c of glibc 2.36, and its output.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format.h"
#include "pages.h"

struct mtrace_state {
    bool resizing; /* the line before was '<' */
    uint64_t old_address;
};

/* Cuts the last word off the line; NULL: there is none. */
static char *take_last_word(char *line)
{
    size_t end = strlen(line);
    while (end > 0 && (line[end - 1] == ' ' || line[end - 1] == '\t')) {
        line[--end] = '\0';
    }
    size_t start = end;
    while (start > 0 && line[start - 1] != ' ' && line[start - 1] != '\t') {
        start--;
    }
    if (start == end) {
        return NULL;
    }
    if (start > 0) {
        line[start - 1] = '\0';
    } else {
        /* The line itself is the word: nothing is left in front of it. */
        memmove(line + 1, line, end + 1);
        line[0] = '\0';
        start = 1;
    }
    return line + start;
}

static bool read_hex(const char *word, uint64_t *out)
{
    char *end;
    if (word == NULL) {
        return false;
    }
    if (strcmp(word, "(nil)") == 0) {
        *out = 0;
        return true;
    }
    if (!((word[0] >= '0' && word[0] <= '9') || (word[0] >= 'a' && word[0] <= 'f'))) {
        return false; /* strtoull() would take blanks and signs */
    }
    errno = 0;
    unsigned long long value = strtoull(word, &end, 16);
    *out = value;
    return errno == 0 && *end == '\0';
}

static bool is_sign(const char *word, const char *signs)
{
    return word != NULL && word[0] != '\0' && word[1] == '\0' && strchr(signs, word[0]) != NULL;
}

/* One line's sign and numbers; '\0': none. */
static char parse(char *line, uint64_t *address, uint64_t *size)
{
    uint64_t last, before;
    char *word = take_last_word(line);
    if (!read_hex(word, &last)) {
        return '\0';
    }
    word = take_last_word(line);
    if (is_sign(word, "-<")) {
        *address = last;
        return word[0];
    }
    if (!read_hex(word, &before)) {
        return '\0';
    }
    word = take_last_word(line);
    *address = before;
    *size = last;
    return is_sign(word, "+>!") ? word[0] : '\0';
}

static int apply(struct trace_builder *builder, struct mtrace_state *state, char sign,
                 struct trace_event *event)
{
    bool resized = state->resizing;
    state->resizing = false;
    if (resized && sign != '>') {
        /* Its second half is missing: what is known is that the old block is gone. */
        struct trace_event release = {.thread_id = 1, .address = state->old_address};
        int result = builder_free(builder, &release);
        if (result != 0) {
            return result;
        }
    }
    switch (sign) {
    case '+':
        return builder_allocate(builder, TRACE_ALLOCATE, event);
    case '-':
        return builder_free(builder, event);
    case '<':
        state->resizing = true;
        state->old_address = event->address;
        return 0;
    case '>':
        event->old_address = resized ? state->old_address : 0;
        return builder_reallocate(builder, event);
    default:
        builder->trace->notes.failed_allocations++;
        return 0;
    }
}

static int mtrace_read_line(struct trace_builder *builder, char *line, char *why, size_t why_size)
{
    if (line[0] == '=') {
        return 0; /* "= Start", "= End" */
    }
    if (builder->state == NULL) {
        builder->state = pages_allocate(sizeof(struct mtrace_state));
        if (builder->state == NULL) {
            return -ENOMEM;
        }
    }
    struct trace_event event = {.thread_id = 1};
    char quoted[40];
    trace_quote(line, quoted, sizeof quoted);
    char sign = parse(line, &event.address, &event.size);
    if (sign == '\0') {
        snprintf(why, why_size,
                 "expected '+ 0xADDRESS 0xSIZE', '- 0xADDRESS' or the like at the end, found '%s'",
                 quoted);
        return -EINVAL;
    }
    if (event.size > INT64_MAX) {
        snprintf(why, why_size, "expected a size below 2^63");
        return -EINVAL;
    }
    return apply(builder, builder->state, sign, &event);
}

static void mtrace_release(struct trace_builder *builder)
{
    pages_free(builder->state, sizeof(struct mtrace_state));
    builder->state = NULL;
}

static bool mtrace_recognise(const char *line)
{
    return strcmp(line, "= Start") == 0 || strncmp(line, "@ ", 2) == 0;
}

const struct trace_format trace_format_mtrace = {
    .name = "mtrace",
    .summary = "glibc's mtrace()",
    .lacks = "threads, alignments, which blocks were wanted zeroed, and times",
    .recognise = mtrace_recognise,
    .read_line = mtrace_read_line,
    .release = mtrace_release,
};
