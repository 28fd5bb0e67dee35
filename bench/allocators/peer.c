/* SPDX-License-Identifier: MIT */
/*
 * Finding the allocators that replace malloc: see peer.h.
 *
 * Whether the linker finds a library, only the linker knows. A child process asks it with dlopen()
 * and exits: these libraries install themselves when loaded and must not stay in the process that
 * asks. jemalloc as distributions build it cannot be opened late (its thread-local block is
 * static), but the message tells that from a library that is missing.
 */
#include "peer.h"

#include <dlfcn.h>
#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define PRELOAD_PREFIX "preload:"

#define SCUDO_LIBRARIES                                                                            \
    "/usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.scudo_standalone-*.so",                     \
        "/usr/lib/clang/*/lib/*/libclang_rt.scudo_standalone*.so"

static const struct peer {
    const char *name;
    const char *libraries[5]; /* names for the linker, or patterns for glob(), best first */
    const char *package;
    const char *summary;
} peers[] = {
    {"jemalloc", {"libjemalloc.so.2", "libjemalloc.so"}, "libjemalloc2", "jemalloc, preloaded"},
    {"tcmalloc",
     {"libtcmalloc.so.4", "libtcmalloc_minimal.so.4", "libtcmalloc.so", "libtcmalloc_minimal.so"},
     "libtcmalloc-minimal4",
     "tcmalloc of gperftools, preloaded"},
    {"tbbmalloc",
     {"libtbbmalloc_proxy.so.2", "libtbbmalloc_proxy.so"},
     "libtbbmalloc2",
     "tbbmalloc of oneTBB, preloaded"},
    {"scudo",
     {SCUDO_LIBRARIES},
     "libclang-rt-14-dev",
     "scudo of LLVM, what Android ships, preloaded"},
    {PEER_SCUDO_ANDROID,
     {SCUDO_LIBRARIES},
     "libclang-rt-14-dev",
     "the same, with the cache of large blocks that Android sets"},
};

#define PEER_COUNT (sizeof peers / sizeof peers[0])

static const struct peer *find(const char *name)
{
    for (size_t i = 0; i < PEER_COUNT; i++) {
        if (strcmp(peers[i].name, name) == 0) {
            return &peers[i];
        }
    }
    return NULL;
}

static bool is_preload(const char *name)
{
    return strncmp(name, PRELOAD_PREFIX, sizeof PRELOAD_PREFIX - 1) == 0;
}

bool peer_is_one(const char *name)
{
    return find(name) != NULL || is_preload(name);
}

/* In the child: 0 where the library can be preloaded; never returns. */
static _Noreturn void ask_linker(const char *library)
{
    const char *problem;
    if (dlopen(library, RTLD_LAZY | RTLD_LOCAL) != NULL) {
        _exit(0);
    }
    problem = dlerror();
    _exit(problem != NULL && strstr(problem, "static TLS") != NULL ? 0 : 1);
}

static bool linker_finds(const char *library)
{
    int status;
    pid_t child = fork();
    if (child == 0) {
        ask_linker(library);
    }
    if (child < 0) {
        return false;
    }
    while (waitpid(child, &status, 0) < 0) {
        if (errno != EINTR) {
            return false;
        }
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* The last file that the pattern matches and that this process could load: the newest version. */
static bool find_file(const char *pattern, char *out, size_t out_size)
{
    glob_t found;
    bool usable = false;
    if (glob(pattern, 0, NULL, &found) != 0) {
        return false;
    }
    for (size_t i = found.gl_pathc; i-- > 0 && !usable;) {
        snprintf(out, out_size, "%s", found.gl_pathv[i]);
        usable = linker_finds(out);
    }
    globfree(&found);
    return usable;
}

static int preload_library(const char *path, char *out, size_t out_size, char *why, size_t why_size)
{
    if (strpbrk(path, " :") != NULL || *path == '\0') {
        snprintf(why, why_size,
                 "the path behind preload: is empty or has a blank or colon, which LD_PRELOAD "
                 "cannot hold: name another");
        return -ENODEV;
    }
    if (!linker_finds(path)) {
        snprintf(why, why_size,
                 "the dynamic linker cannot load '%s': name a shared library for this machine",
                 path);
        return -ENODEV;
    }
    snprintf(out, out_size, "%s", path);
    return 0;
}

int peer_library(const char *name, char *out, size_t out_size, char *why, size_t why_size)
{
    const struct peer *peer = find(name);
    if (peer == NULL) {
        return preload_library(name + sizeof PRELOAD_PREFIX - 1, out, out_size, why, why_size);
    }
    for (size_t i = 0; i < sizeof peer->libraries / sizeof peer->libraries[0]; i++) {
        const char *library = peer->libraries[i];
        if (library == NULL) {
            break;
        }
        if (strchr(library, '*') != NULL) {
            if (find_file(library, out, out_size)) {
                return 0;
            }
        } else if (linker_finds(library)) {
            snprintf(out, out_size, "%s", library);
            return 0;
        }
    }
    snprintf(why, why_size,
             "its library is not on this machine: install %s (Debian), or name a library with "
             "preload:PATH",
             peer->package);
    return -ENODEV;
}

const char *const *peer_names(void)
{
    static const char *names[PEER_COUNT + 1];
    for (size_t i = 0; i < PEER_COUNT; i++) {
        names[i] = peers[i].name;
    }
    return names;
}

const char *peer_summary(const char *name)
{
    const struct peer *peer = find(name);
    return peer != NULL ? peer->summary : NULL;
}
