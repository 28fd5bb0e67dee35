/* SPDX-License-Identifier: MIT */
/*
 * Theory
 *
 * For one thread the order is that of one stack a size: the thread's stack lies on top of the shared one.
 * Blocks move between the two only as whole stacks and in order (a flush puts the oldest down first), so a repeated
 * single-threaded sequence of calls gets the same addresses again, whatever the byte bound moves.
 *
 * The shared store links the tops of its stacks, one a size, in hashed buckets; a stack is linked through the
 * records themselves, so nothing has to be allocated to free a block.
 *
 * Bytes in a thread's table come out of its lease (cache.h), bytes in the store are reserved against the cap
 * before a block enters. What cannot be reserved after an eviction of idle blocks goes to the backend.
 */
#include "exact.h"

#include <errno.h>

#include "cache.h"
#include "exact_check.h"
#include "meta.h"
#include "thread_state.h"

static struct meta_pool table_pool = META_POOL(struct exact_table);

int exact_init(struct exact_store *store)
{
    store->buckets = meta_alloc(EXACT_BUCKETS * sizeof(struct exact_bucket));
    if (store->buckets == NULL)
        return -ENOMEM;
    for (int i = 0; i < EXACT_BUCKETS; i++)
        spinlock_set_rank(&store->buckets[i].lock, RANK_BUCKET);
    return 0;
}

struct exact_table *exact_table_get(void)
{
    struct exact_table *table = meta_pool_get(&table_pool);
    if (table != NULL)
        *table = (struct exact_table){0};
    return table;
}

void exact_table_put(struct exact_table *table)
{
    meta_pool_put(&table_pool, table);
}

/* The link in the bucket that points to the top of this size's stack, or to NULL. Lock held. */
static struct block_record **find_size(struct exact_bucket *bucket, size_t size)
{
    struct block_record **at = &bucket->sizes;
    while (*at != NULL && (*at)->size != size)
        at = &(*at)->next_size;
    return at;
}

static void push(struct exact_bucket *bucket, struct block_record *record)
{
    struct block_record **at = find_size(bucket, record->size);
    record->below = *at;
    record->next_size = *at != NULL ? (*at)->next_size : NULL;
    *at = record;
}

/* Unlinks the top of a stack. */
static struct block_record *pop(struct block_record **at)
{
    struct block_record *top = *at;
    struct block_record *below = top->below;
    if (below != NULL) {
        below->next_size = top->next_size;
        *at = below;
    } else {
        *at = top->next_size;
    }
    return top;
}

static void store_added(struct exact_store *store, size_t bytes)
{
    atomic_fetch_add_explicit(&store->bytes, bytes, memory_order_relaxed);
    atomic_fetch_add_explicit(&store->blocks, 1, memory_order_relaxed);
}

static void store_removed(struct exact_store *store, size_t bytes)
{
    atomic_fetch_sub_explicit(&store->bytes, bytes, memory_order_relaxed);
    atomic_fetch_sub_explicit(&store->blocks, 1, memory_order_relaxed);
}

/* Into the store, or to the backend where the cap leaves no room. */
static void store_put(struct larder *instance, struct block_record *record)
{
    struct exact_store *store = &instance->exact;
    size_t bytes = record->raw_size;
    uint32_t now = os_now_ms();
    if (!cache_reserve(instance, bytes)) {
        cache_evict(instance, bytes);
        if (!cache_reserve(instance, bytes)) {
            atomic_fetch_add_explicit(&instance->refused_bytes, bytes, memory_order_relaxed);
            block_destroy(record);
            return;
        }
    }
    record->idle_since = now;
    struct exact_bucket *bucket = exact_bucket_of(store, record->size);
    store_added(store, bytes);
    if (!instance->capped) { /* else it is the cap's accounts that are peaked */
        cache_raise_peak(&instance->peak_cached_bytes,
                         atomic_load_explicit(&store->bytes, memory_order_relaxed));
    }
    spinlock_lock(&bucket->lock);
    push(bucket, record);
    exact_check_bucket(instance, bucket);
    spinlock_unlock(&bucket->lock);
}

static bool is_aligned(const struct block_record *record, size_t alignment)
{
    return (atomic_load_explicit(&record->address, memory_order_relaxed) & (alignment - 1)) == 0;
}

