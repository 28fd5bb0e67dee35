/* SPDX-License-Identifier: MIT */
/* Inferences of a trace: see phases.h. */
#include "phases.h"

#include <errno.h>
#include <string.h>

#include "pages.h"
#include "period.h"

int phases_add(struct phases *phases, size_t begin, size_t end)
{
    if (begin >= end) {
        return 0;
    }
    if (pages_reserve(&phases->phases, sizeof *phases->phases, phases->count, &phases->capacity) !=
        0) {
        return -ENOMEM;
    }
    phases->phases[phases->count++] =
        (struct phase){.begin = (uint32_t)begin, .end = (uint32_t)end};
    return 0;
}

/* Whether the mark's name is `name`, or begins with it and a blank. */
static bool is_named(const struct trace_mark *mark, const char *name, size_t length)
{
    return strncmp(mark->name, name, length) == 0 &&
           (mark->name[length] == '\0' || mark->name[length] == ' ');
}

static bool is_end(const struct trace_mark *mark)
{
    return is_named(mark, "end", strlen("end"));
}

/* The mark whose first word begins an inference: "inference", or the first that there is. */
static const struct trace_mark *find_name(const struct trace *trace)
{
    const struct trace_mark *first = NULL;
    for (size_t i = 0; i < trace->mark_count; i++) {
        const struct trace_mark *mark = &trace->marks[i];
        if (is_named(mark, "inference", strlen("inference"))) {
            return mark;
        }
        if (first == NULL && !is_end(mark)) {
            first = mark;
        }
    }
    return first;
}

static int find_by_marks(const struct trace *trace, struct phases *out)
{
    const struct trace_mark *name = find_name(trace);
    bool open = false;
    size_t begin = 0;
    int result = 0;
    if (name == NULL) {
        return 0;
    }
    size_t length = strcspn(name->name, " ");
    for (size_t i = 0; result == 0 && i < trace->mark_count; i++) {
        const struct trace_mark *mark = &trace->marks[i];
        bool begins = is_named(mark, name->name, length);
        if (!begins && !is_end(mark)) {
            continue;
        }
        result = open ? phases_add(out, begin, mark->op) : 0;
        open = begins;
        begin = mark->op;
    }
    return result == 0 && open ? phases_add(out, begin, trace->op_count) : result;
}

int phases_find(const struct trace *trace, struct phases *out)
{
    *out = (struct phases){0};
    int result = find_by_marks(trace, out);
    out->source = out->count > 0 ? PHASES_MARKS : PHASES_NONE;
    if (result == 0 && out->count == 0) {
        result = period_find(trace, out);
        out->source = out->count > 0 ? PHASES_PERIOD : PHASES_NONE;
    }
    if (result != 0) {
        phases_release(out);
    }
    return result;
}

void phases_release(struct phases *phases)
{
    pages_free(phases->phases, phases->capacity * sizeof *phases->phases);
    *phases = (struct phases){0};
}
