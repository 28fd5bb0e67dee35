/* SPDX-License-Identifier: MIT */
#include "backend.h"

#include <errno.h>
#include <string.h>

#include "cache.h"
#include "poison.h"

int backend_copy(larder_backend_t *to, const larder_backend_t *from)
{
    size_t size = from->struct_size < sizeof *to ? from->struct_size : sizeof *to;
    if (size < offsetof(larder_backend_t, context) + sizeof from->context)
        return -EINVAL;
    memset(to, 0, sizeof *to);
    memcpy(to, from, size);
    to->struct_size = sizeof *to;
    if (to->name == NULL)
        to->name = "custom";
    return to->allocate != NULL && to->free != NULL ? 0 : -EINVAL;
}

const larder_backend_t *larder_backend_by_name(const char *name)
{
    if (name != NULL && strcmp(name, "system") == 0)
        return larder_backend_system();
    if (name != NULL && strcmp(name, "mmap") == 0)
        return larder_backend_mmap();
    if (name != NULL && strcmp(name, "mimalloc") == 0)
        return larder_backend_mimalloc();
    errno = EINVAL;
    return NULL;
}

void *backend_allocate(struct larder *instance, size_t size, size_t alignment)
{
    const larder_backend_t *backend = &instance->backend;
    witness_free_of_locks("backend's allocate");
    atomic_fetch_add_explicit(&instance->backend_allocations, 1, memory_order_relaxed);
    void *ptr = backend->allocate(backend->context, size, alignment);
    if (ptr == NULL) {
        atomic_fetch_add_explicit(&instance->backend_failures, 1, memory_order_relaxed);
    }
    return ptr;
}

void backend_free(struct larder *instance, void *ptr, size_t size)
{
    const larder_backend_t *backend = &instance->backend;
    witness_free_of_locks("backend's free");
    atomic_fetch_add_explicit(&instance->backend_frees, 1, memory_order_relaxed);
    backend->free(backend->context, ptr, size);
}

bool backend_can_discard(const struct larder *instance)
{
    return instance->backend.discard != NULL;
}

int backend_discard(struct larder *instance, void *ptr, size_t size)
{
    const larder_backend_t *backend = &instance->backend;
    if (backend->discard == NULL)
        return -ENOTSUP;
    witness_free_of_locks("backend's discard");
    atomic_fetch_add_explicit(&instance->backend_discards, 1, memory_order_relaxed);
    if (!instance->backend_reserves)
        poison_live(ptr, size); /* it may write to it, and the next owner need not be a block */
    return backend->discard(backend->context, ptr, size);
}
