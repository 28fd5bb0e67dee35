/* SPDX-License-Identifier: MIT */
/* The little JSON the tools need: writing one flat object a line, and reading such a line back. */
#ifndef LARDER_TOOLS_JSON_H
#define LARDER_TOOLS_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* A line being written: begin, then members, then end. */
struct json_line {
    FILE *out;
    bool has_members;
};

void json_begin(struct json_line *line, FILE *out);
void json_string(struct json_line *line, const char *key, const char *value);
void json_boolean(struct json_line *line, const char *key, bool value);
void json_number(struct json_line *line, const char *key, double value, int decimals);
/* UINT64_MAX stands for unknown and is written as null. */
void json_count(struct json_line *line, const char *key, uint64_t value);
/* Lists. */
void json_numbers(struct json_line *line, const char *key, const double *values, size_t count,
                  int decimals);
void json_strings(struct json_line *line, const char *key, const char *const *values, size_t count);
void json_counts(struct json_line *line, const char *key, const uint64_t *values, size_t count);
void json_end(struct json_line *line);

/*
 * Members of a flat object without nested ones, as json_end() left it. Each returns false where
 * there is no member of that name and kind; for counts null is read as UINT64_MAX.
 */
bool json_get_number(const char *text, const char *key, double *out);
bool json_get_count(const char *text, const char *key, uint64_t *out);
bool json_get_string(const char *text, const char *key, char *out, size_t out_size);

#endif
