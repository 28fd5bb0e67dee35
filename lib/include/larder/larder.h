/* SPDX-License-Identifier: MIT */
/*
 * larder: a caching memory allocator for neural-network inference on the CPU.
 *
 * Conventions for every declaration in this header
 *   - Sizes are in bytes, times in milliseconds.
 *   - All calls may be made from any thread at any time, except where a call says otherwise. None is
 *     async-signal-safe.
 *   - Calls that can fail return 0 or a negative errno value; calls that allocate return NULL and set
 *     errno (ENOMEM: nothing left after trimming every instance and one retry; EOVERFLOW: a size that
 *     no machine could serve; EINVAL: a bad alignment).
 *   - Misuse that would corrupt memory (a double free, a pointer into the middle of a block, a pointer
 *     that nobody owns) goes to the instance's error handler, which by default prints one line and
 *     aborts.
 *   - The ideas behind the library are those of J. Bonwick and J. Adams, "Magazines and Vmem",
 *     USENIX 2001, and of PyTorch's c10::CPUCachingAllocator.
 */
#ifndef LARDER_LARDER_H
#define LARDER_LARDER_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#if defined(LARDER_BUILD_SHARED) && defined(__GNUC__)
#define LARDER_API __attribute__((visibility("default")))
#else
#define LARDER_API
#endif

#if defined(__GNUC__)
#define LARDER_MALLOC __attribute__((malloc, warn_unused_result))
#define LARDER_ALLOC_SIZE(n) __attribute__((alloc_size(n)))
#define LARDER_NODISCARD __attribute__((warn_unused_result))
#else
#define LARDER_MALLOC
#define LARDER_ALLOC_SIZE(n)
#define LARDER_NODISCARD
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The version of this header; larder_version() tells that of the library at run time. */
#define LARDER_VERSION_MAJOR 0
#define LARDER_VERSION_MINOR 1
#define LARDER_VERSION_PATCH 0
#define LARDER_VERSION_STRING "0.1.0"

/* One caching allocator, with its own policy, backend, limits and statistics. */
#ifdef __cplusplus
typedef struct larder_instance larder_t; /* the name larder is a namespace there, see larder.hpp */
#else
typedef struct larder larder_t;
#endif

/* ------------------------------------------------------------------------------------------------
 * Backends: where memory comes from
 */

/* backend flag: fresh memory reads as zero */
#define LARDER_BACKEND_ZEROED 0x1u
/* backend flag: free() takes pointers that larder never saw (the heap of the process: system) */
#define LARDER_BACKEND_FREES_FOREIGN 0x2u

/*
 * A source of memory. Copied on creation of an instance; `context` must outlive it and its blocks.
 * The functions are called without any of larder's locks held, from several threads at once, and must
 * not call back into the same instance.
 */
typedef struct larder_backend {
    size_t struct_size; /* sizeof(larder_backend_t) of the caller */
    const char *name;   /* for reports; must outlive the instance */
    /* Memory of at least `size` bytes at a multiple of `alignment` (a power of two), or NULL. */
    void *(*allocate)(void *context, size_t size, size_t alignment);
    /* Takes back what allocate() returned, with the same size. */
    void (*free)(void *context, void *ptr, size_t size);
    /*
     * Optional (NULL: none). Gives the pages in [ptr, ptr + size) back to the kernel but keeps the
     * range usable; the contents may be lost. `ptr` and `size` are multiples of the page size. Returns
     * 0 or a negative errno.
     */
    int (*discard)(void *context, void *ptr, size_t size);
    unsigned flags; /* LARDER_BACKEND_* */
    void *context;  /* handed to each function */
} larder_backend_t;

/* malloc and free of the process. Takes foreign pointers. */
LARDER_API const larder_backend_t *larder_backend_system(void);

/* Anonymous mappings; address space is reserved and committed as it is used. Has discard. */
LARDER_API const larder_backend_t *larder_backend_mmap(void);

/*
 * mimalloc, opened at the first call (from $LARDER_MIMALLOC, or the names that distributions use)
 * without replacing the process's malloc. NULL with errno ENOENT where no usable library is found.
 */
LARDER_API const larder_backend_t *larder_backend_mimalloc(void);

/* The backend of that name ("system", "mmap", "mimalloc"); NULL with errno EINVAL or ENOENT. */
LARDER_API const larder_backend_t *larder_backend_by_name(const char *name);

/* ------------------------------------------------------------------------------------------------
 * Configuration
 */

