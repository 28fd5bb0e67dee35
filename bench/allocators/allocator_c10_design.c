/* SPDX-License-Identifier: MIT */
/*
 * "c10-design": what PyTorch's c10::CPUCachingAllocator does, written anew from its description,
 * as the baseline that larder sets out to improve on. Not its code.
 *
 * One mutex for everything. An allocation map says how large each block is that went through here;
 * an available map holds, for each exact size, a stack of free blocks. Allocate: pop the stack of
 * that size, or take 64-byte aligned memory from malloc, while the mutex is held. Free: look the
 * size up, push. On failure everything cached is freed, and the request is tried once more.
 * Nothing else ever gives memory back.
 *
 * Where the original has no such call: an aligned request beyond 64 bytes goes straight to malloc
 * and back; reallocate is allocate, copy, free.
 */
#include "allocators.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "flat_map.h"

#define C10_ALIGNMENT 64

struct stack {
    void **blocks;
    size_t count;
    size_t capacity;
};

struct c10 {
    pthread_mutex_t mutex;
    struct flat_map size_of;   /* block to size + 1 */
    struct flat_map available; /* size + 1 to struct stack * */
    uint64_t cached_bytes;
    uint64_t live_bytes;
    uint64_t peak_held_bytes;
};

static struct c10 c10 = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static void drop_block(struct c10 *c, void *block)
{
    /* The entry stays with value 0, "not ours", until the address comes again. */
    flat_map_find(&c->size_of, (uintptr_t)block)->value = 0;
    free(block);
}

static void free_cached(struct c10 *c)
{
    for (size_t i = 0; i < c->available.capacity; i++) {
        struct stack *stack = (struct stack *)c->available.entries[i].value;
        while (stack != NULL && stack->count > 0) {
            drop_block(c, stack->blocks[--stack->count]);
        }
    }
    c->cached_bytes = 0;
}

static void *allocate_and_record(struct c10 *c, size_t size)
{
    void *block;
    if (posix_memalign(&block, C10_ALIGNMENT, size) != 0) {
        free_cached(c);
        if (posix_memalign(&block, C10_ALIGNMENT, size) != 0) {
            return NULL;
        }
    }
    struct flat_entry *entry = flat_map_at(&c->size_of, (uintptr_t)block);
    if (entry == NULL) {
        free(block);
        return NULL;
    }
    entry->value = (uintptr_t)size + 1;
    if (c->live_bytes + size + c->cached_bytes > c->peak_held_bytes) {
        c->peak_held_bytes = c->live_bytes + size + c->cached_bytes;
    }
    return block;
}

static void *c10_allocate(void *context, size_t size)
{
    struct c10 *c = context;
    void *block;
    pthread_mutex_lock(&c->mutex);
    struct flat_entry *entry = flat_map_find(&c->available, (uintptr_t)size + 1);
    struct stack *stack = entry != NULL ? (struct stack *)entry->value : NULL;
    if (stack != NULL && stack->count > 0) {
        block = stack->blocks[--stack->count];
        c->cached_bytes -= size;
    } else {
        block = allocate_and_record(c, size);
    }
    c->live_bytes += block != NULL ? size : 0;
    pthread_mutex_unlock(&c->mutex);
    return block;
}

/* The stack of a size, made if there is none; NULL: out of memory. */
static struct stack *stack_of(struct c10 *c, size_t size)
{
    struct flat_entry *entry = flat_map_at(&c->available, (uintptr_t)size + 1);
    if (entry != NULL && entry->value == 0) {
        entry->value = (uintptr_t)calloc(1, sizeof(struct stack));
    }
    return entry != NULL ? (struct stack *)entry->value : NULL;
}

static bool push(struct stack *stack, void *block)
{
    if (stack->count == stack->capacity) {
        size_t capacity = stack->capacity > 0 ? stack->capacity * 2 : 16;
        void **blocks = realloc(stack->blocks, capacity * sizeof *blocks);
        if (blocks == NULL) {
            return false;
        }
        stack->blocks = blocks;
        stack->capacity = capacity;
    }
    stack->blocks[stack->count++] = block;
    return true;
}

static void c10_release(void *context, void *ptr)
{
    struct c10 *c = context;
    pthread_mutex_lock(&c->mutex);
    struct flat_entry *entry = flat_map_find(&c->size_of, (uintptr_t)ptr);
    if (entry == NULL || entry->value == 0) {
        free(ptr);
    } else {
        size_t size = entry->value - 1;
        struct stack *stack = stack_of(c, size);
        c->live_bytes -= size;
        if (stack != NULL && push(stack, ptr)) {
            c->cached_bytes += size;
        } else {
            drop_block(c, ptr);
        }
    }
    pthread_mutex_unlock(&c->mutex);
}

static void *c10_allocate_aligned(void *context, size_t alignment, size_t size)
{
    void *block;
    if (alignment <= C10_ALIGNMENT) {
        return c10_allocate(context, size);
    }
    return posix_memalign(&block, alignment, size) == 0 ? block : NULL;
}

static void *c10_reallocate(void *context, void *ptr, size_t size)
{
    struct c10 *c = context;
    pthread_mutex_lock(&c->mutex);
    struct flat_entry *entry = flat_map_find(&c->size_of, (uintptr_t)ptr);
    size_t old_size = entry != NULL && entry->value > 0 ? entry->value - 1 : 0;
    bool ours = entry != NULL && entry->value > 0;
    pthread_mutex_unlock(&c->mutex);
    if (!ours) {
        return realloc(ptr, size);
    }
    void *block = c10_allocate(context, size);
    if (block != NULL) {
        memcpy(block, ptr, old_size < size ? old_size : size);
        c10_release(context, ptr);
    }
    return block;
}

static void c10_report(void *context, struct allocator_report *out)
{
    struct c10 *c = context;
    pthread_mutex_lock(&c->mutex);
    *out = (struct allocator_report){
        .held_bytes = c->live_bytes + c->cached_bytes,
        .peak_held_bytes = c->peak_held_bytes,
        .live_bytes = c->live_bytes,
        .cached_bytes = c->cached_bytes,
    };
    pthread_mutex_unlock(&c->mutex);
}

static void c10_close(void *context)
{
    struct c10 *c = context;
    free_cached(c);
    for (size_t i = 0; i < c->available.capacity; i++) {
        struct stack *stack = (struct stack *)c->available.entries[i].value;
        if (stack != NULL) {
            free(stack->blocks);
            free(stack);
        }
    }
    flat_map_clear(&c->available);
    flat_map_clear(&c->size_of);
    c->peak_held_bytes = 0;
}

int c10_design_open(struct allocator *out, char *why, size_t why_size)
{
    (void)why;
    (void)why_size;
    *out = (struct allocator){
        .version = "-",
        .policy = "exact",
        .context = &c10,
        .allocate = c10_allocate,
        .allocate_aligned = c10_allocate_aligned,
        .reallocate = c10_reallocate,
        .release = c10_release,
        .report = c10_report,
        .close = c10_close,
    };
    return 0;
}
