/* SPDX-License-Identifier: MIT */
/*
 * Turns a raw recording (record_format.h) into a trace. The first and so far only format is the
 * text of Android's memory_replay; another one is another record_merge_write_... over the same
 * ordered events.
 */
#ifndef LARDER_PRELOAD_RECORD_MERGE_H
#define LARDER_PRELOAD_RECORD_MERGE_H

#include <stdint.h>

struct record_merge_summary {
    uint64_t operations;      /* lines of the trace */
    uint64_t marks;           /* marks found, written or not */
    uint64_t unknown_frees;   /* releases of blocks not in the recording: left out */
    uint64_t implied_frees;   /* frees added, since the address was handed out again unseen */
    uint64_t split_reallocs;  /* written as free and malloc: another thread used the old address */
    uint64_t live_at_end;     /* blocks never freed */
    uint64_t lost;            /* entries the recorder could not keep */
    uint64_t truncated_bytes; /* at the end of the file: the writer was killed in the middle */
};

/*
 * Reads the raw file at `raw_path` (and NAME.open beside NAME.raw) and writes the trace to `trace_path` in Android's memory_replay
 * text, and, unless `marks_path` is NULL, the marks there as lines "OPERATIONS NAME": the number of
 * lines of the trace before the mark. Each file appears whole or not at all. The result is
 * consistent: no block is handed out while it is live, and every free frees a live block.
 *
 * Returns 0, or -1 after saying on stderr what is wrong. `summary` may be NULL.
 */
int record_merge_to_text(const char *raw_path, const char *trace_path, const char *marks_path,
                         struct record_merge_summary *summary);

/* Says on stderr what came of it, a line for each kind of thing that was left out or mended. */
void record_merge_report(const char *trace, const struct record_merge_summary *summary);

#endif