typedef enum larder_policy {
    /* Size classes and a span heap that splits and coalesces: the default. */
    LARDER_POLICY_FIT = 0,
    /* What c10::CPUCachingAllocator does: one backend allocation a block, reused under its exact size,
     * last in first out. */
    LARDER_POLICY_EXACT = 1,
    /* No caching: every call goes to the backend. */
    LARDER_POLICY_PASSTHROUGH = 2,
    /* Large blocks of recorded inferences from one arena, at places planned ahead; the rest as `fit`. See
     * larder_plan_begin(). */
    LARDER_POLICY_PLANNED = 3
} larder_policy_t;

typedef enum larder_checks {
    /* Double frees of cached blocks and interior pointers under `fit` are caught. */
    LARDER_CHECKS_DEFAULT = 0,
    /* Also double frees by two threads at the same instant, and interior pointers under `exact`. */
    LARDER_CHECKS_STRICT = 1
} larder_checks_t;

/* What an error handler is told. */
typedef enum larder_error_kind {
    LARDER_ERROR_DOUBLE_FREE = 1,     /* the block is already free and cached */
    LARDER_ERROR_INVALID_POINTER = 2, /* not the start of a block */
    LARDER_ERROR_FOREIGN_POINTER = 3, /* nobody owns it, and the backend cannot free it */
    LARDER_ERROR_REDZONE = 4,         /* bytes around the block were overwritten */
    LARDER_ERROR_REFUSED = 5,       /* record_free of a block that nobody else can have released */
    LARDER_ERROR_SCOPE = 6,         /* a scope was left in the wrong order or on the wrong thread */
    LARDER_ERROR_CONFIG = 7,        /* an unknown variable or a bad value in the environment */
    LARDER_ERROR_USE_AFTER_FREE = 8 /* a block was written to while it was in quarantine */
} larder_error_kind_t;

typedef struct larder_error {
    size_t struct_size;
    larder_error_kind_t kind;
    const char *call;     /* the public call, such as "larder_free" */
    const void *ptr;      /* the pointer handed in, or NULL */
    size_t size;          /* the block's requested size where known, else 0 */
    const char *state;    /* what larder knows of it: "cached", "live", "interior", "unknown" ... */
    const char *instance; /* the name of the owner, or of the instance called */
    const char *message;  /* the whole line, without a newline */
} larder_error_t;

/*
 * Called on misuse, without locks held. May return: the call is then ignored (a bad free does
 * nothing; but one that finds overwritten bytes is a good one, and goes on). NULL in the configuration stands for: print the message to stderr and abort().
 */
typedef void larder_error_handler(void *context, const larder_error_t *error);

/*
 * Settings of an instance. Fill with larder_config_init() first, then change fields. Each can also
 * come from the environment, see larder_config_from_environment().
 */
