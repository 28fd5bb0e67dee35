/* SPDX-License-Identifier: MIT */
/* Copies of a program: see replay_stream.h. */
#include "replay_stream.h"

#include <errno.h>
#include <string.h>

#include "pages.h"

static void *allocate_written(size_t bytes)
{
    void *pages = pages_allocate(bytes);
    if (pages != NULL) {
        memset(pages, 0xff, bytes);
    }
    return pages;
}

static int open_set(struct stream *stream, size_t set, const struct replay_view *from,
                    size_t number)
{
    size_t slots = stream->program->slot_count;
    struct replay_view *view = &stream->views[set];
    *view = *from;
    view->slots = allocate_written(slots * sizeof *view->slots);
    view->about = allocate_written(slots * sizeof *view->about);
    for (size_t slot = 0; view->about != NULL && slot < slots; slot++) {
        uint64_t own = (uint64_t)(set * slots + slot);
        view->about[slot] = (struct replay_slot){.stamp = (uint64_t)number << 56 | own};
    }
    return view->slots == NULL || view->about == NULL ? -ENOMEM : 0;
}

int stream_open(struct stream *stream, const struct program *program,
                const struct replay_view *view, size_t number, size_t sets)
{
    size_t carries = program->carry_count;
    int result = 0;
    *stream = (struct stream){.program = program, .sets = sets};
    for (size_t set = 0; result == 0 && set < sets; set++) {
        result = open_set(stream, set, view, number);
    }
    stream->carried = allocate_written(carries * sizeof *stream->carried);
    stream->carried_about = allocate_written(carries * sizeof *stream->carried_about);
    stream->live = allocate_written(program->slot_count);
    if (result != 0 || stream->carried == NULL || stream->carried_about == NULL ||
        stream->live == NULL) {
        stream_close(stream);
        return -ENOMEM;
    }
    return 0;
}

int stream_set_up(struct stream *stream, replay_kernel *kernel)
{
    const struct program *program = stream->program;
    stream->live_setup = kernel(&stream->views[0], program->setup, program->setup_count);
    if (stream->live_setup < program->setup_count) {
        for (size_t i = 0; i < stream->live_setup; i++) {
            stream->views[0].allocator->release(stream->views[0].allocator->context,
                                                stream->views[0].slots[program->setup[i].slot]);
        }
        stream->live_setup = 0;
        return -ENOMEM;
    }
    return 0;
}

void stream_carry(struct stream *stream)
{
    const struct program *program = stream->program;
    struct replay_view *view = &stream->views[0];
    for (size_t i = 0; i < program->carry_count; i++) {
        stream->carried[i] = view->slots[program->carries[i].from];
        stream->carried_about[i] = view->about[program->carries[i].from];
    }
    for (size_t i = 0; i < program->carry_count; i++) {
        view->slots[program->carries[i].to] = stream->carried[i];
        view->about[program->carries[i].to] = stream->carried_about[i];
    }
}

bool stream_tear_down(struct stream *stream, replay_kernel *kernel)
{
    bool fine = true;
    for (size_t i = 0; i < stream->live_setup; i++) {
        struct program_op release = stream->program->setup[i];
        release.kind = PROGRAM_FREE;
        fine = kernel(&stream->views[0], &release, 1) == 1 && fine;
    }
    stream->live_setup = 0;
    return fine;
}

void stream_release_live(struct stream *stream, size_t set, size_t *done)
{
    const struct program *program = stream->program;
    const struct allocator *allocator = stream->views[set].allocator;
    memset(stream->live, 0, program->slot_count);
    for (size_t i = 0; i < stream->live_setup; i++) {
        stream->live[program->setup[i].slot] = 1;
    }
    /* In recorded order a slot's last operation comes last, whichever lane made it. */
    size_t *next = done + program->lane_count;
    memset(next, 0, program->lane_count * sizeof *next);
    for (size_t i = 0; i < program->op_count; i++) {
        uint32_t lane = program->recorded[i];
        if (next[lane] < done[lane]) {
            const struct program_op *op = &program->lanes[lane].ops[next[lane]++];
            stream->live[op->slot] = op->kind != PROGRAM_FREE;
        }
    }
    for (size_t slot = 0; slot < program->slot_count; slot++) {
        if (stream->live[slot]) {
            allocator->release(allocator->context, stream->views[set].slots[slot]);
        }
    }
    stream->live_setup = 0;
}

void stream_close(struct stream *stream)
{
    size_t slots = stream->program->slot_count, carries = stream->program->carry_count;
    for (size_t set = 0; set < stream->sets; set++) {
        struct replay_view *view = &stream->views[set];
        pages_free(view->slots, slots * sizeof *view->slots);
        pages_free(view->about, slots * sizeof *view->about);
    }
    pages_free(stream->carried, carries * sizeof *stream->carried);
    pages_free(stream->carried_about, carries * sizeof *stream->carried_about);
    pages_free(stream->live, slots);
    *stream = (struct stream){0};
}
