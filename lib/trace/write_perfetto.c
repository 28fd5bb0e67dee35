/* SPDX-License-Identifier: MIT */
/*
 * The Chrome trace event format (JSON), which ui.perfetto.dev and chrome://tracing open: a counter
 * of live bytes, an asynchronous slice for each block in the row of the thread that allocated it, a
 * slice for each inference, and the marks.
 *
 * Times are microseconds with three decimals. A trace without times gets one microsecond for each
 * operation, and the viewer's time axis counts operations. A reallocation ends a block's slice and
 * begins the next; blocks that are never freed end with the trace. Source: "Trace Event Format",
 * Google.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "labels.h"
#include "pages.h"
#include "phases.h"
#include "writer.h"

/* Row of the inferences: no recorded thread id is as large as this. */
#define PHASES_ROW UINT32_MAX

struct perfetto {
    const struct trace *trace;
    struct sink *sink;
    uint32_t *begun_by; /* by block: the operation that began its slice, plus 1; 0: not live */
    uint64_t *size_of;  /* by block */
    uint64_t live_bytes;
    bool has_events;
};

static void print_string(struct sink *sink, const char *text, size_t length)
{
    sink_print(sink, "\"");
    for (size_t i = 0; i < length; i++) {
        char c = text[i] < ' ' || text[i] > '~' ? '?' : text[i];
        sink_print(sink, c == '"' || c == '\\' ? "\\%c" : "%c", c);
    }
    sink_print(sink, "\"");
}

/* When the operation took place: an allocation at its end, a free at its beginning. */
static uint64_t time_ns(const struct trace *trace, size_t index)
{
    if (trace->times == NULL) {
        return index * UINT64_C(1000);
    }
    if (index == trace->op_count) {
        return index > 0 ? trace->times[index - 1].end_ns : 0;
    }
    return trace->ops[index].kind == TRACE_FREE ? trace->times[index].start_ns
                                                : trace->times[index].end_ns;
}

static void begin_event(struct perfetto *perfetto, char type, uint64_t ns)
{
    sink_print(perfetto->sink, "%s{\"ph\":\"%c\",\"pid\":1,\"ts\":%" PRIu64 ".%03u",
               perfetto->has_events ? ",\n" : "\n", type, ns / 1000, (unsigned)(ns % 1000));
    perfetto->has_events = true;
}

static void write_row_name(struct perfetto *perfetto, uint32_t row, const char *name, size_t length)
{
    begin_event(perfetto, 'M', 0);
    sink_print(perfetto->sink,
               ",\"tid\":%" PRIu32 ",\"name\":\"thread_name\",\"args\":{\"name\":", row);
    print_string(perfetto->sink, name, length);
    sink_print(perfetto->sink, "}}");
}

static void write_row_names(struct perfetto *perfetto)
{
    const struct trace *trace = perfetto->trace;
    for (size_t i = 0; i < trace->thread_count; i++) {
        char text[TRACE_NAME_BYTES + 24];
        const char *name = labels_thread_name(trace, i);
        int length = snprintf(text, sizeof text, "%s%s%" PRIu32, name[0] != '\0' ? name : "thread",
                              " ", trace->thread_ids[i]);
        write_row_name(perfetto, trace->thread_ids[i], text, (size_t)length);
    }
}

static void write_slice(struct perfetto *perfetto, char type, uint32_t block, uint64_t ns)
{
    const struct trace *trace = perfetto->trace;
    const struct trace_op *begun = &trace->ops[perfetto->begun_by[block] - 1];
    begin_event(perfetto, type, ns);
    sink_print(perfetto->sink,
               ",\"cat\":\"block\",\"id\":%" PRIu32 ",\"tid\":%" PRIu32 ",\"name\":\"%" PRIu64
               " B\",\"args\":{\"bytes\":%" PRIu64 ",\"block\":%" PRIu32 "}}",
               block, trace->thread_ids[begun->thread], begun->size, begun->size, block);
}

static void write_counter(struct perfetto *perfetto, uint64_t ns)
{
    begin_event(perfetto, 'C', ns);
    sink_print(perfetto->sink, ",\"name\":\"live bytes\",\"args\":{\"bytes\":%" PRIu64 "}}",
               perfetto->live_bytes);
}

static void write_op(struct perfetto *perfetto, size_t index)
{
    const struct trace_op *op = &perfetto->trace->ops[index];
    uint64_t ns = time_ns(perfetto->trace, index);
    if (op->kind == TRACE_THREAD_DONE) {
        return;
    }
    if (perfetto->begun_by[op->block] != 0) {
        write_slice(perfetto, 'e', op->block, ns);
        perfetto->live_bytes -= perfetto->size_of[op->block];
        perfetto->begun_by[op->block] = 0;
    }
    if (op->kind != TRACE_FREE) {
        perfetto->begun_by[op->block] = (uint32_t)index + 1;
        perfetto->size_of[op->block] = op->size;
        perfetto->live_bytes += op->size;
        write_slice(perfetto, 'b', op->block, ns);
    }
    write_counter(perfetto, ns);
}

