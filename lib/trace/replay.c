/* SPDX-License-Identifier: MIT */
/*
 * Passes and their figures: see replay.h.
 *
 * Everything the replayer needs is allocated and written to, its threads are asleep, and the code of
 * the process is mapped, before the base of the resident size is taken, so that what grows afterwards
 * is memory of the allocator's.
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
#include "replay_figures.h"
#include "replay_kernel.h"
#include "replay_thread.h"

/* Sections that count live bytes, before the timed ones, and their laps where they have several. */
#define COUNTING_SECTIONS 2
#define COUNTING_LAPS 4u

/* Where passes are shorter, several of them are a section: waking threads must not be part of what is measured. */
#define SECTION_NS 20000000u
#define SECTIONS_MIN 12u

struct run {
    const struct program *program;
    const struct allocator *allocator;
    const struct replay_settings *settings;
    size_t page_size;
    struct stream *streams;
    size_t stream_count;
    size_t *done; /* by lane, twice: for stream_release_live() */
    struct replay_tally tally;
    struct crew *crew; /* NULL: this thread performs the operations */
    struct figures figures;
    size_t passes_max;
    char *why;
    size_t why_size;
};

/* -- Memory ------------------------------------------------------------------------------------ */

static void release_arrays(struct run *run)
{
    for (size_t i = 0; run->streams != NULL && i < run->stream_count; i++) {
        if (run->streams[i].program != NULL) {
            stream_close(&run->streams[i]);
        }
    }
    pages_free(run->streams, run->stream_count * sizeof *run->streams);
    pages_free(run->done, 2 * run->program->lane_count * sizeof *run->done);
    figures_close(&run->figures);
}

static bool needs_crew(const struct run *run)
{
    return run->program->lane_count > 1 || run->stream_count > 1 || run->program->span_ns > 0;
}

static int open_streams(struct run *run)
{
    size_t sets = needs_crew(run) ? crew_sets(run->program) : 1;
    const struct replay_view view = {
        .allocator = run->allocator,
        .page_size = run->page_size,
        .touch = run->settings->touch,
        .read_before_free = run->settings->read_before_free,
        .tally = &run->tally,
    };
    for (size_t i = 0; i < run->stream_count; i++) {
        if (stream_open(&run->streams[i], run->program, &view, i, sets) != 0) {
            return -ENOMEM;
        }
    }
    return 0;
}

static int allocate_arrays(struct run *run)
{
    run->streams = pages_allocate(run->stream_count * sizeof *run->streams);
    run->done = pages_allocate(2 * run->program->lane_count * sizeof *run->done);
    int result = figures_open(&run->figures, run->passes_max);
    if (run->streams == NULL || run->done == NULL || result != 0 || open_streams(run) != 0) {
        release_arrays(run);
        snprintf(run->why, run->why_size,
                 "no memory for the replay's own tables: ask for fewer passes or streams");
        return -ENOMEM;
    }
    return 0;
}

/* -- A section ------------------------------------------------------------------------------------ */

/* One pass on this thread. */
static int run_alone(struct run *run, replay_kernel *kernel, struct crew_figures *out)
{
    const struct program *program = run->program;
    uint64_t start = measure_now_ns();
    size_t done = kernel(&run->streams[0].views[0], program->ops, program->op_count);
    uint64_t ns = measure_now_ns() - start;
    run->done[0] = done;
    *out = (struct crew_figures){.wall_ns = ns, .op_ns = ns};
    return done == program->op_count ? 0 : -ENOMEM;
}

/* Threads of a crew tell the allocator themselves. */
static void tell_allocator(const struct run *run, void (*call)(void *context))
{
    if (call != NULL && run->crew == NULL) {
        call(run->allocator->context);
    }
}

