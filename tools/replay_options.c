/* SPDX-License-Identifier: MIT */
/* Options of a replay, read, explained and handed on: see replay_options.h. */
#include "replay_options.h"

#include <inttypes.h>
#include <string.h>

#include "tool.h"

#define PASSES_ASKED_MAX 1000000
#define GAP_MS_MAX 3600000

static const struct {
    const char *word;
    enum replay_touch touch;
} touches[] = {
    {"none", REPLAY_TOUCH_NONE},
    {"first", REPLAY_TOUCH_FIRST},
    {"page", REPLAY_TOUCH_PAGE},
    {"full", REPLAY_TOUCH_FULL},
};

void replay_options_init(struct replay_options *options)
{
    *options = (struct replay_options){.touch = "page", .settings.touch = REPLAY_TOUCH_PAGE};
}

static int read_touch(const char *subcommand, struct replay_options *options, const char *word)
{
    for (size_t i = 0; i < sizeof touches / sizeof touches[0]; i++) {
        if (strcmp(touches[i].word, word) == 0) {
            options->touch = touches[i].word;
            options->settings.touch = touches[i].touch;
            return TOOL_FINE;
        }
    }
    return tool_usage_error(subcommand, "--touch takes none, first, page or full, not '%s'", word);
}

int replay_options_read_count(const char *subcommand, const char *name, const char *text,
                              uint64_t min, uint64_t max, unsigned *out)
{
    uint64_t value;
    if (!tool_read_number(text, min, max, &value)) {
        return tool_usage_error(subcommand,
                                "%s takes a number from %" PRIu64 " to %" PRIu64 ", not '%s'", name,
                                min, max, text);
    }
    *out = (unsigned)value;
    return TOOL_FINE;
}

int replay_options_read(const char *subcommand, struct replay_options *options, int option,
                        const char *value)
{
    struct replay_settings *settings = &options->settings;
    switch (option) {
    case REPLAY_OPTION_TOUCH:
        return read_touch(subcommand, options, value);
    case REPLAY_OPTION_PASSES:
        return replay_options_read_count(subcommand, "--passes", value, 1, PASSES_ASKED_MAX,
                                         &settings->passes);
    case REPLAY_OPTION_GAP:
        return replay_options_read_count(subcommand, "--gap-ms", value, 0, GAP_MS_MAX,
                                         &settings->gap_ms);
    case REPLAY_OPTION_MIN_SIZE:
        if (!tool_read_size(value, &options->min_size)) {
            return tool_usage_error(subcommand,
                                    "--min-size takes bytes, such as 1024 or 16k, not '%s'", value);
        }
        return TOOL_FINE;
    case REPLAY_OPTION_REPAIR:
        options->repair = true;
        return TOOL_FINE;
    case REPLAY_OPTION_SERIAL:
        options->parallel = false;
        return TOOL_FINE;
    case REPLAY_OPTION_PARALLEL:
        options->parallel = true;
        return TOOL_FINE;
    case REPLAY_OPTION_STREAMS:
        return replay_options_read_count(subcommand, "--streams", value, 1, REPLAY_STREAMS_MAX,
                                         &settings->streams);
    case REPLAY_OPTION_PHASE:
        options->phase = value;
        return TOOL_FINE;
    case REPLAY_OPTION_PACED:
        options->paced = true;
        return TOOL_FINE;
    default:
        settings->read_before_free = true;
        return TOOL_FINE;
    }
}

int replay_options_check(const char *subcommand, const struct replay_options *options)
{
    if (options->settings.read_before_free && options->settings.touch == REPLAY_TOUCH_NONE) {
        return tool_usage_error(
            subcommand, "--read-before-free reads what --touch wrote: choose first, page or full");
    }
    return TOOL_FINE;
}

void replay_options_print_help(FILE *out, const char *min_size)
{
    fprintf(
        out,
        "  --serial           one thread performs all operations in recorded order (default)\n"
        "  --parallel         a thread for each recorded one, which ends where that one ended.\n"
        "                     Nothing orders them but what they need of each other: an operation\n"
        "                     on a block waits for the one before it, and a thread begins after\n"
        "                     what was recorded right before its first operation. Where no thread\n"
        "                     ends, each goes on to the next pass at once, up to one pass ahead\n"
        "  --streams N        run N copies at once in threads of their own, as a server does\n"
        "                     (default 1; up to %u)\n"
        "  --phase P          replay only a part, again and again: inference N (from 0), FROM-TO,\n"
        "                     or the name of a mark. What is live when it begins is allocated\n"
        "                     once, before\n"
        "  --paced            no operation before its recorded time, counted from the beginning "
        "of\n"
        "                     the pass (idle times below %u us are left out). For a trace without\n"
        "                     times: inference N begins N x --gap-ms after the pass did\n"
        "  --touch HOW        what is written to a block after it was allocated, in the timing:\n"
        "                     none, first (its first byte), page (one byte a page, so that page\n"
        "                     faults are in the figures; default) or full (every byte)\n"
        "  --read-before-free also read what --touch wrote before a block is freed, in the timing\n"
        "  --passes N         how often the trace is run (default: as often as fits into %g s, "
        "and\n"
        "                     %u to %u times; paced at least %u)\n"
        "  --gap-ms N         sleep so long before each pass but the first, outside of the timing\n"
        "                     (default 0), as an engine waits for input; shows who gives memory\n"
        "                     back while a program waits\n"
        "  --min-size SIZE    leave out blocks smaller than SIZE bytes; takes k, m, g (default\n"
        "                     %s)\n"
        "  --repair           where the trace hands an address out before it notes the free of\n"
        "                     the block that had it, move that free to before the reuse\n",
        REPLAY_STREAMS_MAX, PROGRAM_PACE_NS / 1000, (double)REPLAY_BUDGET_NS / 1e9,
        REPLAY_PASSES_MIN, REPLAY_PASSES_MAX, REPLAY_PASSES_PACED_MIN, min_size);
}

static void add_word(struct replay_arguments *out, const char *word)
{
    out->words[out->count++] = word;
}

static void add_count(struct replay_arguments *out, const char *name, uint64_t count)
{
    char *text = out->numbers[out->count];
    snprintf(text, sizeof out->numbers[0], "%" PRIu64, count);
    add_word(out, name);
    add_word(out, text);
}

void replay_options_to_arguments(const struct replay_options *options, struct replay_arguments *out)
{
    const struct replay_settings *settings = &options->settings;
    out->count = 0;
    add_word(out, "--touch");
    add_word(out, options->touch);
    add_count(out, "--min-size", options->min_size);
    if (settings->gap_ms > 0) {
        add_count(out, "--gap-ms", settings->gap_ms);
    }
    if (settings->passes > 0) {
        add_count(out, "--passes", settings->passes);
    }
    if (settings->streams > 0) {
        add_count(out, "--streams", settings->streams);
    }
    if (options->phase != NULL) {
        add_word(out, "--phase");
        add_word(out, options->phase);
    }
    if (options->repair) {
        add_word(out, "--repair");
    }
    if (options->parallel) {
        add_word(out, "--parallel");
    }
    if (options->paced) {
        add_word(out, "--paced");
    }
    if (settings->read_before_free) {
        add_word(out, "--read-before-free");
    }
}