typedef struct larder_config {
    size_t struct_size; /* set by larder_config_init(): the library reads no further than this */

    larder_policy_t policy; /* LARDER_POLICY=fit|exact|passthrough|planned; default fit */

    /* LARDER_BACKEND=system|mmap|mimalloc; default NULL: mmap under fit, system otherwise. */
    const larder_backend_t *backend;

    /* LARDER_ALIGNMENT: of every block; a power of two, 8 to 4096; default 64 (16 is usual on phones). */
    size_t alignment;

    /*
     * LARDER_PADDING_BEFORE, LARDER_PADDING_AFTER: bytes around each block that may be read, though
     * their contents mean nothing; at most 4096, default 0. QNNPACK reads before, XNNPACK after a tensor: 16
     * for each is enough. Under `fit` over any backend up to 64 bytes cost nothing: they are the
     * neighbouring memory of the same region.
     */
    size_t padding_before;
    size_t padding_after;

    /*
     * LARDER_REDZONE: bytes before and after each block that larder fills and checks on free, for
     * debugging; at most 4096, rounded up to the alignment; default 0, 32 in builds with -Dchecks=full.
     */
    size_t redzone;

    /* LARDER_MIN_CACHED_SIZE, LARDER_MAX_CACHED_SIZE: blocks outside are never cached but go straight to and
     * from the backend (`fit`: sizes above the maximum only); default 0 and SIZE_MAX. */
    size_t min_cached_size;
    size_t max_cached_size;

    /*
     * LARDER_MAX_CACHED_BYTES: hard cap on bytes that are cached, in threads and shared, at every instant; SIZE_MAX
     * ("max"): none. Default LARDER_ADAPTIVE ("adaptive"): under `fit`, what waits in regions follows the
     * working set: about a sixteenth of it, at least 64 KiB, for as long as keeping it so low costs few page faults.
     */
    size_t max_cached_bytes;

    /* LARDER_THREAD_CACHED_BYTES: what each thread's magazines may hold; default 56 KiB. Without a hard cap all threads of an
     * instance have in common as much again for each processor, at most 8, and each of them may hold twice its own from there. */
    size_t thread_cached_bytes;

    /*
     * LARDER_DECAY_MS: memory idle for longer goes back to the kernel; default 1000; UINT32_MAX: never. Within calls it waits
     * up to eight times as long, where what went back was wanted again soon; larder_tick() takes the number to the letter.
     */
    uint32_t decay_ms;

    /* LARDER_FILL: byte that fresh and freed blocks are filled with, 0 to 255; default -1: none; 219 in builds with
     * -Dchecks=full. */
    int fill;

    /* LARDER_CHECKS=default|strict */
    larder_checks_t checks;

    larder_error_handler *error_handler; /* default NULL: print and abort */
    void *error_context;                 /* handed to it */

    /*
     * LARDER_HUGE_PAGES=never|advise: whether the kernel is asked for huge pages in regions of the mmap backend. Fewer
     * faults and TLB misses, but memory is then held by 2 MiB, and giving pages back breaks them up. Default 0: never.
     */
    int huge_pages;

    /*
     * LARDER_QUARANTINE_BYTES: freed blocks wait, first in first out, until they and those behind them are more than so many
     * bytes (or 16384 blocks) before they are handed out again: meanwhile a double free is caught
     * whatever else has been allocated, and with `fill` or `redzone` a write to a freed block is noticed when it leaves. A trim
     * empties it; blocks of a plan's arena do not wait. For debugging: there is no hit path. Default 0: none.
     */
    size_t quarantine_bytes;
} larder_config_t;

#define LARDER_ADAPTIVE (SIZE_MAX - 1) /* for max_cached_bytes */

/* Sets every field to its default. */
LARDER_API void larder_config_init(larder_config_t *config);

/*
 * Sets the fields for which the environment has a LARDER_* variable (named above at each field).
 * An unknown LARDER_ name or a bad value is reported to the error handler if there is one, else on
 * stderr, and makes the call return -EINVAL; the good ones are applied all the same.
 */
LARDER_API int larder_config_from_environment(larder_config_t *config);

/*
 * Sets one field from text: `key` is the variable's name without LARDER_, in either case
 * ("policy", "max_cached_bytes"); sizes take k, m, g suffixes (powers of 1024). Returns 0, -ENOENT for an unknown key,
 * -EINVAL for a bad value.
 */
LARDER_API int larder_config_set(larder_config_t *config, const char *key, const char *value);

/* ------------------------------------------------------------------------------------------------
 * Instances
 */

/*
 * Creates an instance. `name` (at most 31 bytes are kept; NULL: "larder") stands in reports. `config`
 * NULL means the defaults, without the environment. Returns NULL with errno EINVAL (a bad setting) or ENOMEM.
 */
LARDER_API LARDER_NODISCARD larder_t *larder_create(const char *name,
                                                    const larder_config_t *config);

/*
 * Ends an instance and gives back what it caches. No other thread may be inside a call on it, or have
 * it as its current scope. Blocks still live stay valid, as orphans: freeing one returns its memory to the backend.
 * Returns the number of orphans. NULL is ignored.
 */
LARDER_API size_t larder_destroy(larder_t *larder);

/* The instance of the process, created at first use from defaults and the environment; never NULL
 * unless there is no memory at all. Cannot be destroyed. */
LARDER_API larder_t *larder_default(void);

/* The name given on creation. Valid as long as the instance. */
LARDER_API const char *larder_name(const larder_t *larder);

/* ------------------------------------------------------------------------------------------------
 * Blocks
 */

/* A block of `size` bytes at the instance's alignment; size 0 gives a block of its own. Contents
 * undefined. To be released with larder_free(). */
LARDER_API LARDER_MALLOC LARDER_ALLOC_SIZE(2) void *larder_alloc(larder_t *larder, size_t size);

/* The same at a multiple of `alignment`, a power of two (else EINVAL); below the instance's alignment the latter holds. */
LARDER_API LARDER_MALLOC LARDER_ALLOC_SIZE(3) void *larder_alloc_aligned(larder_t *larder,
                                                                         size_t alignment,
                                                                         size_t size);