static int run_section(struct run *run, replay_kernel *kernel, size_t laps,
                       struct section_result *out)
{
    tell_allocator(run, run->allocator->pass_begin);
    uint64_t faults = measure_minor_faults();
    uint64_t start_ns = measure_now_ns();
    uint64_t cpu_ns = measure_cpu_ns();
    int result = run->crew != NULL ? crew_run(run->crew, kernel, laps, &out->crew)
                                   : run_alone(run, kernel, &out->crew);
    out->cpu_ns = measure_cpu_ns() - cpu_ns;
    out->elapsed_ns = measure_now_ns() - start_ns;
    out->faults = measure_minor_faults() - faults;
    out->passes = laps;
    tell_allocator(run, run->allocator->pass_end);
    for (size_t i = 0; result == 0 && i < run->stream_count; i++) {
        stream_carry(&run->streams[i]);
    }
    return result;
}

static void sleep_ms(unsigned ms)
{
    struct timespec left = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
}

static void tell_progress(const struct run *run, size_t pass, size_t of)
{
    if (run->settings->progress != NULL) {
        run->settings->progress(run->settings->progress_context, pass, of);
    }
}

/* -- Passes ------------------------------------------------------------------------------------ */

/* How many passes to make in all, once some of them show what one costs. */
static size_t choose_passes(const struct run *run)
{
    if (run->settings->passes > 0) {
        return run->settings->passes;
    }
    uint64_t each =
        figures_shortest_ns(&run->figures) + (uint64_t)run->settings->gap_ms * 1000000u + 1;
    uint64_t passes = REPLAY_BUDGET_NS / each;
    uint64_t least = run->program->span_ns > 0 ? REPLAY_PASSES_PACED_MIN : REPLAY_PASSES_MIN;
    return passes < least               ? (size_t)least
           : passes > REPLAY_PASSES_MAX ? REPLAY_PASSES_MAX
                                        : (size_t)passes;
}

/* How many passes to make a section of, where so many are still to come. */
static size_t choose_laps(const struct run *run, size_t passes)
{
    size_t most = run->crew != NULL && run->settings->gap_ms == 0 ? crew_laps_most(run->crew) : 1;
    uint64_t laps = SECTION_NS / (figures_shortest_ns(&run->figures) + 1);
    most = most < passes / SECTIONS_MIN ? most : passes / SECTIONS_MIN;
    return laps < 1 || most < 1 ? 1 : laps < most ? (size_t)laps : most;
}

static void add_busy(struct run *run, size_t passes)
{
    for (size_t i = 0; i < run->program->lane_count; i++) {
        figures_add_busy(&run->figures, i, run->crew != NULL ? crew_busy_share(run->crew, i) : 1,
                         passes);
    }
}

/* The timed passes. */
static int run_passes(struct run *run)
{
    const size_t trial = 3;
    struct figures *figures = &run->figures;
    replay_kernel *kernel =
        replay_kernel_for(run->settings->touch, run->settings->read_before_free);
    size_t laps = 1;
    size_t wanted = run->settings->passes > 0   ? run->settings->passes
                    : run->program->span_ns > 0 ? REPLAY_PASSES_PACED_MIN
                                                : REPLAY_PASSES_MIN;
    for (size_t done = 0; done < wanted;) {
        laps = laps < wanted - done ? laps : wanted - done;
        tell_progress(run, done, wanted);
        if (done > 0 && run->settings->gap_ms > 0) {
            sleep_ms(run->settings->gap_ms);
        }
        int result = run_section(run, kernel, laps, &figures->sections[figures->count]);
        if (result != 0) {
            return result;
        }
        figures->count++;
        if (done >= wanted / 3) {
            add_busy(run, laps);
        }
        done += laps;
        if (done == trial) {
            wanted = choose_passes(run);
            laps = choose_laps(run, wanted - trial);
        }
    }
    return 0;
}

/* Passes that count what is live at once, for threads that may run in many orders. */
static int run_counting(struct run *run)
{
    struct section_result unused;
    uint64_t setup_bytes = atomic_load_explicit(&run->tally.live_bytes, memory_order_relaxed);
    size_t laps = crew_laps_most(run->crew);
    int result = 0;
    laps = laps < COUNTING_LAPS ? laps : COUNTING_LAPS;
    for (size_t i = 0; result == 0 && i < COUNTING_SECTIONS; i++) {
        /* Relaxed, both: no thread of a section runs now. */
        atomic_store_explicit(&run->tally.live_bytes, setup_bytes, memory_order_relaxed);
        result = run_section(run, replay_kernel_counting, laps, &unused);
    }
    return result;
}

