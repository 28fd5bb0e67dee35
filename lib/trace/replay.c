/* SPDX-License-Identifier: MIT */
/*
 * Passes and their figures: see replay.h.
 *
 * Everything the replayer needs is allocated and written to, and its threads are asleep, before the
 * base of the resident size is taken, so that what grows afterwards is the allocator's.
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
#include "replay_crew.h"
#include "replay_kernel.h"
#include "replay_stream.h"

/* Passes that count live bytes, before the timed ones. */
#define COUNTING_PASSES 2

struct pass_result {
    struct crew_pass crew;
    uint64_t faults;
    uint64_t cpu_ns;
};

struct run {
    const struct program *program;
    const struct allocator *allocator;
    const struct replay_settings *settings;
    size_t page_size;
    struct stream *streams;
    size_t stream_count;
    size_t *done; /* by lane, twice: for stream_release_live() */
    struct replay_tally tally;
    struct crew *crew;           /* NULL: this thread performs the operations */
    struct pass_result *results; /* by pass */
    uint64_t *sorted;            /* room for as many values */
    size_t passes_max;
    double busy[REPLAY_LANES_SHOWN]; /* sums over passes */
    size_t busy_passes;
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
    pages_free(run->results, run->passes_max * sizeof *run->results);
    pages_free(run->sorted, run->passes_max * sizeof *run->sorted);
}

static int open_streams(struct run *run)
{
    const struct replay_view view = {
        .allocator = run->allocator,
        .page_size = run->page_size,
        .touch = run->settings->touch,
        .read_before_free = run->settings->read_before_free,
        .tally = &run->tally,
    };
    for (size_t i = 0; i < run->stream_count; i++) {
        if (stream_open(&run->streams[i], run->program, &view, i) != 0) {
            return -ENOMEM;
        }
    }
    return 0;
}

static int allocate_arrays(struct run *run)
{
    size_t results_bytes = run->passes_max * sizeof *run->results;
    size_t sorted_bytes = run->passes_max * sizeof *run->sorted;
    run->streams = pages_allocate(run->stream_count * sizeof *run->streams);
    run->done = pages_allocate(2 * run->program->lane_count * sizeof *run->done);
    run->results = pages_allocate(results_bytes);
    run->sorted = pages_allocate(sorted_bytes);
    if (run->streams == NULL || run->done == NULL || run->results == NULL || run->sorted == NULL ||
        open_streams(run) != 0) {
        release_arrays(run);
        snprintf(run->why, run->why_size,
                 "no memory for the replay's own tables: ask for fewer passes or streams");
        return -ENOMEM;
    }
    memset(run->results, 0xff, results_bytes);
    memset(run->sorted, 0xff, sorted_bytes);
    return 0;
}

/* -- A pass ------------------------------------------------------------------------------------ */

/* On this thread. */
static int run_alone(struct run *run, replay_kernel *kernel, struct crew_pass *out)
{
    const struct program *program = run->program;
    uint64_t start = measure_now_ns();
    size_t done = kernel(&run->streams[0].view, program->ops, program->op_count);
    uint64_t ns = measure_now_ns() - start;
    run->done[0] = done;
    *out = (struct crew_pass){.wall_ns = ns, .op_ns = ns};
    return done == program->op_count ? 0 : -ENOMEM;
}