/* The uppermost block below the top that is aligned, unlinked; NULL if there is none. */
static struct block_record *pop_aligned(struct block_record *top, size_t alignment)
{
    struct block_record **at = &top->below;
    while (*at != NULL && !is_aligned(*at, alignment))
        at = &(*at)->below;
    struct block_record *record = *at;
    if (record != NULL)
        *at = record->below;
    return record;
}

static struct block_record *store_take(struct larder *instance, size_t size, size_t alignment)
{
    struct exact_bucket *bucket = exact_bucket_of(&instance->exact, size);
    struct block_record *record = NULL;
    spinlock_lock(&bucket->lock);
    struct block_record **at = find_size(bucket, size);
    if (*at != NULL)
        record = is_aligned(*at, alignment) ? pop(at) : pop_aligned(*at, alignment);
    exact_check_bucket(instance, bucket);
    spinlock_unlock(&bucket->lock);
    if (record != NULL) {
        store_removed(&instance->exact, record->raw_size);
        cache_unreserve(instance, record->raw_size);
    }
    return record;
}

/* Moves one of the thread's stacks to the store, the oldest block first. */
static void stack_flush(struct larder *instance, struct thread_cache *cache,
                        struct exact_stack *stack)
{
    struct block_record *oldest_first = NULL;
    while (stack->top != NULL) {
        struct block_record *record = stack->top;
        stack->top = record->below;
        record->below = oldest_first;
        oldest_first = record;
    }
    while (oldest_first != NULL) {
        struct block_record *record = oldest_first;
        oldest_first = record->below;
        thread_cache_give(cache, record->raw_size);
        count_add(cache, &cache->counters.blocks_moved, UINT64_MAX);
        store_put(instance, record);
    }
}

void exact_flush(struct larder *instance, struct thread_cache *cache)
{
    if (cache->exact == NULL)
        return;
    for (int i = 0; i < EXACT_THREAD_SIZES; i++) {
        stack_flush(instance, cache, &cache->exact->stacks[i]);
    }
}

struct block_record *exact_alloc(struct larder *instance, struct thread_cache *cache, size_t size,
                                 size_t alignment, enum exact_hit *hit)
{
    if (cache->exact != NULL) {
        struct exact_stack *stack = exact_stack_of(cache->exact, size);
        struct block_record *top = stack->size == size ? stack->top : NULL;
        if (top != NULL) {
            if (is_aligned(top, alignment)) {
                stack->top = top->below;
            } else {
                top = pop_aligned(top, alignment);
            }
        }
        if (top != NULL) {
            thread_cache_give(cache, top->raw_size);
            block_mark_live(top);
            exact_check_table(instance, cache);
            *hit = EXACT_THREAD_HIT;
            return top;
        }
    }
    struct block_record *record = store_take(instance, size, alignment);
    if (record != NULL) {
        block_mark_live(record);
        *hit = EXACT_SHARED_HIT;
        return record;
    }
    *hit = EXACT_MISS;
    return block_create(instance, size, alignment);
}

/* Flushes one stack after another until the thread may keep `bytes` more. */
static bool make_room(struct larder *instance, struct thread_cache *cache, size_t bytes)
{
    for (int i = 0; i < EXACT_THREAD_SIZES; i++) {
        if (thread_cache_take(cache, bytes))
            return true;
        cache->sweep = (cache->sweep + 1) % EXACT_THREAD_SIZES;
        stack_flush(instance, cache, &cache->exact->stacks[cache->sweep]);
    }
    return thread_cache_take(cache, bytes);
}

void exact_free(struct larder *instance, struct thread_cache *cache, struct block_record *record)
{
    size_t bytes = record->raw_size;
    struct exact_stack *stack =
        cache->exact != NULL ? exact_stack_of(cache->exact, record->size) : NULL;
    if (stack == NULL || bytes > instance->config.thread_cached_bytes / 4) {
        store_put(instance, record);
        return;
    }
    if (stack->size != record->size) {
        stack_flush(instance, cache, stack);
        stack->size = record->size;
    }
    if (!thread_cache_take(cache, bytes)) {
        /* Full: this size's older blocks go down first, so that the order stays; then others make room. */
        stack_flush(instance, cache, stack);
        if (!make_room(instance, cache, bytes)) {
            store_put(instance, record);
            return;
        }
    }
    record->below = stack->top;
    stack->top = record;
    count_add(cache, &cache->counters.blocks_moved, 1);
    exact_check_table(instance, cache);
}

