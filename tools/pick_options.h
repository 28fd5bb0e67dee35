/* SPDX-License-Identifier: MIT */
/*
 * The command line of `larder pick`. What the options mean stands in struct pick_options (pick.h).
 */
#ifndef LARDER_TOOLS_PICK_OPTIONS_H
#define LARDER_TOOLS_PICK_OPTIONS_H

#include <glob.h>
#include <stdbool.h>

#include "pick.h"

/* Options, and what belongs to them while they are read. */
struct pick_reading {
    struct pick_options *options; /* of the caller's; filled, defaults first */
    const char *default_traces;
    glob_t found; /* what the traces' names may point into: the caller's globfree() ends them */
    bool time_named;
};

/* Returns an exit code, or -1 to go on; what is wrong has been told. */
int pick_read_options(int argc, char **argv, struct pick_reading *reading);

#endif
