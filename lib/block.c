/* SPDX-License-Identifier: MIT */
#include "block.h"

#include "cache.h"
#include "meta.h"
#include "poison.h"

static struct meta_pool record_pool = META_POOL(struct block_record);

static void note_bytes(struct larder *instance, size_t bytes)
{
    uint64_t before =
        atomic_fetch_add_explicit(&instance->block_bytes, bytes, memory_order_relaxed);
    cache_raise_peak(&instance->peak_block_bytes, before + bytes);
}

struct block_record *block_create(struct larder *instance, size_t size, size_t alignment)
{
    size_t front = (instance->front + alignment - 1) & ~(alignment - 1);
    size_t raw_size = size + front + instance->back;
    if (raw_size == 0)
        raw_size = 1;
    struct block_record *record = meta_pool_get(&record_pool);
    if (record == NULL)
        return NULL;
    char *raw = backend_allocate(instance, raw_size, alignment);
    if (raw == NULL) {
        meta_pool_put(&record_pool, record);
        return NULL;
    }
    uintptr_t address = os_untagged(raw + front);
    record->raw = raw;
    record->raw_size = raw_size;
    record->size = size;
    record->instance = instance;
    record->below = NULL;
    record->next_size = NULL;
    atomic_store_explicit(&record->address, address, memory_order_relaxed);
    word_store(&record->word, (word_load(&record->word) & WORD_GENERATION_MASK) | WORD(WORD_LIVE));
    if (allocation_map_insert_block(record, address) != 0) {
        word_store(&record->word, 0);
        backend_free(instance, raw, raw_size);
        meta_pool_put(&record_pool, record);
        return NULL;
    }
    spinlock_lock(&instance->lock);
    record->prev = NULL;
    record->next = instance->records;
    if (instance->records != NULL)
        instance->records->prev = record;
    instance->records = record;
    spinlock_unlock(&instance->lock);
    atomic_fetch_add_explicit(&instance->block_records, 1, memory_order_relaxed);
    note_bytes(instance, raw_size);
    return record;
}

void block_forget(struct block_record *record)
{
    struct larder *instance = record->instance;
    allocation_map_remove_block(atomic_load_explicit(&record->address, memory_order_relaxed));
    spinlock_lock(&instance->lock);
    if (record->prev != NULL)
        record->prev->next = record->next;
    if (record->next != NULL)
        record->next->prev = record->prev;
    if (instance->records == record)
        instance->records = record->next;
    spinlock_unlock(&instance->lock);
    word_store(&record->word, word_load(&record->word) & WORD_GENERATION_MASK);
    atomic_store_explicit(&record->address, 0, memory_order_relaxed);
    atomic_fetch_sub_explicit(&instance->block_records, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&instance->block_bytes, record->raw_size, memory_order_relaxed);
    meta_pool_put(&record_pool, record);
}

void block_destroy(struct block_record *record)
{
    struct larder *instance = record->instance;
    void *raw = record->raw;
    size_t raw_size = record->raw_size;
    /* Out of the map first: the backend may hand the address out again at once. */
    block_forget(record);
    poison_live(raw, raw_size);
    backend_free(instance, raw, raw_size);
}

bool block_mark_cached(struct block_record *record, bool strict)
{
    uint32_t word = word_load(&record->word);
    if (word_kind(word) != WORD_LIVE)
        return false;
    uint32_t cached = (word & WORD_GENERATION_MASK) | WORD(WORD_CACHED);
    if (strict) {
        return atomic_compare_exchange_strong_explicit(&record->word, &word, cached,
                                                       memory_order_relaxed, memory_order_relaxed);
    }
    word_store(&record->word, cached);
    return true;
}

void block_mark_live(struct block_record *record)
{
    uint32_t word = word_load(&record->word) + WORD_GENERATION_ONE;
    word_store(&record->word, (word & WORD_GENERATION_MASK) | WORD(WORD_LIVE));
    poison_live(record->raw, record->raw_size);
}

bool block_contains(struct larder *instance, uintptr_t address, size_t *size)
{
    bool inside = false;
    spinlock_lock(&instance->lock);
    for (const struct block_record *record = instance->records; record != NULL && !inside;
         record = record->next) {
        inside = address - os_untagged(record->raw) < record->raw_size;
        *size = record->size;
    }
    spinlock_unlock(&instance->lock);
    return inside;
}

int block_walk(struct larder *instance, int (*fn)(void *context, void *ptr, size_t size),
               void *context)
{
    int stop = 0;
    spinlock_lock(&instance->lock);
    for (struct block_record *record = instance->records; record != NULL && stop == 0;
         record = record->next) {
        if (word_kind(word_load(&record->word)) != WORD_LIVE)
            continue;
        uintptr_t address = atomic_load_explicit(&record->address, memory_order_relaxed);
        stop = fn(context, (void *)address, record->size);
    }
    spinlock_unlock(&instance->lock);
    return stop;
}

void block_fork_lock(void)
{
    spinlock_lock(&record_pool.lock);
}

void block_fork_unlock(void)
{
    spinlock_unlock(&record_pool.lock);
}

void block_fork_child(void)
{
    spinlock_reset(&record_pool.lock);
}
