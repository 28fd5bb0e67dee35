/* SPDX-License-Identifier: MIT */
/*
 * PyTorch's profiler with profile_memory=True: Chrome trace events in JSON, an array or an object
 * with an array "traceEvents". Of these, three kinds are read:
 *
 *   {"ph":"i","name":"[memory]","tid":2,"ts":MICROSECONDS,
 *    "args":{"Bytes":N,"Addr":A,"Device Type":0}}              N < 0: a free; type 0: the CPU
 *   {"ph":"M","name":"thread_name","tid":2,"args":{"name":NAME}}
 *   {"ph":"X","name":"ProfilerStep#3","ts":T,"dur":D}           becomes the mark "inference 3"
 *
 * Such files reach gigabytes, so they are read as a stream through yajl, and only what is needed
 * is kept: 40 bytes for each memory event. Events are in no order: they are sorted by ts, those
 * with the same one in the order of the file. Source: the profiler's output of PyTorch 1.13 and 2.
 *
 * yajl checks no allocation. It gets memory from an arena that it cannot use up: nesting and the
 * length of strings are bounded far below it.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "format.h"
#include "json_events.h"
#include "labels.h"
#include "marks.h"
#include "pages.h"
#include "stable_sort.h"

/* Ids of threads in a trace are below this. */
#define THREAD_MASK INT32_MAX

enum kept_kind { KEPT_MEMORY, KEPT_STEP, KEPT_STEP_END };

struct kept {
    uint64_t address; /* of a step, its number */
    int64_t bytes;
    uint32_t thread;
    enum kept_kind kind;
};

struct thread_name {
    uint32_t thread;
    char text[TRACE_NAME_BYTES];
};

struct collecting {
    struct kept *kept;
    size_t kept_count, kept_capacity;
    struct sort_entry *order; /* by ts; one for each kept */
    size_t order_count, order_capacity;
    struct thread_name *names;
    size_t name_count, name_capacity;
};

static int keep(struct collecting *all, uint64_t ns, struct kept kept)
{
    if (all->kept_count >= UINT32_MAX - 2) {
        return -E2BIG;
    }
    if (pages_reserve(&all->kept, sizeof *all->kept, all->kept_count, &all->kept_capacity) != 0 ||
        pages_reserve(&all->order, sizeof *all->order, all->order_count, &all->order_capacity) !=
            0) {
        return -ENOMEM;
    }
    all->order[all->order_count++] =
        (struct sort_entry){.key = ns, .index = (uint32_t)all->kept_count};
    all->kept[all->kept_count++] = kept;
    return 0;
}

static int keep_memory(struct collecting *all, const struct json_event *event, const char **problem)
{
    const unsigned needed = JSON_HAS_TS | JSON_HAS_BYTES | JSON_HAS_ADDRESS;
    if ((event->has & needed) != needed) {
        *problem = "a [memory] event without ts, Bytes or Addr: record with PyTorch 1.8.1 or newer";
        return -EINVAL;
    }
    if (((event->has & JSON_HAS_DEVICE_TYPE) != 0 && event->device_type != 0) ||
        event->bytes == 0 || event->address == 0) {
        return 0; /* another device's memory, or nothing at all */
    }
    return keep(all, event->ts_ns,
                (struct kept){.address = event->address,
                              .bytes = event->bytes,
                              .thread = (uint32_t)(event->thread & THREAD_MASK),
                              .kind = KEPT_MEMORY});
}

static int keep_step(struct collecting *all, const struct json_event *event)
{
    const unsigned needed = JSON_HAS_TS | JSON_HAS_DURATION;
    uint64_t number = 0;
    if ((event->has & needed) != needed || event->duration_ns > UINT64_MAX - event->ts_ns) {
        return 0;
    }
    for (const char *at = event->name + strlen("ProfilerStep#"); *at >= '0' && *at <= '9'; at++) {
        number = number * 10 + (uint64_t)(*at - '0');
    }
    struct kept step = {.address = number, .kind = KEPT_STEP};
    struct kept end = {.address = number, .kind = KEPT_STEP_END};
    int result = keep(all, event->ts_ns, step);
    return result == 0 ? keep(all, event->ts_ns + event->duration_ns, end) : result;
}

