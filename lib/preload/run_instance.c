/* SPDX-License-Identifier: MIT */
/*
 * Backends. larder's own `system` backend calls malloc, which here is the caller itself: it is
 * replaced by one over the next family, also where a policy would choose it.
 *
 * Statistics are written by a destructor of this library, after the program's atexit handlers. Many
 * programs close stderr in one of those, to see whether it could be written, so a copy of the
 * descriptor is kept for it, out of the way of what programs count on, and only if asked for.
 */
#include "run_instance.h"

#include <errno.h>
#include <fcntl.h>
#include <stdalign.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "granules.h"
#include "settings.h"

enum {
    DEFAULT_MIN_SIZE = 16 * 1024,
    LEAST_ALIGNMENT = 16, /* of malloc, on every machine larder runs on */
    STATS_DESCRIPTOR = 200
};

static larder_t *made;
static const char *stats_wanted; /* "1" or "json", or NULL */
static int stats_descriptor = -1;

extern char **environ;

bool run_environment_is_there(void)
{
    return environ != NULL;
}

/* ---- the backend ---- */

static void *next_allocate(void *context, size_t size, size_t alignment)
{
    const struct next_family *next = context;
    void *ptr = NULL;
    if (alignment <= alignof(max_align_t))
        return next->malloc(size);
    return next->posix_memalign(&ptr, alignment, size) == 0 ? ptr : NULL;
}

static void next_free(void *context, void *ptr, size_t size)
{
    const struct next_family *next = context;
    (void)size;
    next->free(ptr);
}

static larder_backend_t next_backend = {
    .struct_size = sizeof next_backend,
    .name = "next",
    .allocate = next_allocate,
    .free = next_free,
    .flags = LARDER_BACKEND_FREES_FOREIGN,
};

static void replace_system(larder_config_t *config, const struct next_family *next)
{
    bool is_default = config->backend == NULL && config->policy != LARDER_POLICY_FIT;
    if (!is_default && config->backend != larder_backend_system())
        return;
    next_backend.context = (void *)(uintptr_t)next;
    config->backend = &next_backend;
}

/* ---- statistics ---- */

static void want_stats(void)
{
    const char *wish = getenv("LARDER_STATS");
    if (wish == NULL || (strcmp(wish, "1") != 0 && strcmp(wish, "json") != 0))
        return;
    stats_wanted = wish;
    stats_descriptor = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, STATS_DESCRIPTOR);
}

static void read_name(char *name, size_t size)
{
    int file = open("/proc/self/comm", O_RDONLY | O_CLOEXEC);
    ssize_t length = file >= 0 ? read(file, name, size - 1) : 0;
    if (file >= 0)
        close(file);
    name[length > 0 ? length : 0] = '\0';
    name[strcspn(name, "\n")] = '\0';
}

/* One write, so that the lines of several processes do not mix. */
__attribute__((destructor)) static void print_stats(void)
{
    static char text[8192];
    char name[64];
    if (made == NULL || stats_wanted == NULL)
        return;
    FILE *out = fmemopen(text, sizeof text, "w");
    if (out == NULL)
        return;
    if (strcmp(stats_wanted, "json") == 0) {
        larder_stats_print_json(made, out);
    } else {
        read_name(name, sizeof name);
        fprintf(out, "process %d (%s): ", (int)getpid(), name);
        larder_stats_print(made, out);
    }
    fflush(out);
    long length = ftell(out);
    fclose(out);
    if (length > 0)
        (void)!write(stats_descriptor >= 0 ? stats_descriptor : STDERR_FILENO, text,
                     (size_t)length);
}

/* ---- making it ---- */

size_t run_min_size(void)
{
    size_t size = setting_size("LARDER_MIN_SIZE", DEFAULT_MIN_SIZE);
    return size != 0 ? size : 1;
}

larder_t *run_instance_create(const struct next_family *next)
{
    int error = errno;
    larder_config_t config;
    larder_config_init(&config);
    (void)larder_config_from_environment(&config); /* what is wrong has been reported */
    if (config.alignment < LEAST_ALIGNMENT)
        config.alignment = LEAST_ALIGNMENT;
    replace_system(&config, next);
    if (granules_enable() == 0)
        made = larder_create("malloc", &config);
    if (made != NULL)
        want_stats();
    errno = error;
    return made;
}
