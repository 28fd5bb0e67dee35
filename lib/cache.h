/* SPDX-License-Identifier: MIT */
/*
 * One instance and what a thread keeps for it.
 *
 * The way of a block, under `fit`:
 *   larder.c, free.c  larder_alloc() and larder_free(): the hit paths, a page each
 *   fit.c             everything else: magazine swap, depot, runs, spans
 *   depot.c           full and empty magazines of a class, runs with free blocks
 *   span_heap.c       spans of a region: span_take.c, span_put.c
 *   region.c          ranges from the backend
 * Under `exact` and `passthrough` it is larder.c, free.c, exact.c, block.c, backend.
 *
 * The order of locks is in witness.h. No lock is held while a backend, mmap or madvise is called.
 */
#ifndef LARDER_CACHE_H
#define LARDER_CACHE_H

#include <larder/larder.h>

#include "bin.h"
#include "budget.h"
#include "depot.h"
#include "exact.h"
#include "quarantine.h"
#include "size_class.h"
#include "span_heap.h"

/*
 * What a thread counts for an instance. Written by the owner only (plain load and store), read by
 * anyone; a cache that several threads may write (`shared`) uses atomic additions.
 */
struct counters {
    _Atomic uint64_t allocations;
    _Atomic uint64_t
        frees; /* less those into the thread's own magazines: see cache_sum_counters() */
    _Atomic uint64_t allocated_bytes, freed_bytes; /* as asked for */
    /* Large blocks on their hit path; not in the four above. Their live bytes the heap knows at once. */
    _Atomic uint64_t span_allocations, span_frees, span_allocated_bytes, span_freed_bytes;
    _Atomic uint64_t slow_allocations,
        slow_frees; /* not from and into the thread's own magazines */
    _Atomic uint64_t
        blocks_moved; /* into the thread's magazines, less those out of them, on slow paths */
    _Atomic uint64_t miss_cold, miss_size, failures;
    _Atomic uint64_t foreign_frees;
};
#define COUNTERS (sizeof(struct counters) / sizeof(_Atomic uint64_t))
#define COUNTER(name) (offsetof(struct counters, name) / sizeof(_Atomic uint64_t))

enum { MORE_HEAPS = 15 }; /* for large blocks, at most, beyond the first */

/*
 * A thread's cache for one instance. Owned by the thread; `id` is also written by whoever asks for a
 * flush, and everything by larder_destroy() (nobody else may be inside then).
 */
struct thread_cache {
    /*
     * The instance's id while the hit path may be used. 0 sends the next call to the slow path: for ever
     * under policies and checks that have no hit path, once when a trim asks for a flush.
     */
    _Atomic uint32_t id;
    size_t class_limit;  /* largest request served from magazines */
    size_t span_limit;   /* larger requests, up to it, may go straight to the span heap; 0: none */
    uint32_t puts;       /* of spans */
    _Atomic size_t room; /* bytes that are in no bin's allotment; owner writes */
    struct counters counters;
    _Atomic size_t lease;   /* bytes that the magazines may hold in all; owner writes */
    uint64_t live_told;     /* allocated minus freed bytes when the heap was last told */
    struct span_heap *heap; /* that large blocks are taken from; written under instance->lock */
    bool shared;            /* used by threads that have no cache of their own any more */
    bool hit_path;          /* id is to be restored after a flush */
    _Atomic bool flush_wanted;
    _Atomic(struct larder *)
        instance;  /* NULL once the instance is destroyed; written under registry */
    bool retiring; /* larder_destroy() is at it: the record must stay; guarded by registry */
    struct plan_stream
        *stream; /* under `planned`: of the inference that the thread is in, or NULL */
    struct plan_stream *own_stream;      /* the one that it will be in next time */
    struct thread_cache *next_of_thread; /* owner's list */
    struct thread_cache *next, *prev;    /* instance's list, guarded by instance->lock */
    struct exact_table *exact;           /* under `exact`, else NULL */
    uint64_t allotted_bins;              /* a bit for each bin with places */
    unsigned sweep;                      /* bin last looked at for places to take away */
    struct bin bins[SIZE_CLASS_MAX_COUNT];
#ifdef LARDER_CHECKS_FULL
    struct check_pace pace; /* of cache_check_bin() */
#endif
    void *pool_link; /* used by the pool */
};

_Static_assert(sizeof(struct bin) == 1 << BIN_SHIFT, "a bin's place is a shift of its class");

/* The bin of a class is so many bytes into the thread's cache. */
static inline uint16_t bin_offset(unsigned size_class)
{
    return (uint16_t)(offsetof(struct thread_cache, bins) + ((size_t)size_class << BIN_SHIFT));
}

