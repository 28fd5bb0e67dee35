/* SPDX-License-Identifier: MIT */
/* The process's own malloc and free. */
#include <stdlib.h>

#include "backend.h"

/* Nobody needs more, and musl's posix_memalign() (1.2.3) crashes at 4 GiB instead of refusing. */
#define LARGEST_ALIGNMENT ((size_t)1 << 30)

static void *system_allocate(void *context, size_t size, size_t alignment)
{
    (void)context;
    if (alignment <= _Alignof(max_align_t))
        return malloc(size);
    if (alignment > LARGEST_ALIGNMENT)
        return NULL;
    void *ptr;
    return posix_memalign(&ptr, alignment, size) == 0 ? ptr : NULL;
}

static void system_free(void *context, void *ptr, size_t size)
{
    (void)context;
    (void)size;
    free(ptr);
}

const larder_backend_t *larder_backend_system(void)
{
    static const larder_backend_t backend = {
        .struct_size = sizeof backend,
        .name = "system",
        .allocate = system_allocate,
        .free = system_free,
        .flags = LARDER_BACKEND_FREES_FOREIGN,
    };
    return &backend;
}
