/* SPDX-License-Identifier: MIT */
/* The allocators that can live in this process, by name. */
#include "allocators.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct entry {
    const char *name;
    allocator_open_function *open;
    const char *summary;
} entries[] = {
    {"larder", larder_fit_open, "larder's default: policy fit over mmap"},
    {"larder-exact", larder_exact_open, "larder, policy exact over the system's malloc"},
    {"larder-planned", larder_planned_open,
     "larder, policy planned over mmap: the first pass is recorded, the others replay its plan"},
    {"larder-mimalloc", larder_mimalloc_open, "larder, policy fit over mimalloc"},
    {"larder-passthrough", larder_passthrough_open,
     "larder, no caching, over the system's malloc: what its calls cost"},
    {"system", system_open, "the malloc of this process: glibc's, musl's, scudo on Android"},
    {"mimalloc", mimalloc_open, "mimalloc, opened beside the system's malloc"},
    {"c10", c10_open,
     "PyTorch's c10::CPUCachingAllocator itself, of libc10.so.1.13: for comparison"},
    {"c10-design", c10_design_open,
     "its design, written anew: for comparison where there is no libc10"},
    {"ncnn-pool", ncnn_pool_open,
     "the policy of ncnn's PoolAllocator, written anew: for comparison"},
    {"bfc-arena", bfc_arena_open,
     "the policy of ONNX Runtime's BFCArena, written anew: for comparison"},
    {"none", none_open, "no allocator at all: what the harness itself costs"},
};

#define ENTRY_COUNT (sizeof entries / sizeof entries[0])

static const struct entry *find(const char *name)
{
    for (size_t i = 0; i < ENTRY_COUNT; i++) {
        if (strcmp(entries[i].name, name) == 0) {
            return &entries[i];
        }
    }
    return NULL;
}

int allocator_open(const char *name, struct allocator *out, char *why, size_t why_size)
{
    const struct entry *entry = find(name);
    *out = (struct allocator){0};
    if (entry == NULL) {
        snprintf(why, why_size, "no allocator is called '%s'", name);
        return -ENOENT;
    }
    int result = entry->open(out, why, why_size);
    out->name = entry->name;
    return result;
}

void allocator_get_report(const struct allocator *allocator, struct allocator_report *out)
{
    *out = (struct allocator_report){
        .held_bytes = UINT64_MAX,
        .peak_held_bytes = UINT64_MAX,
        .live_bytes = UINT64_MAX,
        .cached_bytes = UINT64_MAX,
        .metadata_bytes = UINT64_MAX,
        .calls = UINT64_MAX,
        .lock_acquisitions = UINT64_MAX,
        .depot_exchanges = UINT64_MAX,
        .backend_calls = UINT64_MAX,
    };
    if (allocator->report != NULL) {
        allocator->report(allocator->context, out);
    }
}

void allocator_close(struct allocator *allocator)
{
    if (allocator->close != NULL) {
        allocator->close(allocator->context);
    }
    *allocator = (struct allocator){0};
}

const char *const *allocator_names(void)
{
    static const char *names[ENTRY_COUNT + 1];
    for (size_t i = 0; i < ENTRY_COUNT; i++) {
        names[i] = entries[i].name;
    }
    return names;
}

const char *allocator_summary(const char *name)
{
    const struct entry *entry = find(name);
    return entry != NULL ? entry->summary : NULL;
}
