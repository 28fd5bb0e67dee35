/* SPDX-License-Identifier: MIT */
/*
 * What the subcommands of `larder` share: how they are called, how they fail, how they read
 * numbers.
 *
 * A subcommand is a file with one entry point and a row in larder.c's table. Messages are one line
 * on stderr that begin with the program and subcommand and say what to do. Results go to stdout.
 */
#ifndef LARDER_TOOLS_TOOL_H
#define LARDER_TOOLS_TOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Exit codes. */
enum tool_exit {
    TOOL_FINE = 0,
    TOOL_FAILED = 1, /* the job could not be done */
    TOOL_USAGE = 2   /* it was asked for in the wrong way */
};

/* Subcommands: argv[0] is the subcommand's name. Each returns an exit code. */
int replay_main(int argc, char **argv);
int convert_main(int argc, char **argv);
int info_main(int argc, char **argv);
int pick_main(int argc, char **argv);
int record_main(int argc, char **argv);
int run_main(int argc, char **argv);
int plan_main(int argc, char **argv);

/* The program that runs, for starting it again. */
const char *tool_program(void);

/* Prints "larder SUBCOMMAND: ..." on stderr. */
__attribute__((format(printf, 2, 3))) void tool_error(const char *subcommand, const char *format,
                                                      ...);

/* The same, with a pointer to the help at its end; returns TOOL_USAGE. */
__attribute__((format(printf, 2, 3))) int tool_usage_error(const char *subcommand,
                                                           const char *format, ...);

/* What getopt_long() returned '?' or ':' for, as a usage error. */
int tool_bad_option(const char *subcommand, int returned, int option, char **argv);

/* A decimal number from min to max; false where it is none. */
bool tool_read_number(const char *text, uint64_t min, uint64_t max, uint64_t *out);

/* A size in bytes, with an optional suffix k, m or g (powers of 1024); false where it is none. */
bool tool_read_size(const char *text, uint64_t *out);

/* Bytes for people: "2.61 MiB". Uses and returns `out`. */
const char *tool_format_bytes(uint64_t bytes, char *out, size_t out_size);

#endif
