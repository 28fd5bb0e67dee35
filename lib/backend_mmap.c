/* SPDX-License-Identifier: MIT */
/*
 * Anonymous mappings. Regions of this backend do not come through allocate() but are reserved and
 * committed on demand (region.c); allocate() serves single blocks.
 */
#include "backend.h"
#include "os/os.h"

static size_t round_to_page(size_t size)
{
    size_t page = os_page_size();
    return (size + page - 1) & ~(page - 1);
}

static void *mmap_allocate(void *context, size_t size, size_t alignment)
{
    (void)context;
    if (size > SIZE_MAX / 2)
        return NULL;
    size = round_to_page(size);
    char *ptr = os_reserve(size, alignment < os_page_size() ? os_page_size() : alignment);
    if (ptr != NULL && os_commit(ptr, size) != 0) {
        os_unmap(ptr, size);
        ptr = NULL;
    }
    return ptr;
}

static void mmap_free(void *context, void *ptr, size_t size)
{
    (void)context;
    os_unmap(ptr, round_to_page(size));
}

static int mmap_discard(void *context, void *ptr, size_t size)
{
    (void)context;
    return os_discard(ptr, size);
}

const larder_backend_t *larder_backend_mmap(void)
{
    static const larder_backend_t backend = {
        .struct_size = sizeof backend,
        .name = "mmap",
        .allocate = mmap_allocate,
        .free = mmap_free,
        .discard = mmap_discard,
        .flags = LARDER_BACKEND_ZEROED,
    };
    return &backend;
}

bool backend_is_mmap(const larder_backend_t *backend)
{
    return backend->allocate == mmap_allocate;
}
