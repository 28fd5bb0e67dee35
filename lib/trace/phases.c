/* SPDX-License-Identifier: MIT */
/* Inferences of a trace: see phases.h. */
#include "phases.h"

#include <errno.h>
#include <string.h>

#include "pages.h"

static int add(struct phases *phases, size_t begin, size_t end)
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

static bool is_named(const struct trace_mark *mark, const char *name)
{
    size_t length = strlen(name);
    return strncmp(mark->name, name, length) == 0 &&
           (mark->name[length] == '\0' || mark->name[length] == ' ');
}

static int find_by_marks(const struct trace *trace, struct phases *out)
{
    bool open = false;
    size_t begin = 0;
    int result = 0;
    for (size_t i = 0; result == 0 && i < trace->mark_count; i++) {
        const struct trace_mark *mark = &trace->marks[i];
        bool begins = is_named(mark, "inference");
        if (!begins && !is_named(mark, "end")) {
            continue;
        }
        result = open ? add(out, begin, mark->op) : 0;
        open = begins;
        begin = mark->op;
    }
    return result == 0 && open ? add(out, begin, trace->op_count) : result;
}

int phases_find(const struct trace *trace, struct phases *out)
{
    *out = (struct phases){0};
    int result = find_by_marks(trace, out);
    if (result != 0) {
        phases_release(out);
    } else if (out->count > 0) {
        out->source = PHASES_MARKS;
    }
    return result;
}

void phases_release(struct phases *phases)
{
    pages_free(phases->phases, phases->capacity * sizeof *phases->phases);
    *phases = (struct phases){0};
}
