/* SPDX-License-Identifier: MIT */
/*
 * What only the report draws: how much an allocator holds from operation to operation, and how its
 * throughput grows with threads.
 *
 * `larder pick --series BACKEND TRACE MIN_SIZE REPAIR THREADS` is for pick's own use, a process for each. With
 * THREADS 0 it runs the trace a few times with every page written to, and then once more, reading its
 * resident size on the way; it prints one line of JSON with the sizes over that before the first pass.
 * With more, so many threads run the whole trace at once, again and again, each with blocks of its own and
 * nothing written to them; it prints operations a second of all together, the median of some turns.
 */
#ifndef LARDER_TOOLS_PICK_SERIES_H
#define LARDER_TOOLS_PICK_SERIES_H

#include <stddef.h>
#include <stdint.h>

#include "trace.h"

#define PICK_SERIES_OPTION "--series"
#define PICK_SERIES_POINTS 160
#define PICK_SERIES_THREADS_MAX 64

/* Whether these are the arguments of such a process; argv[0] is the subcommand's name. */
int pick_series_asked(int argc, char **argv);

/* That process. Returns an exit code. */
int pick_series_main(int argc, char **argv);

/* Sums of live bytes after the same operations, PICK_SERIES_POINTS of them. Returns 0 or -ENOMEM. */
int pick_series_live(const struct trace *trace, double *out);

#endif
