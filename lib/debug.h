/* SPDX-License-Identifier: MIT */
/* Fill bytes and redzones: for instances that are not `plain`. */
#ifndef LARDER_DEBUG_H
#define LARDER_DEBUG_H

#include "cache.h"

/* Fills a block that is about to be handed out, and its redzones. */
void debug_prepare(const struct larder *instance, void *ptr, size_t size);

/* A block that is being freed and is nobody else's any more: reports redzones that were written to, and fills it. */
void debug_receive(struct larder *instance, void *ptr, size_t size, const char *call);

/* True if nobody has written to it since, or there is nothing to tell that by. */
bool debug_is_wiped(const struct larder *instance, const void *ptr, size_t size);

#ifdef LARDER_CHECKS_FULL
/* Names some of the blocks that are live while their instance is destroyed, on stderr. */
void debug_report_leaks(struct larder *instance, size_t live);
#else
static inline void debug_report_leaks(struct larder *instance, size_t live)
{
    (void)instance;
    (void)live;
}
#endif

#endif
