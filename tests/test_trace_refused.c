/* SPDX-License-Identifier: MIT */
/*
 * Reading files that are no traces, or no longer: what is said of them, and that whatever is in them
 * is either read as a trace that holds together or refused by name.
 */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trace.h"
#include "trace_support.h"

static int load_text(const char *text, size_t size, struct trace *trace)
{
    write_file("trace", text, size);
    return trace_load(path_of("trace"), NULL, trace, why, sizeof why);
}

static void assert_file_is_named(void)
{
    const char *path = path_of("trace");
    ck_assert_msg(strncmp(why, path, strlen(path)) == 0, "%s", why);
}

static const struct {
    const char *text;
    const char *message; /* a part of it, behind the path */
} mistakes[] = {
    {"", ": the file is empty"},
    {"\n\n", ": no allocation in the trace"},
    {"1: free 0x10\n", ": no allocation in the trace"},
    {"hello\n", ":1: not a trace: it begins with 'hello'"},
    {"\x7f"
     "ELF\n",
     ":1: not a trace: it begins with '?ELF'"},
    {"1: malloc 0x10 5\nx\n", ":2: expected a thread id and ':', found 'x'"},
    {"1: malloc 0x10 5\n4294967296: free 0x10\n", ":2: expected a thread id"},
    {"1: mallok 0x10 5\n", ":1: expected malloc, calloc,"},
    {"1: malloc 10 5\n", ":1: expected a pointer such as 0x7f00, found '10 5'"},
    {"1: malloc 0x 5\n", ":1: expected a pointer"},
    {"1: malloc 0x11112222333344445 5\n", ":1: expected a pointer"},
    {"1: malloc 0x10 -5\n", ":1: expected a size in bytes, found '-5'"},
    {"1: malloc 0x10 5x\n", ":1: expected a size in bytes, found '5x'"},
    {"1: malloc 0x10 18446744073709551615\n", ":1: expected a size below 2^63"},
    {"1: calloc 0x10 4294967296 4294967296\n", ":1: expected count x size below 2^63"},
    {"1: memalign 0x10 1073741825 8\n", ":1: expected an alignment up to 2^30"},
    {"1: malloc 0x10 5 6\n", ":1: the line ends where an end time in ns should be"},
    {"1: malloc 0x10 5 6 7 8\n", ":1: expected the end of the line, found '8'"},
    {"1: malloc 0x10\n", ":1: the line ends where a size in bytes should be"},
    {"1: malloc 0x10 5\n1: mal", "was it cut short?"},
};

START_TEST(a_mistake_is_told_with_file_line_and_reason)
{
    struct trace trace;
    int result = load_text(mistakes[_i].text, strlen(mistakes[_i].text), &trace);
    ck_assert_int_lt(result, 0);
    ck_assert_ptr_null(trace.ops);
    assert_file_is_named();
    ck_assert_msg(strstr(why, mistakes[_i].message) != NULL, "wanted %s, got %s",
                  mistakes[_i].message, why);
    ck_assert_ptr_null(strchr(why, '\n'));
}
END_TEST

START_TEST(a_line_without_end_is_refused_without_reading_the_whole_file)
{
    static char text[65536];
    struct trace trace;
    memset(text, '1', sizeof text);
    ck_assert_int_eq(load_text(text, sizeof text, &trace), -EINVAL);
    ck_assert_msg(strstr(why, ":1: a line of more than 4096 bytes") != NULL, "%s", why);
}
END_TEST

START_TEST(a_nul_byte_is_refused)
{
    static const char text[] = "1: malloc 0x10 5\n1: free\0 0x10\n";
    struct trace trace;
    ck_assert_int_eq(load_text(text, sizeof text - 1, &trace), -EINVAL);
    ck_assert_msg(strstr(why, ":2: the line holds a NUL byte") != NULL, "%s", why);
}
END_TEST

START_TEST(missing_files_and_directories_are_told)
{
    struct trace trace;
    ck_assert_int_eq(trace_load("/nonexistent/trace", NULL, &trace, why, sizeof why), -ENOENT);
    ck_assert_msg(strstr(why, "/nonexistent/trace: cannot be opened") != NULL, "%s", why);
    ck_assert_int_eq(trace_load("/tmp", NULL, &trace, why, sizeof why), -EISDIR);
    ck_assert_msg(strstr(why, "/tmp: is a directory") != NULL, "%s", why);
}
END_TEST

static const char sample[] = "7: malloc 0x10 100 1 2\n8: calloc 0x20 3 50 3 4\n"
                             "7: memalign 0x30 64 200 5 6\n8: realloc 0x40 0x10 120 7 8 9\n"
                             "7: free 0x20 10 11\n8: thread_done 0x0 12\n";

/* A trace that holds together, or a message that names the file. */
static void assert_read_or_refused(const char *text, size_t size)
{
    struct trace trace;
    if (load_text(text, size, &trace) == 0) {
        assert_lifetimes(&trace);
        trace_unload(&trace);
    } else {
        assert_file_is_named();
    }
}

START_TEST(a_trace_cut_anywhere_is_read_or_refused)
{
    for (size_t size = 0; size < sizeof sample - 1; size++) {
        assert_read_or_refused(sample, size);
    }
}
END_TEST

START_TEST(a_trace_with_any_byte_changed_is_read_or_refused)
{
    static const char bytes[] = "\0\n 09afx:-\xff";
    char text[sizeof sample];
    for (size_t at = 0; at < sizeof sample - 1; at++) {
        for (size_t b = 0; b < sizeof bytes - 1; b++) {
            memcpy(text, sample, sizeof sample);
            text[at] = bytes[b];
            assert_read_or_refused(text, sizeof sample - 1);
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("trace refused");
    TCase *refused = add_file_claims(suite, "refused");
    tcase_add_loop_test(refused, a_mistake_is_told_with_file_line_and_reason, 0,
                        (int)(sizeof mistakes / sizeof mistakes[0]));
    tcase_add_test(refused, a_line_without_end_is_refused_without_reading_the_whole_file);
    tcase_add_test(refused, a_nul_byte_is_refused);
    tcase_add_test(refused, missing_files_and_directories_are_told);
    tcase_add_test(refused, a_trace_cut_anywhere_is_read_or_refused);
    tcase_add_test(refused, a_trace_with_any_byte_changed_is_read_or_refused);
    return run_file_suite(suite);
}