static int keep_name(struct collecting *all, const struct json_event *event)
{
    if (pages_reserve(&all->names, sizeof *all->names, all->name_count, &all->name_capacity) != 0) {
        return -ENOMEM;
    }
    struct thread_name *name = &all->names[all->name_count++];
    name->thread = (uint32_t)(event->thread & THREAD_MASK);
    snprintf(name->text, sizeof name->text, "%.27s", event->argument_name);
    return 0;
}

static int on_event(void *context, const struct json_event *event, const char **problem)
{
    struct collecting *all = context;
    if (strcmp(event->name, "[memory]") == 0) {
        return keep_memory(all, event, problem);
    }
    if (strncmp(event->name, "ProfilerStep#", strlen("ProfilerStep#")) == 0) {
        return keep_step(all, event);
    }
    if (strcmp(event->name, "thread_name") == 0 && event->argument_name[0] != '\0') {
        return keep_name(all, event);
    }
    return 0;
}

static int add_memory(struct trace_builder *builder, const struct kept *kept, uint64_t ns)
{
    struct trace_event event = {
        .thread_id = kept->thread,
        .address = kept->address,
        .time = {.start_ns = ns, .end_ns = ns},
        .has_time = true,
    };
    if (kept->bytes < 0) {
        return builder_free(builder, &event);
    }
    event.size = (uint64_t)kept->bytes;
    return builder_allocate(builder, TRACE_ALLOCATE, &event);
}

/* The end of a step is a mark only if no other begins there. */
static int add_step(struct trace_builder *builder, const struct collecting *all, size_t index)
{
    const struct kept *kept = &all->kept[all->order[index].index];
    char name[TRACE_NAME_BYTES];
    if (kept->kind == KEPT_STEP) {
        snprintf(name, sizeof name, "inference %" PRIu64, kept->address % UINT64_C(10000000000));
        return marks_add(builder->trace, builder->trace->op_count, name);
    }
    for (size_t i = index + 1; i < all->order_count; i++) {
        enum kept_kind next = all->kept[all->order[i].index].kind;
        if (next != KEPT_STEP_END) {
            return next == KEPT_STEP ? 0
                                     : marks_add(builder->trace, builder->trace->op_count, "end");
        }
    }
    return marks_add(builder->trace, builder->trace->op_count, "end");
}

static int add_all(struct trace_builder *builder, struct collecting *all)
{
    int result = stable_sort(all->order, all->order_count);
    for (size_t i = 0; result == 0 && i < all->order_count; i++) {
        const struct kept *kept = &all->kept[all->order[i].index];
        result = kept->kind == KEPT_MEMORY ? add_memory(builder, kept, all->order[i].key)
                                           : add_step(builder, all, i);
    }
    return result;
}

static int name_threads(struct trace *trace, const struct collecting *all)
{
    for (size_t i = 0; i < trace->thread_count; i++) {
        for (size_t n = 0; n < all->name_count; n++) {
            if (all->names[n].thread == trace->thread_ids[i] &&
                labels_name_thread(trace, i, all->names[n].text) != 0) {
                return -ENOMEM;
            }
        }
    }
    return 0;
}

static int pytorch_read(struct trace_builder *builder, struct input *input, char *why,
                        size_t why_size)
{
    struct collecting all = {0};
    int result = json_events_read(input, on_event, &all, why, why_size);
    if (result == 0) {
        result = add_all(builder, &all);
        if (result == 0) {
            result = name_threads(builder->trace, &all);
        }
        if (result != 0) {
            snprintf(why, why_size, "%s: %s", input_path(input),
                     result == -E2BIG ? "more than 4294967294 operations: split the trace"
                                      : "out of memory: the trace is too large");
        }
    }
    pages_free(all.kept, all.kept_capacity * sizeof *all.kept);
    pages_free(all.order, all.order_capacity * sizeof *all.order);
    pages_free(all.names, all.name_capacity * sizeof *all.names);
    return result;
}

static bool pytorch_recognise(const char *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] != ' ' && bytes[i] != '\t' && bytes[i] != '\r' && bytes[i] != '\n') {
            return bytes[i] == '{' || bytes[i] == '[';
        }
    }
    return false;
}

const struct trace_format trace_format_pytorch = {
    .name = "pytorch",
    .summary = "PyTorch's profiler with profile_memory=True (JSON)",
    .lacks = "alignments, which blocks were wanted zeroed, reallocations, how long a call took, "
             "nor what is no tensor",
    .recognise_bytes = pytorch_recognise,
    .read = pytorch_read,
};
