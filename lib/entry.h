/* SPDX-License-Identifier: MIT */
/* What the files with public entry points share. */
#ifndef LARDER_ENTRY_H
#define LARDER_ENTRY_H

#include "lookup.h"

#define likely(condition) __builtin_expect(!!(condition), 1)
#define unlikely(condition) __builtin_expect(!!(condition), 0)

/* Requests above leave no room for padding, rounding and alignment arithmetic. */
#define LARGEST_REQUEST ((size_t)PTRDIFF_MAX - (1 << 24))

/* Ends a block that has been found live, and counts that; false: it is not live any more. */
bool entry_release(struct larder *owner, struct thread_cache *cache, const struct lookup *found,
                   bool is_record);

/* larder_free() under the name of another call, for reports. */
void entry_free(struct larder *larder, void *ptr, const char *call);

#endif
