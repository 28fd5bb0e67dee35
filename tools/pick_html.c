/* SPDX-License-Identifier: MIT */
/*
 * The report's data are lines of JSON with a member "kind": "machine", "trace" (sizes and live bytes),
 * "held" (a curve of an allocator), "scaling" (its throughput by threads), "cut" (what there was no
 * time for), and pick's own rows, which have none. A program in Python turns them
 * into HTML: bench/report in the sources, larder/report among the installed data. Where it is may be
 * said in LARDER_REPORT.
 */
#include "pick_html.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "child.h"
#include "json.h"
#include "larder/larder.h"
#include "measure.h"
#include "pick_series.h"
#include "tool.h"

#define SIZE_BINS 40

/* --- the machine -------------------------------------------------------------------------------- */

/* The rest of the first line of a file that begins with `key`, up to its end; "unknown". */
static void read_line(const char *path, const char *key, char *out, size_t out_size)
{
    char line[512];
    FILE *file = fopen(path, "r");
    snprintf(out, out_size, "unknown");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, key, strlen(key)) == 0) {
            const char *value = line + strlen(key);
            value += strspn(value, " \t:");
            snprintf(out, out_size, "%.*s", (int)strcspn(value, "\n"), value);
            break;
        }
    }
    if (file != NULL) {
        fclose(file);
    }
}

static void put_machine(const struct pick *pick, FILE *out)
{
    struct utsname name;
    char kernel[512] = "unknown", cpu[256], memory[128], pages[128], system[256], date[64] = "";
    time_t now = time(NULL);
    struct tm parts;
    struct json_line line;
    if (uname(&name) == 0) {
        snprintf(kernel, sizeof kernel, "%s %s %s", name.sysname, name.release, name.machine);
    }
    if (localtime_r(&now, &parts) != NULL) {
        strftime(date, sizeof date, "%Y-%m-%d %H:%M", &parts);
    }
    read_line("/proc/cpuinfo", "model name", cpu, sizeof cpu);
    read_line("/proc/meminfo", "MemTotal", memory, sizeof memory);
    read_line("/sys/kernel/mm/transparent_hugepage/enabled", "", pages, sizeof pages);
    read_line("/etc/os-release", "PRETTY_NAME=", system, sizeof system);
    json_begin(&line, out);
    json_string(&line, "kind", "machine");
    json_string(&line, "larder", larder_version());
    json_string(&line, "date", date);
    json_string(&line, "cpu", cpu);
    json_count(&line, "cpus", (uint64_t)sysconf(_SC_NPROCESSORS_ONLN));
    json_string(&line, "memory", memory);
    json_string(&line, "kernel", kernel);
    json_string(&line, "system", system);
    json_string(&line, "huge_pages", pages);
#if defined(__VERSION__)
    json_string(&line, "compiler", __VERSION__);
#endif
    json_string(&line, "touch", pick->options->replay.touch);
    json_count(&line, "min_size", pick->options->replay.min_size);
    json_count(&line, "seed", pick->options->seed);
    json_end(&line);
}

/* --- traces and curves -------------------------------------------------------------------------- */

/* How many blocks were asked for, by the power of two that their size reaches. */
static void count_sizes(const struct trace *trace, double *bins)
{
    for (size_t i = 0; i < trace->op_count; i++) {
        const struct trace_op *op = &trace->ops[i];
        if (op->kind == TRACE_ALLOCATE || op->kind == TRACE_CALLOC ||
            op->kind == TRACE_REALLOCATE) {
            size_t bin = 0;
            for (uint64_t size = op->size; size > 1 && bin + 1 < SIZE_BINS; size /= 2) {
                bin++;
            }
            bins[bin]++;
        }
    }
}

