/* SPDX-License-Identifier: MIT */
/*
 * A state machine behind yajl's callbacks: see json_events.h.
 *
 * All that it knows of where it is are depths: that of the array of events, that of an event in
 * it, and of the event's "args". Anything else is passed over, however it is nested.
 */
#include "json_events.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "pages.h"

#ifdef HAVE_YAJL
#include <yajl/yajl_parse.h>

#define CHUNK_BYTES 65536u
#define DEPTH_MAX 1000u
/* A string that spans chunks is gathered in a buffer that doubles, and again where it has escapes:
 * with 1 MiB in use before a chunk, no chunk needs
 * half of the arena. */
#define ARENA_BYTES ((size_t)16 << 20)
#define ARENA_USED_MAX ((size_t)1 << 20)

enum key {
    KEY_OTHER,
    KEY_EVENTS,
    KEY_NAME,
    KEY_TS,
    KEY_DURATION,
    KEY_THREAD,
    KEY_ARGUMENTS,
    KEY_ARGUMENT_NAME,
    KEY_BYTES,
    KEY_ADDRESS,
    KEY_DEVICE_TYPE
};

struct arena {
    unsigned char *bytes;
    size_t used;
};

struct reading {
    json_event_function *function;
    void *context;
    unsigned depth;        /* open objects and arrays */
    unsigned events_depth; /* inside the array of events; 0: not in it */
    bool in_arguments;
    bool had_events;
    enum key key;
    struct json_event event;
    const char *problem; /* why a callback ended the parse */
    int result;
};

/* -- Memory for yajl ----------------------------------------------------------------------------- */

/* In front of each block: its size. Blocks are never given back; yajl makes few. */
static void *arena_allocate(void *context, size_t size)
{
    struct arena *arena = context;
    size_t total = (size + sizeof(uint64_t) + 15) & ~(size_t)15;
    if (size > ARENA_BYTES || total > ARENA_BYTES - arena->used) {
        return NULL;
    }
    unsigned char *block = arena->bytes + arena->used + sizeof(uint64_t);
    uint64_t header = size;
    memcpy(arena->bytes + arena->used, &header, sizeof header);
    arena->used += total;
    return block;
}

static void *arena_reallocate(void *context, void *block, size_t size)
{
    void *moved = arena_allocate(context, size);
    if (moved != NULL && block != NULL) {
        uint64_t old;
        memcpy(&old, (unsigned char *)block - sizeof old, sizeof old);
        memcpy(moved, block, old < size ? (size_t)old : size);
    }
    return moved;
}

static void arena_release(void *context, void *block)
{
    (void)context;
    (void)block;
}

/* -- Numbers ------------------------------------------------------------------------------------- */

/* A JSON number as mantissa x 10^exponent; digits that no longer fit are dropped. */
struct decimal {
    bool negative;
    uint64_t mantissa;
    int exponent;
};

static struct decimal read_decimal(const char *text, size_t length)
{
    struct decimal number = {0};
    size_t i = 0;
    bool fraction = false;
    if (i < length && text[i] == '-') {
        number.negative = true;
        i++;
    }
    for (; i < length && text[i] != 'e' && text[i] != 'E'; i++) {
        if (text[i] == '.') {
            fraction = true;
        } else if (number.mantissa > (UINT64_MAX - 9) / 10) {
            number.exponent += !fraction;
        } else {
            number.mantissa = number.mantissa * 10 + (uint64_t)(text[i] - '0');
            number.exponent -= fraction;
        }
    }
    if (i < length) {
        bool down = ++i < length && text[i] == '-';
        int exponent = 0;
        for (i += i < length && (text[i] == '-' || text[i] == '+'); i < length; i++) {
            exponent = exponent > 1000 ? exponent : exponent * 10 + (text[i] - '0');
        }
        number.exponent += down ? -exponent : exponent;
    }
    return number;
}

/* The whole part of mantissa x 10^(exponent + shift); false where it does not fit. */
static bool scale(const struct decimal *number, int shift, uint64_t *out)
{
    uint64_t value = number->mantissa;
    int exponent = number->exponent + shift;
    for (; exponent < 0 && value > 0; exponent++) {
        value /= 10;
    }
    for (; exponent > 0 && value > 0; exponent--) {
        if (value > UINT64_MAX / 10) {
            return false;
        }
        value *= 10;
    }
    *out = value;
    return true;
}

/* -- Callbacks: 0 ends the parse ----------------------------------------------------------------- */

static int refuse(struct reading *reading, int result, const char *problem)
{
    reading->result = result;
    reading->problem = problem;
    return 0;
}

static bool at_event(const struct reading *reading)
{
    return reading->events_depth > 0 && reading->depth == reading->events_depth + 1;
}

