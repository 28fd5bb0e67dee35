/* SPDX-License-Identifier: MIT */
/* What `larder info` found out, and printing it for people. */
#ifndef LARDER_TOOLS_INFO_H
#define LARDER_TOOLS_INFO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "census.h"
#include "lanes.h"
#include "phases.h"
#include "trace.h"

/* Parts of the trace in the chart of live bytes. */
#define INFO_COLUMNS 64

struct info {
    const char *path;
    const struct trace *trace;
    struct trace_facts facts;
    struct census census;
    size_t needed_edges, crossings;
    struct phases phases;
    struct census_likeness likeness; /* of two inferences and more */
    uint64_t live_bytes[INFO_COLUMNS];
};

/* Prints it on stdout; with `ascii` without block characters. */
void info_print(const struct info *info, bool ascii);

#endif
