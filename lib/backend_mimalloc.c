/* SPDX-License-Identifier: MIT */
/*
 * mimalloc, either linked from a build without override (LARDER_LINKED_MIMALLOC) or opened at run time.
 *
 * Debian's libmimalloc.so exports malloc and free: linking it would silently replace the process's allocator. So it is
 * opened with RTLD_LOCAL, where its symbols are seen by nobody but this file.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "backend.h"

typedef void *aligned_fn(size_t size, size_t alignment);
typedef void free_fn(void *ptr);

static struct {
    aligned_fn *allocate;
    free_fn *release;
} mimalloc;

static void *mimalloc_allocate(void *context, size_t size, size_t alignment)
{
    (void)context;
    void *ptr = mimalloc.allocate(size, alignment);
    if (ptr == NULL || ((uintptr_t)ptr & (alignment - 1)) == 0)
        return ptr;
    /* Debian's 2.0.9 takes sizes that are multiples of the alignment to be aligned by themselves, which with its
     * padding they are not */
    mimalloc.release(ptr);
    if (size > SIZE_MAX - alignment)
        return NULL;
    ptr = mimalloc.allocate(((size + alignment - 1) & ~(alignment - 1)) + 1, alignment);
    if (ptr != NULL && ((uintptr_t)ptr & (alignment - 1)) != 0) {
        mimalloc.release(ptr);
        ptr = NULL;
    }
    return ptr;
}

static void mimalloc_free(void *context, void *ptr, size_t size)
{
    (void)context;
    (void)size;
    mimalloc.release(ptr);
}

#ifdef LARDER_LINKED_MIMALLOC
#include <mimalloc.h>

static void open_library(void)
{
    mimalloc.allocate = mi_malloc_aligned;
    mimalloc.release = mi_free;
}
#else
#include <dlfcn.h>

static void open_library(void)
{
    const char *names[] = {getenv("LARDER_MIMALLOC"), "libmimalloc.so.3",   "libmimalloc.so.2",
                           "libmimalloc.so.2.0",      "libmimalloc.so.1.9", "libmimalloc.so"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (names[i] == NULL)
            continue;
        void *library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
        if (library == NULL)
            continue;
        /* POSIX: a data pointer from dlsym() may be converted to a function pointer */
        *(void **)&mimalloc.allocate = dlsym(library, "mi_malloc_aligned");
        *(void **)&mimalloc.release = dlsym(library, "mi_free");
        if (mimalloc.allocate != NULL && mimalloc.release != NULL)
            return;
        dlclose(library);
        mimalloc.allocate = NULL;
    }
}
#endif

const larder_backend_t *larder_backend_mimalloc(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    static const larder_backend_t backend = {
        .struct_size = sizeof backend,
        .name = "mimalloc",
        .allocate = mimalloc_allocate,
        .free = mimalloc_free,
    };
    pthread_once(&once, open_library);
    if (mimalloc.allocate == NULL) {
        errno = ENOENT;
        return NULL;
    }
    return &backend;
}
