/* SPDX-License-Identifier: MIT */
/* Libraries to preload: see preloaded.h. */
#include "preloaded.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tool.h"

/* Where the libraries are, seen from the program's directory: built, and installed. */
static const char *const places[] = {"../lib/preload", LARDER_PRELOAD_DIR};

/* `place` may be absolute. */
static void join(const char *place, const char *name, char *path, size_t path_size)
{
    const char *program = tool_program();
    const char *slash = strrchr(program, '/');
    int directory = slash != NULL ? (int)(slash - program) : 0;
    if (place[0] == '/' || slash == NULL)
        snprintf(path, path_size, "%s/%s", place, name);
    else
        snprintf(path, path_size, "%.*s/%s/%s", directory, program, place, name);
}

int preloaded_find(const char *subcommand, const char *override, const char *name, char *path,
                   size_t path_size)
{
    const char *given = getenv(override);
    if (given != NULL && given[0] != '\0') {
        /* absolute: the command may change its directory before it starts another */
        char *absolute = realpath(given, NULL);
        if (absolute == NULL) {
            tool_error(subcommand, "%s=%s: %s", override, given, strerror(errno));
            return TOOL_FAILED;
        }
        snprintf(path, path_size, "%s", absolute);
        free(absolute);
        return TOOL_FINE;
    }
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        char joined[4096];
        join(places[i], name, joined, sizeof joined);
        char *absolute = realpath(joined, NULL);
        if (absolute == NULL)
            continue;
        snprintf(path, path_size, "%s", absolute);
        free(absolute);
        return TOOL_FINE;
    }
    tool_error(subcommand, "%s is not beside %s: install it, or name it in %s", name,
               tool_program(), override);
    return TOOL_FAILED;
}

int preloaded_set(const char *subcommand, const char *path)
{
    static const char variable[] = "LD_PRELOAD";
    if (strpbrk(path, " :\t\n") != NULL) {
        tool_error(subcommand, "%s: the loader takes no path with a blank or a colon: move it",
                   path);
        return TOOL_FAILED;
    }
    const char *before = getenv(variable);
    if (before == NULL || before[0] == '\0')
        return setenv(variable, path, 1) == 0 ? TOOL_FINE : TOOL_FAILED;
    size_t size = strlen(path) + strlen(before) + 2;
    char *both = malloc(size);
    if (both == NULL) {
        tool_error(subcommand, "not enough memory");
        return TOOL_FAILED;
    }
    snprintf(both, size, "%s:%s", path, before);
    int result = setenv(variable, both, 1) == 0 ? TOOL_FINE : TOOL_FAILED;
    free(both);
    return result;
}

int preloaded_exec(const char *subcommand, char **argv)
{
    execvp(argv[0], argv);
    int error = errno;
    tool_error(subcommand, "%s: %s", argv[0], strerror(error));
    return error == ENOENT ? COMMAND_NOT_FOUND : COMMAND_NOT_RUN;
}