static bool at_arguments(const struct reading *reading)
{
    return reading->events_depth > 0 && reading->depth == reading->events_depth + 2 &&
           reading->in_arguments;
}

static int open_container(struct reading *reading)
{
    if (++reading->depth > DEPTH_MAX) {
        return refuse(reading, -EINVAL, "nested more than 1000 deep");
    }
    return 1;
}

static int on_start_map(void *context)
{
    struct reading *reading = context;
    if (reading->events_depth > 0 && reading->depth == reading->events_depth) {
        memset(&reading->event, 0, sizeof reading->event);
    } else if (at_event(reading)) {
        reading->in_arguments = reading->key == KEY_ARGUMENTS;
    }
    reading->key = KEY_OTHER;
    return open_container(reading);
}

static int on_end_map(void *context)
{
    struct reading *reading = context;
    bool ends_event = at_event(reading);
    reading->depth--;
    reading->key = KEY_OTHER;
    if (reading->events_depth > 0 && reading->depth == reading->events_depth + 1) {
        reading->in_arguments = false;
    }
    if (!ends_event) {
        return 1;
    }
    const char *problem = NULL;
    int result = reading->function(reading->context, &reading->event, &problem);
    return result == 0 ? 1 : refuse(reading, result, problem);
}

static int on_start_array(void *context)
{
    struct reading *reading = context;
    bool begins_events = reading->depth == 0 || (reading->depth == 1 && reading->key == KEY_EVENTS);
    reading->key = KEY_OTHER;
    if (begins_events && reading->events_depth == 0) {
        reading->events_depth = reading->depth + 1;
        reading->had_events = true;
    }
    return open_container(reading);
}

static int on_end_array(void *context)
{
    struct reading *reading = context;
    if (reading->depth == reading->events_depth) {
        reading->events_depth = 0;
    }
    reading->depth--;
    return 1;
}

static const struct key_name {
    const char *name;
    enum key key;
} event_keys[] = {{"name", KEY_NAME},  {"ts", KEY_TS},          {"dur", KEY_DURATION},
                  {"tid", KEY_THREAD}, {"args", KEY_ARGUMENTS}, {NULL, KEY_OTHER}},
  argument_keys[] = {{"Bytes", KEY_BYTES},
                     {"Addr", KEY_ADDRESS},
                     {"Device Type", KEY_DEVICE_TYPE},
                     {"name", KEY_ARGUMENT_NAME},
                     {NULL, KEY_OTHER}},
  top_keys[] = {{"traceEvents", KEY_EVENTS}, {NULL, KEY_OTHER}}, no_keys[] = {{NULL, KEY_OTHER}};

static int on_key(void *context, const unsigned char *text, size_t length)
{
    struct reading *reading = context;
    const struct key_name *keys = at_event(reading)       ? event_keys
                                  : at_arguments(reading) ? argument_keys
                                  : reading->depth == 1   ? top_keys
                                                          : no_keys;
    while (keys->name != NULL &&
           (strlen(keys->name) != length || memcmp(keys->name, text, length) != 0)) {
        keys++;
    }
    reading->key = keys->key;
    return 1;
}

static void copy_string(char *out, size_t out_size, const unsigned char *text, size_t length)
{
    size_t taken = length < out_size - 1 ? length : out_size - 1;
    for (size_t i = 0; i < taken; i++) {
        out[i] = text[i] != '\0' ? (char)text[i] : '?';
    }
    out[taken] = '\0';
}

static int on_string(void *context, const unsigned char *text, size_t length)
{
    struct reading *reading = context;
    struct json_event *event = &reading->event;
    if (reading->key == KEY_NAME) {
        copy_string(event->name, sizeof event->name, text, length);
    } else if (reading->key == KEY_ARGUMENT_NAME) {
        copy_string(event->argument_name, sizeof event->argument_name, text, length);
    }
    return 1;
}

static int on_signed(struct reading *reading, const struct decimal *number, int64_t *out,
                     unsigned field)
{
    uint64_t value;
    if (!scale(number, 0, &value) || value > INT64_MAX) {
        return refuse(reading, -EINVAL, "a number of bytes of 2^63 or more");
    }
    *out = number->negative ? -(int64_t)value : (int64_t)value;
    reading->event.has |= field;
    return 1;
}

/* Microseconds, to nanoseconds. */
static int on_time(struct reading *reading, const struct decimal *number, uint64_t *out,
                   unsigned field)
{
    if (number->negative || !scale(number, 3, out)) {
        return refuse(reading, -EINVAL, "a time before 0 or after 2^64 nanoseconds");
    }
    reading->event.has |= field;
    return 1;
}

