/* SPDX-License-Identifier: MIT */
/*
 * "ncnn-pool": the policy of ncnn's PoolAllocator with its default settings, written anew from a reading
 * of it (Tencent/ncnn, July 2026), as a baseline. Not its code, but its choices:
 *
 *   - two lists, of free blocks and of those handed out, each under a mutex of its own;
 *   - allocate: the first free block that is large enough, however much larger (its setting for the
 *     least fill is 0 by default); else a new one from malloc, 64-byte aligned, with 64 bytes behind it that
 *     kernels may read;
 *   - where 10 or more blocks are free and none fits, one is given back first: the smallest where all
 *     are too small. (That the largest goes where all are too large needs a higher setting.)
 *   - free: find the block in the list of those handed out, from the oldest on, and move it to the end
 *     of the list of free ones.
 *
 * So a request of 10 kB may sit in a block of 10 MB, and the search grows with the number of blocks.
 *
 * Where the original has no such call: beyond 64 bytes of alignment straight from malloc and back;
 * reallocate is allocate, copy, free.
 */
#include "allocators.h"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <list>
#include <mutex>
#include <new>

namespace
{

constexpr std::size_t pool_alignment = 64;
constexpr std::size_t readable_behind = 64;
constexpr std::size_t most_kept_without_a_fit = 10;

struct block {
    std::size_t size;
    void *start;
};

class pool
{
public:
    /* nullptr where malloc has nothing left; throws std::bad_alloc where a list has not. */
    void *allocate(std::size_t size);
    /* False for a block that is not the pool's. */
    bool release(void *start);
    /* Of a block handed out; 0 for one that is not the pool's. */
    std::size_t size_of(void *start);
    void report(allocator_report &out);
    ~pool();

private:
    bool take_free(std::size_t size, block *out);
    void drop_smallest();
    void *hand_out(block taken);
    void count(std::size_t added, std::size_t removed);

    std::mutex free_mutex; /* guards free_blocks */
    std::list<block> free_blocks;
    std::mutex used_mutex; /* guards used_blocks */
    std::list<block> used_blocks;
    std::mutex held_mutex; /* guards what follows; taken on a miss only */
    std::uint64_t held_bytes = 0;
    std::uint64_t peak_held_bytes = 0;
};

void *from_malloc(std::size_t alignment, std::size_t size)
{
    void *start;
    return posix_memalign(&start, alignment, size) == 0 ? start : nullptr;
}

void pool::count(std::size_t added, std::size_t removed)
{
    std::lock_guard<std::mutex> guard(held_mutex);
    held_bytes += added;
    held_bytes -= removed;
    peak_held_bytes = std::max(peak_held_bytes, held_bytes);
}

/* With free_mutex held; every free block is too small. */
void pool::drop_smallest()
{
    const auto smallest =
        std::min_element(free_blocks.begin(), free_blocks.end(),
                         [](const block &a, const block &b) { return a.size < b.size; });
    count(0, smallest->size);
    std::free(smallest->start);
    free_blocks.erase(smallest);
}

bool pool::take_free(std::size_t size, block *out)
{
    std::lock_guard<std::mutex> guard(free_mutex);
    const auto found = std::find_if(free_blocks.begin(), free_blocks.end(),
                                    [size](const block &b) { return b.size >= size; });
    if (found != free_blocks.end()) {
        *out = *found;
        free_blocks.erase(found);
        return true;
    }
    if (free_blocks.size() >= most_kept_without_a_fit) {
        drop_smallest();
    }
    return false;
}

void *pool::hand_out(block taken)
{
    std::lock_guard<std::mutex> guard(used_mutex);
    used_blocks.push_back(taken);
    return taken.start;
}

void *pool::allocate(std::size_t size)
{
    block taken;
    if (!take_free(size, &taken)) {
        if (size > SIZE_MAX - readable_behind) {
            return nullptr;
        }
        taken = {size, from_malloc(pool_alignment, size + readable_behind)};
        if (taken.start == nullptr) {
            return nullptr;
        }
        count(size, 0);
    }
    return hand_out(taken);
}

bool pool::release(void *start)
{
    block found;
    {
        std::lock_guard<std::mutex> guard(used_mutex);
        const auto at = std::find_if(used_blocks.begin(), used_blocks.end(),
                                     [start](const block &b) { return b.start == start; });
        if (at == used_blocks.end()) {
            return false;
        }
        found = *at;
        used_blocks.erase(at);
    }
    std::lock_guard<std::mutex> guard(free_mutex);
    free_blocks.push_back(found);
    return true;
}

std::size_t pool::size_of(void *start)
{
    std::lock_guard<std::mutex> guard(used_mutex);
    for (const block &b : used_blocks) {
        if (b.start == start) {
            return b.size;
        }
    }
    return 0;
}

void pool::report(allocator_report &out)
{
    out.cached_bytes = out.live_bytes = 0;
    {
        std::lock_guard<std::mutex> guard(free_mutex);
        for (const block &b : free_blocks) {
            out.cached_bytes += b.size;
        }
    }
    {
        std::lock_guard<std::mutex> guard(used_mutex);
        for (const block &b : used_blocks) {
            out.live_bytes += b.size;
        }
    }
    std::lock_guard<std::mutex> guard(held_mutex);
    out.held_bytes = held_bytes;
    out.peak_held_bytes = peak_held_bytes;
}

pool::~pool()
{
    for (const block &b : free_blocks) {
        std::free(b.start);
    }
}

pool &instance_of(void *context)
{
    return *static_cast<pool *>(context);
}

/* A size of 0 is asked for as 1: size_of() tells 0 for what is not the pool's. */
void *pool_allocate(void *context, std::size_t size)
{
    try {
        return instance_of(context).allocate(std::max<std::size_t>(size, 1));
    } catch (const std::bad_alloc &) {
        return nullptr;
    }
}

void pool_release(void *context, void *ptr)
{
    try {
        if (!instance_of(context).release(ptr)) {
            std::free(ptr);
        }
    } catch (const std::bad_alloc &) {
        /* No room to remember it by: nobody will get it again. */
    }
}

void *pool_allocate_aligned(void *context, std::size_t alignment, std::size_t size)
{
    return alignment <= pool_alignment ? pool_allocate(context, size)
                                       : from_malloc(alignment, size);
}

void *pool_reallocate(void *context, void *ptr, std::size_t size)
{
    const std::size_t old_size = ptr != nullptr ? instance_of(context).size_of(ptr) : 0;
    if (ptr != nullptr && old_size == 0) {
        return std::realloc(ptr, size);
    }
    void *start = pool_allocate(context, size);
    if (start != nullptr && ptr != nullptr) {
        std::memcpy(start, ptr, std::min(old_size, size));
        pool_release(context, ptr);
    }
    return start;
}

void pool_report(void *context, allocator_report *out)
{
    instance_of(context).report(*out);
}

void pool_close(void *context)
{
    delete &instance_of(context);
}

} // namespace

int ncnn_pool_open(allocator *out, char *why, std::size_t why_size)
{
    auto *instance = new (std::nothrow) pool;
    if (instance == nullptr) {
        std::snprintf(why, why_size, "no memory for it: close other programs");
        return -ENOMEM;
    }
    *out = {};
    out->version = "policy of July 2026";
    out->policy = "-";
    out->context = instance;
    out->allocate = pool_allocate;
    out->allocate_aligned = pool_allocate_aligned;
    out->reallocate = pool_reallocate;
    out->release = pool_release;
    out->report = pool_report;
    out->close = pool_close;
    out->frees_foreign = true;
    return 0;
}