/* -- Failures ---------------------------------------------------------------------------------- */

static int tell_failed_op(const struct run *run, const struct program_op *op, size_t number,
                          size_t of, const char *where)
{
    snprintf(run->why, run->why_size,
             "%s could not serve %llu bytes (operation %zu of %zu of %s): free memory or raise the "
             "limits, or leave out large blocks of the trace",
             run->allocator->name, (unsigned long long)op->size, number, of, where);
    return -ENOMEM;
}

static int tell_no_thread(const struct run *run)
{
    snprintf(run->why, run->why_size,
             "no thread is left for the replay: raise the limit (ulimit -u)");
    return -EAGAIN;
}

static int tell_fault(const struct run *run)
{
    const struct replay_fault *fault = &run->tally.fault;
    if (fault->expected == fault->found) {
        snprintf(run->why, run->why_size, "a block of %llu bytes from %s %s: off by %llu",
                 (unsigned long long)fault->size, run->allocator->name, fault->what,
                 (unsigned long long)fault->at);
    } else {
        snprintf(run->why, run->why_size,
                 "a block of %llu bytes from %s %s: byte %llu is 0x%02x, not 0x%02x",
                 (unsigned long long)fault->size, run->allocator->name, fault->what,
                 (unsigned long long)fault->at, fault->found, fault->expected);
    }
    return -EBADMSG;
}

/* A pass that failed: says why, and releases what is live, unless blocks are known to be damaged. */
static int fail_pass(struct run *run, int result)
{
    if (atomic_load_explicit(&run->tally.faulty, memory_order_relaxed)) {
        return tell_fault(run);
    }
    const struct program *program = run->program;
    for (size_t i = 0; i < run->stream_count; i++) {
        for (size_t set = 0; set < run->streams[i].sets; set++) {
            if (run->crew != NULL) {
                crew_get_done(run->crew, i, set, run->done);
            }
            stream_release_live(&run->streams[i], set, run->done);
        }
    }
    if (result == -EAGAIN) {
        return tell_no_thread(run);
    }
    if (run->crew == NULL) {
        return tell_failed_op(run, &program->ops[run->done[0]], run->done[0] + 1, program->op_count,
                              "a pass");
    }
    uint32_t lane;
    size_t number;
    const struct program_op *op = crew_failure(run->crew, &lane, &number);
    return tell_failed_op(run, op, number + 1, program->lanes[lane].op_count, "a thread");
}

static int set_up(struct run *run, replay_kernel *kernel)
{
    for (size_t i = 0; i < run->stream_count; i++) {
        if (stream_set_up(&run->streams[i], kernel) != 0) {
            while (i > 0) {
                stream_tear_down(&run->streams[--i], replay_kernel_for(REPLAY_TOUCH_NONE, false));
            }
            snprintf(run->why, run->why_size,
                     "%s could not serve what is live before the part that is replayed: free "
                     "memory or raise the limits",
                     run->allocator->name);
            return -ENOMEM;
        }
    }
    return 0;
}

static bool tear_down(struct run *run, replay_kernel *kernel)
{
    bool fine = true;
    for (size_t i = 0; i < run->stream_count; i++) {
        fine = stream_tear_down(&run->streams[i], kernel) && fine;
    }
    return fine;
}

/* The passes with what is measured around them, once everything else is in place. */
static int measure_passes(struct run *run, struct replay_result *out)
{
    replay_kernel *untouched = replay_kernel_for(REPLAY_TOUCH_NONE, false);
    measure_map_modules();
    uint64_t base = measure_reset_peak_rss() == 0 ? measure_peak_rss() : UINT64_MAX;
    out->peak_live_was_counted = run->crew != NULL;
    int result = set_up(run, run->crew != NULL ? replay_kernel_counting
                                               : replay_kernel_for(run->settings->touch, false));
    if (result != 0) {
        return result;
    }
    result = run->crew != NULL ? run_counting(run) : 0;
    result = result == 0 ? run_passes(run) : result;
    uint64_t peak = measure_peak_rss();
    if (result != 0) {
        return fail_pass(run, result);
    }
    tear_down(run, untouched);
    out->threads = run->program->lane_count * run->stream_count;
    figures_sum_up(&run->figures, run->program->op_count * run->stream_count, out);
    out->peak_rss_bytes = base == UINT64_MAX || peak == UINT64_MAX ? UINT64_MAX
                          : peak > base                            ? peak - base
                                                                   : 0;
    out->peak_live_bytes =
        run->crew != NULL ? atomic_load_explicit(&run->tally.peak_live_bytes, memory_order_relaxed)
                          : run->program->peak_live_bytes;
    return 0;
}

