/* SPDX-License-Identifier: MIT */
/* Memory for traces and replays from mmap: see pages.h for why not malloc. */
#include "pages.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static size_t round_to_pages(size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t rounded = (bytes + page - 1) & ~(page - 1);
    return rounded > page ? rounded : page;
}

void *pages_allocate(size_t bytes)
{
    void *pages = mmap(NULL, round_to_pages(bytes), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) {
        errno = ENOMEM;
        return NULL;
    }
    return pages;
}

void *pages_grow(void *pages, size_t old_bytes, size_t new_bytes)
{
#if defined(__linux__)
    void *grown =
        mremap(pages, round_to_pages(old_bytes), round_to_pages(new_bytes), MREMAP_MAYMOVE);
    if (grown == MAP_FAILED) {
        errno = ENOMEM;
        return NULL;
    }
    return grown;
#else
    void *grown = pages_allocate(new_bytes);
    if (grown != NULL) {
        memcpy(grown, pages, old_bytes);
        pages_free(pages, old_bytes);
    }
    return grown;
#endif
}

void pages_free(void *pages, size_t bytes)
{
    if (pages != NULL) {
        munmap(pages, round_to_pages(bytes));
    }
}

int pages_reserve(void *array, size_t element_bytes, size_t count, size_t *capacity)
{
    void *elements;
    memcpy(&elements, array, sizeof elements);
    if (count < *capacity) {
        return 0;
    }
    size_t wanted = *capacity > 0 ? *capacity * 2 : 65536 / element_bytes;
    elements = elements == NULL
                   ? pages_allocate(wanted * element_bytes)
                   : pages_grow(elements, *capacity * element_bytes, wanted * element_bytes);
    if (elements == NULL) {
        return -ENOMEM;
    }
    memcpy(array, &elements, sizeof elements);
    *capacity = wanted;
    return 0;
}
