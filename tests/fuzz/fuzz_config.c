/* SPDX-License-Identifier: MIT */
/*
 * A libFuzzer harness for larder's settings: lines KEY=VALUE, each through larder_config_set(). A
 * setting that is taken must make an instance, or be refused by larder_create() with EINVAL.
 */
#include <errno.h>
#include <larder/larder.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void set_line(larder_config_t *config, char *line)
{
    char *equals = strchr(line, '=');
    if (equals == NULL) {
        return;
    }
    *equals = '\0';
    int result = larder_config_set(config, line, equals + 1);
    if (result != 0 && result != -ENOENT && result != -EINVAL) {
        abort();
    }
}

static void create(const larder_config_t *config)
{
    errno = 0;
    larder_t *larder = larder_create("fuzz", config);
    if (larder == NULL) {
        if (errno != EINVAL && errno != ENOMEM) {
            abort();
        }
        return;
    }
    void *block = larder_alloc(larder, 5000);
    larder_free(larder, block);
    if (larder_destroy(larder) != 0) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    larder_config_t config;
    char *text = malloc(size + 1);
    if (text == NULL) {
        return 0;
    }
    memcpy(text, data, size);
    text[size] = '\0';
    larder_config_init(&config);
    for (char *line = text, *next; line != NULL; line = next) {
        next = strchr(line, '\n');
        if (next != NULL) {
            *next++ = '\0';
        }
        set_line(&config, line);
    }
    create(&config);
    free(text);
    return 0;
}
