/* SPDX-License-Identifier: MIT */
/* Messages and numbers for the subcommands: see tool.h. */
#include "tool.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__attribute__((format(printf, 2, 0))) static void print_error(const char *subcommand,
                                                              const char *format, va_list arguments)
{
    fprintf(stderr, "larder%s%s: ", subcommand[0] != '\0' ? " " : "", subcommand);
    vfprintf(stderr, format, arguments);
}

void tool_error(const char *subcommand, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    print_error(subcommand, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
}

int tool_usage_error(const char *subcommand, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    print_error(subcommand, format, arguments);
    va_end(arguments);
    fprintf(stderr, "; see `larder%s%s --help`\n", subcommand[0] != '\0' ? " " : "", subcommand);
    return TOOL_USAGE;
}

int tool_bad_option(const char *subcommand, int returned, int option, char **argv)
{
    const char *given = argv[optind - 1];
    if (returned == ':') {
        return tool_usage_error(subcommand, "%s needs a value", given);
    }
    if (option != 0 && strncmp(given, "--", 2) != 0) {
        return tool_usage_error(subcommand, "unknown option -%c", option);
    }
    return tool_usage_error(subcommand,
                            "unknown or ambiguous option %s, or a value it does not take", given);
}

bool tool_read_number(const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
    char *end;
    if (text[0] < '0' || text[0] > '9') {
        return false; /* strtoumax() would take blanks and signs */
    }
    errno = 0;
    uintmax_t value = strtoumax(text, &end, 10);
    if (*end != '\0' || errno != 0 || value < min || value > max) {
        return false;
    }
    *out = value;
    return true;
}

bool tool_read_size(const char *text, uint64_t *out)
{
    static const char suffixes[] = "kmg";
    char digits[32];
    size_t length = strlen(text);
    unsigned shift = 0;
    if (length == 0 || length >= sizeof digits) {
        return false;
    }
    memcpy(digits, text, length + 1);
    const char *suffix = strchr(suffixes, digits[length - 1] | 0x20);
    if (suffix != NULL && *suffix != '\0') {
        shift = 10u * (unsigned)(suffix - suffixes + 1);
        digits[length - 1] = '\0';
    }
    if (!tool_read_number(digits, 0, UINT64_MAX >> shift, out)) {
        return false;
    }
    *out <<= shift;
    return true;
}

const char *tool_format_bytes(uint64_t bytes, char *out, size_t out_size)
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
    if (bytes < 1024) {
        snprintf(out, out_size, "%" PRIu64 " B", bytes);
        return out;
    }
    double value = (double)bytes / 1024;
    size_t unit = 0;
    while (value >= 1024 && unit + 1 < sizeof units / sizeof units[0]) {
        value /= 1024;
        unit++;
    }
    int decimals = value < 10 ? 2 : value < 100 ? 1 : 0;
    if (value == (double)(uint64_t)value) {
        decimals = 0;
    }
    snprintf(out, out_size, "%.*f %s", decimals, value, units[unit]);
    return out;
}
