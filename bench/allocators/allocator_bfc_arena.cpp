/* SPDX-License-Identifier: MIT */
/*
 * "bfc-arena": best fit with coalescing as ONNX Runtime's BFCArena does it (and TensorFlow's, from which it
 * comes), with ONNX Runtime's default settings, written anew from a reading of it (1.20), as a
 * baseline. Not its code, but its choices:
 *
 *   - one mutex around every call;
 *   - memory comes in regions: the first of 1 MiB, each later one twice the last or as often doubled as
 *     the request needs; no region is given back before the arena ends;
 *   - a region is a chain of chunks, multiples of 256 bytes, free or in use; neighbours that are free
 *     are joined at once;
 *   - free chunks lie in bins, from 256 bytes on one for each doubling, ordered by size, then by address;
 *     a request takes the smallest that fits, from the bin of its size upward;
 *   - what is left of a chunk is split off where the chunk is at least twice the request, or would
 *     waste 128 MiB;
 *   - the chunk of a pointer is found by a table of its region, with an entry for each 256 bytes.
 *
 * Where the original has no such call: beyond 256 bytes of alignment straight from malloc and back;
 * reallocate is allocate, copy, free.
 */
#include "allocators.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <map>
#include <mutex>
#include <new>
#include <set>
#include <tuple>
#include <vector>

namespace
{

constexpr std::size_t grain = 256;
constexpr std::size_t bin_count = 21;
constexpr std::size_t first_region_bytes = std::size_t{1} << 20;
constexpr std::size_t most_waste = std::size_t{128} << 20;

using chunk_index = std::uint32_t;
constexpr chunk_index no_chunk = std::numeric_limits<chunk_index>::max();

struct chunk {
    char *start;
    std::size_t size;
    std::size_t requested; /* what the owner asked for; 0: free */
    chunk_index before;    /* in the region, as the next */
    chunk_index after;
};

struct region {
    char *start;
    std::size_t size;
    std::vector<chunk_index> chunk_at; /* for each grain the chunk that begins there */
};

class arena
{
public:
    /* nullptr where malloc has nothing left; throws std::bad_alloc where a table has not. */
    void *allocate(std::size_t size);
    /* False for a block that is not the arena's. */
    bool release(void *ptr);
    /* What was asked for; 0 for a block that is not the arena's. */
    std::size_t size_of(void *ptr);
    void report(allocator_report &out);
    ~arena();

private:
    /* size, address, chunk: ordered as the search wants them */
    using bin = std::set<std::tuple<std::size_t, char *, chunk_index>>;

    static std::size_t bin_of(std::size_t size);
    region *region_of(const void *ptr);
    chunk_index &chunk_starting_at(char *start);
    chunk_index new_chunk(char *start, std::size_t size, chunk_index before, chunk_index after);
    void put_into_bin(chunk_index index);
    void take_from_bin(chunk_index index);
    bool extend(std::size_t size);
    chunk_index find(std::size_t size);
    void split(chunk_index index, std::size_t size);
    void join(chunk_index first, chunk_index second);

