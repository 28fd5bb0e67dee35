/* SPDX-License-Identifier: MIT */
#include "debug.h"

#include <string.h>

enum { REDZONE_BYTE = 0xA5 };

void debug_prepare(const struct larder *instance, void *ptr, size_t size)
{
    size_t redzone = instance->config.redzone;
    if (redzone != 0) {
        memset((char *)ptr - redzone, REDZONE_BYTE, redzone);
        memset((char *)ptr + size, REDZONE_BYTE, redzone);
    }
    if (instance->config.fill >= 0)
        memset(ptr, instance->config.fill, size);
}

bool debug_redzones_intact(const struct larder *instance, const void *ptr, size_t size)
{
    const unsigned char *before = (const unsigned char *)ptr - instance->config.redzone;
    const unsigned char *after = (const unsigned char *)ptr + size;
    for (size_t i = 0; i < instance->config.redzone; i++) {
        if (before[i] != REDZONE_BYTE || after[i] != REDZONE_BYTE)
            return false;
    }
    return true;
}

void debug_wipe(const struct larder *instance, void *ptr, size_t size)
{
    if (instance->config.fill >= 0)
        memset(ptr, instance->config.fill, size);
}
