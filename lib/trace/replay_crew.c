/* SPDX-License-Identifier: MIT */
/*
 * Threads, sections and their figures: see replay_crew.h.
 *
 * Nobody can wait in a circle: waits and the starts of threads lead forward in recorded order
 * (program.h) or to an earlier lap, and the thread that calls crew_run() starts threads in that order. A thread that
 * fails sets `aborted` and wakes everybody; waits then return false.
 */
#include "replay_crew.h"

#include <errno.h>
#include <sched.h>
#include <unistd.h>

#include "measure.h"
#include "pages.h"
#include "replay_lane.h"

/*
 * What a wait looks before it sleeps, about 150 us: as long as it takes here until a sleeper that was woken runs again (40 to 100 us,
 * measured 2026-11), or, where threads outnumber CPUs, hardly at all.
 */
#define LOOKS_MANY 10000u
#define LOOKS_FEW 20u

/* Bounds what a gate counts, and how much is measured as one. */
#define LAPS_MOST 64u

struct crew {
    struct section section;
    struct worker *workers; /* stream by stream, in each by lane */
    size_t worker_count, lane_count, stream_count;
    size_t laps_most;
    size_t at_start; /* workers that are let go together */
    pthread_mutex_t lock;
    pthread_cond_t begin, over;
    uint64_t number; /* of the section that has begun; lock */
    bool quit;       /* lock */
    size_t running;  /* workers whose lane is not over; lock */
    uint64_t wall_ns;
    _Alignas(REPLAY_LINE) _Atomic size_t awake;
};

size_t crew_sets(const struct program *program)
{
    bool ends = false;
    for (size_t i = 0; i < program->lane_count; i++) {
        ends = ends || program->lanes[i].ends;
    }
    return ends || program->setup_count > 0 || program->span_ns > 0 ? 1 : STREAM_SETS;
}

size_t crew_laps_most(const struct crew *crew)
{
    return crew->laps_most;
}

static size_t find_laps_most(const struct stream *stream)
{
    size_t steps = 1;
    for (size_t i = 0; i < stream->program->lane_count; i++) {
        size_t count = stream->program->lanes[i].step_count;
        steps = count > steps ? count : steps;
    }
    size_t most = (UINT32_MAX - 1) / steps;
    return stream->sets < STREAM_SETS || most == 0 ? 1 : most < LAPS_MOST ? most : LAPS_MOST;
}

/* -- Threads ----------------------------------------------------------------------------------- */

/* The lane in this section, and that it is over. */
static void perform(struct worker *self)
{
    struct crew *crew = self->owner;
    lane_run(self);
    pthread_mutex_lock(&crew->lock);
    if (--crew->running == 0) {
        pthread_cond_signal(&crew->over);
    }
    pthread_mutex_unlock(&crew->lock);
}

/* Until all that begin the section together are awake; the last one lets them go. */
static void meet(struct crew *crew)
{
    _Atomic uint64_t *go_ns = &crew->section.go_ns;
    /* Acquire and release: the last one's clock is read after everybody arrived. */
    size_t awake = atomic_fetch_add_explicit(&crew->awake, 1, memory_order_acq_rel) + 1;
    if (awake == crew->at_start) {
        atomic_store_explicit(go_ns, measure_now_ns(), memory_order_release);
        return;
    }
    /* Pairs with the store above, or with that in run_threads(). */
    for (unsigned i = 0; atomic_load_explicit(go_ns, memory_order_acquire) == 0; i++) {
        if (i < crew->section.looks) {
            gate_pause();
        } else {
            sched_yield();
        }
    }
}

static void *stay(void *argument)
{
    struct worker *self = argument;
    struct crew *crew = self->owner;
    for (uint64_t seen = 0;;) {
        pthread_mutex_lock(&crew->lock);
        while (crew->number == seen && !crew->quit) {
            pthread_cond_wait(&crew->begin, &crew->lock);
        }
        bool quit = crew->quit;
        seen = crew->number;
        pthread_mutex_unlock(&crew->lock);
        if (quit) {
            return NULL;
        }
        meet(crew);
        perform(self);
    }
}

static void *perform_once(void *argument)
{
    struct worker *self = argument;
    if (!self->lane->starts_later) {
        meet(self->owner);
    }
    perform(self);
    return NULL;
}

/* -- Sections ---------------------------------------------------------------------------------- */

