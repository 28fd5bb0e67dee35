/* SPDX-License-Identifier: MIT */
/*
 * larder behind the malloc family: requests of at least LARDER_MIN_SIZE bytes from an instance of
 * this library's own, all others from the next family.
 *
 * Whose a pointer is. Frees of the program's small objects are by far the most calls, and they pay
 * for the table in granules.h: a shift, a load, a test. Only where the instance has blocks with a
 * record (policies other than `fit`, or blocks of several GiB) does it take a look into the map.
 *
 * Beginning. `threshold` is 0 at first, so the first request of all, whatever its size, comes to
 * the slow path, which reads the settings. The first one from the threshold on makes the instance:
 * most processes that a shell or a compiler driver starts never need one. Before the C library has
 * set up the environment (the loader allocates), and for what making the instance itself allocates,
 * the next family serves. So does it for good where no instance can be made.
 *
 * Threads. A thread's first use of larder sets a thread-specific value, for which the C library may
 * allocate: such a call finds THREAD_ENTERING and is served by the next family. Calls after the
 * thread's teardown are larder's own business (thread_state.h).
 *
 * Fork and exec are larder's (its atfork handlers) and the loader's. An address never changes
 * hands without the granule table: a block is freed to whom it came from, whatever the settings.
 */
#include "family.h"
#include "run_instance.h"

#include <errno.h>
#include <string.h>

#include "granules.h"
#include "thread_state.h"

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

enum state { UNMADE, MAKING, MADE };
enum entry { ENTRY_NONE, ENTRY_ENTERING, ENTRY_DONE };

static _Atomic size_t threshold; /* smallest request for larder; 0: not known yet */
static _Atomic int state = UNMADE;
static larder_t *instance; /* set before state is MADE */

static LARDER_TLS unsigned char thread_entry;

static size_t smallest(void)
{
    /* relaxed: what else depends on it is behind `state` */
    return atomic_load_explicit(&threshold, memory_order_relaxed);
}

/* Several threads may read the settings at once: they read the same. */
static bool know_threshold(void)
{
    if (smallest() != 0)
        return true;
    if (!run_environment_is_there())
        return false;
    atomic_store_explicit(&threshold, run_min_size(), memory_order_relaxed);
    return true;
}

/* True once there is an instance. Whoever comes while another thread makes it does not wait. */
static bool is_made(const struct next_family *next)
{
    int now = UNMADE;
    if (atomic_compare_exchange_strong_explicit(&state, &now, MAKING, memory_order_acquire,
                                                memory_order_acquire)) {
        instance = run_instance_create(next);
        if (instance == NULL)
            atomic_store_explicit(&threshold, SIZE_MAX, memory_order_relaxed);
        /* release: pairs with the acquire above */
        atomic_store_explicit(&state, MADE, memory_order_release);
        now = MADE;
    }
    return now == MADE && instance != NULL;
}

/* Rare: the first calls of the process, and the first of a thread. */
static __attribute__((noinline)) bool may_serve_slow(const struct next_family *next, size_t size)
{
    if (!know_threshold() || size < smallest() || thread_entry == ENTRY_ENTERING || !is_made(next))
        return false;
    thread_entry = ENTRY_ENTERING;
    (void)thread_cache_get(instance);
    thread_entry = ENTRY_DONE;
    return true;
}

/* Whether larder serves a request of this size now. */
static inline bool may_serve(const struct next_family *next, size_t size)
{
    return size >= smallest() && (likely(thread_entry == ENTRY_DONE) || may_serve_slow(next, size));
}

static inline bool is_ours(const void *block)
{
    if (unlikely(!granules_are_on()))
        return false;
    enum granule_kind kind = granule_kind_of(block);
    if (likely(kind == GRANULE_FOREIGN))
        return false;
    return kind == GRANULE_REGION || allocation_map_block(os_untagged(block)) != NULL;
}

static inline void *or_no_memory(void *block)
{
    if (unlikely(block == NULL))
        errno = ENOMEM;
    return block;
}

void *behind_malloc(const struct next_family *next, size_t size)
{
    if (!may_serve(next, size))
        return next->malloc(size);
    return or_no_memory(larder_alloc(instance, size));
}

void *behind_calloc(const struct next_family *next, size_t members, size_t size, size_t total)
{
    if (!may_serve(next, total))
        return next->calloc(members, size);
    return or_no_memory(larder_calloc(instance, members, size));
}

void *behind_aligned(const struct next_family *next, enum family_aligned call, size_t alignment,
                     size_t size)
{
    bool valid = alignment != 0 && (alignment & (alignment - 1)) == 0;
    if (!valid || !may_serve(next, size))
        return family_next_aligned(next, call, alignment, size);
    return or_no_memory(larder_alloc_aligned(instance, alignment, size));
}

/* Own function: a thread that has only ever freed must enter first. */
static __attribute__((noinline)) void enter_to_free(const struct next_family *next)
{
    (void)may_serve_slow(next, SIZE_MAX);
}

static void free_ours(const struct next_family *next, void *block)
{
    if (unlikely(thread_entry != ENTRY_DONE))
        enter_to_free(next);
    larder_free(instance, block);
}

void behind_free(const struct next_family *next, void *block)
{
    if (!is_ours(block)) {
        next->free(block);
    } else {
        free_ours(next, block);
    }
}

/* A block of the next family has grown into larder's sizes. */
static void *realloc_foreign(const struct next_family *next, void *block, size_t size)
{
    if (next->usable_size == NULL || !may_serve(next, size))
        return next->realloc(block, size);
    void *moved = or_no_memory(larder_alloc(instance, size));
    if (moved == NULL)
        return NULL;
    size_t old_size = next->usable_size(block);
    memcpy(moved, block, old_size < size ? old_size : size);
    next->free(block);
    return moved;
}

/* A block of larder's has shrunk below them. */
static void *realloc_to_next(const struct next_family *next, void *block, size_t size)
{
#ifdef __GLIBC__
    if (size == 0) { /* frees, and gives no block: programs written for it rely on that */
        free_ours(next, block);
        return NULL;
    }
#endif
    void *moved = next->malloc(size);
    if (moved == NULL)
        return NULL;
    size_t old_size = larder_usable_size(block);
    memcpy(moved, block, old_size < size ? old_size : size);
    free_ours(next, block);
    return moved;
}

void *behind_realloc(const struct next_family *next, void *block, size_t size)
{
    if (!is_ours(block)) {
        return likely(size < smallest()) ? next->realloc(block, size)
                                         : realloc_foreign(next, block, size);
    }
    if (!may_serve(next, size))
        return realloc_to_next(next, block, size);
    return or_no_memory(larder_realloc(instance, block, size));
}

size_t behind_usable_size(const struct next_family *next, void *block)
{
    if (is_ours(block))
        return larder_usable_size(block);
    return next->usable_size != NULL ? next->usable_size(block) : 0;
}
