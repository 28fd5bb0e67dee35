/* SPDX-License-Identifier: MIT */
/* What a result must say about where it comes from, added to google-benchmark's own context. */
#ifndef LARDER_BENCH_CONTEXT_H
#define LARDER_BENCH_CONTEXT_H

#include "allocator.h"

/* Kernel, huge-page mode, compiler, and the LARDER_* variables that are set. */
void add_machine_context();

/* Name, version and policy of a backend. */
void add_backend_context(const allocator &backend);

#endif
