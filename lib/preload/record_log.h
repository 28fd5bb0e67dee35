/* SPDX-License-Identifier: MIT */
/*
 * Where recorded entries go: one buffer per thread, kept by the kernel and flushed with write(2) to
 * one raw file per process. Never calls the malloc family. See record_log.c for the lock order and life cycle.
 *
 * Environment, read once at load:
 *   LARDER_RECORD_OUTPUT    prefix of the raw files, PREFIX.PID.raw; unset: nothing is recorded
 *   LARDER_RECORD_WAIT      1: the window is closed until larder_record_start
 *   LARDER_RECORD_MIN_SIZE  requests of fewer bytes are not recorded (default 0: all are)
 *   LARDER_RECORD_TIMES     1: note when each call was made
 *   LARDER_RECORD_FOLLOW    1: forked children record too, into files of their own
 *   LARDER_RECORD_PROCESS   the only process id that records, with whatever it execs
 */
#ifndef LARDER_PRELOAD_RECORD_LOG_H
#define LARDER_PRELOAD_RECORD_LOG_H

#include "record_format.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

/* Private to the two inline functions below. */
extern _Atomic bool record_log_open;
extern size_t record_log_minimum;

/* Whether calls are recorded now. Relaxed: a call at the window's edge may fall either way. */
static inline bool record_log_is_open(void)
{
    return atomic_load_explicit(&record_log_open, memory_order_relaxed);
}

/* The smallest request to record. Set at load, before a second thread exists. */
static inline size_t record_log_min_size(void)
{
    return record_log_minimum;
}

/* The next sequence number. */
uint64_t record_log_next(void);

/* Appends to this thread's buffer, with the time if asked for; keeps errno. What cannot be kept is
 * counted as lost. */
void record_log_append(struct record_entry *entry);

/* Ends the recording for good: flushes every thread's buffer and reports losses. Idempotent. */
void record_log_finish(void);

#endif
