/* SPDX-License-Identifier: MIT */
/*
 * The blocks of a trace or of a CSV file (columns id, lower, upper, size; lifetimes half open, as MiniMalloc's instances
 * have them).
 *
 * A reallocation ends one block and begins another: both exist while the contents are copied. Blocks that are never freed live to the end.
 */
#include "plan.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "input.h"
#include "phases.h"
#include "plan_sort.h"
#include "trace.h"

enum { BLOCKS_MOST = 1 << 24, TRACE_ALIGNMENT = 64 };

static int no_memory(const char *path, char *why, size_t why_size)
{
    snprintf(why, why_size, "%s: no memory for its blocks: close other programs", path);
    return -ENOMEM;
}

/* Room for one more block. */
static bool reserve(struct plan_blocks *blocks)
{
    if (blocks->count < blocks->capacity)
        return true;
    uint32_t capacity = blocks->capacity == 0 ? 1024 : 2 * blocks->capacity;
    if (capacity > BLOCKS_MOST)
        return false;
    struct plan_item *items = realloc(blocks->items, capacity * sizeof *items);
    if (items != NULL)
        blocks->items = items;
    uint64_t *sizes = realloc(blocks->sizes, capacity * sizeof *sizes);
    if (sizes != NULL)
        blocks->sizes = sizes;
    char **names = NULL;
    if (blocks->is_csv) {
        names = realloc(blocks->names, capacity * sizeof *names);
        if (names != NULL)
            blocks->names = names;
    }
    if (items == NULL || sizes == NULL || (blocks->is_csv && names == NULL))
        return false;
    blocks->capacity = capacity;
    return true;
}

static bool is_too_large(uint64_t size)
{
    return size > PLAN_SIZE_MAX / BLOCKS_MOST;
}

/* The size in units, rounded up. */
static uint64_t in_units(const struct plan_blocks *blocks, uint64_t size)
{
    return (size + blocks->unit - 1) / blocks->unit;
}

void plan_blocks_release(struct plan_blocks *blocks)
{
    for (uint32_t i = 0; blocks->names != NULL && i < blocks->count; i++)
        free(blocks->names[i]);
    free(blocks->items);
    free(blocks->sizes);
    free(blocks->names);
    free(blocks->times);
    *blocks = (struct plan_blocks){0};
}

/* ---- traces ---- */

struct trace_reading {
    struct plan_blocks *blocks;
    const struct plan_input_options *options;
    uint32_t *live; /* by block of the trace: the item that it is now, or UINT32_MAX */
    uint32_t time;
};

static void end_block(struct trace_reading *reading, uint32_t block)
{
    uint32_t item = reading->live[block];
    if (item != UINT32_MAX)
        reading->blocks->items[item].end = reading->time;
    reading->live[block] = UINT32_MAX;
}

static bool begin_block(struct trace_reading *reading, const struct trace_op *op)
{
    struct plan_blocks *blocks = reading->blocks;
    if (op->size < reading->options->min_size) {
        blocks->left_out++;
        return true;
    }
    if (is_too_large(op->size) || !reserve(blocks))
        return false;
    uint64_t alignment = (UINT64_C(1) << op->alignment_log2) / blocks->unit;
    blocks->sizes[blocks->count] = op->size;
    blocks->items[blocks->count] = (struct plan_item){
        .begin = reading->time,
        .end = UINT32_MAX,
        .size = in_units(blocks, op->size),
        .alignment = alignment > 1 && alignment <= UINT32_MAX ? (uint32_t)alignment : 1,
    };
    reading->live[op->block] = blocks->count++;
    return true;
}

static bool read_operation(struct trace_reading *reading, const struct trace_op *op)
{
    switch (op->kind) {
    case TRACE_ALLOCATE:
    case TRACE_CALLOC:
        if (!begin_block(reading, op))
            return false;
        break;
    case TRACE_REALLOCATE: {
        uint32_t old = reading->live[op->block];
        if (!begin_block(reading, op))
            return false;
        reading->time++;
        if (old != UINT32_MAX)
            reading->blocks->items[old].end = reading->time;
        break;
    }
    case TRACE_FREE:
        end_block(reading, op->block);
        break;
    default:
        return true;
    }
    reading->time++;
    return true;
}

static int read_operations(const struct trace *trace, struct phase range,
                           const struct plan_input_options *options, struct plan_blocks *out)
{
    struct trace_reading reading = {.blocks = out, .options = options};
    reading.live = malloc((trace->block_count + (size_t)1) * sizeof *reading.live);
    if (reading.live == NULL)
        return -ENOMEM;
    memset(reading.live, 0xff, (trace->block_count + (size_t)1) * sizeof *reading.live);
    int result = 0;
    for (uint32_t i = range.begin; i < range.end && result == 0; i++) {
        if (!read_operation(&reading, &trace->ops[i]))
            result = -ENOMEM;
    }
    for (uint32_t i = 0; i < out->count; i++) {
        if (out->items[i].end == UINT32_MAX)
            out->items[i].end = reading.time;
    }
    out->time_count = reading.time;
    free(reading.live);
    return result;
}

