/* SPDX-License-Identifier: MIT */
/*
 * Statistics as text: lines for a person, and one line of JSON that a parser takes, whatever the
 * instance is called. The parser here knows just enough of RFC 8259 to refuse what is not JSON.
 */
#include "support.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>

/* -- A small checker of JSON: each function returns the end of what it read, or NULL -- */

static const char *skip_space(const char *text)
{
    while (text && (*text == ' ' || *text == '\t' || *text == '\n' || *text == '\r'))
        text++;
    return text;
}

static const char *read_string(const char *text)
{
    if (*text++ != '"')
        return NULL;
    while (*text != '"') {
        if ((unsigned char)*text < 0x20)
            return NULL;
        if (*text++ != '\\')
            continue;
        if (*text == 'u') {
            for (unsigned i = 1; i <= 4; i++)
                if (!isxdigit((unsigned char)text[i]))
                    return NULL;
            text += 5;
        } else if (!*text || !strchr("\"\\/bfnrt", *text++)) {
            return NULL;
        }
    }
    return text + 1;
}

static const char *read_number(const char *text)
{
    const char *start;

    text += *text == '-';
    start = text;
    while (isdigit((unsigned char)*text))
        text++;
    if (text == start || (*start == '0' && text > start + 1))
        return NULL;
    if (*text == '.') {
        start = ++text;
        while (isdigit((unsigned char)*text))
            text++;
        if (text == start)
            return NULL;
    }
    return text;
}

static const char *read_value(const char *text, unsigned depth);

/* Members or elements between `open` and `close`. */
static const char *read_list(const char *text, char close, unsigned depth)
{
    text = skip_space(text + 1);
    if (*text == close)
        return text + 1;
    for (;;) {
        if (close == '}') {
            text = skip_space(read_string(text));
            if (!text || *text++ != ':')
                return NULL;
        }
        text = skip_space(read_value(skip_space(text), depth + 1));
        if (!text)
            return NULL;
        if (*text == close)
            return text + 1;
        if (*text++ != ',')
            return NULL;
        text = skip_space(text);
    }
}

static const char *read_value(const char *text, unsigned depth)
{
    static const char *const words[] = {"true", "false", "null"};

    if (depth > 20)
        return NULL;
    if (*text == '{' || *text == '[')
        return read_list(text, *text == '{' ? '}' : ']', depth);
    if (*text == '"')
        return read_string(text);
    for (unsigned i = 0; i < 3; i++)
        if (strncmp(text, words[i], strlen(words[i])) == 0)
            return text + strlen(words[i]);
    return read_number(text);
}

static bool is_json(const char *text)
{
    const char *end = skip_space(read_value(text, 0));

    return end && *end == '\0';
}

START_TEST(the_checker_of_json_tells_json_from_other_text)
{
    ck_assert(is_json("{\"a\": [1, -2.5, \"x\\\"\\u00e9\"], \"b\": {}}\n"));
    ck_assert(!is_json("{\"a\": 1,}"));
    ck_assert(!is_json("{\"a\" 1}"));
    ck_assert(!is_json("{\"a\": 01}"));
    ck_assert(!is_json("{\"a\": \"x\ny\"}"));
    ck_assert(!is_json("{\"a\": \"\\x\"}"));
    ck_assert(!is_json("{\"a\": 1} {"));
    ck_assert(!is_json("{a: 1}"));
}
END_TEST

/* -- What is printed -- */

typedef int print_fn(const larder_t *larder, FILE *out);

static char *printed(print_fn *print, const larder_t *larder)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);

    ck_assert_ptr_nonnull(out);
    ck_assert_int_eq(print(larder, out), 0);
    fclose(out);
    ck_assert_uint_gt(length, 0);
    ck_assert(text[length - 1] == '\n');
    return text;
}

static void assert_json_has(const char *json, const char *key, uint64_t value)
{
    char name[64];
    const char *found;

    snprintf(name, sizeof name, "\"%s\"", key);
    found = strstr(json, name);
    ck_assert_msg(found != NULL, "no %s in %s", name, json);
    found = skip_space(found + strlen(name));
    ck_assert_msg(*found == ':', "no value for %s in %s", name, json);
    ck_assert_uint_eq(strtoull(found + 1, NULL, 10), value);
}

static larder_t *make_named(const char *name)
{
    larder_t *larder = larder_create(name, NULL);

    ck_assert_ptr_nonnull(larder);
    return larder;
}

START_TEST(json_is_one_line_that_parses_and_has_the_fields_of_the_structure)
{
    larder_t *larder = make_named("kitchen");
    void *block = larder_alloc(larder, 123456);
    larder_stats_t stats = stats_of(larder);
    char *json = printed(larder_stats_print_json, larder);

    ck_assert_msg(is_json(json), "not JSON: %s", json);
    ck_assert_ptr_eq(strchr(json, '\n'), json + strlen(json) - 1);
    ck_assert_ptr_nonnull(strstr(json, "\"kitchen\""));
    assert_json_has(json, "version", LARDER_STATS_VERSION);
    assert_json_has(json, "live_blocks", 1);
    assert_json_has(json, "live_bytes", 123456);
    assert_json_has(json, "held_bytes", stats.held_bytes);
    assert_json_has(json, "allocations", 1);
    assert_json_has(json, "frees", 0);
    assert_json_has(json, "hits", stats.hits);
    assert_json_has(json, "regions", stats.regions);
    assert_json_has(json, "refused_bytes", 0);
    free(json);
    larder_free(larder, block);
    must_destroy(larder);
}
END_TEST

START_TEST(json_parses_whatever_the_instance_is_called)
{
    static const char *const names[] = {
        "say \"cheese\"", "back\\slash", "two\nlines", "tab\there", "\x01\x1f", "", "caf\xc3\xa9"};

    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++) {
        larder_t *larder = make_named(names[i]);
        char *json = printed(larder_stats_print_json, larder);

        ck_assert_msg(is_json(json), "not JSON: %s", json);
        free(json);
        must_destroy(larder);
    }
}
END_TEST

START_TEST(text_names_the_instance_and_its_live_bytes)
{
    larder_t *larder = make_named("kitchen");
    void *block = larder_alloc(larder, 777);
    char *text = printed(larder_stats_print, larder);

    ck_assert_msg(strstr(text, "kitchen"), "text: %s", text);
    ck_assert_msg(strstr(text, "live"), "text: %s", text);
    ck_assert_msg(strstr(text, "777"), "text: %s", text);
    free(text);
    larder_free(larder, block);
    must_destroy(larder);
}
END_TEST

START_TEST(a_file_that_takes_nothing_is_an_error)
{
    larder_t *larder = make_named("kitchen");
    FILE *full = fopen("/dev/full", "w");

    if (full) { /* Linux has it */
        setvbuf(full, NULL, _IONBF, 0);
        ck_assert_int_lt(larder_stats_print(larder, full), 0);
        ck_assert_int_lt(larder_stats_print_json(larder, full), 0);
        fclose(full);
    }
    must_destroy(larder);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("statistics as text");
    TCase *claims = add_claims(suite, "text");

    tcase_add_test(claims, the_checker_of_json_tells_json_from_other_text);
    tcase_add_test(claims, json_is_one_line_that_parses_and_has_the_fields_of_the_structure);
    tcase_add_test(claims, json_parses_whatever_the_instance_is_called);
    tcase_add_test(claims, text_names_the_instance_and_its_live_bytes);
    tcase_add_test(claims, a_file_that_takes_nothing_is_an_error);
    return run_suite(suite);
}
