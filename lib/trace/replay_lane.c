/* SPDX-License-Identifier: MIT */
/* Laps, steps and waits of one lane: see replay_lane.h. */
#include "replay_lane.h"

#include <time.h>

#include "measure.h"

#define SLEEP_AT_MOST_NS 50000000u /* then a look whether the section was aborted */

void lane_reset(struct worker *worker)
{
    gate_reset(&worker->gate);
    worker->waited_ns = worker->apart_ns = worker->waits = 0;
    worker->start_ns = worker->end_ns = 0;
    worker->lap = worker->done = 0;
}

size_t lane_done(const struct worker *worker, size_t lap)
{
    return worker->lap > lap ? worker->lane->op_count : worker->lap == lap ? worker->done : 0;
}

uint64_t lane_busy_ns(const struct worker *worker)
{
    return worker->end_ns - worker->start_ns - worker->waited_ns - worker->apart_ns;
}

void section_abort(struct section *section)
{
    atomic_store_explicit(&section->aborted, true, memory_order_relaxed);
    for (size_t i = 0; i < section->worker_count; i++) {
        gate_wake(&section->workers[i].gate); /* its lock: who sleeps from now on saw the store */
    }
}

static void fail(struct worker *self)
{
    struct section *section = self->section;
    pthread_mutex_lock(&section->lock);
    if (section->failed == NULL) {
        section->failed = self;
        section->failed_op = self->done;
    }
    pthread_mutex_unlock(&section->lock);
    section_abort(section);
}

/* -- Waiting ----------------------------------------------------------------------------------- */

static bool wait_slow(struct worker *self, struct gate *gate, uint32_t steps)
{
    uint64_t start = measure_now_ns();
    bool past = gate_wait(gate, steps, self->section->looks, &self->section->aborted);
    self->waited_ns += measure_now_ns() - start;
    self->waits++;
    return past;
}

/* False: the section was aborted. */
static inline bool wait_for(struct worker *self, uint32_t lane, uint32_t steps)
{
    struct gate *gate = &self->lanes[lane].gate;
    return __builtin_expect(gate_is_past(gate, steps), 1) || wait_slow(self, gate, steps);
}

/* Publishes that so many steps are over. */
static inline void pass_gate(struct worker *self, uint32_t steps)
{
    if (gate_pass(&self->gate, steps)) {
        uint64_t start = measure_now_ns();
        gate_wake(&self->gate);
        self->waited_ns += measure_now_ns() - start;
    }
}

static void sleep_until(struct worker *self, uint64_t not_before_ns)
{
    struct section *section = self->section;
    uint64_t until = atomic_load_explicit(&section->go_ns, memory_order_relaxed) + not_before_ns;
    uint64_t start = measure_now_ns(), now = start;
    while (now < until && !atomic_load_explicit(&section->aborted, memory_order_relaxed)) {
        uint64_t left = until - now < SLEEP_AT_MOST_NS ? until - now : SLEEP_AT_MOST_NS;
        nanosleep(&(struct timespec){.tv_nsec = (long)left}, NULL);
        now = measure_now_ns();
    }
    self->apart_ns += now - start;
}

/* -- Laps -------------------------------------------------------------------------------------- */

/* How many steps of a lane are over when `laps` laps are. */
static uint32_t steps_of_laps(const struct program_lane *lane, size_t laps)
{
    return (uint32_t)(laps * lane->step_count);
}

/* Until the slots of the lap are free: those of the one before the last. */
static bool wait_for_slots(struct worker *self)
{
    const struct program *program = self->stream->program;
    for (uint32_t lane = 0; self->lap >= STREAM_SETS && lane < program->lane_count; lane++) {
        uint32_t steps = steps_of_laps(&program->lanes[lane], self->lap + 1 - STREAM_SETS);
        if (!wait_for(self, lane, steps)) {
            return false;
        }
    }
    return true;
}

/* False: the section was aborted, or this lane failed. */
static bool run_lap(struct worker *self)
{
    const struct program_lane *lane = self->lane;
    const struct program *program = self->stream->program;
    const struct replay_view *view = &self->stream->views[self->lap % STREAM_SETS];
    replay_kernel *kernel = self->section->kernel;
    uint32_t before = steps_of_laps(lane, self->lap);
    size_t wait = lane->first_wait;
    for (uint32_t i = 0; i < lane->step_count; i++) {
        const struct program_step *step = &lane->steps[i];
        for (; wait < step->waits_end; wait++) {
            const struct program_wait *of = &program->waits[wait];
            uint32_t laps = steps_of_laps(&program->lanes[of->lane], self->lap);
            if (!wait_for(self, of->lane, laps + of->steps)) {
                return false;
            }
        }
        if (step->not_before_ns > 0) {
            sleep_until(self, step->not_before_ns);
        }
        self->done += kernel(view, lane->ops + self->done, step->end - self->done);
        if (self->done < step->end) {
            fail(self);
            return false;
        }
        if (step->awaited) {
            pass_gate(self, before + i + 1);
        }
    }
    return true;
}

/* Tells the allocator, which is no operation. */
static void tell_allocator(struct worker *self, void (*call)(void *context))
{
    if (call != NULL) {
        uint64_t start = measure_now_ns();
        call(self->stream->views[0].allocator->context);
        self->apart_ns += measure_now_ns() - start;
    }
}

void lane_run(struct worker *self)
{
    const struct allocator *allocator = self->stream->views[0].allocator;
    bool aborted = atomic_load_explicit(&self->section->aborted, memory_order_relaxed);
    self->start_ns = measure_now_ns();
    while (!aborted && self->lap < self->section->laps) {
        aborted = !wait_for_slots(self);
        if (!aborted) {
            tell_allocator(self, allocator->pass_begin);
            aborted = !run_lap(self);
            tell_allocator(self, allocator->pass_end);
        }
        if (!aborted) {
            self->done = 0;
            self->lap++;
            pass_gate(self, steps_of_laps(self->lane, self->lap));
        }
    }
    self->end_ns = measure_now_ns();
}
