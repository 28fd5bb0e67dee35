/* SPDX-License-Identifier: MIT */
/* `larder run`: a program on larder, as it is. Sets the environment and becomes the program. */
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "larder/larder.h"
#include "preloaded.h"
#include "tool.h"

static const char help[] =
    "usage: larder run [--config KEY=VALUE,...] [--min-size N] [--stats] [--] COMMAND...\n"
    "\n"
    "Runs COMMAND, and what it starts, with larder as its malloc: requests of at least N bytes go\n"
    "to larder, smaller ones to the system's malloc (or to one that LD_PRELOAD already names).\n"
    "\n"
    "  --config KEY=VALUE,...  settings of an instance, such as decay_ms=never,alignment=16; the\n"
    "                          same as LARDER_KEY=VALUE in the environment\n"
    "  --min-size N            bytes, or with a suffix k, m or g (default 16k)\n"
    "  --stats                 each process prints larder's statistics on stderr at its exit\n"
    "  -h, --help              this text\n"
    "\n"
    "A program that is linked statically, or has more rights than its caller, runs as it would\n"
    "without larder. LARDER_PRELOAD_LIB names another liblarder-preload.so than the one beside\n"
    "this program.\n"
    "\n"
    "Exit status: COMMAND's; 2 wrong usage, 126 COMMAND cannot be run, 127 it is not found,\n"
    "1 anything else that went wrong before.\n";

/* LARDER_KEY=VALUE for the command, once it is known to be a good setting. */
static int set_config(const char *key, const char *value)
{
    larder_config_t config;
    char variable[64];
    larder_config_init(&config);
    int error = larder_config_set(&config, key, value);
    if (error == -ENOENT)
        return tool_usage_error("run", "--config: unknown setting '%s'", key);
    if (error != 0)
        return tool_usage_error("run", "--config: %s cannot be '%s'", key, value);
    snprintf(variable, sizeof variable, "LARDER_%s", key);
    for (char *c = variable; *c != '\0'; c++)
        *c = (char)toupper((unsigned char)*c);
    return setenv(variable, value, 1) == 0 ? TOOL_FINE : TOOL_FAILED;
}

/* Takes the list apart in place. */
static int set_configs(char *list)
{
    char *rest;
    for (char *item = strtok_r(list, ",", &rest); item != NULL; item = strtok_r(NULL, ",", &rest)) {
        char *equals = strchr(item, '=');
        if (equals == NULL)
            return tool_usage_error("run", "--config: '%s' is not KEY=VALUE", item);
        *equals = '\0';
        int result = set_config(item, equals + 1);
        if (result != TOOL_FINE)
            return result;
    }
    return TOOL_FINE;
}

static int set_min_size(const char *text)
{
    uint64_t size;
    char number[32];
    if (!tool_read_size(text, &size) || size > SIZE_MAX)
        return tool_usage_error("run", "--min-size: '%s' is no number of bytes", text);
    snprintf(number, sizeof number, "%" PRIu64, size);
    return setenv("LARDER_MIN_SIZE", number, 1) == 0 ? TOOL_FINE : TOOL_FAILED;
}

/* One option; *done: there is nothing more to do. */
static int read_option(int returned, char **argv, bool *done)
{
    switch (returned) {
    case 'c':
        return set_configs(optarg);
    case 'm':
        return set_min_size(optarg);
    case 's':
        return setenv("LARDER_STATS", "1", 1) == 0 ? TOOL_FINE : TOOL_FAILED;
    case 'h':
        fputs(help, stdout);
        *done = true;
        return TOOL_FINE;
    default:
        return tool_bad_option("run", returned, optopt, argv);
    }
}

int run_main(int argc, char **argv)
{
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'},
        {"min-size", required_argument, NULL, 'm'},
        {"stats", no_argument, NULL, 's'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    char path[4096];
    bool done = false;
    int returned;
    opterr = 0;
    /* "+": what follows COMMAND is its own */
    while ((returned = getopt_long(argc, argv, "+:h", options, NULL)) != -1) {
        int result = read_option(returned, argv, &done);
        if (result != TOOL_FINE || done)
            return result;
    }
    if (optind == argc)
        return tool_usage_error("run", "no command given");
    int result =
        preloaded_find("run", "LARDER_PRELOAD_LIB", "liblarder-preload.so", path, sizeof path);
    if (result == TOOL_FINE)
        result = preloaded_set("run", path);
    return result == TOOL_FINE ? preloaded_exec("run", argv + optind) : result;
}
