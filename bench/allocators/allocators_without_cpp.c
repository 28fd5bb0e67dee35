/* SPDX-License-Identifier: MIT */
/* In the place of the allocators that are written in C++, where there is no compiler for it. */
#include "allocators.h"

#include <errno.h>
#include <stdio.h>

static int refuse(char *why, size_t why_size)
{
    snprintf(why, why_size, "built without a C++ compiler: install one (Debian: g++), build again");
    return -ENODEV;
}

int c10_open(struct allocator *out, char *why, size_t why_size)
{
    (void)out;
    return refuse(why, why_size);
}

int c10_design_open(struct allocator *out, char *why, size_t why_size)
{
    (void)out;
    return refuse(why, why_size);
}

int ncnn_pool_open(struct allocator *out, char *why, size_t why_size)
{
    (void)out;
    return refuse(why, why_size);
}

int bfc_arena_open(struct allocator *out, char *why, size_t why_size)
{
    (void)out;
    return refuse(why, why_size);
}
