/* SPDX-License-Identifier: MIT */
/*
 * How a trace is to be replayed, as options on the command line.
 *
 * `larder replay` does what they say and `larder pick` hands them to the replays it starts, so both
 * take the same words: each splices REPLAY_OPTION_ROWS into its table for getopt_long(), gives
 * replay_options_read() what is not its own, and prints the same lines of help.
 */
#ifndef LARDER_TOOLS_REPLAY_OPTIONS_H
#define LARDER_TOOLS_REPLAY_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "replay.h"

struct replay_options {
    struct replay_settings settings;
    const char *touch; /* the word for settings.touch */
    uint64_t min_size;
    bool repair;
    bool parallel;
    bool paced;
    const char *phase; /* NULL: the whole trace */
};

/* What getopt_long() returns for them. A subcommand's own begin at REPLAY_OPTION_END. */
enum {
    REPLAY_OPTION_TOUCH = 256,
    REPLAY_OPTION_PASSES,
    REPLAY_OPTION_GAP,
    REPLAY_OPTION_MIN_SIZE,
    REPLAY_OPTION_REPAIR,
    REPLAY_OPTION_SERIAL,
    REPLAY_OPTION_PARALLEL,
    REPLAY_OPTION_STREAMS,
    REPLAY_OPTION_PHASE,
    REPLAY_OPTION_PACED,
    REPLAY_OPTION_READ,
    REPLAY_OPTION_END
};

#define REPLAY_OPTION_ROWS                                                                         \
    {"touch", required_argument, NULL, REPLAY_OPTION_TOUCH},                                       \
        {"passes", required_argument, NULL, REPLAY_OPTION_PASSES},                                 \
        {"gap-ms", required_argument, NULL, REPLAY_OPTION_GAP},                                    \
        {"min-size", required_argument, NULL, REPLAY_OPTION_MIN_SIZE},                             \
        {"repair", no_argument, NULL, REPLAY_OPTION_REPAIR},                                       \
        {"serial", no_argument, NULL, REPLAY_OPTION_SERIAL},                                       \
        {"parallel", no_argument, NULL, REPLAY_OPTION_PARALLEL},                                   \
        {"streams", required_argument, NULL, REPLAY_OPTION_STREAMS},                               \
        {"phase", required_argument, NULL, REPLAY_OPTION_PHASE},                                   \
        {"paced", no_argument, NULL, REPLAY_OPTION_PACED},                                         \
    {                                                                                              \
        "read-before-free", no_argument, NULL, REPLAY_OPTION_READ                                  \
    }

/* What holds where nothing is said, but for min_size, which is 0. */
void replay_options_init(struct replay_options *options);

/* Takes one of the options above. Returns an exit code; what is wrong has been told. */
int replay_options_read(const char *subcommand, struct replay_options *options, int option,
                        const char *value);

/* What no option alone can tell, once all are read. Returns an exit code. */
int replay_options_check(const char *subcommand, const struct replay_options *options);

/* A number from min to max behind the option `name`; for a subcommand's own options too. */
int replay_options_read_count(const char *subcommand, const char *name, const char *text,
                              uint64_t min, uint64_t max, unsigned *out);

/* Prints the lines of help. `min_size`: what the subcommand's default is, in words. */
void replay_options_print_help(FILE *out, const char *min_size);

/* The options as a child's arguments. Those at their defaults are left out, but for min_size. */
#define REPLAY_ARGUMENTS_MAX 32
struct replay_arguments {
    const char *words[REPLAY_ARGUMENTS_MAX];
    size_t count;
    char numbers[REPLAY_ARGUMENTS_MAX][24];
};
void replay_options_to_arguments(const struct replay_options *options,
                                 struct replay_arguments *out);

#endif
