/* SPDX-License-Identifier: MIT */
/* Read inside malloc, so with nothing that allocates: getenv, strtoull, write. */
#include "settings.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static bool read_size(const char *text, size_t *size)
{
    char *end;
    if (text[0] < '0' || text[0] > '9')
        return false; /* strtoull would take blanks and signs */
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    unsigned shift = 0;
    switch (*end | 0x20) {
    case 'k':
        shift = 10;
        break;
    case 'm':
        shift = 20;
        break;
    case 'g':
        shift = 30;
        break;
    default:
        break;
    }
    if (shift != 0)
        end++;
    if (*end != '\0' || errno != 0 || value > SIZE_MAX >> shift)
        return false;
    *size = (size_t)value << shift;
    return true;
}

size_t setting_size(const char *name, size_t otherwise)
{
    const char *text = getenv(name);
    size_t size = otherwise;
    int error = errno;
    if (text != NULL && *text != '\0' && !read_size(text, &size)) {
        char line[160];
        int length = snprintf(line, sizeof line,
                              "larder: %s='%.40s': expected a number of bytes; taking %zu\n", name,
                              text, otherwise);
        if (length > 0)
            (void)!write(STDERR_FILENO, line, (size_t)length);
    }
    errno = error;
    return size;
}
