/* SPDX-License-Identifier: MIT */
/*
 * What belongs to one thread: its caches (one an instance it has used), its current instance, and the hints of
 * the hit path. Lies in thread-local storage, initial-exec, so that reaching it is one instruction.
 *
 * The first use of an instance by a thread makes a cache and arms the teardown (a pthread key). Teardown
 * gives everything to the depots; calls that come later in the thread's life use the instance's `late` cache,
 * which holds nothing.
 */
#ifndef LARDER_THREAD_STATE_H
#define LARDER_THREAD_STATE_H

#include "cache.h"

enum { DIRECT_CACHES = 8, SCOPE_CHECKED = 16 };

enum thread_phase { THREAD_NEW, THREAD_ACTIVE, THREAD_ENDED };

/* Meetings with other threads in a heap, see heaps.c. */
struct thread_crowd {
    struct span_heap *heap;
    uint32_t meetings, since_ms;
    uint32_t enough; /* meetings, for a move; 0: CROWD_MEETINGS */
};

enum { CROWD_MEETINGS = 128, CROWD_MS = 16, CROWD_MOST_MEETINGS = 1 << 13 };

struct thread_state {
    struct heap_lock_user lock_user; /* the thread, to heap_lock.h */
    /* By instance slot modulo DIRECT_CACHES; never NULL, an entry for another instance is told by its id. */
    struct thread_cache *direct[DIRECT_CACHES];
    struct thread_crowd crowd;
    struct region *hint;       /* the region of large blocks last freed into; never NULL */
    struct region *small_hint; /* and that of small ones */
    struct larder *current;
    uint32_t scope_depth;
    struct larder *scopes[SCOPE_CHECKED]; /* what each open scope, up to so many, will restore */
    struct thread_cache *caches;          /* all of the thread's, linked through next_of_thread */
    enum thread_phase phase;
};

#define LARDER_TLS __thread __attribute__((tls_model("initial-exec")))

extern LARDER_TLS struct thread_state thread_state;

/* Names the thread to a heap_lock; NULL before the first use of an instance and after teardown. */
static inline heap_lock_user_t *thread_self(void)
{
    return thread_state.phase == THREAD_ACTIVE ? &thread_state.lock_user : NULL;
}

/* The thread has met another one in this heap, of which the lock is held. `weight` is as heap_lock_enter_slow() said. */
void thread_note_meeting(struct span_heap *heap, unsigned weight);

/* It has moved because of that, or tried to. */
void thread_crowd_left(void);

/* True if it has met others in this heap so often that it should move. */
static inline bool thread_is_crowded(const struct span_heap *heap)
{
    const struct thread_crowd *crowd = &thread_state.crowd;
    return __builtin_expect(crowd->heap == heap && crowd->meetings >= crowd->enough, 0);
}

/* The calling thread's cache for an instance, made if need be; `late` where there can be none. Handles a wanted flush.
 * No lock may be held. */
struct thread_cache *thread_cache_get(struct larder *instance);

/* The same, from the direct table if it is there. */
static inline struct thread_cache *thread_cache_of(struct larder *instance)
{
    struct thread_cache *cache = thread_state.direct[instance->slot];
    if (__builtin_expect(atomic_load_explicit(&cache->id, memory_order_relaxed) == instance->id,
                         1)) {
        return cache;
    }
    return thread_cache_get(instance);
}

/* What is in the thread's magazines or table, as any thread may see it. */
uint64_t thread_cache_bytes(const struct thread_cache *cache);
uint64_t thread_cache_blocks(const struct thread_cache *cache); /* magazines only */

/* Takes `bytes` of the thread's room for cached blocks, or of the common room; false if it must make room first. */
bool thread_cache_take(struct thread_cache *cache, size_t bytes);

/* Gives room back. */
static inline void thread_cache_give(struct thread_cache *cache, size_t bytes)
{
    atomic_store_explicit(&cache->room,
                          atomic_load_explicit(&cache->room, memory_order_relaxed) + bytes,
                          memory_order_relaxed);
}

static inline size_t thread_cache_room(const struct thread_cache *cache)
{
    return atomic_load_explicit(&((struct thread_cache *)(uintptr_t)cache)->room,
                                memory_order_relaxed);
}

/* Everything in the cache goes to the depot, runs, heap or shared store; its lease ends. Owner, or destroy. */
void thread_cache_flush(struct larder *instance, struct thread_cache *cache);

/* Flushes the calling thread's caches: of one instance, or of all (NULL). */
void thread_state_flush(struct larder *instance);

/* Unlinks and recycles every thread's cache of an instance that is being destroyed. */
void thread_caches_drop(struct larder *instance);

/* Asks all threads to flush at their next call. */
void thread_caches_want_flush(struct larder *instance);

/* In the child of a fork: other threads' caches of this instance are abandoned. */
void thread_caches_fork_child(struct larder *instance);

void thread_state_fork_lock(void);
void thread_state_fork_unlock(void);
void thread_state_fork_child(void);

/* An unusable cache for direct[]; its id matches no instance. */
extern struct thread_cache no_thread_cache;
/* A region that contains nothing. */
extern struct region no_region;

#endif