/* -- Runs -------------------------------------------------------------------------------------- */

/* Starts what runs beside this thread. */
static int start_threads(struct run *run, bool crew)
{
    int result = crew ? crew_open(&run->crew, run->streams, run->stream_count) : companion_start();
    if (result == -ENOMEM) {
        snprintf(run->why, run->why_size, "no memory for the threads' stacks: use fewer streams");
    } else if (result != 0) {
        tell_no_thread(run);
    }
    return result;
}

static void stop_threads(struct run *run)
{
    if (run->crew != NULL) {
        crew_close(run->crew);
    } else {
        companion_stop();
    }
}

static void begin(struct run *run, const struct program *program, const struct allocator *allocator,
                  const struct replay_settings *settings, char *why, size_t why_size)
{
    *run = (struct run){
        .program = program,
        .allocator = allocator,
        .settings = settings,
        .page_size = (size_t)sysconf(_SC_PAGESIZE),
        .stream_count = settings->streams > 0 ? settings->streams : 1,
        .passes_max = settings->passes > 0 ? settings->passes : REPLAY_PASSES_MAX,
        .why = why,
        .why_size = why_size,
    };
}

int replay_run(const struct program *program, const struct allocator *allocator,
               const struct replay_settings *settings, struct replay_result *out, char *why,
               size_t why_size)
{
    struct run run;
    begin(&run, program, allocator, settings, why, why_size);
    *out = (struct replay_result){0};
    int result = allocate_arrays(&run);
    if (result != 0) {
        return result;
    }
    result = start_threads(&run, needs_crew(&run));
    if (result == 0) {
        result = measure_passes(&run, out);
        stop_threads(&run);
    }
    release_arrays(&run);
    return result;
}

static int verify_passes(struct run *run, struct replay_verified *out)
{
    struct section_result unused;
    int result = set_up(run, replay_kernel_checking);
    if (result != 0) {
        return result;
    }
    size_t laps = run->crew != NULL ? crew_laps_most(run->crew) : 1;
    for (size_t done = 0; done < run->passes_max; done += laps) {
        laps = laps < run->passes_max - done ? laps : run->passes_max - done;
        result = run_section(run, replay_kernel_checking, laps, &unused);
        if (result != 0) {
            return fail_pass(run, result);
        }
    }
    if (!tear_down(run, replay_kernel_checking)) {
        return tell_fault(run);
    }
    out->passes = run->passes_max;
    out->ops_per_pass = run->program->op_count * run->stream_count;
    out->threads = run->program->lane_count * run->stream_count;
    out->blocks = atomic_load_explicit(&run->tally.checked_blocks, memory_order_relaxed);
    return 0;
}

int replay_verify(const struct program *program, const struct allocator *allocator,
                  const struct replay_settings *settings, struct replay_verified *out, char *why,
                  size_t why_size)
{
    struct run run;
    begin(&run, program, allocator, settings, why, why_size);
    run.passes_max = settings->passes > 0 ? settings->passes : REPLAY_VERIFY_PASSES;
    *out = (struct replay_verified){0};
    int result = allocate_arrays(&run);
    if (result != 0) {
        return result;
    }
    result = start_threads(&run, needs_crew(&run));
    if (result == 0) {
        result = verify_passes(&run, out);
        stop_threads(&run);
    }
    release_arrays(&run);
    return result;
}

size_t replay_count_threads(size_t wanted)
{
    return thread_count_possible(wanted);
}