static void reset(struct crew *crew, replay_kernel *kernel, size_t laps)
{
    struct section *section = &crew->section;
    section->kernel = kernel;
    section->laps = laps;
    section->failed = NULL;
    crew->running = crew->worker_count;
    /* Relaxed: the lock in run_threads() and the creation of threads come after. */
    atomic_store_explicit(&crew->awake, 0, memory_order_relaxed);
    atomic_store_explicit(&section->go_ns, 0, memory_order_relaxed);
    atomic_store_explicit(&section->aborted, false, memory_order_relaxed);
    for (size_t i = 0; i < crew->worker_count; i++) {
        lane_reset(&crew->workers[i]);
    }
}

/* Those that no thread was left for count as over. */
static void give_up(struct crew *crew, size_t not_started)
{
    section_abort(&crew->section);
    pthread_mutex_lock(&crew->lock);
    crew->running -= not_started;
    pthread_mutex_unlock(&crew->lock);
}

/* Starts the threads that end in a pass: `later` or those that are there from its beginning. */
static int start_threads(struct crew *crew, bool later)
{
    for (size_t lane = 0; lane < crew->lane_count; lane++) {
        for (size_t stream = 0; stream < crew->stream_count; stream++) {
            struct worker *worker = &crew->workers[stream * crew->lane_count + lane];
            if (!worker->lane->ends || worker->lane->starts_later != later) {
                continue;
            }
            struct gate *gate = &worker->lanes[worker->lane->start.lane].gate;
            if (later &&
                !gate_wait(gate, worker->lane->start.steps, LOOKS_FEW, &crew->section.aborted)) {
                return -ECANCELED;
            }
            int result = thread_start(&worker->thread, perform_once, worker);
            if (result != 0) {
                return result;
            }
        }
    }
    return 0;
}

static size_t count_not_started(const struct crew *crew)
{
    size_t count = 0;
    for (size_t i = 0; i < crew->worker_count; i++) {
        count += !crew->workers[i].thread.started;
    }
    return count;
}

static int run_threads(struct crew *crew)
{
    int result = start_threads(crew, false);
    if (result != 0) {
        /* Those that wait for the others are let go into a section that is over. */
        atomic_store_explicit(&crew->section.aborted, true, memory_order_relaxed);
        atomic_store_explicit(&crew->section.go_ns, 1, memory_order_release);
    }
    pthread_mutex_lock(&crew->lock);
    crew->number++;
    pthread_cond_broadcast(&crew->begin);
    pthread_mutex_unlock(&crew->lock);
    if (result == 0) {
        result = start_threads(crew, true);
    }
    if (result != 0) {
        give_up(crew, count_not_started(crew));
    }
    pthread_mutex_lock(&crew->lock);
    while (crew->running > 0) {
        pthread_cond_wait(&crew->over, &crew->lock);
    }
    pthread_mutex_unlock(&crew->lock);
    for (size_t i = 0; i < crew->worker_count; i++) {
        if (crew->workers[i].lane->ends) {
            thread_join(&crew->workers[i].thread);
        }
    }
    return crew->section.failed != NULL ? -ENOMEM : result;
}

static void sum_up(struct crew *crew, struct crew_figures *out)
{
    uint64_t go = atomic_load_explicit(&crew->section.go_ns, memory_order_relaxed);
    *out = (struct crew_figures){0};
    for (size_t i = 0; i < crew->worker_count; i++) {
        const struct worker *worker = &crew->workers[i];
        uint64_t wall = worker->end_ns - go;
        out->wall_ns = wall > out->wall_ns ? wall : out->wall_ns;
        out->op_ns += lane_busy_ns(worker);
        out->waited_ns += worker->waited_ns;
        out->waits += worker->waits;
    }
    crew->wall_ns = out->wall_ns;
}

int crew_run(struct crew *crew, replay_kernel *kernel, size_t laps, struct crew_figures *out)
{
    reset(crew, kernel, laps);
    int result = run_threads(crew);
    if (result == 0) {
        sum_up(crew, out);
    }
    return result;
}

const struct program_op *crew_failure(const struct crew *crew, uint32_t *lane, size_t *number)
{
    const struct worker *failed = crew->section.failed;
    *lane = (uint32_t)(failed->lane - failed->stream->program->lanes);
    *number = crew->section.failed_op;
    return &failed->lane->ops[*number];
}