/* Returns 0, or a negative errno and the reason in `why`. */
static int put_trace(const struct pick *pick, const struct pick_case *one, FILE *out, char *why,
                     size_t why_size)
{
    struct trace_options options = {.repair = pick->options->replay.repair};
    struct trace trace;
    double live[PICK_SERIES_POINTS] = {0}, bins[SIZE_BINS] = {0};
    struct json_line line;
    int result = trace_load(one->path, &options, &trace, why, why_size);
    if (result != 0) {
        return result;
    }
    result = trace_filter_min_size(&trace, pick->options->replay.min_size);
    result = result == 0 ? pick_series_live(&trace, live) : result;
    if (result == 0) {
        count_sizes(&trace, bins);
        json_begin(&line, out);
        json_string(&line, "kind", "trace");
        json_string(&line, "trace", one->path);
        json_count(&line, "operations", one->ops);
        json_count(&line, "threads", one->threads);
        json_count(&line, "peak_live_bytes", one->facts.peak_live_bytes);
        json_count(&line, "largest_bytes", one->facts.largest_bytes);
        json_numbers(&line, "live", live, PICK_SERIES_POINTS, 0);
        json_numbers(&line, "sizes", bins, SIZE_BINS, 0);
        json_end(&line);
    } else {
        snprintf(why, why_size, "%s: no memory to read it: close other programs", one->path);
    }
    trace_unload(&trace);
    return result;
}

/* What of the time limit is kept for drawing, which takes a tenth of a second a chart. */
#define DRAWING_SHARE 0.03

/* How long a child may take that measures for the report; 0: there is no time left. */
static uint64_t time_for_series(const struct pick *pick)
{
    double left = pick_time_left_ns(pick) - 1e9 * DRAWING_SHARE * pick->options->time_limit_s;
    if (!isfinite(left)) {
        return UINT64_MAX;
    }
    return left > 1 ? (uint64_t)left : 0;
}

static void show_progress(const struct pick *pick, const struct pick_case *one, size_t backend)
{
    const char *slash = strrchr(one->path, '/');
    if (isatty(STDERR_FILENO)) {
        fprintf(stderr, "\r\033[Kfor the report: %s: %s", slash != NULL ? slash + 1 : one->path,
                pick->backends[backend].name);
    }
}

/*
 * Copies what a child measured, with so many threads or, with 0, the curve; what it could not measure is
 * left out. Returns 0, -EINTR, or -ETIMEDOUT.
 */
static int put_series(const struct pick *pick, const struct pick_case *one, size_t backend,
                      unsigned threads, FILE *out)
{
    const char *name = pick->backends[backend].name;
    const char *repair = pick->options->replay.repair ? "repair" : "keep";
    uint64_t most_ns = time_for_series(pick);
    struct child_result child;
    struct json_line line;
    char min_size[32], count[32];
    snprintf(min_size, sizeof min_size, "%" PRIu64, pick->options->replay.min_size);
    snprintf(count, sizeof count, "%u", threads);
    const char *const argv[] = {
        "larder", "pick", PICK_SERIES_OPTION, name, one->path, min_size, repair, count, NULL};
    if (most_ns == 0) {
        return -ETIMEDOUT;
    }
    show_progress(pick, one, backend);
    int result =
        most_ns < UINT64_MAX ? child_run_within(argv, most_ns, &child) : child_run(argv, &child);
    if (isatty(STDERR_FILENO)) {
        fputs("\r\033[K", stderr);
    }
    if (result != 0 || child.exit_code != 0 || child.output[0] != '{') {
        return result == -EINTR || result == -ETIMEDOUT ? result : 0;
    }
    json_begin(&line, out);
    json_string(&line, "kind", threads == 0 ? "held" : "scaling");
    json_string(&line, "trace", one->path);
    json_string(&line, "backend", name);
    /* The child's object goes on where this one's members end. */
    fprintf(out, ", %s", child.output + 1);
    return 0;
}

/*
 * Curves and throughput of every allocator on a trace. Returns 0 or -EINTR; what there is no time for is
 * noted.
 */
