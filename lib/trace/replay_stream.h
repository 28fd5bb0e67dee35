/* SPDX-License-Identifier: MIT */
/*
 * One copy of a program that runs: its slots, what it sets up before its passes, and what it gives
 * back afterwards. Private to replay*.c. Nothing here is timed.
 */
#ifndef LARDER_TRACE_REPLAY_STREAM_H
#define LARDER_TRACE_REPLAY_STREAM_H

#include "replay_kernel.h"

/* Slots of a pass, and of the one after it, which may begin before the first is over. */
enum { STREAM_SETS = 2 };

struct stream {
    const struct program *program;
    size_t sets;                           /* that it has: 1, or STREAM_SETS */
    struct replay_view views[STREAM_SETS]; /* the first is also the setup's */
    void **carried;                        /* room for the pointers of program->carries */
    struct replay_slot *carried_about;
    unsigned char *live; /* by slot, for stream_release_live() */
    size_t live_setup;   /* blocks of the setup that are allocated */
};

/*
 * Gets memory for it, all of it written to. `number` tells streams of one replay apart. A program that has a setup has one
 * set of slots. Returns 0 or -ENOMEM.
 */
int stream_open(struct stream *stream, const struct program *program,
                const struct replay_view *view, size_t number, size_t sets);

/* Allocates the setup's blocks. Returns 0, or -ENOMEM with all of them released. */
int stream_set_up(struct stream *stream, replay_kernel *kernel);

/* Makes the slots after a pass what they were before it. */
void stream_carry(struct stream *stream);

/* Releases the setup's blocks, between passes. False: the kernel found a fault. */
bool stream_tear_down(struct stream *stream, replay_kernel *kernel);

/*
 * After a pass that failed: releases what is live in a set of slots once each lane did the first done[lane]. `done`
 * has room for twice as many lanes.
 */
void stream_release_live(struct stream *stream, size_t set, size_t *done);

void stream_close(struct stream *stream);

#endif
