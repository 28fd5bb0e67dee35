/* SPDX-License-Identifier: MIT */
/* Opening an allocator by name, in this process or a new one: see backend.h. */
#include "backend.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "peer.h"
#include "peer_malloc.h"
#include "tool.h"

bool backend_is_known(const char *name)
{
    return allocator_summary(name) != NULL || peer_is_one(name);
}

bool backend_needs_preload(const char *name)
{
    return peer_is_one(name);
}

void backend_restart_preloaded(const char *name, int argc, char **argv, char *why, size_t why_size)
{
    char library[4096];
    if (peer_library(name, library, sizeof library, why, why_size) != 0) {
        return;
    }
    char **arguments = calloc((size_t)argc + 3, sizeof *arguments);
    char program_name[] = "larder", preloaded[] = "--preloaded";
    if (arguments == NULL || setenv("LD_PRELOAD", library, 1) != 0) {
        snprintf(why, why_size, "no memory to start a process for it");
        free(arguments);
        return;
    }
    arguments[0] = program_name;
    arguments[1] = argv[0];
    arguments[2] = preloaded;
    memcpy(arguments + 3, argv + 1, (size_t)(argc - 1) * sizeof *arguments);
    execv(tool_program(), arguments);
    snprintf(why, why_size, "%s could not be started again: %s", tool_program(), strerror(errno));
    free(arguments);
}

int backend_open(const char *name, bool preloaded, struct allocator *out, char *why,
                 size_t why_size)
{
    return preloaded ? peer_malloc_open(name, out, why, why_size)
                     : allocator_open(name, out, why, why_size);
}

void backend_print_list(FILE *out)
{
    for (const char *const *name = allocator_names(); *name != NULL; name++) {
        fprintf(out, "    %-18s %s\n", *name, allocator_summary(*name));
    }
    for (const char *const *name = peer_names(); *name != NULL; name++) {
        fprintf(out, "    %-18s %s\n", *name, peer_summary(*name));
    }
    fprintf(out, "    %-18s %s\n", "preload:PATH", "any other library that defines malloc");
}
