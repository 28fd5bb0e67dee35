/* SPDX-License-Identifier: MIT */
/*
 * Passes and their figures: see replay.h.
 *
 * Everything the replayer needs is allocated and written to, and its companion thread asleep,
 * before the base of the resident size is taken, so that what grows afterwards is the allocator's. The pass function exists once for
 * each kind of touching: the choice is made outside of the loop.
 */
#include "replay.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "companion.h"
#include "measure.h"
#include "pages.h"

#define FAILED(index) ((index) + 1) /* what a pass returns: 0, or one more than where it failed */

struct pass_result {
    uint64_t ns;
    uint64_t faults;
};

typedef size_t pass_function(const struct program *program, const struct allocator *allocator,
                             void **slots, size_t page_size);

/*
 * One byte in every page that the block lies in. The byte moves on by a cache line from page to
 * page: at one and the same offset all of them would share a few sets of the cache, and the
 * harness would measure their conflicts (450 instead of 82 ns an operation on MobileNet V2's
 * trace, allocator none).
 */
static inline void touch_pages(void *block, uint64_t size, size_t page_size)
{
    const uintptr_t line = 64;
    uintptr_t start = (uintptr_t)block;
    uintptr_t end = start + (uintptr_t)size;
    if (size == 0) {
        return;
    }
    *(volatile char *)start = 1;
    uintptr_t page = (start & ~((uintptr_t)page_size - 1)) + page_size;
    for (; page + page_size <= end; page += page_size) {
        *(volatile char *)(page + (page / page_size * line & (page_size - 1))) = 1;
    }
    if (page < end) {
        *(volatile char *)page = 1;
    }
}

static inline void touch(enum replay_touch how, void *block, uint64_t size, size_t page_size)
{
    if (how == REPLAY_TOUCH_PAGE) {
        touch_pages(block, size, page_size);
    } else if (how == REPLAY_TOUCH_FULL) {
        memset(block, 1, (size_t)size);
        __asm__ volatile("" : : "r"(block) : "memory"); /* or the compiler drops it before a free */
    }
}

/* The timed loop. `how` is a constant in each caller, which leaves one plain loop of each kind. */
static inline __attribute__((always_inline)) size_t run_pass(const struct program *program,
                                                             const struct allocator *allocator,
                                                             void **slots, size_t page_size,
                                                             enum replay_touch how)
{
    for (size_t i = 0; i < program->op_count; i++) {
        const struct program_op *op = &program->ops[i];
        void *block;
        switch (op->kind) {
        case PROGRAM_FREE:
            allocator->release(allocator->context, slots[op->slot]);
            continue;
        case PROGRAM_ALLOCATE:
            block = allocator->allocate(allocator->context, (size_t)op->size);
            break;
        case PROGRAM_ALLOCATE_ALIGNED:
            block = allocator->allocate_aligned(allocator->context, (size_t)1 << op->alignment_log2,
                                                (size_t)op->size);
            break;
        default:
            block = allocator->reallocate(allocator->context, slots[op->slot], (size_t)op->size);
            break;
        }
        if (__builtin_expect(block == NULL, 0)) {
            return FAILED(i);
        }
        slots[op->slot] = block;
        touch(how, block, op->size, page_size);
    }
    return 0;
}

static size_t pass_untouched(const struct program *program, const struct allocator *allocator,
                             void **slots, size_t page_size)
{
    return run_pass(program, allocator, slots, page_size, REPLAY_TOUCH_NONE);
}

static size_t pass_pages(const struct program *program, const struct allocator *allocator,
                         void **slots, size_t page_size)
{
    return run_pass(program, allocator, slots, page_size, REPLAY_TOUCH_PAGE);
}

static size_t pass_full(const struct program *program, const struct allocator *allocator,
                        void **slots, size_t page_size)
{
    return run_pass(program, allocator, slots, page_size, REPLAY_TOUCH_FULL);
}

struct run {
    const struct program *program;
    const struct allocator *allocator;
    const struct replay_settings *settings;
    pass_function *pass;
    size_t page_size;
    void **slots;
    struct pass_result *results; /* by pass */
    uint64_t *sorted;            /* room for as many values */
    size_t passes_max;
};

static void release_arrays(struct run *run)
{
    pages_free(run->slots, run->program->slot_count * sizeof *run->slots);
    pages_free(run->results, run->passes_max * sizeof *run->results);
    pages_free(run->sorted, run->passes_max * sizeof *run->sorted);
}

static int allocate_arrays(struct run *run)
{
    size_t slots_bytes = run->program->slot_count * sizeof *run->slots;
    run->slots = pages_allocate(slots_bytes);
    run->results = pages_allocate(run->passes_max * sizeof *run->results);
    run->sorted = pages_allocate(run->passes_max * sizeof *run->sorted);
    if (run->slots == NULL || run->results == NULL || run->sorted == NULL) {
        release_arrays(run);
        return -ENOMEM;
    }
    memset(run->slots, 0xff, slots_bytes);
    memset(run->results, 0xff, run->passes_max * sizeof *run->results);
    memset(run->sorted, 0xff, run->passes_max * sizeof *run->sorted);
    return 0;
}

static void sleep_ms(unsigned ms)
{
    struct timespec left = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
}

