/* SPDX-License-Identifier: MIT */
/* What allocators.c's table is made of: the allocators' open functions. Private to them. */
#ifndef LARDER_BENCH_ALLOCATORS_H
#define LARDER_BENCH_ALLOCATORS_H

#include "allocator.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Each fills everything but `name`. Returns 0, or a negative errno and the reason in `why`. */
typedef int allocator_open_function(struct allocator *out, char *why, size_t why_size);

allocator_open_function larder_fit_open, larder_exact_open, larder_planned_open,
    larder_mimalloc_open, larder_passthrough_open;
allocator_open_function system_open;
allocator_open_function mimalloc_open;
/* C++; without a compiler for it they say how to get one */
allocator_open_function c10_open, c10_design_open, ncnn_pool_open, bfc_arena_open;
allocator_open_function none_open;

#ifdef __cplusplus
}
#endif

#endif
