/* SPDX-License-Identifier: MIT */
/* The command-line tool: finds the subcommand and hands it the rest. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "larder/larder.h"
#include "tool.h"

static const struct subcommand {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} subcommands[] = {
    {"convert", convert_main, "write a trace in another format"},
    {"info", info_main, "tell what is in a trace"},
    {"pick", pick_main, "replay traces through every allocator here, and say which one to use"},
    {"plan", plan_main, "plan one arena for the blocks of a trace, as low as can be"},
    {"record", record_main, "run a program and record its allocations as a trace"},
    {"replay", replay_main, "replay a trace through one allocator, and measure it"},
    {"run", run_main, "run a program on larder, as it is"},
};

#define SUBCOMMAND_COUNT (sizeof subcommands / sizeof subcommands[0])

static char program[4096];

const char *tool_program(void)
{
    return program;
}

/* argv[0] may be a name found in PATH; the kernel knows the file. */
static void find_program(const char *called_as)
{
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    if (length < 0) {
        snprintf(program, sizeof program, "%s", called_as);
    } else {
        program[length] = '\0';
    }
}

static void print_help(void)
{
    puts("usage: larder SUBCOMMAND ...\n"
         "\n"
         "Works on recorded sequences of allocations (traces), as an inference run makes them.\n"
         "\n"
         "Subcommands:");
    for (size_t i = 0; i < SUBCOMMAND_COUNT; i++) {
        printf("  %-10s %s\n", subcommands[i].name, subcommands[i].summary);
    }
    puts("\n"
         "  larder SUBCOMMAND --help   tells its options\n"
         "  larder --version           tells the version\n"
         "\n"
         "Exit status: 0 fine, 1 the job failed, 2 wrong usage.");
}

static int print_version(void)
{
    printf("larder %s\n", larder_version());
    return TOOL_FINE;
}

/* Results that could not be written (a full disk, a closed pipe) are a failure too. */
static int finish(int result)
{
    if (fflush(stdout) != 0 || ferror(stdout)) {
        tool_error("", "the output could not be written: free space or check the pipe");
        return result == TOOL_FINE ? TOOL_FAILED : result;
    }
    return result;
}

static int run(int argc, char **argv)
{
    if (argc < 2) {
        return tool_usage_error("", "no subcommand given");
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        print_help();
        return TOOL_FINE;
    }
    if (strcmp(argv[1], "--version") == 0) {
        return print_version();
    }
    for (size_t i = 0; i < SUBCOMMAND_COUNT; i++) {
        if (strcmp(argv[1], subcommands[i].name) == 0) {
            return subcommands[i].run(argc - 1, argv + 1);
        }
    }
    return tool_usage_error("", "unknown subcommand '%s'", argv[1]);
}

int main(int argc, char **argv)
{
    find_program(argc > 0 ? argv[0] : "larder");
    return finish(run(argc, argv));
}
