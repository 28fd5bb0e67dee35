/* SPDX-License-Identifier: MIT */
/* Numbering threads: see threads.h. */
#include "threads.h"

#include <errno.h>
#include <string.h>

#include "labels.h"
#include "pages.h"

#define UNSEEN UINT32_MAX

/* What is known of the threads, in their new order. */
static void reorder(struct trace *trace, const uint32_t *old_number, size_t count, uint32_t *ids,
                    struct trace_thread_name *names)
{
    for (size_t i = 0; i < count; i++) {
        ids[i] = trace->thread_ids[old_number[i]];
        strcpy(names[i].text, labels_thread_name(trace, old_number[i]));
    }
    memcpy(trace->thread_ids, ids, count * sizeof *ids);
    if (trace->thread_names != NULL) {
        memset(trace->thread_names, 0, trace->thread_name_capacity * sizeof *trace->thread_names);
        size_t named = count < trace->thread_name_capacity ? count : trace->thread_name_capacity;
        memcpy(trace->thread_names, names, named * sizeof *names);
    }
    trace->thread_count = count;
}

static size_t number(struct trace *trace, uint32_t *new_number, uint32_t *old_number)
{
    size_t count = 0;
    for (size_t i = 0; i < trace->thread_count; i++) {
        new_number[i] = UNSEEN;
    }
    for (size_t i = 0; i < trace->op_count; i++) {
        uint32_t old = trace->ops[i].thread;
        if (new_number[old] == UNSEEN) {
            old_number[count] = old;
            new_number[old] = (uint32_t)count++;
        }
        trace->ops[i].thread = new_number[old];
    }
    return count;
}

/* Every thread that has a name must still have room for it under a number that may be larger. */
static int make_room_for_names(struct trace *trace)
{
    return trace->thread_names == NULL || trace->thread_name_capacity >= trace->thread_count
               ? 0
               : labels_name_thread(trace, trace->thread_count - 1, "");
}

int threads_renumber(struct trace *trace)
{
    size_t count = trace->thread_count;
    uint32_t *new_number = pages_allocate(count * sizeof *new_number);
    uint32_t *old_number = pages_allocate(count * sizeof *old_number);
    uint32_t *ids = pages_allocate(count * sizeof *ids);
    struct trace_thread_name *names = pages_allocate(count * sizeof *names);
    bool enough = new_number != NULL && old_number != NULL && ids != NULL && names != NULL &&
                  make_room_for_names(trace) == 0;
    if (enough) {
        reorder(trace, old_number, number(trace, new_number, old_number), ids, names);
    }
    pages_free(new_number, count * sizeof *new_number);
    pages_free(old_number, count * sizeof *old_number);
    pages_free(ids, count * sizeof *ids);
    pages_free(names, count * sizeof *names);
    return enough ? 0 : -ENOMEM;
}
