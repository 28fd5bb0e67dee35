/* SPDX-License-Identifier: MIT */
/*
 * Threads, passes and their figures: see replay_crew.h.
 *
 * Nobody can wait in a circle: waits and the starts of threads lead forward in recorded order
 * (program.h), and the thread that calls crew_run() starts threads in that order. A thread that
 * fails sets `aborted` and wakes everybody; waits then return false.
 */
#include "replay_crew.h"

#include <errno.h>
#include <signal.h>
#include <sched.h>
#include <semaphore.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "measure.h"
#include "pages.h"
#include "replay_gate.h"

/* Room for the thread-local storage of preloaded libraries, and of the thread sanitizer: 0.9 MB. */
#define STACK_BYTES ((size_t)1024 * 1024)
#define STACK_WRITTEN_BYTES ((size_t)24 * 1024)

/* About 10 us: what going to sleep and being woken costs. Few where threads outnumber CPUs. */
#define LOOKS_MANY 500u
#define LOOKS_FEW 20u

#define SLEEP_AT_MOST_NS 50000000u /* then a look whether the pass was aborted */

struct worker {
    struct gate gate; /* what other threads look at; the rest is this worker's */
    struct crew *crew;
    struct stream *stream;
    const struct program_lane *lane;
    struct worker *lanes; /* of the stream */
    pthread_t thread;
    char *stack;
    bool started;
    uint64_t start_ns, end_ns, waited_ns, slept_ns, waits;
    size_t done;
};

struct crew {
    struct worker *workers; /* stream by stream, in each by lane */
    size_t worker_count, lane_count, stream_count;
    size_t stack_bytes, guard_bytes;
    unsigned looks;
    size_t at_start; /* workers that are let go together */
    replay_kernel *kernel;
    pthread_mutex_t lock;
    pthread_cond_t begin, over;
    uint64_t pass;  /* number of the pass that has begun; lock */
    bool quit;      /* lock */
    size_t running; /* workers whose lane is not over; lock */
    struct worker *failed;
    size_t failed_op;
    uint64_t wall_ns;
    _Alignas(REPLAY_LINE) _Atomic size_t awake;
    _Alignas(REPLAY_LINE) _Atomic uint64_t go_ns; /* when the pass began; 0: not yet */
    _Atomic bool aborted;
};

/* -- One lane, once ---------------------------------------------------------------------------- */

static bool wait_slow(struct worker *self, struct gate *gate, uint32_t steps)
{
    uint64_t start = measure_now_ns();
    bool past = gate_wait(gate, steps, self->crew->looks, &self->crew->aborted);
    self->waited_ns += measure_now_ns() - start;
    self->waits++;
    return past;
}

static void wake_slow(struct worker *self)
{
    uint64_t start = measure_now_ns();
    gate_wake(&self->gate);
    self->waited_ns += measure_now_ns() - start;
}

static void sleep_until(struct worker *self, uint64_t not_before_ns)
{
    struct crew *crew = self->crew;
    uint64_t until = atomic_load_explicit(&crew->go_ns, memory_order_relaxed) + not_before_ns;
    uint64_t start = measure_now_ns(), now = start;
    while (now < until && !atomic_load_explicit(&crew->aborted, memory_order_relaxed)) {
        uint64_t left = until - now < SLEEP_AT_MOST_NS ? until - now : SLEEP_AT_MOST_NS;
        nanosleep(&(struct timespec){.tv_nsec = (long)left}, NULL);
        now = measure_now_ns();
    }
    self->slept_ns += now - start;
}

/* Makes every waiter of the pass return. */
static void abort_pass(struct crew *crew)
{
    atomic_store_explicit(&crew->aborted, true, memory_order_relaxed);
    for (size_t i = 0; i < crew->worker_count; i++) {
        gate_wake(&crew->workers[i].gate); /* its lock: who sleeps from now on saw the store */
    }
}

