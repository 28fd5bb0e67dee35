/* SPDX-License-Identifier: MIT */
/*
 * How long idle memory waits before it goes back within calls.
 *
 * Theory. decay_ms is a guess at how long memory has to be idle until it will not be wanted soon. Where a program comes back to
 * it a little later than that, in a cycle of inputs of several sizes for instance, the guess is wrong every time: the
 * pages go back, and are faulted in again a moment later (176 page faults an inference of PyTorch's, five sizes in turn, where a
 * cycle takes 1.1 s). So what went back is watched. If half of it is wanted again within WINDOW times the wait, the wait is
 * doubled, up to MOST times decay_ms; if not, it is halved. A cycle that fits into the wait gives nothing back,
 * and leaves it as it is. Whoever calls larder_tick() has decay_ms to the letter: he knows why.
 *
 * That memory is wanted again is seen by what the heaps hold: more than after the last time. New needs look the same, and
 * make it wait longer than it should, for as long as it takes to give back twice in vain.
 *
 * No clock and no lock in here: both are the caller's.
 */
#ifndef LARDER_PATIENCE_H
#define LARDER_PATIENCE_H

#include <stdint.h>

enum { PATIENCE_MOST = 8, PATIENCE_WINDOW = 4 };

struct patience {
    uint32_t doublings; /* the wait is decay_ms << doublings */
    uint32_t since_ms;  /* when memory went back last */
    uint64_t given;     /* bytes that went back since this was judged last; 0: nothing to judge */
    uint64_t wanted;    /* bytes of these that are held again */
    uint64_t held;      /* bytes held when last looked at */
};

/* Judges what went back, by what is held now; returns the wait in milliseconds. */
uint32_t patience_wait_ms(struct patience *patience, uint32_t decay_ms, uint32_t now_ms,
                          uint64_t held);

/* `bytes` have gone back, and so much is still held. */
void patience_note(struct patience *patience, uint32_t now_ms, uint64_t bytes, uint64_t held);

#endif