static inline struct bin *bin_at(struct thread_cache *cache, size_t offset)
{
    return (struct bin *)((char *)cache + offset);
}

/* The bin for the class in a unit word of kind RUN: one shift from the word to bytes. */
static inline struct bin *bin_of_word(struct thread_cache *cache, uint32_t word)
{
    size_t beyond = (word & WORD_CLASS_MASK) >> (WORD_CLASS_SHIFT - BIN_SHIFT);
    return bin_at(cache, beyond + offsetof(struct thread_cache, bins));
}

/* True where blocks are cut from regions. */
static inline bool policy_cuts_regions(larder_policy_t policy)
{
    return policy == LARDER_POLICY_FIT || policy == LARDER_POLICY_PLANNED;
}

struct larder {
    uint32_t id;   /* never used twice */
    uint32_t slot; /* place in a thread's direct table, below DIRECT_CACHES */
    uint16_t bin_offsets[SIZE_CLASS_STEPS]; /* bin_offset() by size in steps, rounded up */
    larder_config_t config;
    larder_backend_t backend;
    bool backend_reserves; /* the mmap backend: regions are reserved and committed, not allocated */
    bool capped;           /* max_cached_bytes is a number */
    bool balanced;         /* it is adaptive, and pages can be given back */
    bool plain;            /* no redzone, fill or strict checks: the hit path may be used */
    _Atomic bool orphaned; /* destroyed, but blocks are live */
    char name[32];

    unsigned class_shift; /* of size_class_of() */
    unsigned class_count;
    size_t class_limit;
    size_t front,
        back; /* bytes kept before and after each block (redzones; padding where it costs) */

    struct depot depots[SIZE_CLASS_MAX_COUNT];
    struct span_heap heap; /* large blocks; for more heaps see heaps.h */
    struct span_heap
        small_heap; /* runs, and the spans of class blocks: what magazines keep must not part large holes */
    struct span_heap *more_heaps[MORE_HEAPS];
    _Atomic uint32_t more_heaps_count; /* written under lock */
    struct budget budget;
    _Atomic uint64_t peak_held_bytes;            /* of all heaps together */
    _Atomic uint64_t live_told, peak_live_bytes; /* see span_heap_tell_live() */
    struct exact_store exact;
    struct quarantine quarantine;
    struct planned *planned;      /* NULL under other policies */
    _Atomic uint64_t depot_bytes; /* in full magazines */
    /* of the heap of runs, see fit_magazines.c: bytes needed at once, and by how much it may be larger */
    _Atomic uint64_t runs_peak, runs_growth;
    size_t common_bytes;        /* the room that threads may have beyond their own; fixed */
    _Atomic size_t common_room; /* of it, what is left */
    _Atomic uint64_t
        cached_total; /* reserved against the cap: leases, depot, runs, heap; only if capped */
    _Atomic uint64_t peak_cached_bytes;
    _Atomic uint32_t last_tick_ms;
    _Atomic uint64_t orphans; /* blocks live since destruction */

    _Alignas(64) spinlock_t lock;
    struct thread_cache *thread_caches; /* guarded by lock, as all below */
    struct thread_cache late;     /* for threads that are past their teardown; counters only */
    struct block_record *records; /* all of the instance's blocks with a record */
    struct counters ended;        /* of threads that have ended */
    uint32_t thread_cache_count;

    _Atomic uint64_t backend_allocations, backend_frees, backend_discards, backend_failures;
    /* blocks with a record of their own */
    _Atomic uint64_t block_records, block_bytes, peak_block_bytes;
    _Atomic uint64_t record_live_bytes,
        peak_record_live_bytes;      /* under `exact` and `passthrough` */
    _Atomic uint64_t magazine_bytes; /* metadata */
    _Atomic uint64_t trims, errors, refused_bytes, given_back_bytes;
    struct larder *next, *prev; /* registry, guarded by its lock, as the next two */
    uint32_t visitors;          /* threads that go through all instances and are at this one */
    bool ending;                /* is being, or has been, destroyed: nobody new comes to visit */
};

/* ---- counting ---- */

/*
 * LARDER_UNCOUNTED leaves it out: for bench/check_bounds, which measures what it costs, and nothing else, since peaks and
 * the budget go by these counters, too.
 */
#if defined(LARDER_UNCOUNTED)
enum { COUNTING = 0 };
#else
enum { COUNTING = 1 };
#endif

/* LARDER_UNCHECKED does the same with the detection of double frees of small blocks. */
#if defined(LARDER_UNCHECKED)
enum { CHECKING = 0 };
#else
enum { CHECKING = 1 };
#endif

