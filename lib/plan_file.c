/* SPDX-License-Identifier: MIT */
#include "plan_file.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_MOST = 160 };

#define FNV_OFFSET UINT64_C(0xcbf29ce484222325)
#define FNV_PRIME UINT64_C(0x100000001b3)

static uint64_t add_to_sum(uint64_t sum, const char *text)
{
    for (; *text != '\0'; text++)
        sum = (sum ^ (unsigned char)*text) * FNV_PRIME;
    return sum;
}

/* ---- writing ---- */

__attribute__((format(printf, 2, 3))) static void put(struct plan_writer *writer,
                                                      const char *format, ...)
{
    char line[LINE_MOST];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    writer->sum = add_to_sum(writer->sum, line);
    if (fputs(line, writer->file) == EOF)
        writer->failed = 1;
}

void plan_write_begin(struct plan_writer *writer, FILE *file)
{
    *writer = (struct plan_writer){.file = file, .sum = FNV_OFFSET};
    put(writer, "larder-plan 1\n");
}

void plan_write_head(struct plan_writer *writer, const struct plan_head *head)
{
    put(writer, "plan %" PRIu64 " %" PRIu32 " %" PRIu64 "\n", head->key, head->blocks, head->peak);
}

void plan_write_row(struct plan_writer *writer, const struct plan_row *row)
{
    put(writer, "%" PRIu32 " %" PRIu32 " %" PRIu64 " %" PRIu32 " %" PRIu64 "\n", row->begin,
        row->end, row->size, row->alignment, row->offset);
}

int plan_write_end(struct plan_writer *writer)
{
    put(writer, "end %016" PRIx64 "\n", writer->sum);
    return writer->failed || ferror(writer->file) ? -EIO : 0;
}

/* ---- reading ---- */

/* The next line with its end; false at the end of the file, or if it is longer than any should be. */
static bool get_line(struct plan_reader *reader, char line[LINE_MOST])
{
    if (fgets(line, LINE_MOST, reader->file) == NULL)
        return false;
    reader->line++;
    return strchr(line, '\n') != NULL;
}

int plan_read_begin(struct plan_reader *reader, FILE *file)
{
    char line[LINE_MOST], end[LINE_MOST];
    unsigned version;
    *reader = (struct plan_reader){.file = file};
    if (!get_line(reader, line))
        return ferror(file) ? -EIO : -EINVAL;
    if (sscanf(line, "larder-plan %u", &version) != 1)
        return -EINVAL;
    if (strcmp(line, "larder-plan 1\n") != 0)
        return version != 1 ? -ENOTSUP : -EINVAL;
    uint64_t sum = FNV_OFFSET;
    do {
        sum = add_to_sum(sum, line);
        if (!get_line(reader, line))
            return ferror(file) ? -EIO : -EINVAL;
    } while (strncmp(line, "end ", 4) != 0);
    snprintf(end, sizeof end, "end %016" PRIx64 "\n", sum);
    if (strcmp(line, end) != 0 || fgetc(file) != EOF)
        return -EINVAL;
    if (fseek(file, 0, SEEK_SET) != 0)
        return -EIO;
    reader->line = 0;
    return get_line(reader, line) ? 0 : -EIO;
}

/* Reads `count` numbers, separated by single blanks, and the end of the line behind them. */
static bool read_numbers(const char *text, uint64_t *numbers, int count)
{
    for (int i = 0; i < count; i++) {
        if (*text < '0' || *text > '9')
            return false;
        char *end;
        errno = 0;
        unsigned long long number = strtoull(text, &end, 10);
        if (errno != 0 || *end != (i + 1 < count ? ' ' : '\n'))
            return false;
        numbers[i] = number;
        text = end + 1;
    }
    return true;
}

int plan_read_head(struct plan_reader *reader, struct plan_head *head)
{
    char line[LINE_MOST];
    uint64_t numbers[3];
    if (!get_line(reader, line))
        return -EINVAL;
    if (strncmp(line, "end ", 4) == 0)
        return 0;
    if (strncmp(line, "plan ", 5) != 0 || !read_numbers(line + 5, numbers, 3) ||
        numbers[1] > UINT32_MAX)
        return -EINVAL;
    *head =
        (struct plan_head){.key = numbers[0], .blocks = (uint32_t)numbers[1], .peak = numbers[2]};
    return 1;
}

int plan_read_row(struct plan_reader *reader, struct plan_row *row)
{
    char line[LINE_MOST];
    uint64_t numbers[5];
    if (!get_line(reader, line) || !read_numbers(line, numbers, 5))
        return -EINVAL;
    if (numbers[0] > UINT32_MAX || numbers[1] > UINT32_MAX || numbers[3] > UINT32_MAX)
        return -EINVAL;
    *row = (struct plan_row){.begin = (uint32_t)numbers[0],
                             .end = (uint32_t)numbers[1],
                             .size = numbers[2],
                             .alignment = (uint32_t)numbers[3],
                             .offset = numbers[4]};
    return 0;
}
