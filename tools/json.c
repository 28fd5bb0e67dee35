/* SPDX-License-Identifier: MIT */
/*
 * JSON lines: see json.h. Strings are written byte by byte, those of ASCII's control characters
 * escaped; bytes from 0x80 on pass through, as file names are mostly UTF-8.
 */
#include "json.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static void put_string(FILE *out, const char *text)
{
    fputc('"', out);
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') {
            fprintf(out, "\\%c", c);
        } else if (c < 0x20) {
            fprintf(out, "\\u%04x", c);
        } else {
            fputc(c, out);
        }
    }
    fputc('"', out);
}

static void put_key(struct json_line *line, const char *key)
{
    fputs(line->has_members ? ", " : "", line->out);
    line->has_members = true;
    put_string(line->out, key);
    fputs(": ", line->out);
}

void json_begin(struct json_line *line, FILE *out)
{
    *line = (struct json_line){.out = out};
    fputc('{', out);
}

void json_string(struct json_line *line, const char *key, const char *value)
{
    put_key(line, key);
    put_string(line->out, value);
}

void json_boolean(struct json_line *line, const char *key, bool value)
{
    put_key(line, key);
    fputs(value ? "true" : "false", line->out);
}

void json_number(struct json_line *line, const char *key, double value, int decimals)
{
    put_key(line, key);
    fprintf(line->out, "%.*f", decimals, value);
}

void json_count(struct json_line *line, const char *key, uint64_t value)
{
    put_key(line, key);
    if (value == UINT64_MAX) {
        fputs("null", line->out);
    } else {
        fprintf(line->out, "%" PRIu64, value);
    }
}

void json_numbers(struct json_line *line, const char *key, const double *values, size_t count,
                  int decimals)
{
    put_key(line, key);
    fputc('[', line->out);
    for (size_t i = 0; i < count; i++) {
        fprintf(line->out, "%s%.*f", i > 0 ? ", " : "", decimals, values[i]);
    }
    fputc(']', line->out);
}

void json_strings(struct json_line *line, const char *key, const char *const *values, size_t count)
{
    put_key(line, key);
    fputc('[', line->out);
    for (size_t i = 0; i < count; i++) {
        fputs(i > 0 ? ", " : "", line->out);
        put_string(line->out, values[i]);
    }
    fputc(']', line->out);
}

void json_counts(struct json_line *line, const char *key, const uint64_t *values, size_t count)
{
    put_key(line, key);
    for (size_t i = 0; i < count; i++) {
        fprintf(line->out, "%c%" PRIu64, i == 0 ? '[' : ',', values[i]);
    }
    fputs(count == 0 ? "[]" : "]", line->out);
}

void json_end(struct json_line *line)
{
    fputs("}\n", line->out);
}

/*
 * The text of a member's value, or NULL. `"key": ` cannot occur in a string: its quotes are
 * escaped.
 */
static const char *find_value(const char *text, const char *key)
{
    char quoted[64];
    snprintf(quoted, sizeof quoted, "\"%s\": ", key);
    const char *found = strstr(text, quoted);
    return found != NULL ? found + strlen(quoted) : NULL;
}

bool json_get_number(const char *text, const char *key, double *out)
{
    char *end;
    const char *value = find_value(text, key);
    if (value == NULL) {
        return false;
    }
    *out = strtod(value, &end);
    return end != value;
}

bool json_get_count(const char *text, const char *key, uint64_t *out)
{
    char *end;
    const char *value = find_value(text, key);
    if (value == NULL) {
        return false;
    }
    if (strncmp(value, "null", 4) == 0) {
        *out = UINT64_MAX;
        return true;
    }
    *out = strtoull(value, &end, 10);
    return end != value;
}

bool json_get_string(const char *text, const char *key, char *out, size_t out_size)
{
    const char *value = find_value(text, key);
    size_t length = 0;
    if (value == NULL || *value != '"') {
        return false;
    }
    for (value++; *value != '"' && *value != '\0' && length + 1 < out_size; value++) {
        if (*value == '\\' && value[1] == 'u') {
            char digits[5] = "";
            strncpy(digits, value + 2, 4);
            out[length++] = (char)strtoul(digits, NULL, 16);
            value += strlen(digits) + 1;
            continue;
        }
        value += *value == '\\';
        if (*value == '\0') {
            break; /* cut behind the backslash */
        }
        out[length++] = *value;
    }
    out[length] = '\0';
    return *value == '"';
}
