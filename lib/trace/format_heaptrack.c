/* SPDX-License-Identifier: MIT */
/*
 * heaptrack's interpreted files, as `heaptrack` leaves them behind (versions 1 to 3 of the format):
 *
 *   v VERSION FORMAT   the first line
 *   a SIZE TRACE       kind of allocation number 0, 1, ...: a size and where in the program
 *   + INDEX            an allocation of that kind
 *   - INDEX            a free of one such
 *   c MS               time since the start, every 10 ms or so
 *   others             strings, modules, stack frames, resident size
 *
 * All numbers are hexadecimal. Which of the live blocks of a kind a free is about is not told: the
 * youngest is taken, which keeps live bytes at any time right. Strings may be of any length.
 * Source: heaptrack 1.4's output, and accumulatedtracedata.cpp of KDE's heaptrack.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "format.h"
#include "pages.h"

#define NONE UINT32_MAX

struct kind {
    uint64_t size;
    uint32_t youngest; /* allocation of this kind that is live, or NONE */
};

struct heaptrack_state {
    struct kind *kinds;
    size_t kind_count, kind_capacity;
    uint32_t *older; /* by allocation: the next older live one of its kind, or NONE */
    size_t allocation_count, allocation_capacity;
};

/* Reads " HEX" at *text and moves behind it. */
static bool read_hex(const char **text, uint64_t *out)
{
    const char *at = *text;
    uint64_t value = 0;
    if (*at != ' ') {
        return false;
    }
    const char *start = ++at;
    for (;; at++) {
        char c = *at;
        unsigned digit = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                         : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
                                                : 99;
        if (digit > 15) {
            break;
        }
        if (value >> 60 != 0) {
            return false;
        }
        value = value << 4 | digit;
    }
    *text = at;
    *out = value;
    return at > start && (*at == ' ' || *at == '\0');
}

static int fail(char *why, size_t why_size, const char *wanted, const char *line)
{
    char quoted[40];
    snprintf(why, why_size, "expected %s, found '%s'", wanted,
             trace_quote(line, quoted, sizeof quoted));
    return -EINVAL;
}

static int add_kind(struct heaptrack_state *state, const char *line, char *why, size_t why_size)
{
    const char *at = line + 1;
    struct kind kind = {.youngest = NONE};
    if (!read_hex(&at, &kind.size) || kind.size > INT64_MAX) {
        return fail(why, why_size, "'a SIZE TRACE' in hexadecimal", line);
    }
    if (pages_reserve(&state->kinds, sizeof *state->kinds, state->kind_count,
                      &state->kind_capacity) != 0) {
        return -ENOMEM;
    }
    state->kinds[state->kind_count++] = kind;
    return 0;
}

/* The kind that a '+' or '-' names; NULL: none. */
static struct kind *find_kind(struct heaptrack_state *state, const char *line)
{
    const char *at = line + 1;
    uint64_t index;
    return read_hex(&at, &index) && *at == '\0' && index < state->kind_count ? &state->kinds[index]
                                                                             : NULL;
}

static int allocate(struct trace_builder *builder, struct heaptrack_state *state, struct kind *kind)
{
    if (state->allocation_count >= NONE - 1) {
        return -E2BIG;
    }
    if (pages_reserve(&state->older, sizeof *state->older, state->allocation_count,
                      &state->allocation_capacity) != 0) {
        return -ENOMEM;
    }
    uint32_t allocation = (uint32_t)state->allocation_count++;
    state->older[allocation] = kind->youngest;
    kind->youngest = allocation;
    /* Numbers stand for addresses: no two blocks have the same. */
    struct trace_event event = {
        .thread_id = 1, .address = allocation + UINT64_C(1), .size = kind->size};
    return builder_allocate(builder, TRACE_ALLOCATE, &event);
}

static int release_one(struct trace_builder *builder, struct heaptrack_state *state,
                       struct kind *kind)
{
    if (kind->youngest == NONE) {
        builder->trace->notes.unknown_frees++;
        return 0;
    }
    struct trace_event event = {.thread_id = 1, .address = kind->youngest + UINT64_C(1)};
    kind->youngest = state->older[kind->youngest];
    return builder_free(builder, &event);
}

static int check_version(const char *line, char *why, size_t why_size)
{
    const char *at = line + 1;
    uint64_t program, format = 0;
    if (!read_hex(&at, &program) || !read_hex(&at, &format) || format < 1 || format > 3) {
        return fail(why, why_size, "'v VERSION FORMAT' with a format from 1 to 3", line);
    }
    return 0;
}

static int heaptrack_read_line(struct trace_builder *builder, char *line, char *why,
                               size_t why_size)
{
    struct heaptrack_state *state = builder->state;
    if (state == NULL) {
        state = pages_allocate(sizeof *state);
        builder->state = state;
        if (state == NULL) {
            return -ENOMEM;
        }
    }
    struct kind *kind;
    switch (line[0]) {
    case 'v':
        return check_version(line, why, why_size);
    case 'a':
        return add_kind(state, line, why, why_size);
    case '+':
    case '-':
        kind = find_kind(state, line);
        if (kind == NULL) {
            return fail(why, why_size, "the index of an 'a' line before", line);
        }
        return line[0] == '+' ? allocate(builder, state, kind) : release_one(builder, state, kind);
    default:
        return strchr("stiIXRcAS#", line[0]) != NULL
                   ? 0
                   : fail(why, why_size, "a line of heaptrack's", line);
    }
}

static void heaptrack_release(struct trace_builder *builder)
{
    struct heaptrack_state *state = builder->state;
    if (state != NULL) {
        pages_free(state->kinds, state->kind_capacity * sizeof *state->kinds);
        pages_free(state->older, state->allocation_capacity * sizeof *state->older);
        pages_free(state, sizeof *state);
        builder->state = NULL;
    }
}

static bool heaptrack_recognise(const char *line)
{
    return line[0] == 'v' && line[1] == ' ' && line[2] >= '0' && line[2] <= '9';
}

const struct trace_format trace_format_heaptrack = {
    .name = "heaptrack",
    .summary = "heaptrack's interpreted files",
    .lacks = "threads, alignments, reallocations, times, nor which of several blocks of one kind "
             "is freed (the youngest was taken)",
    .has_long_lines = true,
    .recognise = heaptrack_recognise,
    .read_line = heaptrack_read_line,
    .release = heaptrack_release,
};
