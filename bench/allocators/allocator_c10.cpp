/* SPDX-License-Identifier: MIT */
/*
 * "c10": PyTorch's own c10::CPUCachingAllocator, out of the libc10.so of a machine that has it.
 *
 * The class has no C interface and its constructor is inline, in no library. What the library
 * exports is enough all the same: allocate, free, the destructor, the table of virtual functions.
 * The constructor's work is done here, from the class's layout in PyTorch 1.13:
 *
 *   a pointer to the virtual functions, then one ska::flat_hash_map, empty: pointer to its slots,
 *   of which an empty map has four that tell "end of table"; number of slots less one; shift of
 *   its hash; most steps of a look-up; largest load; number of elements.
 *
 * The mutex and the allocation map are static members, which the library constructs itself.
 *
 * Another release may lay its members out in another way. So nothing is called in this process
 * before a child process has called it all and found that it behaves: same size, same block; other
 * size, other block; the map's own count as it must be then. Where the child dies or finds
 * otherwise, the library is refused.
 *
 * A size of 0 is asked for as 1: alloc_cpu(0) gives nullptr, which here means a failure. It has no
 * reallocate: a new block, a copy of what malloc made usable in the old one, a free.
 */
#include "allocators.h"

#include <dlfcn.h>
#include <malloc.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