static int put_all_series(struct pick *pick, const struct pick_case *one, bool with_threads,
                          FILE *out)
{
    static const unsigned counts[] = {0, 1, 2, 4};
    size_t most = with_threads ? sizeof counts / sizeof counts[0] : 1, late = 0;
    for (size_t i = 0; i < most; i++) {
        for (size_t b = 0; b < pick->backend_count; b++) {
            int result =
                one->rows[b].sample_count > 0 ? put_series(pick, one, b, counts[i], out) : 0;
            if (result == -EINTR) {
                return result;
            }
            late += result == -ETIMEDOUT;
        }
    }
    if (late > 0) {
        pick_note_cut(pick, "%zu of the %zu curves of %s are not in the report", late,
                      most * pick->backend_count, one->path);
    }
    return 0;
}

static void put_cuts(const struct pick *pick, FILE *out)
{
    struct json_line line;
    for (size_t i = 0; i < pick->cut_count; i++) {
        json_begin(&line, out);
        json_string(&line, "kind", "cut");
        json_count(&line, "time_limit_s", pick->options->time_limit_s);
        json_string(&line, "text", pick->cuts[i]);
        json_end(&line);
    }
}

/* How many traces have more live bytes: the two with the most get curves, the first threads, too. */
static size_t count_larger(const struct pick *pick, const struct pick_case *one)
{
    size_t larger = 0;
    for (size_t c = 0; c < pick->main_count; c++) {
        uint64_t other = pick->cases[c].facts.peak_live_bytes, own = one->facts.peak_live_bytes;
        larger += other > own || (other == own && &pick->cases[c] < one);
    }
    return larger;
}

static int put_data(struct pick *pick, FILE *out, char *why, size_t why_size)
{
    put_machine(pick, out);
    pick_print_json(pick, out);
    for (size_t c = 0; c < pick->main_count; c++) {
        const struct pick_case *one = &pick->cases[c];
        int result = put_trace(pick, one, out, why, why_size);
        size_t larger = count_larger(pick, one);
        if (result == 0 && larger < 2) {
            result = put_all_series(pick, one, larger == 0, out);
        }
        if (result != 0) {
            return result;
        }
    }
    put_cuts(pick, out);
    return 0;
}

/* --- the program -------------------------------------------------------------------------------- */

static const char *find_program(void)
{
    static const char *const places[] = {LARDER_REPORT_SOURCE, LARDER_REPORT_INSTALLED};
    const char *named = getenv("LARDER_REPORT");
    if (named != NULL && *named != '\0') {
        return named;
    }
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        if (access(places[i], R_OK) == 0) {
            return places[i];
        }
    }
    return NULL;
}

/* Runs it with `in` and `out` as its input and output; its messages go to ours. */
static int run_program(const char *program, FILE *in, FILE *out)
{
    char python[] = "python3", dash[] = "-", path[4096];
    int status;
    snprintf(path, sizeof path, "%s", program);
    char *const argv[] = {python, path, dash, NULL};
    fflush(out);
    rewind(in);
    pid_t child = fork();
    if (child == 0) {
        if (dup2(fileno(in), STDIN_FILENO) >= 0 && dup2(fileno(out), STDOUT_FILENO) >= 0) {
            execvp(python, argv);
        }
        _exit(127);
    }
    if (child < 0) {
        return -errno;
    }
    while (waitpid(child, &status, 0) < 0) {
        if (errno != EINTR) {
            return -errno;
        }
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EIO;
}

int pick_write_html(struct pick *pick, FILE *out, char *why, size_t why_size)
{
    const char *program = find_program();
    FILE *data = tmpfile();
    if (program == NULL || data == NULL) {
        snprintf(why, why_size, "no report: %s",
                 program == NULL ? "its program bench/report is not there: say where in "
                                   "LARDER_REPORT"
                                 : "no temporary file: free space in /tmp");
        if (data != NULL) {
            fclose(data);
        }
        return -ENOENT;
    }
    int result = put_data(pick, data, why, why_size);
    if (result == 0) {
        result = run_program(program, data, out);
        if (result != 0) {
            snprintf(why, why_size, "no report: %s failed, its message is above", program);
        }
    }
    fclose(data);
    return result;
}
