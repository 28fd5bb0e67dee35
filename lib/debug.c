/* SPDX-License-Identifier: MIT */
#include "debug.h"

#include <stdio.h>
#include <string.h>

#include "error.h"

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

static bool redzones_intact(const struct larder *instance, const void *ptr, size_t size)
{
    const unsigned char *before = (const unsigned char *)ptr - instance->config.redzone;
    const unsigned char *after = (const unsigned char *)ptr + size;
    for (size_t i = 0; i < instance->config.redzone; i++) {
        if (before[i] != REDZONE_BYTE || after[i] != REDZONE_BYTE)
            return false;
    }
    return true;
}

void debug_receive(struct larder *instance, void *ptr, size_t size, const char *call)
{
    if (!redzones_intact(instance, ptr, size))
        error_report(instance, LARDER_ERROR_REDZONE, call, ptr, size, "live");
    if (instance->config.fill >= 0)
        memset(ptr, instance->config.fill, size);
}

bool debug_is_wiped(const struct larder *instance, const void *ptr, size_t size)
{
    const unsigned char *bytes = ptr;
    int fill = instance->config.fill;
    /* all equal if the first is right and each equals the next */
    bool wiped =
        fill < 0 || size == 0 || (bytes[0] == fill && memcmp(bytes, bytes + 1, size - 1) == 0);
    return wiped && redzones_intact(instance, ptr, size);
}

#ifdef LARDER_CHECKS_FULL
enum { LEAKS_NAMED = 8 };

static int name_leak(void *context, void *ptr, size_t size)
{
    unsigned *left = context;
    fprintf(stderr, "larder:   %p, %zu bytes\n", ptr, size);
    return --*left == 0;
}

/* stdio may allocate, so nothing is told with a lock held but what fits its buffer: stderr has none. */
void debug_report_leaks(struct larder *instance, size_t live)
{
    unsigned left = LEAKS_NAMED;
    fprintf(stderr, "larder: %s is destroyed with %zu live blocks, which stay valid:\n",
            instance->name, live);
    larder_walk(instance, name_leak, &left);
}
#endif
