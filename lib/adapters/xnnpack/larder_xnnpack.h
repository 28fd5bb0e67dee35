/* SPDX-License-Identifier: MIT */
/*
 * larder as XNNPACK's allocator: header only.
 *
 *     larder_config_t config;
 *     larder_config_init(&config);
 *     config.padding_after = XNN_EXTRA_BYTES;
 *     larder_t *larder = larder_create("xnnpack", &config);
 *     struct xnn_allocator allocator = larder_xnnpack_allocator(larder);
 *     xnn_initialize(&allocator);
 *
 * XNNPACK copies the structure, keeps to the allocator of its first initialisation until the process ends, and frees its last
 * blocks in xnn_deinitialize(): the instance must live until then.
 *
 * XNNPACK's kernels read up to XNN_EXTRA_BYTES after a tensor that the caller allocates. With that as `padding_after`, a tensor
 * from this instance needs no extra bytes of its own; under the policy `fit` the padding costs nothing.
 */
#ifndef LARDER_XNNPACK_H
#define LARDER_XNNPACK_H

#include <larder/larder.h>
#include <xnnpack.h>

static inline void *larder_xnnpack_allocate_(void *larder, size_t size)
{
    return larder_alloc((larder_t *)larder, size);
}

static inline void *larder_xnnpack_reallocate_(void *larder, void *ptr, size_t size)
{
    return larder_realloc((larder_t *)larder, ptr, size);
}

static inline void larder_xnnpack_deallocate_(void *larder, void *ptr)
{
    larder_free((larder_t *)larder, ptr);
}

static inline void *larder_xnnpack_aligned_allocate_(void *larder, size_t alignment, size_t size)
{
    return larder_alloc_aligned((larder_t *)larder, alignment, size);
}

/* What to hand to xnn_initialize() so that XNNPACK allocates from `larder`. */
static inline struct xnn_allocator larder_xnnpack_allocator(larder_t *larder)
{
    struct xnn_allocator allocator;
    allocator.context = larder;
    allocator.allocate = larder_xnnpack_allocate_;
    allocator.reallocate = larder_xnnpack_reallocate_;
    allocator.deallocate = larder_xnnpack_deallocate_;
    allocator.aligned_allocate = larder_xnnpack_aligned_allocate_;
    allocator.aligned_deallocate = larder_xnnpack_deallocate_;
    return allocator;
}

#endif
