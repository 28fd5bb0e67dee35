/* SPDX-License-Identifier: MIT */
/*
 * The built-in backends; those of an instance are called through cache.h, counted.
 */
#ifndef LARDER_BACKEND_H
#define LARDER_BACKEND_H

#include <larder/larder.h>
#include <stdbool.h>

/* 0, or -EINVAL for a backend that lacks a function, or -errno; fills a copy with what the caller's struct_size covers. */
int backend_copy(larder_backend_t *to, const larder_backend_t *from);

/* True for the mmap backend, whose regions are reserved and committed instead of allocated. */
bool backend_is_mmap(const larder_backend_t *backend);

#endif
