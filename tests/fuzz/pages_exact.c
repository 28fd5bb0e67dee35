/* SPDX-License-Identifier: MIT */
/*
 * lib/trace/pages.h over malloc, for the harnesses: the address sanitizer sees a byte too far there,
 * which whole pages from the kernel would hide.
 */
#include "pages.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

void *pages_allocate(size_t bytes)
{
    void *pages = bytes > (size_t)1 << 32 ? NULL : calloc(1, bytes > 0 ? bytes : 1);
    if (pages == NULL) {
        errno = ENOMEM;
    }
    return pages;
}

void *pages_grow(void *pages, size_t old_bytes, size_t new_bytes)
{
    void *grown = pages_allocate(new_bytes);
    if (grown != NULL) {
        memcpy(grown, pages, old_bytes < new_bytes ? old_bytes : new_bytes);
        free(pages);
    }
    return grown;
}

void pages_free(void *pages, size_t bytes)
{
    (void)bytes;
    free(pages);
}

/* Small at first: the end of an array is where mistakes are. */
int pages_reserve(void *array, size_t element_bytes, size_t count, size_t *capacity)
{
    void *elements;
    memcpy(&elements, array, sizeof elements);
    if (count < *capacity) {
        return 0;
    }
    size_t wanted = *capacity > 0 ? *capacity * 2 : 2;
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
