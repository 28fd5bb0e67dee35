/* SPDX-License-Identifier: MIT */
/*
 * How threads of a replay wait for each other's steps. Private to replay*.c.
 *
 * Each lane publishes how many of its steps are over in a counter on a cache line of its own. A
 * thread that waits looks at the counter; if it is not there yet, it looks for a moment longer, then
 * sleeps. So a wait for what is long over costs a load, and a step that nobody sleeps for a store and a
 * load.
 *
 * A sleeper leaves the count it waits for in `wanted`, the least of all sleepers' counts, and looks
 * at `passed` again; the publisher stores `passed` and looks at `wanted`. All four are sequentially
 * consistent: one of the two sees what the other stored, so no sleeper is forgotten.
 */
#ifndef LARDER_TRACE_REPLAY_GATE_H
#define LARDER_TRACE_REPLAY_GATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define REPLAY_LINE 128 /* two cache lines, which processors fetch together */

struct gate {
    _Alignas(REPLAY_LINE) _Atomic uint32_t passed; /* stored by the lane alone */
    _Atomic uint32_t wanted;                       /* lowered by sleepers, under the lock */
    _Alignas(REPLAY_LINE) pthread_mutex_t lock;
    pthread_cond_t moved;
};

void gate_open(struct gate *gate);
void gate_close(struct gate *gate);

/* Back to no steps; while no thread uses it. */
void gate_reset(struct gate *gate);

/* Whether `steps` are over. What the lane did in them is visible to the caller then. */
static inline bool gate_is_past(struct gate *gate, uint32_t steps)
{
    /* Pairs with the store in gate_pass(). */
    return atomic_load_explicit(&gate->passed, memory_order_acquire) >= steps;
}

/*
 * Waits until `steps` are over. False: *aborted is set. `looks`: how often it looks before it
 * sleeps.
 */
bool gate_wait(struct gate *gate, uint32_t steps, unsigned looks, const _Atomic bool *aborted);

/* Publishes that `steps` are over. True: somebody sleeps for it; call gate_wake(). */
static inline bool gate_pass(struct gate *gate, uint32_t steps)
{
    atomic_store_explicit(&gate->passed, steps, memory_order_seq_cst);
    return atomic_load_explicit(&gate->wanted, memory_order_seq_cst) <= steps;
}

void gate_wake(struct gate *gate);

/* Tells the processor that this is a loop that waits. */
static inline void gate_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__) || (defined(__arm__) && __ARM_ARCH >= 7)
    __asm__ volatile("yield");
#endif
}

#endif
