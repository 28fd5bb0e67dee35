/* SPDX-License-Identifier: MIT */
/*
 * The loop that checks contents: see replay_kernel.h.
 *
 * A block's contents follow from its *stamp*, which no other allocation of a replay has, word by
 * word: whoever writes into a block that is not his, or moves it to the wrong place, is found when
 * the block is freed or resized. Nothing is compared between blocks, so each thread checks its own
 * operations.
 */
#include <string.h>

#include "replay_kernel.h"

/* The n-th word of the contents. Constants of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014). */
static uint64_t word_of(uint64_t stamp, uint64_t n)
{
    uint64_t z = stamp + n * UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    return z ^ z >> 27;
}

static void fill(void *block, uint64_t size, uint64_t stamp)
{
    unsigned char *bytes = block;
    uint64_t word, at = 0;
    for (; at + sizeof word <= size; at += sizeof word) {
        word = word_of(stamp, at / sizeof word);
        memcpy(bytes + at, &word, sizeof word);
    }
    word = word_of(stamp, at / sizeof word);
    memcpy(bytes + at, &word, (size_t)(size - at));
}

static bool tell(const struct replay_view *view, struct replay_fault fault)
{
    struct replay_tally *tally = view->tally;
    if (!atomic_exchange_explicit(&tally->faulty, true, memory_order_relaxed)) {
        tally->fault = fault; /* read when the threads are through */
    }
    return false;
}

/* Whether the first `size` bytes are what fill() wrote. */
static bool check(const struct replay_view *view, const void *block, uint64_t size,
                  const struct replay_slot *about, const char *what)
{
    const unsigned char *bytes = block;
    for (uint64_t at = 0; at < size; at += 8) {
        uint64_t expected = word_of(about->stamp, at / 8), found = expected;
        memcpy(&found, bytes + at, size - at < 8 ? (size_t)(size - at) : 8);
        if (found != expected) {
            unsigned char is[8], should[8];
            memcpy(is, &found, 8);
            memcpy(should, &expected, 8);
            unsigned i = 0;
            while (is[i] == should[i]) {
                i++;
            }
            return tell(view, (struct replay_fault){.what = what,
                                                    .size = about->size,
                                                    .at = at + i,
                                                    .expected = should[i],
                                                    .found = is[i]});
        }
    }
    return true;
}

static bool check_alignment(const struct replay_view *view, const void *block,
                            const struct program_op *op)
{
    uintptr_t off = (uintptr_t)block & (((uintptr_t)1 << op->alignment_log2) - 1);
    return off == 0 ||
           tell(view, (struct replay_fault){
                          .what = "is not aligned as asked for", .size = op->size, .at = off});
}

static bool release(const struct replay_view *view, const struct program_op *op)
{
    void *block = view->slots[op->slot];
    const struct replay_slot *about = &view->about[op->slot];
    if (!check(view, block, about->size, about, "had other contents when it was freed")) {
        return false;
    }
    atomic_fetch_add_explicit(&view->tally->checked_blocks, 1, memory_order_relaxed);
    view->allocator->release(view->allocator->context, block);
    return true;
}

static void *reallocate(const struct replay_view *view, const struct program_op *op)
{
    void *block = view->slots[op->slot];
    const struct replay_slot *about = &view->about[op->slot];
    uint64_t kept = about->size < op->size ? about->size : op->size;
    if (!check(view, block, about->size, about, "had other contents when it was resized")) {
        return NULL;
    }
    block = view->allocator->reallocate(view->allocator->context, block, (size_t)op->size);
    if (block != NULL) {
        view->slots[op->slot] = block;
        if (!check(view, block, kept, about, "lost contents when it was resized")) {
            return NULL;
        }
    }
    return block;
}

static bool allocate(const struct replay_view *view, const struct program_op *op)
{
    const struct allocator *allocator = view->allocator;
    struct replay_slot *about = &view->about[op->slot];
    void *block;
    switch (op->kind) {
    case PROGRAM_ALLOCATE:
        block = allocator->allocate(allocator->context, (size_t)op->size);
        break;
    case PROGRAM_ALLOCATE_ALIGNED:
        block = allocator->allocate_aligned(allocator->context, (size_t)1 << op->alignment_log2,
                                            (size_t)op->size);
        break;
    default:
        block = reallocate(view, op);
        break;
    }
    if (block == NULL) {
        return false;
    }
    view->slots[op->slot] = block;
    about->size = op->size;
    about->stamp += (uint64_t)1 << 32; /* the lower half is the slot's own */
    fill(block, op->size, about->stamp);
    return op->kind != PROGRAM_ALLOCATE_ALIGNED || check_alignment(view, block, op);
}

size_t replay_kernel_checking(const struct replay_view *view, const struct program_op *ops,
                              size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!(ops[i].kind == PROGRAM_FREE ? release(view, &ops[i]) : allocate(view, &ops[i]))) {
            return i;
        }
    }
    return count;
}