/* A block for `count` elements of `size` bytes, all zero; EOVERFLOW where the product overflows. */
LARDER_API LARDER_MALLOC void *larder_calloc(larder_t *larder, size_t count, size_t size);

/*
 * Changes a block's size, keeping the contents up to the smaller of both; it may move. `ptr` NULL:
 * larder_alloc(larder, size). On failure returns NULL and `ptr` stays valid. The block stays with
 * its owner, whichever instance is named. size 0 keeps a block of its own.
 */
LARDER_API LARDER_NODISCARD void *larder_realloc(larder_t *larder, void *ptr, size_t size);

/*
 * Releases a block to the instance that owns it, whichever that is. `larder` names the backend for a
 * pointer that nobody owns (NULL: the system's): it is passed through where the backend can free foreign pointers, else
 * it is an error. NULL is ignored.
 */
LARDER_API void larder_free(larder_t *larder, void *ptr);

/* Bytes that may be used at `ptr`, at least what was asked for; 0 for NULL and unknown pointers. */
LARDER_API size_t larder_usable_size(const void *ptr);

/* The usable size that a request of `size` would get from this instance; SIZE_MAX where absurd. */
LARDER_API size_t larder_good_size(const larder_t *larder, size_t size);

/* The instance that owns the live block at `ptr`, or NULL (unknown, cached, or an orphan). */
LARDER_API larder_t *larder_owner(const void *ptr);

/*
 * Tells larder that a live block is about to be released outside of it, with the backend's own
 * free. Call it *before* that release. A pointer that nobody owns is ignored, since callers pass every
 * pointer they free. Returns 0; -EPERM (and the error handler is called) for a block cut from a region
 * (`fit`), which nobody else could release; -EINVAL for a block that is cached.
 */
LARDER_API int larder_record_free(void *ptr);

/* Is told of one live block: its address, requested size. Return non-zero to stop. */
typedef int larder_walk_fn(void *context, void *ptr, size_t size);

/*
 * Calls `fn` for each live block of the instance; blocks that other threads allocate or free meanwhile
 * may or may not be seen. `fn` must not call larder. Returns what `fn` returned last, or 0.
 */
LARDER_API int larder_walk(larder_t *larder, larder_walk_fn *fn, void *context);

/* ------------------------------------------------------------------------------------------------
 * Giving memory back
 */

/* Gives everything cached back to the backend or kernel; other threads are asked to give up theirs at
 * their next call. */
LARDER_API void larder_free_cached(larder_t *larder);

/* The same until at most `bytes` are cached, oldest first as far as known. Returns the bytes still cached. */
LARDER_API size_t larder_trim(larder_t *larder, size_t bytes);

/* Moves what the calling thread caches for this instance (NULL: for every instance) to where other
 * threads and the decay can reach it. For threads about to sleep. */
LARDER_API void larder_flush_thread(larder_t *larder);

/*
 * Does what is due: memory of this instance (NULL: of all) idle for longer than decay_ms goes back
 * to the kernel. Cheap when nothing is due. For programs that stop calling the allocator between bursts. Returns the bytes given back.
 */
LARDER_API size_t larder_tick(larder_t *larder);

/*
 * Starts a thread that calls larder_tick(NULL) every `interval_ms` (0: every 250), for programs that may stop calling the allocator
 * and cannot tick themselves. One for the process; started again, it takes the new interval. A forked child has
 * none. Returns 0, or -EAGAIN where no thread can be had. Not from two threads at once.
 */
LARDER_API int larder_ticker_start(uint32_t interval_ms);

/* Ends that thread, if there is one, and waits for its end. */
LARDER_API void larder_ticker_stop(void);

/* How badly memory is wanted: the levels of Android's onTrimMemory(). */
typedef enum larder_pressure {
    LARDER_TRIM_RUNNING_MODERATE = 5,  /* memory begins to run low: keep half of what is cached */
    LARDER_TRIM_RUNNING_LOW = 10,      /* it runs low: keep a quarter */
    LARDER_TRIM_RUNNING_CRITICAL = 15, /* it kills others: keep nothing */
    LARDER_TRIM_UI_HIDDEN = 20,        /* the user has gone elsewhere: keep a quarter */
    LARDER_TRIM_BACKGROUND = 40,       /* from here on the process may be killed: keep nothing */
    LARDER_TRIM_MODERATE = 60,
    LARDER_TRIM_COMPLETE = 80
} larder_pressure_t;