static int run_pass(struct run *run, replay_kernel *kernel, struct pass_result *out)
{
    uint64_t faults = measure_minor_faults();
    uint64_t cpu_ns = measure_cpu_ns();
    int result = run->crew != NULL ? crew_run(run->crew, kernel, &out->crew)
                                   : run_alone(run, kernel, &out->crew);
    out->cpu_ns = measure_cpu_ns() - cpu_ns;
    out->faults = measure_minor_faults() - faults;
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

/* How many passes to make in all, once `done` of them show what one costs. */
static size_t choose_passes(const struct run *run, size_t done)
{
    if (run->settings->passes > 0) {
        return run->settings->passes;
    }
    uint64_t shortest = UINT64_MAX;
    for (size_t i = 0; i < done; i++) {
        uint64_t ns = run->results[i].crew.wall_ns;
        shortest = ns < shortest ? ns : shortest;
    }
    uint64_t each = shortest + (uint64_t)run->settings->gap_ms * 1000000u + 1;
    uint64_t passes = REPLAY_BUDGET_NS / each;
    uint64_t least = run->program->span_ns > 0 ? REPLAY_PASSES_PACED_MIN : REPLAY_PASSES_MIN;
    return passes < least               ? (size_t)least
           : passes > REPLAY_PASSES_MAX ? REPLAY_PASSES_MAX
                                        : (size_t)passes;
}

static void add_busy(struct run *run)
{
    size_t lanes = run->program->lane_count;
    for (size_t i = 0; i < lanes && i < REPLAY_LANES_SHOWN; i++) {
        run->busy[i] += run->crew != NULL ? crew_busy_share(run->crew, i) : 1;
    }
    run->busy_passes++;
}

/* The timed passes; returns how many in *passes. */
static int run_passes(struct run *run, size_t *passes)
{
    const size_t trial = 3;
    replay_kernel *kernel =
        replay_kernel_for(run->settings->touch, run->settings->read_before_free);
    size_t wanted = run->settings->passes > 0   ? run->settings->passes
                    : run->program->span_ns > 0 ? REPLAY_PASSES_PACED_MIN
                                                : REPLAY_PASSES_MIN;
    for (size_t i = 0; i < wanted; i++) {
        tell_progress(run, i, wanted);
        if (i > 0 && run->settings->gap_ms > 0) {
            sleep_ms(run->settings->gap_ms);
        }
        if (run->allocator->pass_begin != NULL) {
            run->allocator->pass_begin(run->allocator->context);
        }
        int result = run_pass(run, kernel, &run->results[i]);
        if (run->allocator->pass_end != NULL) {
            run->allocator->pass_end(run->allocator->context);
        }
        if (result != 0) {
            return result;
        }
        if (i + 1 == trial) {
            wanted = choose_passes(run, trial);
        }
        if (i >= wanted / 3) {
            add_busy(run);
        }
    }
    *passes = wanted;
    return 0;
}

/* Passes that count what is live at once, for threads that may run in many orders. */
static int run_counting(struct run *run)
{
    struct pass_result unused;
    uint64_t setup_bytes = atomic_load_explicit(&run->tally.live_bytes, memory_order_relaxed);
    int result = 0;
    for (size_t i = 0; result == 0 && i < COUNTING_PASSES; i++) {
        /* Relaxed, both: no thread of a pass runs now. */
        atomic_store_explicit(&run->tally.live_bytes, setup_bytes, memory_order_relaxed);
        result = run_pass(run, replay_kernel_counting, &unused);
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
        if (run->crew != NULL) {
            crew_get_done(run->crew, i, run->done);
        }
        stream_release_live(&run->streams[i], run->done);
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

/* -- Figures ----------------------------------------------------------------------------------- */

typedef uint64_t pass_figure(const struct pass_result *pass);

static uint64_t faults_of(const struct pass_result *pass)
{
    return pass->faults;
}

static uint64_t op_ns_of(const struct pass_result *pass)
{
    return pass->crew.op_ns;
}

static uint64_t wall_ns_of(const struct pass_result *pass)
{
    return pass->crew.wall_ns;
}

static uint64_t cpu_ns_of(const struct pass_result *pass)
{
    return pass->cpu_ns;
}

static uint64_t waited_ns_of(const struct pass_result *pass)
{
    return pass->crew.waited_ns;
}

static uint64_t waits_of(const struct pass_result *pass)
{
    return pass->crew.waits;
}

/* The median over passes [first, first + count); their figures stay in run->sorted. */
static double median_of(struct run *run, size_t first, size_t count, pass_figure *figure)
{
    for (size_t i = 0; i < count; i++) {
        run->sorted[i] = figure(&run->results[first + i]);
    }
    return measure_median(run->sorted, count);
}

static void summarise(struct run *run, size_t passes, struct replay_result *out)
{
    size_t first = passes / 3;
    size_t count = passes - first;
    double ops = (double)run->program->op_count * (double)run->stream_count;
    out->passes = passes;
    out->ops_per_pass = run->program->op_count * run->stream_count;
    out->threads = run->program->lane_count * run->stream_count;
    out->faults_per_pass = median_of(run, first, count, faults_of);
    out->pass_ns = median_of(run, first, count, wall_ns_of);
    out->cpu_ns_per_op = median_of(run, first, count, cpu_ns_of) / ops;
    out->cpus_busy = out->pass_ns > 0 ? out->cpu_ns_per_op * ops / out->pass_ns : 0;
    out->waiting_ns = median_of(run, first, count, waited_ns_of);
    out->waits = median_of(run, first, count, waits_of);
    out->ns_per_op = median_of(run, first, count, op_ns_of) / ops;
    out->ns_per_op_min = (double)run->sorted[0] / ops;
    out->ns_per_op_max = (double)run->sorted[count - 1] / ops;
    for (size_t i = 0; i < run->program->lane_count && i < REPLAY_LANES_SHOWN; i++) {
        out->busy[i] = run->busy[i] / (double)run->busy_passes;
        out->busy_count = i + 1;
    }
}

/* The passes with what is measured around them, once everything else is in place. */
static int measure_passes(struct run *run, struct replay_result *out)
{
    size_t passes = 0;
    replay_kernel *untouched = replay_kernel_for(REPLAY_TOUCH_NONE, false);
    uint64_t base = measure_reset_peak_rss() == 0 ? measure_peak_rss() : UINT64_MAX;
    out->peak_live_was_counted = run->crew != NULL;
    int result = set_up(run, run->crew != NULL ? replay_kernel_counting
                                               : replay_kernel_for(run->settings->touch, false));
    if (result != 0) {
        return result;
    }
    result = run->crew != NULL ? run_counting(run) : 0;
    result = result == 0 ? run_passes(run, &passes) : result;
    uint64_t peak = measure_peak_rss();
    if (result != 0) {
        return fail_pass(run, result);
    }
    tear_down(run, untouched);
    summarise(run, passes, out);
    out->peak_rss_bytes = base == UINT64_MAX || peak == UINT64_MAX ? UINT64_MAX
                          : peak > base                            ? peak - base
                                                                   : 0;
    out->peak_live_bytes =
        run->crew != NULL ? atomic_load_explicit(&run->tally.peak_live_bytes, memory_order_relaxed)
                          : run->program->peak_live_bytes;
    return 0;
}

/* -- Runs -------------------------------------------------------------------------------------- */

static bool needs_crew(const struct run *run)
{
    return run->program->lane_count > 1 || run->stream_count > 1 || run->program->span_ns > 0;
}

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
    struct pass_result unused;
    int result = set_up(run, replay_kernel_checking);
    if (result != 0) {
        return result;
    }
    for (size_t i = 0; i < run->passes_max; i++) {
        result = run_pass(run, replay_kernel_checking, &unused);
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
    return crew_count_threads(wanted);
}
