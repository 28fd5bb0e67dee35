/* SPDX-License-Identifier: MIT */
/* Waiting and waking: see replay_gate.h. */
#include "replay_gate.h"

#define NOBODY UINT32_MAX

void gate_open(struct gate *gate)
{
    pthread_mutex_init(&gate->lock, NULL);
    pthread_cond_init(&gate->moved, NULL);
    gate_reset(gate);
}

void gate_close(struct gate *gate)
{
    pthread_cond_destroy(&gate->moved);
    pthread_mutex_destroy(&gate->lock);
}

void gate_reset(struct gate *gate)
{
    /* Relaxed: threads are started or let go after this through a lock. */
    atomic_store_explicit(&gate->passed, 0, memory_order_relaxed);
    atomic_store_explicit(&gate->wanted, NOBODY, memory_order_relaxed);
}

static bool sleep_until(struct gate *gate, uint32_t steps, const _Atomic bool *aborted)
{
    pthread_mutex_lock(&gate->lock);
    for (;;) {
        /* Relaxed: written under the lock. */
        if (steps < atomic_load_explicit(&gate->wanted, memory_order_relaxed)) {
            atomic_store_explicit(&gate->wanted, steps, memory_order_seq_cst);
        }
        if (atomic_load_explicit(&gate->passed, memory_order_seq_cst) >= steps ||
            atomic_load_explicit(aborted, memory_order_relaxed)) {
            break;
        }
        pthread_cond_wait(&gate->moved, &gate->lock);
    }
    pthread_mutex_unlock(&gate->lock);
    return gate_is_past(gate, steps);
}

bool gate_wait(struct gate *gate, uint32_t steps, unsigned looks, const _Atomic bool *aborted)
{
    for (unsigned i = 0; i < looks; i++) {
        if (gate_is_past(gate, steps)) {
            return true;
        }
        gate_pause();
    }
    return sleep_until(gate, steps, aborted);
}

void gate_wake(struct gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    /* Those whose count is not reached yet wake too, and leave it here again. */
    atomic_store_explicit(&gate->wanted, NOBODY, memory_order_seq_cst);
    pthread_cond_broadcast(&gate->moved);
    pthread_mutex_unlock(&gate->lock);
}