/* The slots hold what the last lap has left in them of which any operation was performed. */
void crew_get_done(const struct crew *crew, size_t stream, size_t set, size_t *done)
{
    const struct worker *lanes = &crew->workers[stream * crew->lane_count];
    size_t lap = set;
    for (size_t lane = 0; lane < crew->lane_count; lane++) {
        size_t reached = lanes[lane].lap;
        reached -= reached > 0 && lanes[lane].done == 0;
        while (lap + STREAM_SETS <= reached) {
            lap += STREAM_SETS;
        }
    }
    for (size_t lane = 0; lane < crew->lane_count; lane++) {
        done[lane] = lane_done(&lanes[lane], lap);
    }
}

double crew_busy_share(const struct crew *crew, size_t lane)
{
    double busy = 0;
    for (size_t stream = 0; stream < crew->stream_count; stream++) {
        busy += (double)lane_busy_ns(&crew->workers[stream * crew->lane_count + lane]);
    }
    return crew->wall_ns > 0 ? busy / (double)crew->stream_count / (double)crew->wall_ns : 0;
}

/* -- Begin and end ----------------------------------------------------------------------------- */

static void make_workers(struct crew *crew, struct stream *streams)
{
    for (size_t i = 0; i < crew->worker_count; i++) {
        struct worker *worker = &crew->workers[i];
        worker->section = &crew->section;
        worker->owner = crew;
        worker->stream = &streams[i / crew->lane_count];
        worker->lane = &worker->stream->program->lanes[i % crew->lane_count];
        worker->lanes = &crew->workers[i / crew->lane_count * crew->lane_count];
        gate_open(&worker->gate);
        crew->at_start += !worker->lane->ends || !worker->lane->starts_later;
    }
}

/* Gets the stacks of all threads, and starts those that stay. */
static int open_threads(struct crew *crew)
{
    int result = 0;
    for (size_t i = 0; result == 0 && i < crew->worker_count; i++) {
        result = thread_open(&crew->workers[i].thread);
    }
    for (size_t i = 0; result == 0 && i < crew->worker_count; i++) {
        if (!crew->workers[i].lane->ends) {
            result = thread_start(&crew->workers[i].thread, stay, &crew->workers[i]);
        }
    }
    return result;
}

int crew_open(struct crew **out, struct stream *streams, size_t stream_count)
{
    struct crew *crew = pages_allocate(sizeof *crew);
    if (crew == NULL) {
        return -ENOMEM;
    }
    crew->stream_count = stream_count;
    crew->lane_count = streams[0].program->lane_count;
    crew->worker_count = stream_count * crew->lane_count;
    crew->laps_most = find_laps_most(&streams[0]);
    crew->workers = pages_allocate(crew->worker_count * sizeof *crew->workers);
    if (crew->workers == NULL) {
        pages_free(crew, sizeof *crew);
        return -ENOMEM;
    }
    pthread_mutex_init(&crew->lock, NULL);
    pthread_mutex_init(&crew->section.lock, NULL);
    pthread_cond_init(&crew->begin, NULL);
    pthread_cond_init(&crew->over, NULL);
    make_workers(crew, streams);
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    crew->section.workers = crew->workers;
    crew->section.worker_count = crew->worker_count;
    crew->section.looks =
        crew->worker_count <= (size_t)(cpus > 0 ? cpus : 1) ? LOOKS_MANY : LOOKS_FEW;
    int result = open_threads(crew);
    if (result != 0) {
        crew_close(crew);
        return result;
    }
    *out = crew;
    return 0;
}

void crew_close(struct crew *crew)
{
    pthread_mutex_lock(&crew->lock);
    crew->quit = true;
    pthread_cond_broadcast(&crew->begin);
    pthread_mutex_unlock(&crew->lock);
    for (size_t i = 0; i < crew->worker_count; i++) {
        thread_close(&crew->workers[i].thread);
        gate_close(&crew->workers[i].gate);
    }
    pthread_cond_destroy(&crew->over);
    pthread_cond_destroy(&crew->begin);
    pthread_mutex_destroy(&crew->section.lock);
    pthread_mutex_destroy(&crew->lock);
    pages_free(crew->workers, crew->worker_count * sizeof *crew->workers);
    pages_free(crew, sizeof *crew);
}