/*
 * Trims this instance (NULL: all) as a level asks for; one in between is as the next lower one, and one below the lowest only does
 * what larder_tick() does. Returns the bytes still cached. From Android's onTrimMemory(level), hand the level on; on Linux,
 * lib/adapters/pressure calls this when processes wait for memory.
 */
LARDER_API size_t larder_trim_level(larder_t *larder, int level);

/* ------------------------------------------------------------------------------------------------
 * Scopes: the calling thread's current instance
 */

/*
 * Makes `larder` (NULL: none) the thread's current instance and returns the previous one, to be
 * handed to larder_scope_leave(). Scopes nest. New threads start with none: see larder_bind_current().
 */
LARDER_API LARDER_NODISCARD larder_t *larder_scope_enter(larder_t *larder);

/* Restores what larder_scope_enter() returned. */
LARDER_API void larder_scope_leave(larder_t *previous);

/* The thread's current instance, or NULL. */
LARDER_API larder_t *larder_current(void);

/* A call to be made in a scope, on whichever thread: what the threads of a pool are handed. */
typedef struct larder_task {
    void (*function)(void *context);
    void *context;
    larder_t *larder; /* the scope in which to call it; NULL: in none */
} larder_task_t;

/*
 * The task of calling function(context) in the scope that is current now. It is the caller's memory, and must stay where it is until
 * it has been run for the last time, as must the instance:
 *
 *     larder_task_t task = larder_bind_current(work, batch);
 *     pool_submit(pool, larder_task_run, &task);
 */
LARDER_API larder_task_t larder_bind_current(void (*function)(void *context), void *context);

/* Runs a task, a `const larder_task_t *`. Any number of threads may run the same one, as often as they like. */
LARDER_API void larder_task_run(void *task);

/* Allocates from the current instance; from the system's malloc (alignment 64) where there is none. */
LARDER_API LARDER_MALLOC LARDER_ALLOC_SIZE(1) void *larder_current_alloc(size_t size);

/* Frees to the owner, looked up first; without one, to the current instance's backend or the system. */
LARDER_API void larder_current_free(void *ptr);

#if defined(__GNUC__)
static inline void larder_scope_cleanup_(larder_t **previous)
{
    larder_scope_leave(*previous);
}
/* Enters a scope that ends with the enclosing braces: LARDER_SCOPE(my_larder); */
#define LARDER_SCOPE(larder) LARDER_SCOPE_(larder, __LINE__)
#define LARDER_SCOPE_(larder, line) LARDER_SCOPE__(larder, line)
#define LARDER_SCOPE__(larder, line)                                                               \
    larder_t *larder_scope_##line __attribute__((cleanup(larder_scope_cleanup_), unused)) =        \
        larder_scope_enter(larder)
#endif

/* ------------------------------------------------------------------------------------------------
 * Plans: policy `planned`
 *
 * An inference repeats its requests. Recorded once, their places are computed ahead (the peak is then hardly above what is live at
 * once), and the inferences that follow are served from one arena, without a search or a lock:
 *
 *     larder_plan_begin(larder, 0);
 *     ... an inference ...
 *     larder_plan_end(larder);
 *
 * The stream of inferences is the calling thread: its requests between the two calls are recorded or replayed, and
 * each thread that infers has an arena of its own. Plans are shared by all threads. Blocks may be freed by any thread, at any time; one that
 * outlives its inference stays valid. What deviates from the plan is served as under `fit` and counted (plan_deviations): a request that is larger, in
 * another order, or one too many. A smaller one is served from the place of the larger. The next inference takes up the plan again.
 *
 * Planned are blocks above 8 KiB (smaller ones have magazines), up to the alignment of a page. While an inference is recorded, freed memory goes back to the kernel at
 * once, so that recording costs page faults, not memory. An instance keeps up to 64 plans and gives up those unused for longest.
 */

/*
 * Begins an inference of the calling thread. `key` names its plan, for instance the shape of the input; where there is none of that
 * name yet, the inference is recorded. 0 lets the size of the first large request choose. Returns 0, -ENOTSUP (another policy), -EBUSY (begun already), -ENOMEM,
 * -EAGAIN (the thread is ending) or -EINVAL.
 */
LARDER_API int larder_plan_begin(larder_t *larder, uint64_t key);

/* Ends it. After a recording this makes the plan: some milliseconds. Returns 0, -ENOTSUP, or -EINVAL (not begun). */
LARDER_API int larder_plan_end(larder_t *larder);

