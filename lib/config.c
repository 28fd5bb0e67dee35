/* SPDX-License-Identifier: MIT */
/*
 * Settings: defaults, checks, and text. One table names every key; the environment, larder_config_set() and the tools'
 * k=v lists all go through it.
 */
#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "os/os.h"

extern char **environ;

enum { DEFAULT_THREAD_CACHED_BYTES = 56 * 1024, DEFAULT_DECAY_MS = 1000, MAX_EDGE = 4096 };

/* A build for looking for bugs looks without being told to, at the price of the hit path. */
#ifdef LARDER_CHECKS_FULL
enum { DEFAULT_REDZONE = 32, DEFAULT_FILL = 0xDB };
#else
enum { DEFAULT_REDZONE = 0, DEFAULT_FILL = -1 };
#endif

void larder_config_init(larder_config_t *config)
{
    *config = (larder_config_t){
        .struct_size = sizeof *config,
        .policy = LARDER_POLICY_FIT,
        .alignment = 64,
        .max_cached_size = SIZE_MAX,
        .max_cached_bytes = LARDER_ADAPTIVE,
        .thread_cached_bytes = DEFAULT_THREAD_CACHED_BYTES,
        .decay_ms = DEFAULT_DECAY_MS,
        .redzone = DEFAULT_REDZONE,
        .fill = DEFAULT_FILL,
        .checks = LARDER_CHECKS_DEFAULT,
    };
}

static bool is_valid(const larder_config_t *config)
{
    size_t alignment = config->alignment;
    return (unsigned)config->policy <= LARDER_POLICY_PLANNED && alignment >= 8 &&
           alignment <= 4096 && (alignment & (alignment - 1)) == 0 &&
           config->padding_before <= MAX_EDGE && config->padding_after <= MAX_EDGE &&
           config->redzone <= MAX_EDGE && config->min_cached_size <= config->max_cached_size &&
           config->fill >= -1 && config->fill <= 255 &&
           (unsigned)config->checks <= LARDER_CHECKS_STRICT && (unsigned)config->huge_pages <= 1;
}

int config_read(larder_config_t *to, const larder_config_t *from)
{
    larder_config_init(to);
    if (from != NULL) {
        if (from->struct_size < offsetof(larder_config_t, backend))
            return -EINVAL;
        size_t size = from->struct_size < sizeof *to ? from->struct_size : sizeof *to;
        memcpy(to, from, size);
        to->struct_size = sizeof *to;
    }
    return is_valid(to) ? 0 : -EINVAL;
}

/* ---- text ---- */

static int parse_number(const char *text, uint64_t max, bool suffix_allowed, uint64_t *value)
{
    if (!isdigit((unsigned char)*text))
        return -EINVAL;
    errno = 0;
    char *end;
    uint64_t number = strtoull(text, &end, 10);
    if (errno != 0)
        return -EINVAL;
    unsigned shift = 0;
    if (suffix_allowed && *end != '\0') {
        const char *suffixes = "kmg", *found = strchr(suffixes, tolower((unsigned char)*end));
        if (found == NULL || *found == '\0')
            return -EINVAL;
        shift = 10 * (unsigned)(found - suffixes + 1);
        end++;
    }
    if (*end != '\0' || number > max >> shift)
        return -EINVAL;
    *value = number << shift;
    return 0;
}

static int parse_size(const char *text, size_t *size)
{
    uint64_t value;
    if (strcasecmp(text, "max") == 0) {
        *size = SIZE_MAX;
        return 0;
    }
    int error = parse_number(text, SIZE_MAX, true, &value);
    if (error == 0)
        *size = (size_t)value;
    return error;
}

/* The index of `text` among names ended by NULL, or -EINVAL. */
static int parse_name(const char *text, const char *const names[])
{
    for (int i = 0; names[i] != NULL; i++) {
        if (strcasecmp(text, names[i]) == 0)
            return i;
    }
    return -EINVAL;
}

static int set_policy(larder_config_t *config, const char *value)
{
    static const char *const names[] = {"fit", "exact", "passthrough", "planned", NULL};
    int policy = parse_name(value, names);
    if (policy >= 0)
        config->policy = (larder_policy_t)policy;
    return policy < 0 ? policy : 0;
}

static int set_max_cached_bytes(larder_config_t *config, const char *value)
{
    if (strcasecmp(value, "adaptive") != 0)
        return parse_size(value, &config->max_cached_bytes);
    config->max_cached_bytes = LARDER_ADAPTIVE;
    return 0;
}

static int set_checks(larder_config_t *config, const char *value)
{
    static const char *const names[] = {"default", "strict", NULL};
    int checks = parse_name(value, names);
    if (checks >= 0)
        config->checks = (larder_checks_t)checks;
    return checks < 0 ? checks : 0;
}

static int set_backend(larder_config_t *config, const char *value)
{
    const larder_backend_t *backend = larder_backend_by_name(value);
    if (backend == NULL)
        return -EINVAL;
    config->backend = backend;
    return 0;
}

static int set_decay(larder_config_t *config, const char *value)
{
    uint64_t ms = UINT32_MAX;
    int error = strcasecmp(value, "never") == 0 ? 0 : parse_number(value, UINT32_MAX, false, &ms);
    if (error == 0)
        config->decay_ms = (uint32_t)ms;
    return error;
}

