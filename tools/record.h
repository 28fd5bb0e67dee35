/* SPDX-License-Identifier: MIT */
/*
 * The parts of `larder record`: record.c the command line, record_child.c the command that is
 * recorded, record_results.c what becomes of its raw recordings.
 */
#ifndef LARDER_TOOLS_RECORD_H
#define LARDER_TOOLS_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct record_options {
    const char *output;
    uint64_t min_size;
    bool follow_forks, timestamps, wait;
    char **command;
};

/*
 * Runs the command under the recorder until it ends; raw files go to `directory`. Returns its exit
 * status as a shell has it, 128 + n for signal n, or -1 after a message. Signals to this process
 * are passed on to the command and do not end this process.
 */
int record_run_command(const struct record_options *options, const char *library,
                       const char *directory);

/*
 * Merges the raw recordings in the directory: that with the most operations to options->output, any
 * other one beside it. Says what was recorded. Returns an exit code.
 */
int record_write_results(const struct record_options *options, const char *directory);

/* Removes the directory with what is in it. */
void record_remove_directory(const char *directory);

#endif
