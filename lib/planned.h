/* SPDX-License-Identifier: MIT */
/*
 * The `planned` policy: requests of an inference that has been recorded are served from one arena, at offsets computed
 * ahead. The theory is in planned.c.
 */
#ifndef LARDER_PLANNED_H
#define LARDER_PLANNED_H

#include "cache.h"
#include "poison.h"

enum {
    PLANS_MOST = 64,      /* that an instance keeps */
    SURVIVORS_MOST = 256, /* blocks that outlive their inference, before a stream stops replaying */
    PLAN_LOOK_AHEAD = 16, /* steps that may have been left out */
    PLANNED_ABOVE = 1023  /* smaller requests are never planned; see planned_choose() */
};

/* A request that is expected, and its place. */
struct plan_step {
    size_t size;                        /* asked for, with front and back */
    uint32_t start, units;              /* in the arena's region */
    uint32_t first_conflict, conflicts; /* what lay there before, in this inference */
};

/* A place that must not be in use: a live block that begins at `unit` and is longer than `limit`. */
struct plan_conflict {
    uint32_t unit, limit;
};

struct plan_lifetime {
    uint32_t begin, end, alignment;
};

/* Does not change once it can be found. */
struct plan {
    struct plan *next; /* guarded by planned->lock, as the next two */
    uint32_t uses;     /* streams that are replaying it */
    uint64_t last_used;
    uint64_t key;        /* 0: found by its first request */
    uint64_t live_bytes; /* at its peak */
    uint32_t count, start_count, end_unit;
    size_t above;            /* it has no requests of this size or smaller */
    struct plan_step *steps; /* count, and one that nothing matches */
    struct plan_conflict *conflicts;
    struct plan_lifetime *lifetimes; /* by step */
    uint32_t *starts;                /* where blocks begin: ascending, each once */
    size_t map_bytes;
};

struct plan_recording;

enum stream_state { STREAM_IDLE, STREAM_IN_ROUND, STREAM_TRIMMED };

/* What replays: belongs to a thread. Fields without a remark are the thread's own. */
struct plan_stream {
    const struct plan_step *next; /* expected; never NULL */
    const struct plan_conflict *conflicts;
    word_t *words;
    char *base;
    bool careful;  /* what was placed may lie anywhere: look at all of it */
    bool choosing; /* no plan yet: the first request will tell */
    bool switched; /* in this round, to another plan with the same beginning: nothing to learn */
    bool lost;     /* more survivors than are kept */
    struct plan *plan;
    struct plan_recording *recording; /* guarded by planned->lock where others look */
    uint32_t skipped, deviations;     /* in this round */
    uint32_t record_next, burst, recordings;
    uint64_t told_live;
    uint32_t survivor_count;
    uint32_t survivors[SURVIVORS_MOST]; /* units where blocks begin that outlived their round */
    struct larder *instance;
    struct thread_cache *cache; /* of the thread that is in the inference */
    size_t above; /* requests up to this size are `fit`'s; the cache's class_limit, too */
    /* guarded by planned->lock */
    enum stream_state state;
    struct region *region;
    uint32_t touched_end; /* unit: what lies above costs nothing */
    uint32_t idle_since;
    uint64_t reserved; /* of the cap */
    bool owned;
    struct plan_stream *next_stream;
    void *pool_link;
};

struct planned {
    spinlock_t
        lock; /* not held while another lock of larder is taken, nor while the system is called */
    struct plan_stream *streams; /* guarded by lock, as all below */
    struct region
        *retired; /* too small by now, but with live blocks in them; linked through next */
    struct plan *plans;
    uint32_t plan_count;
    uint64_t rounds;
    _Atomic uint32_t recordings; /* under way */
    _Atomic uint64_t hits, deviations;
    void *pool_link;
};

/* 0 or -ENOMEM. */
int planned_init(struct larder *instance);
/* Gives up arenas in which nothing is live; the rest with the instance. */
void planned_release_empty(struct larder *instance);
void planned_end(struct larder *instance);

/* The thread ends, or the instance: its stream waits for another. */
void planned_thread_ends(struct thread_cache *cache);

/* A request on the slow path of a thread that has a stream: its block, or NULL: `fit` is to serve it. */
void *planned_request(struct thread_cache *cache, size_t size, size_t alignment);
/* `fit` has served it, as a large block if its size is one's. */
void planned_note_taken(struct thread_cache *cache, const void *ptr, size_t size, size_t alignment);
/* A large block outside of arenas is about to be freed, has been freed, has changed its size. */
void planned_note_freed(struct larder *instance, const void *base);
void planned_after_put(struct larder *instance);
void planned_note_resized(struct larder *instance, const void *ptr, size_t size);

/*
 * Takes a live block of an arena out of everybody's hands before it is freed, but leaves its place taken; *value is its word. False if it
 * is not live any more, also against other threads if `strict`.
 */
bool planned_claim(word_t *word, uint32_t *value, bool strict);

/* The lowest bit of a place's generation says so. */
static inline bool planned_is_claimed(uint32_t value)
{
    return (value & WORD_GENERATION_ONE) != 0;
}

/* Frees a block of an arena; false if it is not live any more. */
bool planned_put(struct thread_cache *cache, struct region *region, uint32_t start, uint32_t word,
                 bool strict);

/* Gives back the pages of arenas that have been idle for so long; returns the bytes. No lock may be held. */
size_t planned_give_back(struct larder *instance, uint32_t now_ms, uint32_t idle_ms);

