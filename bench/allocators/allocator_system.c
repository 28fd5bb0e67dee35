/* SPDX-License-Identifier: MIT */
/*
 * "system": malloc and free as this process has them. With a library preloaded that is the
 * library's malloc, which is how allocators are measured that have to replace it; the version says
 * whose it is.
 */
#include "allocators.h"

#include <stdio.h>
#include <stdlib.h>

#if defined(__GLIBC__)
#include <gnu/libc-version.h>
#include <malloc.h>
#elif defined(__ANDROID__)
#include <android/api-level.h>
#endif

#include "peer_malloc.h"

static void *system_allocate(void *context, size_t size)
{
    (void)context;
    return malloc(size);
}

static void *system_allocate_aligned(void *context, size_t alignment, size_t size)
{
    void *block;
    (void)context;
    if (alignment < sizeof(void *)) {
        alignment = sizeof(void *);
    }
    return posix_memalign(&block, alignment, size) == 0 ? block : NULL;
}

static void *system_reallocate(void *context, void *ptr, size_t size)
{
    (void)context;
    return realloc(ptr, size);
}

static void system_release(void *context, void *ptr)
{
    (void)context;
    free(ptr);
}

#if defined(__GLIBC__)
static void system_trim(void *context)
{
    (void)context;
    malloc_trim(0);
}
#endif

static void system_version(char *out, size_t out_size)
{
    char file[512];
    if (!peer_malloc_file(file, sizeof file)) {
        snprintf(out, out_size, "unknown");
    } else if (!peer_is_libc(file)) {
        peer_version(file, out, out_size);
    } else {
#if defined(__GLIBC__)
        snprintf(out, out_size, "glibc %s", gnu_get_libc_version());
#elif defined(__ANDROID__)
        snprintf(out, out_size, "bionic, API level %d", android_get_device_api_level());
#else
        snprintf(out, out_size, "%.*s", (int)out_size - 1, file);
#endif
    }
}

int system_open(struct allocator *out, char *why, size_t why_size)
{
    static char version[128];
    (void)why;
    (void)why_size;
    system_version(version, sizeof version);
    *out = (struct allocator){
        .version = version,
        .policy = "-",
        .allocate = system_allocate,
        .allocate_aligned = system_allocate_aligned,
        .reallocate = system_reallocate,
        .release = system_release,
        .frees_foreign = true,
    };
#if defined(__GLIBC__)
    char file[512];
    if (peer_malloc_file(file, sizeof file) && peer_is_libc(file)) {
        out->trim = system_trim;
    }
#endif
    return 0;
}
