/* SPDX-License-Identifier: MIT */
/*
 * Chrome trace events out of a JSON stream of any length, one at a time, in bounded memory.
 */
#ifndef LARDER_TRACE_JSON_EVENTS_H
#define LARDER_TRACE_JSON_EVENTS_H

#include <stddef.h>
#include <stdint.h>

#include "input.h"

enum json_event_fields {
    JSON_HAS_TS = 1,
    JSON_HAS_DURATION = 2,
    JSON_HAS_BYTES = 4,
    JSON_HAS_ADDRESS = 8,
    JSON_HAS_DEVICE_TYPE = 16
};

/* What is of interest in an event; strings are cut to fit. */
struct json_event {
    unsigned has; /* json_event_fields */
    char name[64];
    char argument_name[64]; /* args.name */
    uint64_t ts_ns, duration_ns;
    uint64_t thread;
    int64_t bytes;
    uint64_t address;
    int64_t device_type;
};

/*
 * Is called for each event. Returns 0 to go on, or a negative errno; with -EINVAL, *problem says
 * what is wrong with the event.
 */
typedef int json_event_function(void *context, const struct json_event *event,
                                const char **problem);

/*
 * Reads an input to its end. Returns 0, what the function returned, or -EINVAL, -ENOMEM, -ENOTSUP;
 * then `why` names file, byte and reason.
 */
int json_events_read(struct input *input, json_event_function *function, void *context, char *why,
                     size_t why_size);

#endif