static void fail(struct worker *self)
{
    struct crew *crew = self->crew;
    pthread_mutex_lock(&crew->lock);
    if (crew->failed == NULL) {
        crew->failed = self;
        crew->failed_op = self->done;
    }
    pthread_mutex_unlock(&crew->lock);
    abort_pass(crew);
}

/* False: the pass was aborted. */
static inline bool wait_for(struct worker *self, const struct program_wait *wait)
{
    struct gate *gate = &self->lanes[wait->lane].gate;
    return __builtin_expect(gate_is_past(gate, wait->steps), 1) ||
           wait_slow(self, gate, wait->steps);
}

static void run_lane(struct worker *self)
{
    const struct program_lane *lane = self->lane;
    const struct program_wait *waits = self->stream->program->waits;
    const struct replay_view *view = &self->stream->view;
    replay_kernel *kernel = self->crew->kernel;
    size_t wait = lane->first_wait;
    uint32_t steps = atomic_load_explicit(&self->crew->aborted, memory_order_relaxed)
                         ? 0
                         : (uint32_t)lane->step_count;
    for (uint32_t i = 0; i < steps; i++) {
        const struct program_step *step = &lane->steps[i];
        for (; wait < step->waits_end; wait++) {
            if (!wait_for(self, &waits[wait])) {
                return;
            }
        }
        if (step->not_before_ns > 0) {
            sleep_until(self, step->not_before_ns);
        }
        self->done += kernel(view, lane->ops + self->done, step->end - self->done);
        if (self->done < step->end) {
            fail(self);
            return;
        }
        if (step->awaited && gate_pass(&self->gate, i + 1)) {
            wake_slow(self);
        }
    }
}

/* The lane in this pass, and that it is over. */
static void perform(struct worker *self)
{
    struct crew *crew = self->crew;
    self->start_ns = measure_now_ns();
    run_lane(self);
    self->end_ns = measure_now_ns();
    pthread_mutex_lock(&crew->lock);
    if (--crew->running == 0) {
        pthread_cond_signal(&crew->over);
    }
    pthread_mutex_unlock(&crew->lock);
}

/* -- Threads ----------------------------------------------------------------------------------- */

/* Until all that begin the pass together are awake; the last one lets them go. */
static void meet(struct crew *crew)
{
    /* Acquire and release: the last one's clock is read after everybody arrived. */
    size_t awake = atomic_fetch_add_explicit(&crew->awake, 1, memory_order_acq_rel) + 1;
    if (awake == crew->at_start) {
        atomic_store_explicit(&crew->go_ns, measure_now_ns(), memory_order_release);
        return;
    }
    /* Pairs with the store above, or with that in start_others(). */
    for (unsigned i = 0; atomic_load_explicit(&crew->go_ns, memory_order_acquire) == 0; i++) {
        if (i < crew->looks) {
            gate_pause();
        } else {
            sched_yield();
        }
    }
}

static void *stay(void *argument)
{
    struct worker *self = argument;
    struct crew *crew = self->crew;
    for (uint64_t seen = 0;;) {
        pthread_mutex_lock(&crew->lock);
        while (crew->pass == seen && !crew->quit) {
            pthread_cond_wait(&crew->begin, &crew->lock);
        }
        bool quit = crew->quit;
        seen = crew->pass;
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
        meet(self->crew);
    }
    perform(self);
    return NULL;
}