/*
 * How many of a stack's blocks are to stay: all but the oldest of those that are idle, which make up `wanted` bytes. Blocks of one size
 * may differ in what lies around them.
 */
static uint32_t count_kept(const struct block_record *top, uint32_t now_ms, uint32_t idle_ms,
                           uint64_t wanted)
{
    uint32_t busy = 0, kept = 0;
    uint64_t bytes = 0; /* of what has not been kept */
    for (const struct block_record *record = top; record != NULL; record = record->below) {
        busy += !os_is_idle(record->idle_since, now_ms, idle_ms);
        bytes += record->raw_size;
    }
    for (const struct block_record *record = top; record != NULL; record = record->below) {
        if (kept >= busy && bytes - record->raw_size < wanted)
            break;
        bytes -= record->raw_size;
        kept++;
    }
    return kept;
}

/* Unlinks what is idle from one bucket, the bottom of each stack; linked through below. Lock held. */
static struct block_record *detach_idle(struct exact_bucket *bucket, uint32_t now_ms,
                                        uint32_t idle_ms, uint64_t *wanted)
{
    struct block_record *detached = NULL;
    struct block_record **size = &bucket->sizes;
    while (*size != NULL && *wanted > 0) {
        struct block_record *top = *size, *record = top, *last_kept = NULL;
        for (uint32_t kept = count_kept(top, now_ms, idle_ms, *wanted); kept > 0; kept--) {
            last_kept = record;
            record = record->below;
        }
        if (last_kept != NULL) {
            last_kept->below = NULL;
            size = &top->next_size;
        } else {
            *size = top->next_size;
        }
        while (record != NULL) {
            struct block_record *below = record->below;
            *wanted -= *wanted < record->raw_size ? *wanted : record->raw_size;
            record->below = detached;
            detached = record;
            record = below;
        }
    }
    return detached;
}

size_t exact_evict(struct larder *instance, uint32_t now_ms, uint32_t idle_ms, uint64_t keep_bytes)
{
    struct exact_store *store = &instance->exact;
    if (store->buckets == NULL)
        return 0;
    uint64_t cached = atomic_load_explicit(&store->bytes, memory_order_relaxed);
    uint64_t wanted = cached > keep_bytes ? cached - keep_bytes : 0;
    size_t released = 0;
    for (int i = 0; i < EXACT_BUCKETS && wanted > 0; i++) {
        struct exact_bucket *bucket = &store->buckets[i];
        spinlock_lock(&bucket->lock);
        struct block_record *detached = detach_idle(bucket, now_ms, idle_ms, &wanted);
        exact_check_bucket(instance, bucket);
        spinlock_unlock(&bucket->lock);
        while (detached != NULL) {
            struct block_record *record = detached;
            detached = record->below;
            size_t bytes = record->raw_size;
            store_removed(store, bytes);
            block_destroy(record);
            cache_unreserve(instance, bytes);
            released += bytes;
        }
    }
    atomic_fetch_add_explicit(&instance->given_back_bytes, released, memory_order_relaxed);
    return released;
}

void exact_tables_fork_lock(void)
{
    spinlock_lock(&table_pool.lock);
}

void exact_tables_fork_unlock(void)
{
    spinlock_unlock(&table_pool.lock);
}

void exact_tables_fork_child(void)
{
    spinlock_reset(&table_pool.lock);
}

void exact_fork_lock(struct exact_store *store)
{
    for (int i = 0; store->buckets != NULL && i < EXACT_BUCKETS; i++) {
        spinlock_lock(&store->buckets[i].lock);
    }
}

void exact_fork_unlock(struct exact_store *store)
{
    for (int i = 0; store->buckets != NULL && i < EXACT_BUCKETS; i++) {
        spinlock_unlock(&store->buckets[i].lock);
    }
}

void exact_fork_child(struct exact_store *store)
{
    for (int i = 0; store->buckets != NULL && i < EXACT_BUCKETS; i++) {
        spinlock_reset(&store->buckets[i].lock);
    }
}
