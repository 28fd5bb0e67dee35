/* SPDX-License-Identifier: MIT */
/*
 * "none": no allocator, so that a run shows what the harness costs.
 *
 * Every block is the same address, the start of one large reservation: allocate compares a size
 * and returns it, free does nothing. Blocks overlap, which a replay that only writes to them does
 * not mind. The pages under the largest block are faulted in by the first pass and stay, so under
 * --touch page the figure is that of writing into memory that is already there, and mostly in the
 * cache.
 */
#include "allocators.h"

#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>

struct area {
    char *start; /* page-aligned, as mappings are */
    size_t size;
};

static struct area area;

static void *none_allocate(void *context, size_t size)
{
    struct area *a = context;
    return size <= a->size ? a->start : NULL;
}

static void *none_allocate_aligned(void *context, size_t alignment, size_t size)
{
    (void)alignment;
    return none_allocate(context, size);
}

static void *none_reallocate(void *context, void *ptr, size_t size)
{
    (void)ptr;
    return none_allocate(context, size);
}

static void none_release(void *context, void *ptr)
{
    (void)context;
    (void)ptr;
}

static void none_close(void *context)
{
    struct area *a = context;
    munmap(a->start, a->size);
}

int none_open(struct allocator *out, char *why, size_t why_size)
{
    /* As much address space as a limit (RLIMIT_AS, 32 bit) leaves. */
    const uint64_t most = UINT64_C(1) << 36;
    size_t size = SIZE_MAX / 2 + 1 < most ? SIZE_MAX / 2 + 1 : (size_t)most;
    for (; size >= (size_t)1 << 20; size /= 2) {
        void *start = mmap(NULL, size, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (start != MAP_FAILED) {
            area = (struct area){.start = start, .size = size};
            *out = (struct allocator){
                .version = "-",
                .policy = "-",
                .context = &area,
                .allocate = none_allocate,
                .allocate_aligned = none_allocate_aligned,
                .reallocate = none_reallocate,
                .release = none_release,
                .close = none_close,
            };
            return 0;
        }
    }
    snprintf(why, why_size, "no address space for it: raise the limit (ulimit -v)");
    return -ENOMEM;
}