static int on_number(void *context, const char *text, size_t length)
{
    struct reading *reading = context;
    struct json_event *event = &reading->event;
    struct decimal number = read_decimal(text, length);
    switch (reading->key) {
    case KEY_TS:
        return on_time(reading, &number, &event->ts_ns, JSON_HAS_TS);
    case KEY_DURATION:
        return on_time(reading, &number, &event->duration_ns, JSON_HAS_DURATION);
    case KEY_THREAD:
        (void)scale(&number, 0, &event->thread);
        return 1;
    case KEY_BYTES:
        return on_signed(reading, &number, &event->bytes, JSON_HAS_BYTES);
    case KEY_ADDRESS:
        /* As a signed number it would be one of the upper half of the address space. */
        (void)scale(&number, 0, &event->address);
        event->address = number.negative ? 0 - event->address : event->address;
        event->has |= JSON_HAS_ADDRESS;
        return 1;
    case KEY_DEVICE_TYPE:
        return on_signed(reading, &number, &event->device_type, JSON_HAS_DEVICE_TYPE);
    default:
        return 1;
    }
}

/* -- The stream ---------------------------------------------------------------------------------- */

static int fail_parse(const struct reading *reading, const struct input *input, yajl_handle parser,
                      uint64_t byte, char *why, size_t why_size)
{
    if (reading->result == -ENOMEM || reading->result == -E2BIG) {
        snprintf(why, why_size, "%s: byte %" PRIu64 ": out of memory: the trace is too large",
                 input_path(input), byte);
        return reading->result;
    }
    if (reading->problem != NULL) {
        snprintf(why, why_size, "%s: byte %" PRIu64 ": %s", input_path(input), byte,
                 reading->problem);
        return -EINVAL;
    }
    unsigned char *text = yajl_get_error(parser, 0, NULL, 0);
    size_t length = text != NULL ? strcspn((const char *)text, "\n") : 0;
    snprintf(why, why_size,
             "%s: byte %" PRIu64
             ": not valid JSON (%.*s): export the trace from the profiler again",
             input_path(input), byte, (int)(length < 100 ? length : 100), (const char *)text);
    return -EINVAL;
}

static int parse_stream(struct reading *reading, struct input *input, yajl_handle parser,
                        const struct arena *arena, char *why, size_t why_size)
{
    static unsigned char chunk[CHUNK_BYTES];
    uint64_t before = 0;
    for (;;) {
        size_t got;
        int result = input_read(input, chunk, sizeof chunk, &got, why, why_size);
        if (result != 0) {
            return result;
        }
        yajl_status status = got > 0 ? yajl_parse(parser, chunk, got) : yajl_complete_parse(parser);
        if (status != yajl_status_ok) {
            return fail_parse(reading, input, parser,
                              before + (got > 0 ? yajl_get_bytes_consumed(parser) : 0), why,
                              why_size);
        }
        before += got;
        if (arena->used > ARENA_USED_MAX) {
            snprintf(why, why_size,
                     "%s: byte %" PRIu64 ": a string of a megabyte or more: not a "
                     "trace of the profiler",
                     input_path(input), before);
            return -EINVAL;
        }
        if (got == 0) {
            return 0;
        }
    }
}

int json_events_read(struct input *input, json_event_function *function, void *context, char *why,
                     size_t why_size)
{
    static const yajl_callbacks callbacks = {
        .yajl_number = on_number,
        .yajl_string = on_string,
        .yajl_start_map = on_start_map,
        .yajl_map_key = on_key,
        .yajl_end_map = on_end_map,
        .yajl_start_array = on_start_array,
        .yajl_end_array = on_end_array,
    };
    struct reading reading = {.function = function, .context = context};
    struct arena arena = {.bytes = pages_allocate(ARENA_BYTES)};
    yajl_alloc_funcs memory = {.malloc = arena_allocate,
                               .realloc = arena_reallocate,
                               .free = arena_release,
                               .ctx = &arena};
    if (arena.bytes == NULL) {
        snprintf(why, why_size, "%s: no memory to read it with", input_path(input));
        return -ENOMEM;
    }
    yajl_handle parser = yajl_alloc(&callbacks, &memory, &reading);
    yajl_config(parser, yajl_dont_validate_strings, 1);
    int result = parse_stream(&reading, input, parser, &arena, why, why_size);
    yajl_free(parser);
    pages_free(arena.bytes, ARENA_BYTES);
    if (result == 0 && !reading.had_events) {
        snprintf(why, why_size,
                 "%s: JSON without an array \"traceEvents\": name a trace that PyTorch's profiler "
                 "exported",
                 input_path(input));
        return -EINVAL;
    }
    return result;
}
#else
int json_events_read(struct input *input, json_event_function *function, void *context, char *why,
                     size_t why_size)
{
    (void)function;
    (void)context;
    snprintf(why, why_size, "%s: is JSON, which this build cannot read: build it with yajl",
             input_path(input));
    return -ENOTSUP;
}
#endif