/* The operations to be planned: one inference, or all. */
static int choose_range(const char *path, const struct trace *trace, unsigned inference,
                        struct phase *range, char *why, size_t why_size)
{
    struct phases phases;
    *range = (struct phase){0, (uint32_t)trace->op_count};
    if (inference == 0)
        return 0;
    if (phases_find(trace, &phases) != 0)
        return no_memory(path, why, why_size);
    int result = 0;
    if (inference > phases.count) {
        snprintf(why, why_size,
                 "%s: has no inference %u: %zu are marked (a file beside it, its name ending in "
                 ".marks, marks them)",
                 path, inference, phases.count);
        result = -EINVAL;
    } else {
        *range = phases.phases[inference - 1];
    }
    phases_release(&phases);
    return result;
}

static int read_trace(const char *path, const struct plan_input_options *options,
                      struct plan_blocks *out, char *why, size_t why_size)
{
    struct trace trace;
    struct phase range;
    int result = trace_load(path, &(struct trace_options){.repair = true}, &trace, why, why_size);
    if (result != 0)
        return result;
    out->unit = options->alignment != 0 ? options->alignment : TRACE_ALIGNMENT;
    result = choose_range(path, &trace, options->inference, &range, why, why_size);
    if (result == 0 && read_operations(&trace, range, options, out) != 0)
        result = no_memory(path, why, why_size);
    trace_unload(&trace);
    return result;
}

/* ---- CSV ---- */

enum column { COLUMN_ID, COLUMN_LOWER, COLUMN_UPPER, COLUMN_SIZE, COLUMNS, COLUMN_OTHER };

struct csv_reading {
    struct plan_blocks *blocks;
    const struct plan_input_options *options;
    struct input *input;
    enum column columns[16]; /* what stands in each */
    int column_count;
    uint64_t *times; /* lower and upper of each block, as they stand there */
    uint32_t times_capacity;
};

static int bad_line(const struct csv_reading *reading, const char *what, char *why, size_t why_size)
{
    snprintf(why, why_size, "%s:%" PRIu64 ": %s", input_path(reading->input),
             input_line_number(reading->input), what);
    return -EINVAL;
}

/* Cuts the first field off a line. */
static char *next_field(char **line)
{
    char *field = *line, *comma = strchr(field, ',');
    if (comma != NULL)
        *comma = '\0';
    *line = comma != NULL ? comma + 1 : NULL;
    while (*field == ' ')
        field++;
    for (char *end = field + strlen(field); end > field && end[-1] == ' ';)
        *--end = '\0';
    return field;
}

static int read_csv_header(struct csv_reading *reading, char *line, char *why, size_t why_size)
{
    static const char *const names[COLUMNS] = {"id", "lower", "upper", "size"};
    unsigned seen = 0;
    while (line != NULL) {
        if (reading->column_count == (int)(sizeof reading->columns / sizeof *reading->columns))
            return bad_line(reading, "more columns than 16", why, why_size);
        const char *name = next_field(&line);
        int column = 0;
        while (column < COLUMNS && strcmp(name, names[column]) != 0)
            column++;
        if (column < COLUMNS)
            seen |= 1u << column;
        reading->columns[reading->column_count++] =
            column < COLUMNS ? (enum column)column : COLUMN_OTHER;
    }
    if (seen != (1u << COLUMNS) - 1)
        return bad_line(reading, "the first line must name the columns id,lower,upper,size", why,
                        why_size);
    return 0;
}

static bool read_number(const char *text, uint64_t *number)
{
    if (*text < '0' || *text > '9')
        return false;
    char *end;
    errno = 0;
    *number = strtoull(text, &end, 10);
    return errno == 0 && *end == '\0';
}

static int read_csv_row(struct csv_reading *reading, char *line, char *why, size_t why_size)
{
    struct plan_blocks *blocks = reading->blocks;
    uint64_t numbers[COLUMNS] = {0};
    const char *id = "";
    for (int i = 0; i < reading->column_count; i++) {
        if (line == NULL)
            return bad_line(reading, "has fewer fields than the first line has columns", why,
                            why_size);
        const char *field = next_field(&line);
        enum column column = reading->columns[i];
        if (column == COLUMN_ID)
            id = field;
        if (column != COLUMN_ID && column != COLUMN_OTHER && !read_number(field, &numbers[column]))
            return bad_line(reading, "lower, upper and size must be whole numbers", why, why_size);
    }
    if (numbers[COLUMN_LOWER] >= numbers[COLUMN_UPPER])
        return bad_line(reading, "the block ends before it begins: upper must be above lower", why,
                        why_size);
    if (is_too_large(numbers[COLUMN_SIZE]))
        return bad_line(reading, "the block is larger than any machine's memory", why, why_size);
    if (numbers[COLUMN_SIZE] < reading->options->min_size) {
        blocks->left_out++;
        return 0;
    }
    if (!reserve(blocks))
        return no_memory(input_path(reading->input), why, why_size);
    if (reading->times_capacity < blocks->capacity) {
        uint64_t *times = realloc(reading->times, 2 * (size_t)blocks->capacity * sizeof *times);
        if (times == NULL)
            return no_memory(input_path(reading->input), why, why_size);
        reading->times = times;
        reading->times_capacity = blocks->capacity;
    }
    uint32_t b = blocks->count;
    blocks->names[b] = strdup(id);
    if (blocks->names[b] == NULL)
        return no_memory(input_path(reading->input), why, why_size);
    reading->times[2 * b] = numbers[COLUMN_LOWER];
    reading->times[2 * b + 1] = numbers[COLUMN_UPPER];
    blocks->sizes[b] = numbers[COLUMN_SIZE];
    blocks->items[b] =
        (struct plan_item){.size = in_units(blocks, numbers[COLUMN_SIZE]), .alignment = 1};
    blocks->count++;
    return 0;
}