/* Threads inherit a mask without signals: these stay with those who handle them. */
static int create_thread(pthread_t *thread, char *stack, size_t stack_bytes, void *(*run)(void *),
                         void *argument)
{
    pthread_attr_t attributes;
    sigset_t all, before;
    int error = pthread_attr_init(&attributes);
    if (error != 0) {
        return -error;
    }
    sigfillset(&all);
    pthread_attr_setstack(&attributes, stack, stack_bytes);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(thread, &attributes, run, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return -error;
}

static int start(struct worker *worker)
{
    struct crew *crew = worker->crew;
    int result = create_thread(&worker->thread, worker->stack + crew->guard_bytes,
                               crew->stack_bytes - crew->guard_bytes,
                               worker->lane->ends ? perform_once : stay, worker);
    worker->started = result == 0;
    return result;
}

static void join(struct worker *worker)
{
    if (worker->started) {
        pthread_join(worker->thread, NULL);
        worker->started = false;
    }
}

static size_t stack_size(void)
{
    long least = sysconf(_SC_THREAD_STACK_MIN);
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t size = STACK_BYTES + (least > 0 ? (size_t)least : 0) + page;
    return (size + page - 1) / page * page;
}

static int make_stacks(struct crew *crew)
{
    crew->stack_bytes = stack_size();
    crew->guard_bytes = (size_t)sysconf(_SC_PAGESIZE);
    for (size_t i = 0; i < crew->worker_count; i++) {
        char *stack = pages_allocate(crew->stack_bytes);
        if (stack == NULL) {
            return -ENOMEM;
        }
        mprotect(stack, crew->guard_bytes, PROT_NONE);
        memset(stack + crew->stack_bytes - STACK_WRITTEN_BYTES, 0xff, STACK_WRITTEN_BYTES);
        crew->workers[i].stack = stack;
    }
    return 0;
}

/* -- Passes ------------------------------------------------------------------------------------ */

static void reset(struct crew *crew, replay_kernel *kernel)
{
    crew->kernel = kernel;
    crew->failed = NULL;
    crew->running = crew->worker_count;
    /* Relaxed: the lock in begin_pass() and the creation of threads come after. */
    atomic_store_explicit(&crew->awake, 0, memory_order_relaxed);
    atomic_store_explicit(&crew->go_ns, 0, memory_order_relaxed);
    atomic_store_explicit(&crew->aborted, false, memory_order_relaxed);
    for (size_t i = 0; i < crew->worker_count; i++) {
        struct worker *worker = &crew->workers[i];
        gate_reset(&worker->gate);
        worker->waited_ns = worker->slept_ns = worker->waits = 0;
        worker->start_ns = worker->end_ns = 0;
        worker->done = 0;
    }
}

/* Those that no thread was left for count as over. */
static void give_up(struct crew *crew, size_t not_started)
{
    abort_pass(crew);
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
            if (later && !gate_wait(gate, worker->lane->start.steps, LOOKS_FEW, &crew->aborted)) {
                return -ECANCELED;
            }
            int result = start(worker);
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
        count += !crew->workers[i].started;
    }
    return count;
}

static int run_threads(struct crew *crew)
{
    int result = start_threads(crew, false);
    if (result != 0) {
        /* Those that wait for the others are let go into a pass that is over. */
        atomic_store_explicit(&crew->aborted, true, memory_order_relaxed);
        atomic_store_explicit(&crew->go_ns, 1, memory_order_release);
    }
    pthread_mutex_lock(&crew->lock);
    crew->pass++;
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
            join(&crew->workers[i]);
        }
    }
    return crew->failed != NULL ? -ENOMEM : result;
}

static void sum_up(struct crew *crew, struct crew_pass *out)
{
    uint64_t go = atomic_load_explicit(&crew->go_ns, memory_order_relaxed);
    *out = (struct crew_pass){0};
    for (size_t i = 0; i < crew->worker_count; i++) {
        const struct worker *worker = &crew->workers[i];
        uint64_t wall = worker->end_ns - go;
        out->wall_ns = wall > out->wall_ns ? wall : out->wall_ns;
        out->op_ns += worker->end_ns - worker->start_ns - worker->waited_ns - worker->slept_ns;
        out->waited_ns += worker->waited_ns;
        out->slept_ns += worker->slept_ns;
        out->waits += worker->waits;
    }
    crew->wall_ns = out->wall_ns;
}

int crew_run(struct crew *crew, replay_kernel *kernel, struct crew_pass *out)
{
    reset(crew, kernel);
    int result = run_threads(crew);
    if (result == 0) {
        sum_up(crew, out);
    }
    return result;
}

