/* SPDX-License-Identifier: MIT */
#include "invariant.h"

#ifdef LARDER_CHECKS_FULL

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

_Noreturn void invariant_broken(const char *where, const char *what, uint64_t number)
{
    char line[128];
    int length = snprintf(line, sizeof line, "larder: %s: %s (%llu)\n", where, what,
                          (unsigned long long)number);
    if (write(STDERR_FILENO, line, (size_t)length) < 0) { /* nothing can be done about it */
    }
    abort();
}

#else

typedef int invariant_is_empty; /* ISO C wants a declaration */

#endif
