/* SPDX-License-Identifier: MIT */
/*
 * "mimalloc": opened at run time, never linked. Distributions build libmimalloc.so with malloc and
 * free in it; linking that replaces the process's allocator in silence, for the harness and for
 * "system" too. Opened with RTLD_LOCAL, its malloc is seen by nobody.
 */
#include "allocators.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "peer_malloc.h"

struct mimalloc {
    void *library;
    void *(*allocate)(size_t size);
    void *(*allocate_aligned)(size_t size, size_t alignment);
    void *(*reallocate)(void *ptr, size_t size);
    void (*release)(void *ptr);
    void (*collect)(bool force);
    char version[32];
};

static struct mimalloc mimalloc;

static void *mimalloc_allocate(void *context, size_t size)
{
    const struct mimalloc *mi = context;
    return mi->allocate(size);
}

static void *mimalloc_allocate_aligned(void *context, size_t alignment, size_t size)
{
    const struct mimalloc *mi = context;
    return mi->allocate_aligned(size, alignment);
}

static void *mimalloc_reallocate(void *context, void *ptr, size_t size)
{
    const struct mimalloc *mi = context;
    return mi->reallocate(ptr, size);
}

static void mimalloc_release(void *context, void *ptr)
{
    const struct mimalloc *mi = context;
    mi->release(ptr);
}

static void mimalloc_trim(void *context)
{
    const struct mimalloc *mi = context;
    mi->collect(true);
}

static void *open_library(void)
{
    static const char *const names[] = {"libmimalloc.so.3", "libmimalloc.so.2",
                                        "libmimalloc.so.2.0", "libmimalloc.so"};
    const char *chosen = getenv("LARDER_MIMALLOC");
    if (chosen != NULL && *chosen != '\0') {
        return dlopen(chosen, RTLD_NOW | RTLD_LOCAL);
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        void *library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
        if (library != NULL) {
            return library;
        }
    }
    return NULL;
}

/* The library stays open: its threads' data may be needed until the process ends. */
int mimalloc_open(struct allocator *out, char *why, size_t why_size)
{
    struct mimalloc *mi = &mimalloc;
    mi->library = open_library();
    if (mi->library == NULL) {
        const char *problem = dlerror();
        snprintf(why, why_size,
                 "no mimalloc library found (%s): install libmimalloc2.0 (Debian) or set "
                 "LARDER_MIMALLOC to one",
                 problem != NULL ? problem : "no reason given");
        return -ENODEV;
    }
    *(void **)&mi->allocate = dlsym(mi->library, "mi_malloc");
    *(void **)&mi->allocate_aligned = dlsym(mi->library, "mi_malloc_aligned");
    *(void **)&mi->reallocate = dlsym(mi->library, "mi_realloc");
    *(void **)&mi->release = dlsym(mi->library, "mi_free");
    *(void **)&mi->collect = dlsym(mi->library, "mi_collect");
    int (*version)(void);
    *(void **)&version = dlsym(mi->library, "mi_version");
    if (mi->allocate == NULL || mi->allocate_aligned == NULL || mi->reallocate == NULL ||
        mi->release == NULL || version == NULL) {
        snprintf(why, why_size,
                 "the mimalloc library found lacks one of its functions: set LARDER_MIMALLOC to "
                 "another");
        return -ENODEV;
    }
    peer_format_mimalloc_version(version(), mi->version, sizeof mi->version);
    *out = (struct allocator){
        .version = mi->version,
        .policy = "-",
        .context = mi,
        .allocate = mimalloc_allocate,
        .allocate_aligned = mimalloc_allocate_aligned,
        .reallocate = mimalloc_reallocate,
        .release = mimalloc_release,
        .trim = mi->collect != NULL ? mimalloc_trim : NULL,
    };
    return 0;
}
