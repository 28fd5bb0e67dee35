/* SPDX-License-Identifier: MIT */
/*
 * Threads with stacks of ours. Private to replay*.c.
 *
 * The stacks are written to beforehand, so that page faults and resident size of starting threads are not taken for
 * the allocator's. Signals stay with the threads that handle them.
 */
#ifndef LARDER_TRACE_REPLAY_THREAD_H
#define LARDER_TRACE_REPLAY_THREAD_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

struct replay_thread {
    pthread_t id;
    char *stack;
    bool started;
};

/* Gets its stack. Returns 0 or -ENOMEM. */
int thread_open(struct replay_thread *thread);

/* Starts it; once it has been joined, it may be started again. Returns 0 or a negative errno. */
int thread_start(struct replay_thread *thread, void *(*run)(void *), void *argument);

/* Waits for its end, if it was started. */
void thread_join(struct replay_thread *thread);

void thread_close(struct replay_thread *thread);

/* How many could be alive at once now, up to `wanted`. */
size_t thread_count_possible(size_t wanted);

#endif
