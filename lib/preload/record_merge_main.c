/* SPDX-License-Identifier: MIT */
/*
 * larder-record-merge: a raw recording to a trace, by hand; for processes that were not started
 * under a tool, or did not end.
 */
#include "record_merge.h"

#include <getopt.h>
#include <stdio.h>

static const char usage[] =
    "usage: larder-record-merge [--marks FILE] RAW TRACE\n"
    "\n"
    "Writes the raw recording RAW as TRACE, in the text format of Android's memory_replay.\n"
    "\n"
    "To record:  LD_PRELOAD=liblarder-record.so LARDER_RECORD_OUTPUT=PREFIX COMMAND...\n"
    "which leaves PREFIX.PID.raw for every process that COMMAND runs, and, for one that was "
    "killed,\n"
    "PREFIX.PID.open, which belongs to it. `larder record` does all of that by itself.\n"
    "  LARDER_RECORD_WAIT=1      record nothing until the program calls larder_record_start()\n"
    "  LARDER_RECORD_MIN_SIZE=N  leave out requests of fewer than N bytes\n"
    "  LARDER_RECORD_TIMES=1     note when each call was made\n"
    "  LARDER_RECORD_FOLLOW=1    record children that are forked, too\n"
    "\n"
    "  --marks FILE   list the program's marks: \"LINES NAME\", the lines of TRACE before each\n"
    "  -h, --help     this text\n";

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"marks", required_argument, NULL, 'm'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    const char *marks = NULL;
    int option;
    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        switch (option) {
        case 'm':
            marks = optarg;
            break;
        case 'h':
            fputs(usage, stdout);
            return 0;
        default:
            fputs(usage, stderr);
            return 2;
        }
    }
    if (argc - optind != 2) {
        fputs(usage, stderr);
        return 2;
    }
    struct record_merge_summary summary;
    if (record_merge_to_text(argv[optind], argv[optind + 1], marks, &summary) != 0)
        return 1;
    record_merge_report(argv[optind + 1], &summary);
    return 0;
}
