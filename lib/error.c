/* SPDX-License-Identifier: MIT */
#include "error.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cache.h"

static const char *what(larder_error_kind_t kind)
{
    switch (kind) {
    case LARDER_ERROR_DOUBLE_FREE:
        return "double free";
    case LARDER_ERROR_INVALID_POINTER:
        return "not the start of a block";
    case LARDER_ERROR_FOREIGN_POINTER:
        return "nobody owns this pointer and the backend cannot free it";
    case LARDER_ERROR_REDZONE:
        return "bytes around the block were overwritten";
    case LARDER_ERROR_REFUSED:
        return "refused: the block is cut from a region, nobody else can release it";
    case LARDER_ERROR_SCOPE:
        return "scope left in the wrong order or on the wrong thread";
    case LARDER_ERROR_USE_AFTER_FREE:
        return "the block was written to after it had been freed";
    case LARDER_ERROR_CONFIG:
        return "bad configuration";
    }
    return "unknown error";
}

void error_report(struct larder *instance, larder_error_kind_t kind, const char *call,
                  const void *ptr, size_t size, const char *state)
{
    char line[320];
    const char *name = instance != NULL ? instance->name : "none";
    /* snprintf with these conversions neither allocates nor locks */
    int length = snprintf(line, sizeof line, "larder: %s(%p): %s [state %s, size %zu, instance %s]",
                          call, ptr, what(kind), state, size, name);
    if (length < 0)
        length = 0;
    if ((size_t)length >= sizeof line - 1)
        length = (int)sizeof line - 2;
    if (instance != NULL) {
        atomic_fetch_add_explicit(&instance->errors, 1, memory_order_relaxed);
        if (instance->config.error_handler != NULL) {
            larder_error_t error = {.struct_size = sizeof error,
                                    .kind = kind,
                                    .call = call,
                                    .ptr = ptr,
                                    .size = size,
                                    .state = state,
                                    .instance = name,
                                    .message = line};
            instance->config.error_handler(instance->config.error_context, &error);
            return;
        }
    }
    line[length] = '\n';
    if (write(STDERR_FILENO, line, (size_t)length + 1) < 0) { /* nothing can be done about it */
    }
    abort();
}