namespace
{

constexpr std::size_t c10_alignment = 64;
constexpr std::size_t slot_bytes = 160; /* distance, size, SmallVector<void *, 16> */
constexpr std::size_t empty_slots = 4;

struct flat_hash_map {
    signed char *slots; /* each begins with its distance from home; -1: free */
    std::size_t slot_count_less_one;
    signed char shift;
    signed char max_lookups;
    float max_load;
    std::size_t element_count;
};

struct caching_allocator {
    void **virtual_functions;
    flat_hash_map available;
};

struct c10_library {
    void *handle;
    void **virtual_functions;
    void *(*allocate)(caching_allocator *, std::size_t);
    void (*free)(caching_allocator *, void *);
    void (*destroy)(caching_allocator *);
    char version[64];
};

c10_library c10;
caching_allocator instance;

/* False where there is no memory. */
bool construct(const c10_library &library, caching_allocator *out)
{
    constexpr std::size_t bytes = slot_bytes * empty_slots;
    void *slots = ::operator new(bytes, std::nothrow); /* the map gives them back to delete */
    if (slots == nullptr) {
        return false;
    }
    std::memset(slots, 0, bytes); /* a distance of 0 in the last one: end of table */
    auto *distances = static_cast<signed char *>(slots);
    for (std::size_t i = 0; i < empty_slots - 1; i++) {
        distances[i * slot_bytes] = -1;
    }
    *out = {library.virtual_functions + 2, {distances, 0, 63, empty_slots - 1, 0.5F, 0}};
    return true;
}

bool behaves(const c10_library &library)
{
    constexpr std::size_t sizes = 100;
    caching_allocator tried;
    void *blocks[sizes];
    if (!construct(library, &tried)) {
        return false;
    }
    for (int round = 0; round < 3; round++) {
        for (std::size_t i = 0; i < sizes; i++) {
            void *block = library.allocate(&tried, 1000 + i);
            if (block == nullptr || (round > 0 && block != blocks[i])) {
                return false;
            }
            std::memset(block, 1, 1000 + i);
            blocks[i] = block;
        }
        for (void *block : blocks) {
            library.free(&tried, block);
        }
        if (tried.available.element_count != sizes) {
            return false;
        }
    }
    library.destroy(&tried);
    return true;
}

/* Whatever the library does to the child, this process stays as it is. */
bool behaves_in_a_child(const c10_library &library)
{
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        alarm(10);
        _exit(behaves(library) ? 0 : 1);
    }
    if (child < 0) {
        return false;
    }
    while (waitpid(child, &status, 0) < 0) {
        if (errno != EINTR) {
            return false;
        }
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

template <typename Pointer> bool find(const c10_library &library, const char *name, Pointer &out)
{
    void *symbol = dlsym(library.handle, name);
    static_assert(sizeof symbol == sizeof out);
    std::memcpy(&out, &symbol, sizeof out);
    return symbol != nullptr;
}

/* The name of the file behind the library's links: "libc10.so.1.13.0". */
void read_version(c10_library &library)
{
    Dl_info info;
    char *path = dladdr(library.virtual_functions, &info) != 0 && info.dli_fname != nullptr
                     ? realpath(info.dli_fname, nullptr)
                     : nullptr;
    const char *slash = path != nullptr ? std::strrchr(path, '/') : nullptr;
    std::snprintf(library.version, sizeof library.version, "%s",
                  slash != nullptr ? slash + 1 : "unknown");
    std::free(path);
}

/* It stays open: libraries that it needs have set themselves up for the rest of the process. */
int load(c10_library &library, char *why, std::size_t why_size)
{
    for (const char *name : {"libc10.so.1.13", "libc10.so"}) {
        library.handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
        if (library.handle != nullptr) {
            break;
        }
    }
    if (library.handle == nullptr) {
        std::snprintf(
            why, why_size,
            "PyTorch's libc10.so is not on this machine: install libtorch1.13 (Debian), or "
            "take c10-design");
        return -ENODEV;
    }
    if (!find(library, "_ZTVN3c1019CPUCachingAllocatorE", library.virtual_functions) ||
        !find(library, "_ZN3c1019CPUCachingAllocator8allocateEm", library.allocate) ||
        !find(library, "_ZN3c1019CPUCachingAllocator4freeEPv", library.free) ||
        !find(library, "_ZN3c1019CPUCachingAllocatorD1Ev", library.destroy) ||
        !behaves_in_a_child(library)) {
        dlclose(library.handle);
        library.handle = nullptr;
        std::snprintf(why, why_size,
                      "the libc10.so found lays its allocator out in another way than PyTorch "
                      "1.13's: install libtorch1.13 (Debian), or take c10-design");
        return -ENODEV;
    }
    read_version(library);
    return 0;
}

/* It throws c10::Error, which this file knows nothing of, when there is no memory. */
void *c10_allocate(void *context, std::size_t size)
{
    try {
        return c10.allocate(static_cast<caching_allocator *>(context), size > 0 ? size : 1);
    } catch (...) {
        return nullptr;
    }
}

void c10_release(void *context, void *ptr)
{
    try {
        c10.free(static_cast<caching_allocator *>(context), ptr);
    } catch (...) {
        /* No room to remember the block by: nobody will get it again. */
    }
}

/* Beyond its own alignment straight from malloc, where its free passes unknown blocks on to. */
void *c10_allocate_aligned(void *context, std::size_t alignment, std::size_t size)
{
    void *block;
    if (alignment <= c10_alignment) {
        return c10_allocate(context, size);
    }
    return posix_memalign(&block, alignment, size) == 0 ? block : nullptr;
}

void *c10_reallocate(void *context, void *ptr, std::size_t size)
{
    void *block = c10_allocate(context, size);
    if (block != nullptr && ptr != nullptr) {
        std::memcpy(block, ptr, std::min(malloc_usable_size(ptr), size));
        c10_release(context, ptr);
    }
    return block;
}

void c10_close(void *context)
{
    c10.destroy(static_cast<caching_allocator *>(context));
}

} // namespace

int c10_open(allocator *out, char *why, std::size_t why_size)
{
    int result = c10.handle != nullptr ? 0 : load(c10, why, why_size);
    if (result != 0) {
        return result;
    }
    if (!construct(c10, &instance)) {
        std::snprintf(why, why_size, "no memory for it: close other programs");
        return -ENOMEM;
    }
    *out = {};
    out->version = c10.version;
    out->policy = "exact";
    out->context = &instance;
    out->allocate = c10_allocate;
    out->allocate_aligned = c10_allocate_aligned;
    out->reallocate = c10_reallocate;
    out->release = c10_release;
    out->close = c10_close;
    out->frees_foreign = true;
    return 0;
}
