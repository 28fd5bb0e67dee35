/* SPDX-License-Identifier: MIT */
/*
 * Finding and naming the allocators that replace malloc: see peer.h.
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
    {"scudo",
     {"/usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.scudo_standalone-*.so",
      "/usr/lib/clang/*/lib/*/libclang_rt.scudo_standalone*.so"},
     "libclang-rt-14-dev",
     "scudo of LLVM, what Android ships, preloaded"},
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

static bool find_malloc(Dl_info *info)
{
    void *symbol = dlsym(RTLD_DEFAULT, "malloc");
    return symbol != NULL && dladdr(symbol, info) != 0 && info->dli_fname != NULL;
}

bool peer_malloc_file(char *out, size_t out_size)
{
    Dl_info info;
    if (!find_malloc(&info)) {
        return false;
    }
    snprintf(out, out_size, "%s", info.dli_fname);
    return true;
}

bool peer_malloc_is_preloaded(void)
{
    static const char in_this_program = 0;
    Dl_info malloc_info, program_info;
    return find_malloc(&malloc_info) && !peer_is_libc(malloc_info.dli_fname) &&
           dladdr(&in_this_program, &program_info) != 0 &&
           malloc_info.dli_fbase != program_info.dli_fbase;
}

static const char *base_name(const char *file)
{
    const char *slash = strrchr(file, '/');
    return slash != NULL ? slash + 1 : file;
}

bool peer_is_libc(const char *file)
{
    const char *base = base_name(file);
    return strncmp(base, "libc.", 5) == 0 || strncmp(base, "libc-", 5) == 0 ||
           strncmp(base, "ld-musl", 7) == 0;
}

static bool jemalloc_version(char *out, size_t out_size)
{
    int (*mallctl)(const char *, void *, size_t *, void *, size_t);
    const char *version = NULL;
    size_t size = sizeof version;
    *(void **)&mallctl = dlsym(RTLD_DEFAULT, "mallctl");
    if (mallctl == NULL || mallctl("version", &version, &size, NULL, 0) != 0) {
        return false;
    }
    /* "5.3.0-0-g54eaed1d..." */
    snprintf(out, out_size, "jemalloc %.*s", (int)strcspn(version, "-"), version);
    return true;
}

static bool tcmalloc_version(char *out, size_t out_size)
{
    const char *(*version)(int *, int *, const char **);
    *(void **)&version = dlsym(RTLD_DEFAULT, "tc_version");
    if (version == NULL) {
        return false;
    }
    snprintf(out, out_size, "%s", version(NULL, NULL, NULL)); /* "gperftools 2.10" */
    return true;
}

/* It is 209 for 2.0.9; newer releases use two digits a part, as 20405 for 2.4.5. */
void peer_format_mimalloc_version(int number, char *out, size_t out_size)
{
    int step = number >= 10000 ? 100 : 10;
    snprintf(out, out_size, "%d.%d.%d", number / (step * step), number / step % step,
             number % step);
}

static bool mimalloc_version(char *out, size_t out_size)
{
    char number[32];
    int (*version)(void);
    *(void **)&version = dlsym(RTLD_DEFAULT, "mi_version");
    if (version == NULL) {
        return false;
    }
    peer_format_mimalloc_version(version(), number, sizeof number);
    snprintf(out, out_size, "mimalloc %s", number);
    return true;
}

/* Scudo does not say its version; its path does: .../clang/14.0.6/lib/... */
static bool scudo_version(const char *file, char *out, size_t out_size)
{
    const char *directory = strstr(file, "/clang/");
    if (strstr(base_name(file), "scudo") == NULL || directory == NULL) {
        return false;
    }
    directory += strlen("/clang/");
    snprintf(out, out_size, "llvm %.*s", (int)strcspn(directory, "/"), directory);
    return true;
}

void peer_version(const char *file, char *out, size_t out_size)
{
    if (!jemalloc_version(out, out_size) && !tcmalloc_version(out, out_size) &&
        !mimalloc_version(out, out_size) && !scudo_version(file, out, out_size)) {
        snprintf(out, out_size, "%s", base_name(file));
    }
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
