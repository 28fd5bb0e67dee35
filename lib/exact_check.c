/* SPDX-License-Identifier: MIT */
#include "exact_check.h"

#ifdef LARDER_CHECKS_FULL

#include "cache.h"
#include "thread_state.h"

enum { LOOKED_AT = 2 }; /* of each stack, at every call */

struct seen {
    uint64_t blocks, bytes;
};

static void must(bool holds, const char *what, uint64_t number)
{
    invariant_holds(holds, "exact store", what, number);
}

static void check_record(const struct larder *instance, struct block_record *record, size_t size)
{
    uintptr_t address = atomic_load_explicit(&record->address, memory_order_relaxed);
    must(word_kind(word_load(&record->word)) == WORD_CACHED, "a block that is not cached", address);
    must(record->size == size, "a block of another size in a stack", record->size);
    must(record->instance == instance, "another instance's block", address);
    must(allocation_map_block(address) == record, "a block that the map does not know", address);
}

/* Up to `most` of a stack, which can have no more blocks than the instance. */
static void check_stack(const struct larder *instance, struct block_record *top, size_t size,
                        uint64_t most, struct seen *seen)
{
    uint64_t limit = atomic_load_explicit(&((struct larder *)(uintptr_t)instance)->block_records,
                                          memory_order_relaxed);
    uint64_t count = 0;
    for (struct block_record *record = top; record != NULL && count < most;
         record = record->below) {
        check_record(instance, record, size);
        must(++count <= limit, "a stack without an end", size);
        seen->bytes += record->raw_size;
    }
    seen->blocks += count;
}

void exact_check_bucket(struct larder *instance, struct exact_bucket *bucket)
{
    bool all = check_is_due(&bucket->pace);
    struct exact_store *store = &instance->exact;
    struct seen seen = {0};
    for (struct block_record *top = bucket->sizes; top != NULL; top = top->next_size) {
        must(exact_bucket_of(store, top->size) == bucket, "a size in another's bucket", top->size);
        for (const struct block_record *other = top->next_size; other != NULL && all;
             other = other->next_size) {
            must(other->size != top->size, "two stacks of one size", top->size);
        }
        check_stack(instance, top, top->size, all ? UINT64_MAX : LOOKED_AT, &seen);
    }
    /* added before they come, taken off after they have gone: other buckets' are in it, too */
    must(seen.blocks <= atomic_load_explicit(&store->blocks, memory_order_relaxed), "blocks in all",
         seen.blocks);
    must(seen.bytes <= atomic_load_explicit(&store->bytes, memory_order_relaxed), "bytes in all",
         seen.bytes);
    if (all)
        check_walked(&bucket->pace, seen.blocks);
}

void exact_check_table(struct larder *instance, struct thread_cache *cache)
{
    struct exact_table *table = cache->exact;
    if (table == NULL || !check_is_due(&table->pace))
        return;
    struct seen seen = {0};
    for (int i = 0; i < EXACT_THREAD_SIZES; i++) {
        struct exact_stack *stack = &table->stacks[i];
        must(stack->top == NULL || exact_stack_of(table, stack->size) == stack,
             "a size in another's stack", stack->size);
        check_stack(instance, stack->top, stack->size, UINT64_MAX, &seen);
    }
    must(seen.bytes + thread_cache_room(cache) == cache->lease, "a thread's room and blocks",
         seen.bytes);
    check_walked(&table->pace, seen.blocks);
}

#else

typedef int exact_check_is_empty; /* ISO C wants a declaration */

#endif