static int write_phases(struct perfetto *perfetto)
{
    static const char row_name[] = "inferences";
    struct phases phases;
    int result = phases_find(perfetto->trace, &phases);
    if (result != 0 || phases.count == 0) {
        return result;
    }
    write_row_name(perfetto, PHASES_ROW, row_name, sizeof row_name - 1);
    for (size_t i = 0; i < phases.count; i++) {
        uint64_t begin = time_ns(perfetto->trace, phases.phases[i].begin);
        uint64_t end = time_ns(perfetto->trace, phases.phases[i].end);
        uint64_t length = end > begin ? end - begin : 0; /* threads' clocks need not ascend */
        begin_event(perfetto, 'X', begin);
        sink_print(perfetto->sink,
                   ",\"dur\":%" PRIu64 ".%03u,\"tid\":%" PRIu32 ",\"name\":\"inference %zu\"}",
                   length / 1000, (unsigned)(length % 1000), PHASES_ROW, i);
    }
    phases_release(&phases);
    return 0;
}

static void write_marks(struct perfetto *perfetto)
{
    const struct trace *trace = perfetto->trace;
    for (size_t i = 0; i < trace->mark_count; i++) {
        const char *name = trace->marks[i].name;
        begin_event(perfetto, 'i', time_ns(trace, trace->marks[i].op));
        sink_print(perfetto->sink, ",\"s\":\"p\",\"tid\":%" PRIu32 ",\"name\":", PHASES_ROW);
        print_string(perfetto->sink, name, strnlen(name, TRACE_NAME_BYTES));
        sink_print(perfetto->sink, "}");
    }
}

static void write_labels(struct perfetto *perfetto)
{
    const struct trace *trace = perfetto->trace;
    const char *at = trace->labels;
    const char *end = at == NULL ? NULL : at + trace->label_bytes;
    sink_print(perfetto->sink, "\n],\"displayTimeUnit\":\"ns\",\"otherData\":{\"clock\":\"%s\"",
               trace->times != NULL ? "recorded" : "operations, one microsecond each");
    while (at != end) {
        const char *equals = memchr(at, '=', (size_t)(end - at));
        const char *line_end = memchr(at, '\n', (size_t)(end - at));
        sink_print(perfetto->sink, ",");
        print_string(perfetto->sink, at, (size_t)(equals - at));
        sink_print(perfetto->sink, ":");
        print_string(perfetto->sink, equals + 1, (size_t)(line_end - equals - 1));
        at = line_end + 1;
    }
    sink_print(perfetto->sink, "}}\n");
}

static int write_events(struct perfetto *perfetto)
{
    const struct trace *trace = perfetto->trace;
    sink_print(perfetto->sink, "{\"traceEvents\":[");
    write_row_names(perfetto);
    for (size_t i = 0; i < trace->op_count; i++) {
        write_op(perfetto, i);
    }
    for (uint32_t block = 0; block < trace->block_count; block++) {
        if (perfetto->begun_by[block] != 0) {
            write_slice(perfetto, 'e', block, time_ns(trace, trace->op_count));
        }
    }
    int result = write_phases(perfetto);
    write_marks(perfetto);
    write_labels(perfetto);
    return result;
}

static int perfetto_write(const struct trace *trace, struct sink *sink)
{
    size_t blocks = trace->block_count;
    struct perfetto perfetto = {
        .trace = trace,
        .sink = sink,
        .begun_by = pages_allocate(blocks * sizeof *perfetto.begun_by),
        .size_of = pages_allocate(blocks * sizeof *perfetto.size_of),
    };
    bool enough = perfetto.begun_by != NULL && perfetto.size_of != NULL;
    int result = enough ? write_events(&perfetto) : -ENOMEM;
    pages_free(perfetto.begun_by, blocks * sizeof *perfetto.begun_by);
    pages_free(perfetto.size_of, blocks * sizeof *perfetto.size_of);
    return result;
}

const struct trace_writer trace_writer_perfetto = {
    .name = "perfetto",
    .extension = ".json",
    .summary = "Chrome trace events, for ui.perfetto.dev (to look at; not read back)",
    .carries =
        ~0u & ~(unsigned)(TRACE_HAS_NEVER_FREED | TRACE_HAS_ALIGNMENTS | TRACE_HAS_ODD_ALIGNMENTS |
                          TRACE_HAS_ZEROED | TRACE_HAS_REALLOCATIONS | TRACE_HAS_THREAD_ENDS),
    .write = perfetto_write,
};
