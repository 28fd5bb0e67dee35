/* SPDX-License-Identifier: MIT */
/* Blocks on their way back to another thread's heap: the slow half. See span_remote.h. */
#include "span_remote.h"

#include "span_bins.h"

bool span_heap_drain(struct span_heap *heap)
{
    struct span_remote *remote = &heap->remote;
    uint64_t before = atomic_load_explicit(&remote->drained, memory_order_relaxed);
    uint64_t at = before;
    struct region *region = atomic_load_explicit(&remote->region, memory_order_relaxed);
    for (;;) {
        _Atomic uint32_t *slot = &remote->slots[(at >> 32) % REMOTE_SLOTS];
        /* acquire: pairs with the release in span_remote_push() */
        uint32_t start = atomic_load_explicit(slot, memory_order_acquire);
        if (start == 0)
            break;
        atomic_store_explicit(slot, 0, memory_order_relaxed);
        uint32_t word = word_load(&region->words[start]), length = word & WORD_INDEX_MASK;
        bool waits = word == (WORD_WAITING | length);
        size_t size = 0;
        if (__builtin_expect(waits, 1)) {
            size = ((size_t)length << UNIT_SHIFT) - word_load(&region->words[start + 1]);
            span_heap_put_locked(heap, region, start, length, -(int64_t)size);
        }
        at = remote_advance(at, (uint32_t)size);
        /* release: pairs with the acquire of those who push: the place is empty */
        atomic_store_explicit(&remote->drained, at, memory_order_release);
    }
    uint64_t pushed = atomic_load_explicit(&remote->pushed, memory_order_relaxed);
    if (pushed >> 32 == at >> 32 &&
        pushed != at) /* a note did not hold, and its bytes were not known */
        atomic_store_explicit(&remote->drained, pushed, memory_order_release);
    return at != before;
}

void span_remote_fork_child(struct span_remote *remote)
{
    uint64_t drained = atomic_load_explicit(&remote->drained, memory_order_relaxed);
    uint64_t pushed = atomic_load_explicit(&remote->pushed, memory_order_relaxed);
    uint32_t first = (uint32_t)(drained >> 32), count = span_remote_count(remote), kept = 0;
    for (uint32_t i = 0; i < count; i++) {
        _Atomic uint32_t *slot = &remote->slots[(first + i) % REMOTE_SLOTS];
        uint32_t start = atomic_load_explicit(slot, memory_order_relaxed);
        atomic_store_explicit(slot, 0, memory_order_relaxed);
        if (start != 0)
            atomic_store_explicit(&remote->slots[(first + kept++) % REMOTE_SLOTS], start,
                                  memory_order_relaxed);
    }
    pushed = (uint64_t)(uint32_t)(first + kept) << 32 | (uint32_t)pushed;
    atomic_store_explicit(&remote->pushed, kept != 0 ? pushed : drained, memory_order_relaxed);
    atomic_store_explicit(&remote->seen, drained, memory_order_relaxed);
}