/* How many passes to make in all, once `done` of them show what one costs. */
static size_t choose_passes(const struct run *run, size_t done)
{
    if (run->settings->passes > 0) {
        return run->settings->passes;
    }
    uint64_t shortest = UINT64_MAX;
    for (size_t i = 0; i < done; i++) {
        shortest = run->results[i].ns < shortest ? run->results[i].ns : shortest;
    }
    uint64_t each = shortest + (uint64_t)run->settings->gap_ms * 1000000u + 1;
    uint64_t passes = REPLAY_BUDGET_NS / each;
    return passes < REPLAY_PASSES_MIN   ? REPLAY_PASSES_MIN
           : passes > REPLAY_PASSES_MAX ? REPLAY_PASSES_MAX
                                        : (size_t)passes;
}

/* Makes the passes; returns how many in *passes, and 0 or what the failing one returned. */
static size_t run_passes(struct run *run, size_t *passes)
{
    const size_t trial = 3;
    size_t wanted = run->settings->passes > 0 ? run->settings->passes : REPLAY_PASSES_MIN;
    for (size_t i = 0; i < wanted; i++) {
        if (i > 0 && run->settings->gap_ms > 0) {
            sleep_ms(run->settings->gap_ms);
        }
        uint64_t faults = measure_minor_faults();
        uint64_t start = measure_now_ns();
        size_t failed = run->pass(run->program, run->allocator, run->slots, run->page_size);
        run->results[i].ns = measure_now_ns() - start;
        run->results[i].faults = measure_minor_faults() - faults;
        if (failed != 0) {
            return failed;
        }
        if (i + 1 == trial) {
            wanted = choose_passes(run, trial);
        }
    }
    *passes = wanted;
    return 0;
}

/* Frees what is live after the first `done` operations of a pass that failed. */
static void release_live(const struct run *run, size_t done)
{
    const struct program *program = run->program;
    unsigned char *live = pages_allocate(program->slot_count);
    if (live == NULL) {
        return; /* the blocks leak; the caller is told of the failure anyway */
    }
    for (size_t i = 0; i < done; i++) {
        live[program->ops[i].slot] = program->ops[i].kind != PROGRAM_FREE;
    }
    for (size_t slot = 0; slot < program->slot_count; slot++) {
        if (live[slot]) {
            run->allocator->release(run->allocator->context, run->slots[slot]);
        }
    }
    pages_free(live, program->slot_count);
}

static int fail_pass(const struct run *run, size_t failed, char *why, size_t why_size)
{
    const struct program_op *op = &run->program->ops[failed - 1];
    release_live(run, failed - 1);
    snprintf(why, why_size,
             "%s could not serve %llu bytes (operation %zu of %zu of a pass): free memory or raise "
             "the limits, or leave out large blocks of the trace",
             run->allocator->name, (unsigned long long)op->size, failed, run->program->op_count);
    return -ENOMEM;
}

static void summarise(struct run *run, size_t passes, struct replay_result *out)
{
    size_t first = passes / 3;
    size_t count = passes - first;
    double ops = (double)run->program->op_count;
    for (size_t i = 0; i < count; i++) {
        run->sorted[i] = run->results[first + i].faults;
    }
    out->faults_per_pass = measure_median(run->sorted, count);
    for (size_t i = 0; i < count; i++) {
        run->sorted[i] = run->results[first + i].ns;
    }
    out->ns_per_op = measure_median(run->sorted, count) / ops;
    out->ns_per_op_min = (double)run->sorted[0] / ops;
    out->ns_per_op_max = (double)run->sorted[count - 1] / ops;
    out->passes = passes;
    out->ops_per_pass = run->program->op_count;
}

/* The passes with what is measured around them, once everything else is in place. */
static int measure_passes(struct run *run, struct replay_result *out, char *why, size_t why_size)
{
    size_t passes = 0;
    uint64_t base = measure_reset_peak_rss() == 0 ? measure_peak_rss() : UINT64_MAX;
    size_t failed = run_passes(run, &passes);
    uint64_t peak = measure_peak_rss();
    if (failed != 0) {
        return fail_pass(run, failed, why, why_size);
    }
    summarise(run, passes, out);
    out->peak_rss_bytes = base == UINT64_MAX || peak == UINT64_MAX ? UINT64_MAX
                          : peak > base                            ? peak - base
                                                                   : 0;
    return 0;
}

int replay_run(const struct program *program, const struct allocator *allocator,
               const struct replay_settings *settings, struct replay_result *out, char *why,
               size_t why_size)
{
    static pass_function *const pass_functions[] = {
        [REPLAY_TOUCH_NONE] = pass_untouched,
        [REPLAY_TOUCH_PAGE] = pass_pages,
        [REPLAY_TOUCH_FULL] = pass_full,
    };
    struct run run = {
        .program = program,
        .allocator = allocator,
        .settings = settings,
        .pass = pass_functions[settings->touch],
        .page_size = (size_t)sysconf(_SC_PAGESIZE),
        .passes_max = settings->passes > 0 ? settings->passes : REPLAY_PASSES_MAX,
    };
    if (allocate_arrays(&run) != 0) {
        snprintf(why, why_size, "no memory for the replay's own tables: ask for fewer passes");
        return -ENOMEM;
    }
    int result = companion_start();
    if (result == 0) {
        result = measure_passes(&run, out, why, why_size);
        companion_stop();
    } else {
        snprintf(why, why_size, "no second thread could be started: raise the limit (ulimit -u)");
    }
    release_arrays(&run);
    return result;
}