struct planned_figures {
    uint64_t used_bytes, free_bytes, reserved_bytes, regions, metadata_bytes, plans;
};
void planned_add_figures(struct larder *instance, struct planned_figures *figures);

int planned_walk(struct larder *instance, larder_walk_fn *fn, void *context);

void planned_fork_lock(struct larder *instance);
void planned_fork_unlock(struct larder *instance);
void planned_fork_child(struct larder *instance, const struct plan_stream *own);

/* ---- between the files of the policy ---- */

/* A request as recorded: its size with front and back, and when it came and went, in operations. */
struct plan_request {
    uintptr_t address;
    size_t size;
    uint32_t begin, end, alignment;
};

/* Starts recording, with nothing so far; false where there is no memory. */
bool planned_record_begin(struct plan_stream *stream, uint64_t key);
/* Ends it. `keep`: and makes a plan of it, which others can find from now on. */
void planned_record_end(struct plan_stream *stream, bool keep);

/*
 * Leaves of `count` requests (and of their offsets, unless NULL) those that are worth planning, which begin with a large one, and
 * says in *above which sizes are left to `fit`. Returns how many there are.
 */
uint32_t planned_choose(const struct larder *instance, struct plan_request *requests,
                        uint64_t *offsets, uint32_t count, size_t *above);

/*
 * A plan for the requests, in their order; NULL where there is no memory. `offsets` (bytes; NULL: none) are taken where they
 * are sound. No lock may be held.
 */
struct plan *planned_make(uint64_t key, size_t above, const struct plan_request *requests,
                          const uint64_t *offsets, uint32_t count);
enum { PLAN_REQUESTS_MOST = 16384 };
/* Lets it be found, unless the same is there already. */
void planned_publish(struct planned *planned, struct plan *plan);
void planned_unmap(struct plan *plan);

/* Makes the stream's arena ready for a plan that ends at `end_unit`; false where there is no memory. */
bool planned_arena_ready(struct plan_stream *stream, uint32_t end_unit);
/* A stream for a thread: one that waits, or a new one. NULL where there is no memory. */
struct plan_stream *planned_stream_get(struct planned *planned, struct larder *instance);

/* Of which requests the policy takes care: those above a size, at alignments that an arena has anyway. */
bool planned_takes(const struct larder *instance, size_t above, size_t total, size_t alignment);
/* From now on requests above this size go by planned_request(), not by the thread's magazines. */
void planned_set_above(struct plan_stream *stream, size_t above);

/* The largest request that `fit` serves from classes: while recording, all that may be planned are spans, whose ends are noted. */
static inline size_t planned_class_limit(const struct plan_stream *stream)
{
    return stream->recording != NULL ? PLANNED_ABOVE : stream->instance->class_limit;
}

/* ---- the hit paths ---- */

static inline bool planned_is_free(const struct plan_stream *stream, const struct plan_step *step)
{
    const struct plan_conflict *conflict = &stream->conflicts[step->first_conflict];
    for (uint32_t n = step->conflicts; n != 0; n--, conflict++) {
        /* acquire: pairs with the release in planned_put_plain(): the last owner is done with the place */
        uint32_t word = atomic_load_explicit(&stream->words[conflict->unit], memory_order_acquire);
        if (word_kind(word) == WORD_LARGE_LIVE && (word & WORD_INDEX_MASK) > conflict->limit)
            return false;
    }
    return true;
}

/* Makes the step's place a live block of `size` bytes, `total` with front and back, and goes on to the step after it. */
static inline char *planned_place(struct plan_stream *stream, const struct plan_step *step,
                                  size_t total, size_t size)
{
    word_t *word = &stream->words[step->start];
    uint32_t units = (uint32_t)((total + UNIT - 1) >> UNIT_SHIFT);
    /* the next one; its lowest bit is for planned_claim() */
    uint32_t generation =
        (word_load(word) + 2 * WORD_GENERATION_ONE) & WORD_GENERATION_MASK & ~WORD_GENERATION_ONE;
    word_store(word + 1, (uint32_t)(((size_t)units << UNIT_SHIFT) - size));
    word_store(word, WORD(WORD_LARGE_LIVE) | generation | units);
    stream->next = step + 1;
    char *block = stream->base + ((size_t)step->start << UNIT_SHIFT);
    poison_live(block, (size_t)units << UNIT_SHIFT);
    return block;
}

/* The expected request in the expected place, on an instance without fronts; NULL: go the slow way. */
static inline void *planned_alloc(struct thread_cache *cache, size_t size)
{
    struct plan_stream *stream = cache->stream;
    const struct plan_step *step = stream->next;
    if (__builtin_expect(step->size != size || stream->careful, 0))
        return NULL;
    if (__builtin_expect(!planned_is_free(stream, step), 0))
        return NULL;
    count_own(&cache->counters.span_allocations, 1);
    count_own(&cache->counters.span_allocated_bytes, size);
    return planned_place(stream, step, size, size);
}

/* Frees a block of an arena that was found live and has been poisoned, not under strict checks. */
static inline void planned_put_plain(word_t *word, uint32_t value)
{
    /* release: pairs with the acquire in planned_is_free(). No length: what lies there next may begin inside. */
    atomic_store_explicit(word, WORD(WORD_LARGE_CACHED) | (value & WORD_GENERATION_MASK),
                          memory_order_release);
}

#endif