const struct program_op *crew_failure(const struct crew *crew, uint32_t *lane, size_t *number)
{
    *lane = (uint32_t)(crew->failed->lane - crew->failed->stream->program->lanes);
    *number = crew->failed_op;
    return &crew->failed->lane->ops[crew->failed_op];
}

void crew_get_done(const struct crew *crew, size_t stream, size_t *done)
{
    for (size_t lane = 0; lane < crew->lane_count; lane++) {
        done[lane] = crew->workers[stream * crew->lane_count + lane].done;
    }
}

double crew_busy_share(const struct crew *crew, size_t lane)
{
    double busy = 0;
    for (size_t stream = 0; stream < crew->stream_count; stream++) {
        const struct worker *worker = &crew->workers[stream * crew->lane_count + lane];
        busy += (double)(worker->end_ns - worker->start_ns - worker->waited_ns - worker->slept_ns);
    }
    return crew->wall_ns > 0 ? busy / (double)crew->stream_count / (double)crew->wall_ns : 0;
}

/* -- Begin and end ----------------------------------------------------------------------------- */

static void make_workers(struct crew *crew, struct stream *streams)
{
    for (size_t i = 0; i < crew->worker_count; i++) {
        struct worker *worker = &crew->workers[i];
        worker->crew = crew;
        worker->stream = &streams[i / crew->lane_count];
        worker->lane = &worker->stream->program->lanes[i % crew->lane_count];
        worker->lanes = &crew->workers[i / crew->lane_count * crew->lane_count];
        gate_open(&worker->gate);
        crew->at_start += !worker->lane->ends || !worker->lane->starts_later;
    }
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
    crew->workers = pages_allocate(crew->worker_count * sizeof *crew->workers);
    if (crew->workers == NULL) {
        pages_free(crew, sizeof *crew);
        return -ENOMEM;
    }
    pthread_mutex_init(&crew->lock, NULL);
    pthread_cond_init(&crew->begin, NULL);
    pthread_cond_init(&crew->over, NULL);
    make_workers(crew, streams);
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    crew->looks = crew->worker_count <= (size_t)(cpus > 0 ? cpus : 1) ? LOOKS_MANY : LOOKS_FEW;
    int result = make_stacks(crew);
    for (size_t i = 0; result == 0 && i < crew->worker_count; i++) {
        if (!crew->workers[i].lane->ends) {
            result = start(&crew->workers[i]);
        }
    }
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
        join(&crew->workers[i]);
        gate_close(&crew->workers[i].gate);
        pages_free(crew->workers[i].stack, crew->stack_bytes);
    }
    pthread_cond_destroy(&crew->over);
    pthread_cond_destroy(&crew->begin);
    pthread_mutex_destroy(&crew->lock);
    pages_free(crew->workers, crew->worker_count * sizeof *crew->workers);
    pages_free(crew, sizeof *crew);
}

/* -- How many there can be --------------------------------------------------------------------- */

static void *wait_for_end(void *argument)
{
    sem_t *end = argument;
    while (sem_wait(end) != 0 && errno == EINTR) {
    }
    return NULL;
}

size_t crew_count_threads(size_t wanted)
{
    size_t count = 0, bytes = stack_size();
    size_t table_bytes = wanted * (sizeof(pthread_t) + sizeof(char *));
    pthread_t *threads = pages_allocate(table_bytes);
    char **stacks = threads != NULL ? (char **)(threads + wanted) : NULL;
    sem_t end;
    sem_init(&end, 0, 0);
    for (; threads != NULL && count < wanted; count++) {
        stacks[count] = pages_allocate(bytes);
        if (stacks[count] == NULL ||
            create_thread(&threads[count], stacks[count], bytes, wait_for_end, &end) != 0) {
            pages_free(stacks[count], bytes);
            break;
        }
    }
    for (size_t i = 0; i < count; i++) {
        sem_post(&end);
    }
    for (size_t i = 0; i < count; i++) {
        pthread_join(threads[i], NULL);
        pages_free(stacks[i], bytes);
    }
    sem_destroy(&end);
    pages_free(threads, table_bytes);
    return count;
}
