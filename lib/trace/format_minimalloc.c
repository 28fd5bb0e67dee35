/* SPDX-License-Identifier: MIT */
/*
 * MiniMalloc's CSV: a head line that names columns, among them lower, upper and size, and then a
 * row for each block: it is live from lower up to, and without, upper.
 *
 * Rows come in any order, so they are kept and sorted by time; of what happens at one time, frees
 * come first, as lifetimes are half open. Source: the MiniMalloc repository's README.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "format.h"
#include "pages.h"
#include "stable_sort.h"

enum column { LOWER, UPPER, SIZE, COLUMN_COUNT };

static const char *const column_names[COLUMN_COUNT] = {"lower", "upper", "size"};

struct minimalloc_state {
    bool has_head;
    unsigned place_of[COLUMN_COUNT]; /* columns before it */
    uint64_t *sizes;                 /* by row */
    size_t row_count, row_capacity;
    struct sort_entry *events; /* key: 2 x time, + 1 for an allocation */
    size_t event_count, event_capacity;
};

/* The next field, NUL-terminated in place; NULL: none is left. */
static char *take_field(char **line)
{
    char *field = *line;
    if (field == NULL) {
        return NULL;
    }
    char *comma = strchr(field, ',');
    if (comma != NULL) {
        *comma = '\0';
    }
    *line = comma != NULL ? comma + 1 : NULL;
    return field;
}

static int read_head(struct minimalloc_state *state, char *line, char *why, size_t why_size)
{
    unsigned found = 0, place = 0;
    for (char *field = take_field(&line); field != NULL; field = take_field(&line), place++) {
        for (unsigned column = 0; column < COLUMN_COUNT; column++) {
            if (strcmp(field, column_names[column]) == 0) {
                state->place_of[column] = place;
                found |= 1u << column;
            }
        }
    }
    state->has_head = true;
    if (found != (1u << COLUMN_COUNT) - 1) {
        snprintf(why, why_size, "expected a head line such as 'id,lower,upper,size'");
        return -EINVAL;
    }
    return 0;
}

static bool read_number(const char *text, uint64_t *out)
{
    uint64_t value = 0;
    const char *at = text;
    for (; *at >= '0' && *at <= '9'; at++) {
        if (value > (INT64_MAX - 9) / 10) {
            return false;
        }
        value = value * 10 + (uint64_t)(*at - '0');
    }
    *out = value;
    return at > text && *at == '\0';
}

static int add_event(struct minimalloc_state *state, uint64_t time, bool allocates)
{
    if (pages_reserve(&state->events, sizeof *state->events, state->event_count,
                      &state->event_capacity) != 0) {
        return -ENOMEM;
    }
    state->events[state->event_count++] =
        (struct sort_entry){.key = time * 2 + allocates, .index = (uint32_t)state->row_count};
    return 0;
}

static int add_row(struct minimalloc_state *state, const uint64_t values[COLUMN_COUNT])
{
    if (state->row_count >= UINT32_MAX / 2) {
        return -E2BIG;
    }
    if (pages_reserve(&state->sizes, sizeof *state->sizes, state->row_count,
                      &state->row_capacity) != 0 ||
        add_event(state, values[LOWER], true) != 0 || add_event(state, values[UPPER], false) != 0) {
        return -ENOMEM;
    }
    state->sizes[state->row_count++] = values[SIZE];
    return 0;
}

static int read_row(struct minimalloc_state *state, char *line, char *why, size_t why_size)
{
    uint64_t values[COLUMN_COUNT] = {0};
    unsigned found = 0, place = 0;
    for (char *field = take_field(&line); field != NULL; field = take_field(&line), place++) {
        for (unsigned column = 0; column < COLUMN_COUNT; column++) {
            if (state->place_of[column] != place) {
                continue;
            }
            if (!read_number(field, &values[column])) {
                char quoted[40];
                snprintf(why, why_size, "expected a number below 2^63 as %s, found '%s'",
                         column_names[column], trace_quote(field, quoted, sizeof quoted));
                return -EINVAL;
            }
            found |= 1u << column;
        }
    }
    if (found != (1u << COLUMN_COUNT) - 1) {
        snprintf(why, why_size, "the line has fewer columns than the head line");
        return -EINVAL;
    }
    if (values[LOWER] >= values[UPPER]) {
        snprintf(why, why_size, "lower is not below upper (%" PRIu64 ", %" PRIu64 ")",
                 values[LOWER], values[UPPER]);
        return -EINVAL;
    }
    return add_row(state, values);
}

static int minimalloc_read_line(struct trace_builder *builder, char *line, char *why,
                                size_t why_size)
{
    struct minimalloc_state *state = builder->state;
    if (state == NULL) {
        state = pages_allocate(sizeof *state);
        builder->state = state;
        if (state == NULL) {
            return -ENOMEM;
        }
    }
    return state->has_head ? read_row(state, line, why, why_size)
                           : read_head(state, line, why, why_size);
}

static int minimalloc_finish(struct trace_builder *builder, char *why, size_t why_size)
{
    struct minimalloc_state *state = builder->state;
    (void)why;
    (void)why_size;
    if (state == NULL) {
        return 0;
    }
    int result = stable_sort(state->events, state->event_count);
    for (size_t i = 0; result == 0 && i < state->event_count; i++) {
        const struct sort_entry *entry = &state->events[i];
        struct trace_event event = {.thread_id = 1, .address = entry->index + UINT64_C(1)};
        if (entry->key % 2 == 0) {
            result = builder_free(builder, &event);
        } else {
            event.size = state->sizes[entry->index];
            result = builder_allocate(builder, TRACE_ALLOCATE, &event);
        }
    }
    return result;
}

static void minimalloc_release(struct trace_builder *builder)
{
    struct minimalloc_state *state = builder->state;
    if (state != NULL) {
        pages_free(state->sizes, state->row_capacity * sizeof *state->sizes);
        pages_free(state->events, state->event_capacity * sizeof *state->events);
        pages_free(state, sizeof *state);
        builder->state = NULL;
    }
}

static bool has_column(const char *line, const char *name)
{
    size_t length = strlen(name);
    for (const char *at = strstr(line, name); at != NULL; at = strstr(at + 1, name)) {
        if ((at == line || at[-1] == ',') && (at[length] == ',' || at[length] == '\0')) {
            return true;
        }
    }
    return false;
}

static bool minimalloc_recognise(const char *line)
{
    return has_column(line, "lower") && has_column(line, "upper") && has_column(line, "size");
}

const struct trace_format trace_format_minimalloc = {
    .name = "minimalloc",
    .summary = "MiniMalloc's CSV of lifetimes and sizes",
    .lacks = "threads, alignments, reallocations, nor the order of what happens at one time",
    .recognise = minimalloc_recognise,
    .read_line = minimalloc_read_line,
    .finish = minimalloc_finish,
    .release = minimalloc_release,
};
