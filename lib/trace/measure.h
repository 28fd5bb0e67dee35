/* SPDX-License-Identifier: MIT */
/* What the machine can tell about a run: time, page faults, memory. Nothing here allocates. */
#ifndef LARDER_TRACE_MEASURE_H
#define LARDER_TRACE_MEASURE_H

#include <stddef.h>
#include <stdint.h>

/* A monotonic clock. */
uint64_t measure_now_ns(void);

/* CPU time of all threads of this process so far; a system call. */
uint64_t measure_cpu_ns(void);

/* Page faults of this process so far that needed no input or output. */
uint64_t measure_minor_faults(void);

/*
 * Restarts the kernel's record of this process's highest resident size. Returns 0, or a negative
 * errno where it cannot be (not Linux, or /proc/self/clear_refs not writable). ru_maxrss would not
 * do: it keeps the peak of reading the trace.
 */
int measure_reset_peak_rss(void);

/*
 * Maps every page that the executable and its loaded libraries have in their files, by reading a
 * byte of each. To be called before a base of the resident size is read: from then on the code and
 * constants of one allocator weigh as much as those of any other, nothing, whether the process has
 * used it already, as it has the malloc that it was started with, or is about to call it for the
 * first time. The kernel maps code 64 KiB at a time around the page that is wanted, which would be
 * an eighth of a trace with half a MiB live. Does nothing where modules cannot be listed.
 */
void measure_map_modules(void);

/* The highest resident size since the reset, in bytes; UINT64_MAX where unknown. */
uint64_t measure_peak_rss(void);

/* Memory that can be had without swapping, in bytes; UINT64_MAX where unknown. */
uint64_t measure_available_memory(void);

/*
 * The median of `count` values, which get sorted; the mean of the middle two where count is even. 0
 * for none.
 */
double measure_median(uint64_t *values, size_t count);

#endif
