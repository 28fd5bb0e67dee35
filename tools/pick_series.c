/* SPDX-License-Identifier: MIT */
/*
 * See pick_series.h. The resident size is read from smaps_rollup, which is exact; statm may be off by
 * dozens of pages a thread. Reading it is slow, and not timed.
 */
#include "pick_series.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend.h"
#include "json.h"
#include "measure.h"
#include "pages.h"
#include "pick_rank.h"
#include "tool.h"

#define SUB "pick"
#define PASSES_BEFORE 3

struct runner {
    const struct trace *trace;
    const struct allocator *allocator;
    void **blocks;    /* by number; NULL: not live */
    size_t page_size; /* 0: nothing is written */
};

/* 0 where it cannot be read. */
static double resident_bytes(void)
{
    char text[4096];
    int file = open("/proc/self/smaps_rollup", O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        return 0;
    }
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    text[length > 0 ? length : 0] = '\0';
    const char *found = strstr(text, "\nRss:");
    return found != NULL ? strtod(found + strlen("\nRss:"), NULL) * 1024 : 0;
}

static void touch(const struct runner *runner, char *block, uint64_t size)
{
    if (runner->page_size == 0) {
        return;
    }
    for (uint64_t at = 0; at < size; at += runner->page_size) {
        *(volatile char *)(block + at) = 1;
    }
    if (size > 0) {
        *(volatile char *)(block + size - 1) = 1;
    }
}

static void *allocate(const struct runner *runner, const struct trace_op *op)
{
    const struct allocator *a = runner->allocator;
    if (op->alignment_log2 > 0) {
        return a->allocate_aligned(a->context, (size_t)1 << op->alignment_log2, (size_t)op->size);
    }
    return a->allocate(a->context, (size_t)op->size);
}

static bool perform(struct runner *runner, const struct trace_op *op)
{
    const struct allocator *a = runner->allocator;
    void **block = op->block != TRACE_NO_BLOCK ? &runner->blocks[op->block] : NULL;
    if (block == NULL) {
        return true;
    }
    if (op->kind == TRACE_FREE) {
        a->release(a->context, *block);
        *block = NULL;
        return true;
    }
    *block = op->kind == TRACE_REALLOCATE ? a->reallocate(a->context, *block, (size_t)op->size)
                                          : allocate(runner, op);
    if (*block != NULL) {
        touch(runner, *block, op->size);
    }
    return *block != NULL;
}

static void release_all(struct runner *runner)
{
    const struct allocator *a = runner->allocator;
    for (uint32_t i = 0; i < runner->trace->block_count; i++) {
        if (runner->blocks[i] != NULL) {
            a->release(a->context, runner->blocks[i]);
            runner->blocks[i] = NULL;
        }
    }
}

/* Whether a point of the curve comes after operation `op`, and which. */
static bool is_point(const struct trace *trace, size_t op, size_t *point)
{
    *point = (op + 1) * PICK_SERIES_POINTS / trace->op_count;
    return *point > op * PICK_SERIES_POINTS / trace->op_count;
}

/* Where a trace has fewer operations than points, an operation is several. */
static void put_points(double *points, size_t *filled, size_t until, double value)
{
    while (*filled < until) {
        points[(*filled)++] = value;
    }
}

/* `points` NULL: not read. False where the allocator has nothing left. */
static bool run_pass(struct runner *runner, double base, double *points)
{
    const struct trace *trace = runner->trace;
    size_t filled = 0, point;
    for (size_t i = 0; i < trace->op_count; i++) {
        if (!perform(runner, &trace->ops[i])) {
            release_all(runner);
            return false;
        }
        if (points != NULL && is_point(trace, i, &point)) {
            double over = resident_bytes() - base;
            put_points(points, &filled, point, over > 0 ? over : 0);
        }
    }
    release_all(runner);
    return true;
}

static int print_curve(const struct trace *trace, const struct allocator *allocator)
{
    double points[PICK_SERIES_POINTS] = {0};
    struct runner runner = {.trace = trace,
                            .allocator = allocator,
                            .blocks = pages_allocate(trace->block_count * sizeof(void *)),
                            .page_size = (size_t)sysconf(_SC_PAGESIZE)};
    if (runner.blocks == NULL) {
        tool_error(SUB, "no memory for the blocks of a trace: close other programs");
        return TOOL_FAILED;
    }
    memset(runner.blocks, 0, trace->block_count * sizeof(void *)); /* resident before the base is */
    bool fine = true;
    measure_map_modules();
    double base = resident_bytes();
    for (int i = 0; i < PASSES_BEFORE && fine; i++) {
        fine = run_pass(&runner, base, NULL);
    }
    fine = fine && run_pass(&runner, base, points);
    pages_free(runner.blocks, trace->block_count * sizeof(void *));
    if (!fine) {
        tool_error(SUB, "%s: it could not serve the trace", allocator->name);
        return TOOL_FAILED;
    }
    struct json_line line;
    json_begin(&line, stdout);
    json_numbers(&line, "points", points, PICK_SERIES_POINTS, 0);
    json_end(&line);
    return TOOL_FINE;
}

/* --- threads ------------------------------------------------------------------------------------ */

#define TURNS 3
#define TURN_NS 60000000

struct stream {
    struct runner runner;
    pthread_t thread;
    pthread_barrier_t *start;
    double operations_per_s; /* of the last turn; 0: it failed */
};

