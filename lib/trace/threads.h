/* SPDX-License-Identifier: MIT */
/* Keeping a trace's threads in order after its operations were moved or dropped. */
#ifndef LARDER_TRACE_THREADS_H
#define LARDER_TRACE_THREADS_H

#include "trace.h"

/*
 * Numbers the threads from 0 in order of appearance again, and forgets those without operations.
 * Returns 0, or -ENOMEM with the trace as it was.
 */
int threads_renumber(struct trace *trace);

#endif