static int set_huge_pages(larder_config_t *config, const char *value)
{
    static const char *const names[] = {"never", "advise", NULL};
    int huge_pages = parse_name(value, names);
    if (huge_pages >= 0)
        config->huge_pages = huge_pages;
    return huge_pages < 0 ? huge_pages : 0;
}

static int set_fill(larder_config_t *config, const char *value)
{
    uint64_t byte = 0;
    bool none = strcmp(value, "-1") == 0 || strcasecmp(value, "none") == 0;
    int error = none ? 0 : parse_number(value, 255, false, &byte);
    if (error == 0)
        config->fill = none ? -1 : (int)byte;
    return error;
}

static const struct key {
    const char *name;
    int (*set)(larder_config_t *config, const char *value); /* NULL: a size at offset */
    size_t offset;
} keys[] = {
    {"policy", set_policy, 0},
    {"backend", set_backend, 0},
    {"alignment", NULL, offsetof(larder_config_t, alignment)},
    {"padding_before", NULL, offsetof(larder_config_t, padding_before)},
    {"padding_after", NULL, offsetof(larder_config_t, padding_after)},
    {"redzone", NULL, offsetof(larder_config_t, redzone)},
    {"min_cached_size", NULL, offsetof(larder_config_t, min_cached_size)},
    {"max_cached_size", NULL, offsetof(larder_config_t, max_cached_size)},
    {"max_cached_bytes", set_max_cached_bytes, 0},
    {"thread_cached_bytes", NULL, offsetof(larder_config_t, thread_cached_bytes)},
    {"decay_ms", set_decay, 0},
    {"fill", set_fill, 0},
    {"checks", set_checks, 0},
    {"huge_pages", set_huge_pages, 0},
    {"quarantine_bytes", NULL, offsetof(larder_config_t, quarantine_bytes)},
};

int larder_config_set(larder_config_t *config, const char *key, const char *value)
{
    if (config == NULL || key == NULL || value == NULL)
        return -EINVAL;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (strcasecmp(key, keys[i].name) != 0)
            continue;
        larder_config_t changed = *config;
        int error = keys[i].set != NULL
                        ? keys[i].set(&changed, value)
                        : parse_size(value, (size_t *)(void *)((char *)&changed + keys[i].offset));
        if (error == 0 && !is_valid(&changed)) {
            /* minimum and maximum depend on each other and are checked together on creation */
            bool pair =
                strcasecmp(key, "min_cached_size") == 0 || strcasecmp(key, "max_cached_size") == 0;
            if (!pair)
                error = -EINVAL;
        }
        if (error == 0)
            *config = changed;
        return error;
    }
    return -ENOENT;
}

/* ---- the environment ---- */

/* Variables that other parts of larder read: no settings of an instance. */
static bool is_known_elsewhere(const char *name, size_t length)
{
    static const char *const names[] = {"MAP_SHARDS", "MIMALLOC", "MIN_SIZE", "STATS", NULL};
    static const char *const prefixes[] = {"TEST_", "RECORD_", "BENCH_", "PRELOAD_", NULL};
    for (int i = 0; names[i] != NULL; i++) {
        if (strlen(names[i]) == length && strncmp(name, names[i], length) == 0)
            return true;
    }
    for (int i = 0; prefixes[i] != NULL; i++) {
        if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    }
    return false;
}

static bool is_bad_shard_count(const char *name, size_t length, const char *value)
{
    uint64_t shards;
    if (length != strlen("MAP_SHARDS") || strncmp(name, "MAP_SHARDS", length) != 0)
        return false;
    return parse_number(value, 1024, false, &shards) != 0 || shards == 0 ||
           (shards & (shards - 1)) != 0;
}

static void report(const larder_config_t *config, const char *variable, const char *state)
{
    char line[256];
    int length = snprintf(line, sizeof line - 1, "larder: %.*s: %s", 160, variable, state);
    if (length < 0)
        return;
    if (length > (int)sizeof line - 2)
        length = (int)sizeof line - 2;
    if (config->error_handler != NULL) {
        larder_error_t error = {.struct_size = sizeof error,
                                .kind = LARDER_ERROR_CONFIG,
                                .call = "larder_config_from_environment",
                                .state = state,
                                .instance = "none",
                                .message = line};
        config->error_handler(config->error_context, &error);
        return;
    }
    line[length] = '\n';
    if (write(STDERR_FILENO, line, (size_t)length + 1) < 0) { /* nothing can be done about it */
    }
}

int larder_config_from_environment(larder_config_t *config)
{
    static const char prefix[] = "LARDER_";
    int result = 0;
    for (char **variable = environ; variable != NULL && *variable != NULL; variable++) {
        if (strncmp(*variable, prefix, sizeof prefix - 1) != 0)
            continue;
        const char *name = *variable + sizeof prefix - 1;
        const char *equals = strchr(name, '=');
        if (equals == NULL)
            continue;
        size_t length = (size_t)(equals - name);
        const char *state = NULL;
        if (is_known_elsewhere(name, length)) {
            if (!is_bad_shard_count(name, length, equals + 1))
                continue;
            state = "not a power of two from 1 to 1024";
        } else {
            char key[32] = "";
            if (length < sizeof key)
                memcpy(key, name, length);
            int error = larder_config_set(config, key, equals + 1);
            if (error == 0)
                continue;
            state = error == -ENOENT ? "unknown setting, see larder_config_t in larder/larder.h"
                                     : "bad value, see larder_config_t in larder/larder.h";
        }
        report(config, *variable, state);
        result = -EINVAL;
    }
    return result;
}
