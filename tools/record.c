/* SPDX-License-Identifier: MIT */
/* `larder record`: runs a program and makes a trace of its allocations. */
#include "record.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "preloaded.h"
#include "tool.h"

static const char help[] =
    "usage: larder record [OPTION...] [--] COMMAND...\n"
    "\n"
    "Runs COMMAND and records what it allocates and frees, as a trace: in the native format if\n"
    "FILE ends in .ltr, else as text for Android's memory_replay; .gz or .zst behind packs it.\n"
    "However COMMAND ends, what it did until then is in the trace.\n"
    "\n"
    "  -o, --output FILE  the trace (default: COMMAND.trace.txt, in the current directory); the\n"
    "                     program's marks go to FILE with .marks for .txt\n"
    "  --min-size N       leave out requests of fewer than N bytes; takes k, m, g\n"
    "  --follow-forks     record the processes that COMMAND starts, too\n"
    "  --timestamps       note when each call was made\n"
    "  --wait             record only what lies between larder_record_start() and\n"
    "                     larder_record_stop(), which the program calls (mark.h)\n"
    "  -h, --help         this text\n"
    "\n"
    "Each process image makes a trace of its own. Where there are several, by forks or exec, the\n"
    "one with the most operations is FILE, and the others have the process id in their names.\n"
    "\n"
    "A program marks its inferences with larder_mark(\"inference 3\"). A program that is linked\n"
    "statically, or has more rights than its caller, cannot be recorded. LARDER_RECORD_LIB names\n"
    "another liblarder-record.so than the one beside this program.\n"
    "\n"
    "Exit status: COMMAND's, 128 + N where signal N ended it; 2 wrong usage, 126 COMMAND cannot "
    "be\n"
    "run, 127 it is not found, 1 the trace could not be made.\n";

enum { OPTION_MIN_SIZE = 256, OPTION_FOLLOW, OPTION_TIMESTAMPS, OPTION_WAIT };

static int read_option(struct record_options *options, int returned, char **argv, bool *done)
{
    switch (returned) {
    case 'o':
        options->output = optarg;
        return TOOL_FINE;
    case OPTION_MIN_SIZE:
        if (!tool_read_size(optarg, &options->min_size) || options->min_size > SIZE_MAX)
            return tool_usage_error("record", "--min-size: '%s' is no number of bytes", optarg);
        return TOOL_FINE;
    case OPTION_FOLLOW:
        options->follow_forks = true;
        return TOOL_FINE;
    case OPTION_TIMESTAMPS:
        options->timestamps = true;
        return TOOL_FINE;
    case OPTION_WAIT:
        options->wait = true;
        return TOOL_FINE;
    case 'h':
        fputs(help, stdout);
        *done = true;
        return TOOL_FINE;
    default:
        return tool_bad_option("record", returned, optopt, argv);
    }
}

static int read_options(int argc, char **argv, struct record_options *options, bool *done)
{
    static const struct option names[] = {
        {"output", required_argument, NULL, 'o'},
        {"min-size", required_argument, NULL, OPTION_MIN_SIZE},
        {"follow-forks", no_argument, NULL, OPTION_FOLLOW},
        {"timestamps", no_argument, NULL, OPTION_TIMESTAMPS},
        {"wait", no_argument, NULL, OPTION_WAIT},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int returned;
    opterr = 0;
    /* "+": what follows COMMAND is its own */
    while ((returned = getopt_long(argc, argv, "+:ho:", names, NULL)) != -1) {
        int result = read_option(options, returned, argv, done);
        if (result != TOOL_FINE || *done)
            return result;
    }
    if (optind == argc)
        return tool_usage_error("record", "no command given");
    options->command = argv + optind;
    return TOOL_FINE;
}

/* Beside the output, so that results can be renamed to it; absolute, as the command may move. */
static int make_directory(const char *output, char *directory, size_t size)
{
    const char *slash = strrchr(output, '/');
    char parent[4096] = ".";
    if (slash != NULL)
        snprintf(parent, sizeof parent, "%.*s", slash == output ? 1 : (int)(slash - output),
                 output);
    char *absolute = realpath(parent, NULL);
    int length =
        absolute != NULL ? snprintf(directory, size, "%s/.larder-record-XXXXXX", absolute) : -1;
    free(absolute);
    if (length < 0 || (size_t)length >= size || mkdtemp(directory) == NULL) {
        tool_error("record", "%s: cannot be written: %s", output, strerror(errno));
        return TOOL_FAILED;
    }
    return TOOL_FINE;
}

static int record(const struct record_options *options)
{
    char library[4096], directory[4096];
    int result = preloaded_find("record", "LARDER_RECORD_LIB", "liblarder-record.so", library,
                                sizeof library);
    if (result == TOOL_FINE)
        result = make_directory(options->output, directory, sizeof directory);
    if (result != TOOL_FINE)
        return result;
    int status = record_run_command(options, library, directory);
    bool started = status >= 0 && status != COMMAND_NOT_RUN && status != COMMAND_NOT_FOUND;
    if (started)
        result = record_write_results(options, directory);
    record_remove_directory(directory);
    return status < 0 ? TOOL_FAILED : result != TOOL_FINE && status == 0 ? result : status;
}

int record_main(int argc, char **argv)
{
    struct record_options options = {0};
    char output[4096];
    bool done = false;
    int result = read_options(argc, argv, &options, &done);
    if (result != TOOL_FINE || done)
        return result;
    if (options.output == NULL) {
        const char *slash = strrchr(options.command[0], '/');
        snprintf(output, sizeof output, "%s.trace.txt",
                 slash != NULL ? slash + 1 : options.command[0]);
        options.output = output;
    }
    return record(&options);
}