/* A turn lasts until its time is over, in whole passes; the first pass is not timed. */
static double run_turn(struct stream *stream)
{
    size_t passes = 0;
    bool fine = run_pass(&stream->runner, 0, NULL);
    pthread_barrier_wait(stream->start);
    uint64_t begin = measure_now_ns(), now = begin;
    while (fine && now - begin < TURN_NS) {
        fine = run_pass(&stream->runner, 0, NULL);
        passes++;
        now = measure_now_ns();
    }
    double operations = (double)passes * (double)stream->runner.trace->op_count;
    return fine ? operations * 1e9 / (double)(now - begin) : 0;
}

static void *run_stream(void *argument)
{
    struct stream *stream = argument;
    stream->operations_per_s = run_turn(stream);
    return NULL;
}

/* Operations a second of all threads; 0 where one failed. */
static double run_streams(struct stream *streams, unsigned count)
{
    pthread_barrier_t start;
    unsigned started = 0;
    double sum = 0;
    bool fine = true;
    if (pthread_barrier_init(&start, NULL, count) != 0) {
        return 0;
    }
    for (; started < count; started++) {
        streams[started].start = &start;
        if (pthread_create(&streams[started].thread, NULL, run_stream, &streams[started]) != 0) {
            /* Those that run wait for as many as there should be: there is no way back. */
            tool_error(SUB, "no thread is left: raise the limit (ulimit -u)");
            _exit(TOOL_FAILED);
        }
    }
    for (unsigned i = 0; i < started; i++) {
        pthread_join(streams[i].thread, NULL);
        fine = fine && streams[i].operations_per_s > 0;
        sum += streams[i].operations_per_s;
    }
    pthread_barrier_destroy(&start);
    return fine ? sum : 0;
}

static int print_throughput(const struct trace *trace, const struct allocator *allocator,
                            unsigned count)
{
    static struct stream streams[PICK_SERIES_THREADS_MAX];
    size_t bytes = trace->block_count * sizeof(void *);
    double turns[TURNS] = {0};
    bool fine = true;
    for (unsigned i = 0; i < count; i++) {
        streams[i].runner = (struct runner){
            .trace = trace, .allocator = allocator, .blocks = pages_allocate(bytes)};
        fine = fine && streams[i].runner.blocks != NULL;
    }
    for (int turn = 0; turn < TURNS && fine; turn++) {
        turns[turn] = run_streams(streams, count);
        fine = turns[turn] > 0;
    }
    for (unsigned i = 0; i < count; i++) {
        pages_free(streams[i].runner.blocks, bytes);
    }
    if (!fine) {
        tool_error(SUB, "%s: it could not serve the trace", allocator->name);
        return TOOL_FAILED;
    }
    struct json_line line;
    json_begin(&line, stdout);
    json_count(&line, "streams", count);
    json_number(&line, "operations_per_s", rank_median(turns, TURNS), 0);
    json_end(&line);
    return TOOL_FINE;
}

/* --- the process -------------------------------------------------------------------------------- */

int pick_series_asked(int argc, char **argv)
{
    int at = argc > 1 && strcmp(argv[1], "--preloaded") == 0 ? 2 : 1;
    return argc == at + 6 && strcmp(argv[at], PICK_SERIES_OPTION) == 0;
}

int pick_series_main(int argc, char **argv)
{
    bool preloaded = strcmp(argv[1], "--preloaded") == 0;
    char **words = argv + (preloaded ? 3 : 2);
    struct trace_options options = {.repair = strcmp(words[3], "repair") == 0};
    struct allocator allocator;
    struct trace trace;
    uint64_t min_size, threads;
    char why[512];
    if (!backend_is_known(words[0]) || !tool_read_number(words[2], 0, UINT64_MAX, &min_size) ||
        !tool_read_number(words[4], 0, PICK_SERIES_THREADS_MAX, &threads)) {
        return tool_usage_error(SUB, PICK_SERIES_OPTION " is for its own use");
    }
    if (backend_needs_preload(words[0]) && !preloaded) {
        backend_restart_preloaded(words[0], argc, argv, why, sizeof why);
        tool_error(SUB, "%s: %s", words[0], why);
        return TOOL_FAILED;
    }
    if (backend_open(words[0], preloaded, &allocator, why, sizeof why) != 0 ||
        trace_load(words[1], &options, &trace, why, sizeof why) != 0) {
        tool_error(SUB, "%s", why);
        return TOOL_FAILED;
    }
    int result = TOOL_FAILED;
    if (trace_filter_min_size(&trace, min_size) == 0 && trace.op_count > 0) {
        result = threads == 0 ? print_curve(&trace, &allocator)
                              : print_throughput(&trace, &allocator, (unsigned)threads);
    }
    trace_unload(&trace);
    allocator_close(&allocator);
    return result;
}

int pick_series_live(const struct trace *trace, double *out)
{
    size_t bytes = trace->block_count * sizeof(uint64_t), filled = 0, point;
    uint64_t *sizes = calloc(1, bytes > 0 ? bytes : 1);
    double live = 0;
    if (sizes == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < trace->op_count; i++) {
        const struct trace_op *op = &trace->ops[i];
        if (op->block != TRACE_NO_BLOCK) {
            live += (double)op->size - (double)sizes[op->block];
            sizes[op->block] = op->size;
        }
        if (is_point(trace, i, &point)) {
            put_points(out, &filled, point, live);
        }
    }
    free(sizes);
    return 0;
}