    std::mutex mutex; /* guards everything below */
    std::vector<chunk> chunks;
    std::vector<chunk_index> unused_chunks;
    std::array<bin, bin_count> bins;
    std::map<char *, region> regions; /* by their ends */
    std::size_t next_region_bytes = first_region_bytes;
    std::uint64_t held_bytes = 0;
    std::uint64_t live_bytes = 0; /* whole chunks */
};

std::size_t arena::bin_of(std::size_t size)
{
    std::size_t found = 0;
    for (size /= 2 * grain; size > 0 && found + 1 < bin_count; size /= 2) {
        found++;
    }
    return found;
}

region *arena::region_of(const void *ptr)
{
    char *at = const_cast<char *>(static_cast<const char *>(ptr));
    const auto found = regions.upper_bound(at);
    return found != regions.end() && at >= found->second.start ? &found->second : nullptr;
}

chunk_index &arena::chunk_starting_at(char *start)
{
    region *owner = region_of(start);
    return owner->chunk_at[static_cast<std::size_t>(start - owner->start) / grain];
}

chunk_index arena::new_chunk(char *start, std::size_t size, chunk_index before, chunk_index after)
{
    if (unused_chunks.empty()) {
        chunks.push_back({});
        unused_chunks.push_back(static_cast<chunk_index>(chunks.size() - 1));
    }
    const chunk_index index = unused_chunks.back();
    unused_chunks.pop_back();
    chunks[index] = {start, size, 0, before, after};
    chunk_starting_at(start) = index;
    return index;
}

void arena::put_into_bin(chunk_index index)
{
    const chunk &c = chunks[index];
    bins[bin_of(c.size)].emplace(c.size, c.start, index);
}

void arena::take_from_bin(chunk_index index)
{
    const chunk &c = chunks[index];
    bins[bin_of(c.size)].erase({c.size, c.start, index});
}

bool arena::extend(std::size_t size)
{
    void *start;
    bool doubled = false;
    while (next_region_bytes < size) {
        next_region_bytes *= 2;
        doubled = true;
    }
    const std::size_t bytes = next_region_bytes;
    if (posix_memalign(&start, grain, bytes) != 0) {
        return false;
    }
    if (!doubled) {
        next_region_bytes *= 2;
    }
    char *first = static_cast<char *>(start);
    regions[first + bytes] = {first, bytes, std::vector<chunk_index>(bytes / grain, no_chunk)};
    held_bytes += bytes;
    put_into_bin(new_chunk(first, bytes, no_chunk, no_chunk));
    return true;
}

/* A free chunk of at least that size, out of its bin; no_chunk where there is none. */
chunk_index arena::find(std::size_t size)
{
    for (std::size_t b = bin_of(size); b < bin_count; b++) {
        const auto found = bins[b].lower_bound({size, nullptr, 0});
        if (found != bins[b].end()) {
            const chunk_index index = std::get<2>(*found);
            bins[b].erase(found);
            return index;
        }
    }
    return no_chunk;
}

void arena::split(chunk_index index, std::size_t size)
{
    const chunk whole = chunks[index];
    const chunk_index rest = new_chunk(whole.start + size, whole.size - size, index, whole.after);
    chunks[index].size = size;
    chunks[index].after = rest;
    if (whole.after != no_chunk) {
        chunks[whole.after].before = rest;
    }
    put_into_bin(rest);
}

void *arena::allocate(std::size_t size)
{
    if (size > SIZE_MAX / 4) {
        return nullptr;
    }
    const std::size_t rounded = (size + grain - 1) / grain * grain;
    std::lock_guard<std::mutex> guard(mutex);
    chunk_index index = find(rounded);
    if (index == no_chunk && extend(rounded)) {
        index = find(rounded);
    }
    if (index == no_chunk) {
        return nullptr;
    }
    if (chunks[index].size >= 2 * rounded || chunks[index].size - rounded >= most_waste) {
        split(index, rounded);
    }
    chunks[index].requested = size;
    live_bytes += chunks[index].size;
    return chunks[index].start;
}

/* Neighbours, both free and in no bin. */
void arena::join(chunk_index first, chunk_index second)
{
    chunks[first].size += chunks[second].size;
    chunks[first].after = chunks[second].after;
    if (chunks[second].after != no_chunk) {
        chunks[chunks[second].after].before = first;
    }
    chunk_starting_at(chunks[second].start) = no_chunk;
    unused_chunks.push_back(second);
}

bool arena::release(void *ptr)
{
    std::lock_guard<std::mutex> guard(mutex);
    if (region_of(ptr) == nullptr) {
        return false;
    }
    chunk_index index = chunk_starting_at(static_cast<char *>(ptr));
    chunks[index].requested = 0;
    live_bytes -= chunks[index].size;
    const chunk_index after = chunks[index].after;
    if (after != no_chunk && chunks[after].requested == 0) {
        take_from_bin(after);
        join(index, after);
    }
    const chunk_index before = chunks[index].before;
    if (before != no_chunk && chunks[before].requested == 0) {
        take_from_bin(before);
        join(before, index);
        index = before;
    }
    put_into_bin(index);
    return true;
}

std::size_t arena::size_of(void *ptr)
{
    std::lock_guard<std::mutex> guard(mutex);
    return region_of(ptr) == nullptr
               ? 0
               : chunks[chunk_starting_at(static_cast<char *>(ptr))].requested;
}

void arena::report(allocator_report &out)
{
    std::lock_guard<std::mutex> guard(mutex);
    out.held_bytes = out.peak_held_bytes = held_bytes; /* it never shrinks */
    out.live_bytes = live_bytes;
    out.cached_bytes = held_bytes - live_bytes;
}

arena::~arena()
{
    for (const auto &entry : regions) {
        std::free(entry.second.start);
    }
}

arena &instance_of(void *context)
{
    return *static_cast<arena *>(context);
}

/* A size of 0 is asked for as 1: BFCArena gives nullptr, which here means a failure. */
void *arena_allocate(void *context, std::size_t size)
{
    try {
        return instance_of(context).allocate(std::max<std::size_t>(size, 1));
    } catch (const std::bad_alloc &) {
        return nullptr;
    }
}

void arena_release(void *context, void *ptr)
{
    try {
        if (ptr != nullptr && !instance_of(context).release(ptr)) {
            std::free(ptr);
        }
    } catch (const std::bad_alloc &) {
        /* No room to remember it by: nobody will get it again. */
    }
}

void *arena_allocate_aligned(void *context, std::size_t alignment, std::size_t size)
{
    void *start;
    if (alignment <= grain) {
        return arena_allocate(context, size);
    }
    return posix_memalign(&start, alignment, size) == 0 ? start : nullptr;
}

void *arena_reallocate(void *context, void *ptr, std::size_t size)
{
    const std::size_t old_size = ptr != nullptr ? instance_of(context).size_of(ptr) : 0;
    if (ptr != nullptr && old_size == 0) {
        return std::realloc(ptr, size);
    }
    void *start = arena_allocate(context, size);
    if (start != nullptr && ptr != nullptr) {
        std::memcpy(start, ptr, std::min(old_size, size));
        arena_release(context, ptr);
    }
    return start;
}

void arena_report(void *context, allocator_report *out)
{
    instance_of(context).report(*out);
}

void arena_close(void *context)
{
    delete &instance_of(context);
}

} // namespace

int bfc_arena_open(allocator *out, char *why, std::size_t why_size)
{
    auto *instance = new (std::nothrow) arena;
    if (instance == nullptr) {
        std::snprintf(why, why_size, "no memory for it: close other programs");
        return -ENOMEM;
    }
    *out = {};
    out->version = "policy of 1.20";
    out->policy = "-";
    out->context = instance;
    out->allocate = arena_allocate;
    out->allocate_aligned = arena_allocate_aligned;
    out->reallocate = arena_reallocate;
    out->release = arena_release;
    out->report = arena_report;
    out->close = arena_close;
    out->frees_foreign = true;
    return 0;
}