static inline void count_add(const struct thread_cache *cache, _Atomic uint64_t *counter,
                             uint64_t n)
{
    if (!COUNTING)
        return;
    if (__builtin_expect(cache->shared, 0)) {
        atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
    } else { /* only the owner writes: relaxed load and store, no locked instruction */
        atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
                              memory_order_relaxed);
    }
}

/* The same where the cache is known to be the thread's own: on the hit paths. */
static inline void count_own(_Atomic uint64_t *counter, uint64_t n)
{
    if (!COUNTING)
        return;
#if defined(__x86_64__) && defined(__LP64__) && !defined(__SANITIZE_THREAD__)
    /* One instruction for three. It is not locked: readers see the value before or after it, as with the load and store below. */
    __asm__("addq %1, %0" : "+m"(*counter) : "er"(n) : "cc");
    return;
#endif
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

static inline void count_alloc(struct thread_cache *cache, size_t size)
{
    count_add(cache, &cache->counters.allocations, 1);
    count_add(cache, &cache->counters.allocated_bytes, size);
}

static inline void count_free(struct thread_cache *cache, size_t size)
{
    count_add(cache, &cache->counters.frees, 1);
    count_add(cache, &cache->counters.freed_bytes, size);
}

/* Sum over all threads, frees complete. While others allocate and free, not quite of one moment. */
void cache_sum_counters(struct larder *instance, uint64_t sums[COUNTERS]);

/* A block with a record becomes live (or dead: minus its size). */
void cache_note_record(struct larder *instance, uint64_t size);
void cache_raise_peak(_Atomic uint64_t *peak, uint64_t now);

/* ---- the cap ---- */

/* Reserves `bytes` of the cap; true at once where there is none. */
bool cache_reserve(struct larder *instance, uint64_t bytes);
void cache_unreserve(struct larder *instance, uint64_t bytes);

/* ---- backend calls, counted; no lock may be held ---- */

void *backend_allocate(struct larder *instance, size_t size, size_t alignment);
void backend_free(struct larder *instance, void *ptr, size_t size);
int backend_discard(struct larder *instance, void *ptr, size_t size);
bool backend_can_discard(const struct larder *instance);

/* ---- instances ---- */

/* The thread that `self` names ends: no heap of any instance stays biased to it. */
void cache_disown_heaps(const heap_lock_user_t *self);
/* NULL with errno set; the configuration has been checked. */
struct larder *cache_create_instance(const char *name, const larder_config_t *config);
/* Returns the number of blocks still live. */
size_t cache_destroy_instance(struct larder *instance);
/* Gives back what is cached, the calling thread's too, until `bytes` are left; asks other threads to flush.
 * Returns the bytes still cached. */
size_t cache_trim(struct larder *instance, size_t bytes);

/* What waits in free spans and store, and every region in which nothing is live; the second: those regions alone. For an instance that ends. */
void cache_give_back_all(struct larder *instance);
void cache_release_regions(struct larder *instance);
/* Gives back `bytes` of what is free, oldest first, or what there is. */
void cache_evict(struct larder *instance, uint64_t bytes);
/* Gives back what every instance caches, after a backend failed. */
void cache_trim_all(void);
/* Gives back what has been idle for decay_ms. Returns the bytes. */
size_t cache_tick(struct larder *instance);
enum { COMMON_ROOM_PROCESSORS = 8 }; /* for so many at most there is common room */

enum { TICK_EVERY = 32 }; /* puts of a thread after which it looks whether a tick is due */
/* The same if a quarter of decay_ms has passed since the last time; for the ends of slow paths. */
void cache_tick_if_due(struct larder *instance, uint32_t now_ms);
/* Does what had to wait for the end of a loop (span_heap_is_due()). */
void cache_attend(struct span_heap *heap);
/* Before a destroyed instance, some blocks of which are live, makes another one. */
void cache_orphan_allocated(struct larder *instance);
/* After a block of a destroyed instance has been freed: returns its memory, and the instance with the last. */
void cache_orphan_freed(struct larder *instance);
/* Bytes cached now: threads, depots or store, free spans. */
uint64_t cache_cached_bytes(struct larder *instance);
uint64_t cache_thread_bytes(struct larder *instance);

void cache_fork_prepare(void);
void cache_fork_parent(void);
void cache_fork_child(void);

/*
 * The registered instance after `previous` (NULL: the first) that is not being destroyed, or NULL. Its destruction waits until the
 * next call, so a caller goes through to the end.
 */
struct larder *cache_next_instance(struct larder *previous);

/* A visit to the owner of one of the thread's caches, unless that is being destroyed: false. */
bool cache_begin_visit(struct larder *instance, const struct thread_cache *cache);
void cache_end_visit(struct larder *instance);

#endif