/* Times as they are, where they are narrow enough: how long a block lives guides the search. */
static bool keep_times(struct csv_reading *reading)
{
    struct plan_blocks *blocks = reading->blocks;
    uint64_t last = 0;
    for (uint32_t i = 0; i < blocks->count; i++)
        last = reading->times[2 * i + 1] > last ? reading->times[2 * i + 1] : last;
    if (last >= UINT32_MAX)
        return false;
    for (uint32_t i = 0; i < blocks->count; i++) {
        blocks->items[i].begin = (uint32_t)reading->times[2 * i];
        blocks->items[i].end = (uint32_t)reading->times[2 * i + 1];
    }
    blocks->time_count = (uint32_t)last + 1;
    return true;
}

/* Numbers the times densely, in their order. */
static bool make_times_dense(struct csv_reading *reading)
{
    struct plan_blocks *blocks = reading->blocks;
    uint32_t n = 2 * blocks->count;
    uint32_t *order = malloc((n + (size_t)1) * sizeof *order);
    blocks->times = malloc((n + (size_t)1) * sizeof *blocks->times);
    if (order == NULL || blocks->times == NULL) {
        free(order);
        return false;
    }
    plan_sort(order, reading->times, n);
    uint32_t used = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t time = reading->times[order[i]];
        if (used == 0 || blocks->times[used - 1] != time)
            blocks->times[used++] = time;
        struct plan_item *item = &blocks->items[order[i] / 2];
        *(order[i] % 2 == 0 ? &item->begin : &item->end) = used - 1;
    }
    blocks->time_count = used;
    free(order);
    return true;
}

static int read_csv(const char *path, const struct plan_input_options *options,
                    struct plan_blocks *out, char *why, size_t why_size)
{
    struct csv_reading reading = {.blocks = out, .options = options};
    char *line;
    size_t length;
    int result = input_open(&reading.input, path, why, why_size);
    if (result != 0)
        return result;
    out->is_csv = true;
    out->unit = options->alignment != 0 ? options->alignment : 1;
    result = input_line(reading.input, &line, &length, why, why_size);
    if (result == 0)
        snprintf(why, why_size, "%s: is empty", path);
    bool begun = result == 1;
    result = begun         ? read_csv_header(&reading, line, why, why_size)
             : result == 0 ? -EINVAL
                           : result;
    while (result == 0) {
        int got = input_line(reading.input, &line, &length, why, why_size);
        if (got <= 0) {
            result = got;
            break;
        }
        if (length != 0)
            result = read_csv_row(&reading, line, why, why_size);
    }
    if (result == 0 && !keep_times(&reading) && !make_times_dense(&reading))
        result = no_memory(path, why, why_size);
    free(reading.times);
    input_close(reading.input);
    return result;
}

/* A CSV file's first line names its columns; no trace begins so. */
static bool looks_like_csv(const char *path)
{
    char why[256], *line;
    size_t length;
    struct input *input;
    size_t name = strlen(path);
    if (name >= 4 && strcmp(path + name - 4, ".csv") == 0)
        return true;
    if (strcmp(path, "-") == 0 || input_open(&input, path, why, sizeof why) != 0)
        return false;
    bool is_csv = input_line(input, &line, &length, why, sizeof why) == 1 &&
                  strstr(line, "lower") != NULL && strchr(line, ',') != NULL;
    input_close(input);
    return is_csv;
}

int plan_input_read(const char *path, const struct plan_input_options *options,
                    struct plan_blocks *out, char *why, size_t why_size)
{
    *out = (struct plan_blocks){0};
    int result = looks_like_csv(path) ? read_csv(path, options, out, why, why_size)
                                      : read_trace(path, options, out, why, why_size);
    if (result == 0 && out->count == 0) {
        snprintf(why, why_size,
                 out->left_out != 0 ? "%s: no block is that large: choose a smaller "
                                      "--min-size"
                                    : "%s: has no blocks",
                 path);
        result = -EINVAL;
    }
    if (result != 0)
        plan_blocks_release(out);
    return result;
}
