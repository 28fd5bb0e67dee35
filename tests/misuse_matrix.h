/* SPDX-License-Identifier: MIT */
/*
 * The misuse matrix: each way to misuse larder, and what it promises to do about it, by policy and checks.
 *
 * A case is run in a process of its own, without an error handler: what is caught ends that process with
 * one line. `expected` is for an instance over a backend that cannot free foreign pointers (mmap); over
 * one that can, what nobody owns is handed to it instead (UNOWNED), since callers may pass every pointer they free.
 */
#ifndef LARDER_TESTS_MISUSE_MATRIX_H
#define LARDER_TESTS_MISUSE_MATRIX_H

#include "support.h"

enum outcome {
    FINE, /* no misuse, or none that larder is to notice: it goes on, and the books balance */
    SILENT, /* not noticed at this call; the case itself then does what is noticed later, or nothing */
    DOUBLE, /* caught: LARDER_ERROR_DOUBLE_FREE, and so on */
    INVALID,
    UNOWNED, /* caught as LARDER_ERROR_FOREIGN_POINTER, or handed to a backend that takes such pointers */
    FORGOTTEN, /* UNOWNED, but another thread may have the address again at once: tried alone */
    GONE, /* caught as one of these, or handed over: its memory may be another thread's, tried alone */
    REFUSED,
    REDZONE,
    WRITTEN, /* LARDER_ERROR_USE_AFTER_FREE */
    SCOPE,
    CAUGHT /* as one of the above: which one depends on what has become of the memory around */
};

enum { MATRIX_POLICIES = 4, MATRIX_CHECKS = 2 };

/* What a case works on, in its process. */
struct scene {
    larder_t *larder;
    larder_t *other; /* a second instance */
    size_t size;     /* of the blocks */
    bool strict;
    void *kept[2]; /* live neighbours of the block: its memory becomes nothing else meanwhile */
    const void *announced;
};

/* Says which pointer the bad call is about to be handed; once in a case, before the call. */
void announce(struct scene *scene, const void *ptr);

struct misuse {
    const char *name;
    const char *call; /* which the line names */
    void (*act)(struct scene *scene);
    /* by policy (fit, exact, passthrough, planned) and checks (default, strict) */
    enum outcome expected[MATRIX_POLICIES][MATRIX_CHECKS];
    size_t redzone;
    size_t quarantine;
    bool alone; /* under passthrough tried without other threads, for the same reason */
};

extern const struct misuse misuses[];
extern const int misuse_count;

#endif
