/* SPDX-License-Identifier: MIT */
/*
 * One allocator under comparison, as the replay tool and larder-bench see it.
 *
 * Every allocator is called through the same shape of wrapper (an indirect call, then the
 * allocator's own entry point), so that the harness costs the same for all of them; "none" shows
 * that cost.
 */
#ifndef LARDER_BENCH_ALLOCATOR_H
#define LARDER_BENCH_ALLOCATOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What an allocator says of itself after a run; fields it does not know stay UINT64_MAX. */
struct allocator_report {
    uint64_t held_bytes;
    uint64_t peak_held_bytes;
    uint64_t live_bytes;
    uint64_t cached_bytes;
    uint64_t metadata_bytes;
    /* since it was opened */
    uint64_t calls; /* allocations and frees that succeeded */
    uint64_t lock_acquisitions;
    uint64_t depot_exchanges; /* magazines that threads handed over */
    uint64_t backend_calls;   /* for memory, to give it back, or to discard pages */
};

struct allocator {
    const char *name;    /* as given on the command line: "larder", "system", ... */
    const char *version; /* of the library that serves it: "0.1.0", "glibc 2.36", ... */
    const char *policy;  /* "fit", "exact", "passthrough", "planned" for larder's, else "-" */
    void *context;
    void *(*allocate)(void *context, size_t size);
    /* alignment is a power of two and at most 4096 in practice; larger ones occur in traces */
    void *(*allocate_aligned)(void *context, size_t alignment, size_t size);
    void *(*reallocate)(void *context, void *ptr, size_t size);
    void (*release)(void *context, void *ptr);
    /* optional, NULL: none; called around each pass of a replay, outside of the timing */
    void (*pass_begin)(void *context);
    void (*pass_end)(void *context);
    /* optional, NULL: none. Fields come in as UINT64_MAX; see allocator_get_report(). */
    void (*report)(void *context, struct allocator_report *out);
    void (*close)(void *context);
    /* optional, NULL: none. Gives everything cached back. */
    void (*trim)(void *context);
    bool frees_foreign; /* release() takes blocks of this process's malloc */
};

/*
 * Opens an allocator that can live in this process. Returns 0, or a negative errno with a sentence
 * in `why` (why_size bytes) that says what is missing and how to get it: -ENOENT for an unknown
 * name, -ENODEV for a known one that this machine lacks. "preload:PATH" and peers that must
 * replace malloc are not opened here (peer.h): the tools start a process of their own for them and
 * open "system" in it.
 *
 * `name` must outlive `out`. At most one allocator is open at a time for the strings in it to be
 * its own.
 */
int allocator_open(const char *name, struct allocator *out, char *why, size_t why_size);

/* What it says of itself; every field UINT64_MAX where it says nothing. */
void allocator_get_report(const struct allocator *allocator, struct allocator_report *out);

/* Gives the allocator up; its blocks must have been released. */
void allocator_close(struct allocator *allocator);

/* Names that allocator_open() knows, ended by NULL, in the order of the tables. */
const char *const *allocator_names(void);

/* One line about the allocator of that name, or NULL for an unknown one. */
const char *allocator_summary(const char *name);

#ifdef __cplusplus
}
#endif

#endif
