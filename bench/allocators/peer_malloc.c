/* SPDX-License-Identifier: MIT */
/*
 * The malloc of this process: see peer_malloc.h.
 *
 * Android's settings of scudo. On a phone the runtime calls mallopt(M_DECAY_TIME, 1), which there
 * stands for the longest interval its configuration allows, a second; elsewhere scudo takes the
 * number for milliseconds. So 1000 is what gives the same behaviour here. What it keeps of large
 * blocks (32 of up to 2 MiB) is the default of Android's configuration.
 */
#include "peer_malloc.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "peer.h"

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

/* "libtbbmalloc_proxy.so.2" is a link to the file that carries the whole version, ".so.2.8". */
static bool tbbmalloc_version(const char *file, char *out, size_t out_size)
{
    static const char prefix[] = "libtbbmalloc_proxy.so.";
    char *real = realpath(file, NULL);
    const char *base = real != NULL ? base_name(real) : "";
    bool known = strncmp(base, prefix, strlen(prefix)) == 0;
    if (known) {
        snprintf(out, out_size, "tbbmalloc %s", base + strlen(prefix));
    }
    free(real);
    return known;
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
        !mimalloc_version(out, out_size) && !tbbmalloc_version(file, out, out_size) &&
        !scudo_version(file, out, out_size)) {
        snprintf(out, out_size, "%s", base_name(file));
    }
}

static bool set_up_scudo_as_on_android(void)
{
    static const struct {
        int option; /* as scudo numbers them, on every system */
        int value;
    } settings[] = {{-201, 2 << 20}, {-200, 32}, {-100, 1000}};
    int (*set)(int option, int value);
    *(void **)&set = dlsym(RTLD_DEFAULT, "mallopt");
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
        if (set == NULL || set(settings[i].option, settings[i].value) != 1) {
            return false;
        }
    }
    return true;
}

/* "jemalloc 5.3.0" under the name jemalloc reads better as "5.3.0". */
static const char *without_product(const char *version, const char *name)
{
    size_t length = strlen(name);
    return strncmp(version, name, length) == 0 && version[length] == ' ' ? version + length + 1
                                                                         : version;
}

int peer_malloc_open(const char *name, struct allocator *out, char *why, size_t why_size)
{
    unsetenv("LD_PRELOAD");
    if (!peer_malloc_is_preloaded()) {
        snprintf(why, why_size,
                 "malloc is still this program's own although a library was preloaded: name one "
                 "that defines malloc for this machine");
        return -ENODEV;
    }
    if (strcmp(name, PEER_SCUDO_ANDROID) == 0 && !set_up_scudo_as_on_android()) {
        snprintf(why, why_size,
                 "the scudo library found refuses Android's settings: install libclang-rt-14-dev "
                 "(Debian)");
        return -ENODEV;
    }
    int result = allocator_open("system", out, why, why_size);
    if (result == 0) {
        out->version = without_product(out->version, name);
        out->name = name;
    }
    return result;
}
