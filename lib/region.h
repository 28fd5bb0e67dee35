/* SPDX-License-Identifier: MIT */
/*
 * Regions and their unit words.
 *
 * A region is a contiguous range taken from the backend (or reserved from the system and committed on
 * demand), at a multiple of MAP_GRANULE. It is divided into units of UNIT bytes, and for each unit there is one
 * 32-bit word in a table of its own, outside the blocks: 0.8 % of the memory. The words are the truth about what lies
 * where; a free() needs one load of a word to learn state and class of a block.
 *
 *   kind          where                          rest of the word
 *   NONE          inside a span                  0, or in the second unit of a large block: its slack
 *   FREE          first unit of a free span      node index
 *   FREE_TAIL     last unit of a free span       node index (a span of one unit has only FREE)
 *   RUN           units of a run                 class:6 index of a block_state:23
 *   LARGE_LIVE,   first unit of a large block,   generation:5 length:24
 *   LARGE_CACHED  or of a span that is nobody's  length:24
 *                 for the moment (being purged)
 *
 * "Slack" is what a block has beyond the size asked for.
 *
 * Class blocks lie in runs. A run has a record outside of its blocks, and in it a block_state for each: the lower half of the
 * block's address, and a word with live:1 generation:8 size:16. The unit words of a run give the state of the first
 * block that starts in the unit, or else of the one that covers it. So a free() goes from the address to a word and from there
 * to the state, and a comparison says whether a block starts exactly there. (States are not in the unit words themselves: those of
 * neighbouring blocks, which two threads may have, would share a cache line.) Blocks smaller than a unit are found
 * from the first one of their unit. The generation counts reuse, so that with checks=strict a compare-and-swap tells a block from
 * its successor at the same address.
 *
 * Words are atomics: a block's owner changes its state without a lock (plain load and store); unit words change under the span
 * heap's lock.
 *
 * Region records are type-stable. A record that is retired gets an impossible base before its size
 * is set to 0, so a stale hint to it matches no address, whatever it is reused for.
 */
#ifndef LARDER_REGION_H
#define LARDER_REGION_H

#include "allocation_map.h"
#include "os/os.h"

enum {
    UNIT_SHIFT = 9,
    UNIT = 1 << UNIT_SHIFT,
    CHUNK_SHIFT = 16, /* idle time is known for chunks of 64 KiB */
    LARGEST_REGION_SHIFT = sizeof(void *) == 8 ? 32 : 28, /* bounded by the words' length field */
    RUN_MIN_UNITS = 8, /* a page: a new run always has fresh pages, or used ones, never a part */
    RUN_RECORD =
        128, /* bytes of a run's record, states included, where blocks are of a unit or more */
    RUN_RECORD_TINY = 512, /* the same for smaller blocks */
    RUN_MAX_BLOCKS = 8,    /* (RUN_RECORD - 64) / 8 */
    RUN_MAX_TINY_BLOCKS = 56
};

enum word_kind {
    WORD_NONE,
    WORD_FREE,
    WORD_FREE_TAIL,
    WORD_LIVE, /* this and the next: only of blocks with a record (block.h) */
    WORD_CACHED,
    WORD_LARGE_LIVE,
    WORD_LARGE_CACHED,
    WORD_RUN /* the highest: one comparison tells it from all others */
};

typedef _Atomic uint32_t word_t;

#define WORD_KIND_SHIFT 29
#define WORD(kind) ((uint32_t)(kind) << WORD_KIND_SHIFT)
#define WORD_INDEX_MASK 0x00ffffffu
#define WORD_GENERATION_SHIFT 24
#define WORD_GENERATION_ONE 0x01000000u
#define WORD_GENERATION_MASK 0x1f000000u
#define WORD_CLASS_SHIFT 23
#define WORD_CLASS_MASK 0x1f800000u
#define WORD_STATE_MASK 0x007fffffu

#define STATE_LIVE 0x80000000u
#define STATE_GENERATION_ONE 0x00010000u
#define STATE_GENERATION_MASK 0x00ff0000u
#define STATE_SIZE_MASK 0x0000ffffu

static inline enum word_kind word_kind(uint32_t word)
{
    return (enum word_kind)(word >> WORD_KIND_SHIFT);
}

static inline uint32_t word_load(const word_t *word)
{
    /* relaxed: a block's state is handed from thread to thread together with the block */
    return atomic_load_explicit((word_t *)(uintptr_t)word, memory_order_relaxed);
}

static inline void word_store(word_t *word, uint32_t value)
{
    atomic_store_explicit(word, value, memory_order_relaxed);
}

/* A free span. Guarded by the span heap's lock. */
struct span {
    struct span *next,
        *prev; /* in a bin, by length, then address; `next` also links unused nodes */
    struct region *region;
    uint32_t start, length; /* units */
    uint32_t clean; /* pages inside that have not been touched since they came or were discarded */
    uint32_t index; /* of this node in its region's table; fixed */
    uint16_t bin;
    bool in_dirty_bins;
};

/* What is known of the pages of a chunk. Guarded by the span heap's lock. */
struct chunk_note {
    uint32_t idle_since; /* a time: when something in the chunk was last freed */
    uint32_t dirty;      /* a bit a page, but not of this chunk: see pages_dirty_word() */
};

/* A block of a run. Eight share a cache line. */
struct block_state {
    uint32_t address; /* lower half; fixed while the run exists */
    word_t word;      /* of the block's owner */
};

static inline bool state_is_live(uint32_t word)
{
    return (word & STATE_LIVE) != 0;
}

