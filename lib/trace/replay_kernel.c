/* SPDX-License-Identifier: MIT */
/* Timed loops, and the one that counts: see replay_kernel.h. */
#include "replay_kernel.h"

#include <string.h>

/*
 * One byte in every page that the block lies in. The byte moves on by a cache line from page to
 * page: at one and the same offset all of them would share a few sets of the cache, and the
 * harness would measure their conflicts (450 instead of 82 ns an operation on MobileNet V2's
 * trace, allocator none).
 */
static inline void write_pages(void *block, uint64_t size, size_t page_size)
{
    const uintptr_t line = 64;
    uintptr_t start = (uintptr_t)block;
    uintptr_t end = start + (uintptr_t)size;
    if (size == 0) {
        return;
    }
    *(volatile char *)start = 1;
    uintptr_t page = (start & ~((uintptr_t)page_size - 1)) + page_size;
    for (; page + page_size <= end; page += page_size) {
        *(volatile char *)(page + (page / page_size * line & (page_size - 1))) = 1;
    }
    if (page < end) {
        *(volatile char *)page = 1;
    }
}

static inline void touch(enum replay_touch how, void *block, uint64_t size, size_t page_size)
{
    switch (how) {
    case REPLAY_TOUCH_NONE:
        return;
    case REPLAY_TOUCH_FIRST:
        if (size > 0) {
            *(volatile char *)block = 1;
        }
        return;
    case REPLAY_TOUCH_PAGE:
        write_pages(block, size, page_size);
        return;
    case REPLAY_TOUCH_FULL:
        memset(block, 1, (size_t)size);
        /* or the compiler drops it before a free */
        __asm__ volatile("" : : "r"(block) : "memory");
        return;
    }
}

/* The bytes that write_pages() writes. */
static inline void read_pages(const void *block, uint64_t size, size_t page_size)
{
    const uintptr_t line = 64;
    uintptr_t start = (uintptr_t)block;
    uintptr_t end = start + (uintptr_t)size;
    (void)*(const volatile char *)start;
    uintptr_t page = (start & ~((uintptr_t)page_size - 1)) + page_size;
    for (; page + page_size <= end; page += page_size) {
        (void)*(const volatile char *)(page + (page / page_size * line & (page_size - 1)));
    }
    if (page < end) {
        (void)*(const volatile char *)page;
    }
}

/* A sum over all words, in four parts that do not wait for each other, as a kernel would read. */
static inline void read_all(const void *block, uint64_t size)
{
    const unsigned char *bytes = block;
    uint64_t sums[4] = {0}, words[4];
    uint64_t at = 0;
    for (; at + sizeof words <= size; at += sizeof words) {
        memcpy(words, bytes + at, sizeof words);
        for (size_t i = 0; i < 4; i++) {
            sums[i] += words[i];
        }
    }
    for (; at < size; at++) {
        sums[0] += bytes[at];
    }
    uint64_t sum = sums[0] + sums[1] + sums[2] + sums[3];
    __asm__ volatile("" : : "r"((uintptr_t)sum)); /* or the compiler drops the reads */
}

/* Reads what touch() wrote. */
static inline void read_back(enum replay_touch how, const void *block, uint64_t size,
                             size_t page_size)
{
    if (size == 0) {
        return;
    }
    switch (how) {
    case REPLAY_TOUCH_NONE:
        return;
    case REPLAY_TOUCH_FIRST:
        (void)*(const volatile char *)block;
        return;
    case REPLAY_TOUCH_PAGE:
        read_pages(block, size, page_size);
        return;
    case REPLAY_TOUCH_FULL:
        read_all(block, size);
        return;
    }
}

/* `how` and `read` are constants in each caller, which leaves one plain loop of each kind. */
static inline __attribute__((always_inline)) size_t run(const struct replay_view *view,
                                                        const struct program_op *ops, size_t count,
                                                        enum replay_touch how, bool read)
{
    const struct allocator *allocator = view->allocator;
    void **slots = view->slots;
    size_t page_size = view->page_size;
    for (size_t i = 0; i < count; i++) {
        const struct program_op *op = &ops[i];
        void *block;
        switch (op->kind) {
        case PROGRAM_FREE:
            if (read) {
                read_back(how, slots[op->slot], op->size, page_size);
            }
            allocator->release(allocator->context, slots[op->slot]);
            continue;
        case PROGRAM_ALLOCATE:
            block = allocator->allocate(allocator->context, (size_t)op->size);
            break;
        case PROGRAM_ALLOCATE_ALIGNED:
            block = allocator->allocate_aligned(allocator->context, (size_t)1 << op->alignment_log2,
                                                (size_t)op->size);
            break;
        default:
            block = allocator->reallocate(allocator->context, slots[op->slot], (size_t)op->size);
            break;
        }
        if (__builtin_expect(block == NULL, 0)) {
            return i;
        }
        slots[op->slot] = block;
        touch(how, block, op->size, page_size);
    }
    return count;
}

#define KERNEL(name, how, read)                                                                    \
    static size_t name(const struct replay_view *view, const struct program_op *ops, size_t count) \
    {                                                                                              \
        return run(view, ops, count, how, read);                                                   \
    }
KERNEL(untouched, REPLAY_TOUCH_NONE, false)
KERNEL(first, REPLAY_TOUCH_FIRST, false)
KERNEL(page, REPLAY_TOUCH_PAGE, false)
KERNEL(full, REPLAY_TOUCH_FULL, false)
KERNEL(first_read, REPLAY_TOUCH_FIRST, true)
KERNEL(page_read, REPLAY_TOUCH_PAGE, true)
KERNEL(full_read, REPLAY_TOUCH_FULL, true)

replay_kernel *replay_kernel_for(enum replay_touch touch, bool read_before_free)
{
    static replay_kernel *const kernels[][2] = {
        [REPLAY_TOUCH_NONE] = {untouched, untouched},
        [REPLAY_TOUCH_FIRST] = {first, first_read},
        [REPLAY_TOUCH_PAGE] = {page, page_read},
        [REPLAY_TOUCH_FULL] = {full, full_read},
    };
    return kernels[touch][read_before_free];
}

/*
 * A block counts from when the caller has it until it is handed back, so that the sum is never
 * more than was live. The order of the counter is that of the threads in this pass.
 */
static void count(const struct replay_view *view, const struct program_op *op)
{
    struct replay_tally *tally = view->tally;
    uint64_t before = op->kind == PROGRAM_REALLOCATE ? view->about[op->slot].size : 0;
    view->about[op->slot].size = op->size;
    uint64_t live =
        atomic_fetch_add_explicit(&tally->live_bytes, op->size - before, memory_order_relaxed) +
        op->size - before;
    uint64_t peak = atomic_load_explicit(&tally->peak_live_bytes, memory_order_relaxed);
    while (live > peak &&
           !atomic_compare_exchange_weak_explicit(&tally->peak_live_bytes, &peak, live,
                                                  memory_order_relaxed, memory_order_relaxed)) {
    }
}

size_t replay_kernel_counting(const struct replay_view *view, const struct program_op *ops,
                              size_t count_of_ops)
{
    for (size_t i = 0; i < count_of_ops; i++) {
        const struct program_op *op = &ops[i];
        if (op->kind == PROGRAM_FREE) {
            atomic_fetch_sub_explicit(&view->tally->live_bytes, op->size, memory_order_relaxed);
        }
        if (run(view, op, 1, view->touch, view->read_before_free) == 0) {
            return i;
        }
        if (op->kind != PROGRAM_FREE) {
            count(view, op);
        }
    }
    return count_of_ops;
}