/* Writes all plans to a file, whole or not at all. Returns 0 or a negative errno. */
LARDER_API int larder_plan_save(const larder_t *larder, const char *path);

/*
 * Adds the plans of a file, of larder_plan_save() or `larder plan`, so that nothing need be recorded. A file that is damaged, of another version (-ENOTSUP), or
 * in which blocks overlap (-EINVAL) is refused as a whole. Returns the number of plans or a negative errno.
 */
LARDER_API int larder_plan_load(larder_t *larder, const char *path);

/* ------------------------------------------------------------------------------------------------
 * Statistics
 */

#define LARDER_STATS_VERSION 1u

/*
 * A snapshot. Exact when no thread is inside a call on the instance; otherwise each field is a
 * recent value. held = live + rounding + padding + thread + depot + free committed + metadata.
 * "Bytes" of live blocks are those asked for; of cached ones, those they occupy.
 */
typedef struct larder_stats {
    uint32_t version;   /* LARDER_STATS_VERSION of the library */
    size_t struct_size; /* in: sizeof(larder_stats_t) of the caller */

    /* now */
    uint64_t live_blocks, live_bytes; /* handed out and not freed */
    uint64_t rounding_bytes; /* size-class and page rounding, padding, redzones of live blocks */
    uint64_t cached_blocks;  /* whole blocks kept in threads and depot */
    uint64_t cached_bytes;   /* kept for reuse anywhere: threads, depot and committed free spans */
    uint64_t thread_cached_bytes;  /* of these, in magazines of threads */
    uint64_t depot_cached_bytes;   /* of these, in the depot */
    uint64_t free_committed_bytes; /* of these, free spans of which the pages have been touched */
    uint64_t metadata_bytes;       /* this instance's share of larder's own tables */
    uint64_t held_bytes;           /* all of the above that costs memory */
    uint64_t reserved_bytes;       /* address space of regions; costs no memory */
    uint64_t largest_free_span;    /* bytes */
    uint64_t regions;              /* runs of pages (or single blocks) taken from the backend */

    /* highest so far; live within what threads may serve from their magazines between two slow paths */
    uint64_t peak_live_bytes, peak_held_bytes, peak_cached_bytes;

    /* since creation */
    uint64_t allocations, frees; /* calls that succeeded */
    uint64_t allocated_bytes;    /* sum of sizes asked for */
    uint64_t hits;               /* served without the backend and without fresh memory */
    uint64_t thread_hits;        /* of these, from the thread's magazines: no lock taken */
    uint64_t miss_cold;          /* nothing of that size was cached */
    uint64_t miss_size;          /* outside of the sizes that are cached */
    uint64_t failures;           /* requests that failed */
    uint64_t depot_exchanges;    /* magazines moved between threads and depot */
    uint64_t lock_acquisitions,
        lock_contended; /* of depot, heap and shards, on this instance's behalf */
    uint64_t backend_allocations, backend_frees, backend_discards, backend_failures;
    uint64_t splits, coalesces; /* of spans */
    uint64_t given_back_bytes;  /* to kernel or backend, by cap, decay, trim or failure */
    uint64_t trims, foreign_frees, errors;
    uint64_t refused_bytes; /* freed to the backend at once because of the cap */

    /* under `planned`: requests served from their places in plans, and those that did not fit one, both counted at
     * the end of each inference; and plans kept now */
    uint64_t plan_hits, plan_deviations, plans;
} larder_stats_t;

/* Fills `stats`; stats->struct_size must be set. Returns 0 or -EINVAL. */
LARDER_API int larder_stats_get(const larder_t *larder, larder_stats_t *stats);

/* Prints them as lines for a person. Returns 0 or a negative errno. */
LARDER_API int larder_stats_print(const larder_t *larder, FILE *out);

/* Prints them as one line of JSON. Returns 0 or a negative errno. */
LARDER_API int larder_stats_print_json(const larder_t *larder, FILE *out);

/* ------------------------------------------------------------------------------------------------
 * The process
 */

/* The library's version at run time, such as "0.1.0". */
LARDER_API const char *larder_version(void);

/*
 * Number of shards of the allocation map, which all instances share: a power of two from 1 to 1024;
 * default 64, or LARDER_MAP_SHARDS. Fixed at the first use: -EBUSY afterwards, -EINVAL for a bad number.
 */
LARDER_API int larder_set_map_shards(unsigned shards);

#ifdef __cplusplus
}
#endif

#endif /* LARDER_LARDER_H */