/* Of a unit word of kind RUN. The kind's bits go by subtraction, which costs nothing in an index. */
static inline size_t word_class(uint32_t word)
{
    return (size_t)(word >> WORD_CLASS_SHIFT) - (WORD(WORD_RUN) >> WORD_CLASS_SHIFT);
}

/* A span cut into equal blocks of one class. Fields guarded by the lock of the class's depot, but the states. */
struct run {
    struct run *next,
        *prev; /* among the class's runs with free blocks; `next` also links unused records */
    struct region *region;
    uint32_t start;      /* unit; fixed while the run exists, as the next four */
    uint32_t length;     /* units */
    uint32_t block_size; /* bytes */
    uint16_t size_class;
    uint16_t blocks;
    uint16_t free_blocks;
    bool listed;
    uint64_t free_bits; /* blocks that are neither out nor in a magazine */
    const void *taker;  /* whose it is, see depot.c */
    _Alignas(64) struct block_state states[];
};

static inline size_t run_record_size(size_t block_size)
{
    return block_size < UNIT ? RUN_RECORD_TINY : RUN_RECORD;
}

/* The run that a state belongs to: records lie at multiples of their size. */
static inline struct run *run_of_state(const struct block_state *state, size_t record_size)
{
    return (struct run *)((uintptr_t)state & ~(uintptr_t)(record_size - 1));
}

struct larder;
struct span_heap;

struct region {
    /* read by every free */
    _Alignas(64) _Atomic uintptr_t base; /* ~0 when retired */
    _Atomic size_t size;                 /* bytes; 0 when retired */
    word_t *words;                       /* one a unit */
    struct block_state
        *runs; /* the table of run records, as states; NULL where there can be none */
    uint32_t instance_id;
    uint32_t instance_slot;
    struct larder *instance;
    struct span_heap *heap; /* that it belongs to */
    void *arena;            /* the stream of which it is the arena (planned.h); NULL: of the heap */

    /* fixed */
    size_t run_bytes; /* of that table */
    uint32_t units;
    bool reserved; /* address space from os_reserve(), committed on demand */
    void *tables;  /* the mapping that holds all tables of the region */
    size_t table_size;

    /* guarded by the span heap's lock */
    struct region *next, *prev;
    struct span *spans;  /* table of nodes, used from its end on */
    struct span *unused; /* list of them */
    uint32_t spans_most; /* nodes in the table; fixed */
    uint32_t spans_used; /* nodes ever used */
    uint32_t top; /* units from here on have never been handed out, and are in no free span */
    struct chunk_note *notes; /* of the first chunk; those of the following lie before it */

    /* guarded by runs_lock */
    spinlock_t runs_lock;
    struct run *unused_runs[2];      /* of RUN_RECORD, of RUN_RECORD_TINY */
    _Atomic uint32_t run_bytes_used; /* of the table; read without the lock for statistics */

    _Atomic size_t
        committed; /* bytes that blocks may use from base on; a page more is readable; grows only */
};

/* True if the address lies in the region, whatever the record has been reused for. */
static inline bool region_contains(struct region *region, uintptr_t address, size_t *offset)
{
    /* acquire: pairs with the release of size in region_create(), so that the other fields are current */
    size_t size = atomic_load_explicit(&region->size, memory_order_acquire);
    *offset = address - atomic_load_explicit(&region->base, memory_order_relaxed);
    return *offset < size;
}

/* The run of which this is the first block's state. */
static inline struct run *run_of_first(const struct block_state *state)
{
    return (struct run *)((uintptr_t)state - offsetof(struct run, states));
}

/* The state that a unit word of kind RUN names. */
static inline struct block_state *region_state(const struct region *region, uint32_t word)
{
    return &region->runs[word & WORD_STATE_MASK];
}

static inline char *region_address(const struct region *region, uint32_t unit)
{
    uintptr_t base =
        atomic_load_explicit(&((struct region *)(uintptr_t)region)->base, memory_order_relaxed);
    return (char *)base + ((size_t)unit << UNIT_SHIFT);
}

/*
 * A new region with room for a span of `units`, entered in the map, all of it free and clean but not yet
 * known to any span heap. No lock may be held. NULL where neither backend nor system has memory.
 */
struct region *region_create(struct span_heap *heap, uint32_t units);

/* Returns a region's memory; all of it must be free, and no span heap may know it. No lock may be held. */
void region_release(struct region *region);

/* True if everything below end_unit, and a page more, has been committed. What is dirty need not be: another thread may be
 * about to commit it. */
static inline bool region_is_committed(struct region *region, uint32_t end_unit)
{
    /* acquire: pairs with the release in region_commit() */
    return (size_t)end_unit << UNIT_SHIFT <=
           atomic_load_explicit(&region->committed, memory_order_acquire);
}

/* Makes [0, end_unit) usable. 0 or -errno. No lock may be held. */
int region_commit(struct region *region, uint32_t end_unit);

/* First and last unit (exclusive) that may hold blocks: the edges stay free so that reading a
 * few bytes before the first and after the last block is no fault. */
uint32_t region_first_unit(void);
uint32_t region_end_unit(const struct region *region);

/* A run record of this region for blocks of that size, or NULL. */
struct run *region_run_get(struct region *region, size_t block_size);
void region_run_put(struct region *region, struct run *run);

/* Bytes of its tables that have been touched. */
size_t region_metadata_bytes(const struct region *region);

/* The largest span that a region can hold, units. */
uint32_t region_max_units(void);

void region_fork_lock(void);
void region_fork_unlock(void);
void region_fork_child(void);

#endif
