/* SPDX-License-Identifier: MIT */
/*
 * A second thread that does nothing, so that a measurement sees a process with threads.
 *
 * In a process of one thread glibc leaves the atomic operations out of its mutexes and of malloc;
 * an inference engine's process always has threads, and pays for them. Every allocator is
 * therefore measured beside a sleeping thread. It counts: a mutex locked and unlocked costs 12 ns
 * instead of 4, a pair of glibc's malloc and free of 4 KiB 28 ns instead of 13 (glibc 2.36, x86-64
 * server under KVM, November 2026).
 */
#ifndef LARDER_TRACE_COMPANION_H
#define LARDER_TRACE_COMPANION_H

/*
 * Starts the thread and waits until it sleeps: nothing of it happens later, so page faults and
 * resident size that are counted from here on know nothing of it. It takes no signals. Calls nest.
 * Not to be called by two threads at once. Returns 0 or a negative errno.
 */
int companion_start(void);

/* Ends the thread once each companion_start() that succeeded has been matched. */
void companion_stop(void);

#endif
