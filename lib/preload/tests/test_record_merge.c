/* SPDX-License-Identifier: MIT */
/*
 * The merge against raw recordings made by hand: orders between threads that a real recording shows
 * once in a million calls, and files that end or begin wrongly.
 */
#include "record_format.h"
#include "record_merge.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { A = 0xa000, B = 0xb000, T1 = 1, T2 = 2 };

static char directory[] = "/tmp/record-merge-XXXXXX";
static char raw_path[64], trace_path[64], marks_path[64];
static char text[4096];
static struct record_merge_summary summary;

static void make_directory(void)
{
    ck_assert_ptr_nonnull(mkdtemp(directory));
    snprintf(raw_path, sizeof raw_path, "%s/raw", directory);
    snprintf(trace_path, sizeof trace_path, "%s/trace", directory);
    snprintf(marks_path, sizeof marks_path, "%s/marks", directory);
    memset(&summary, 0xff, sizeof summary);
}

static void remove_directory(void)
{
    unlink(raw_path), unlink(trace_path), unlink(marks_path);
    ck_assert_int_eq(rmdir(directory), 0); /* nothing else was left there */
    strcpy(strrchr(directory, '-'), "-XXXXXX");
}

static void append_bytes(const void *bytes, size_t count)
{
    FILE *file = fopen(raw_path, "ab");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(bytes, 1, count, file), count);
    fclose(file);
}

static void append(uint32_t thread, struct record_entry entry)
{
    struct record_chunk_header header = {
        .magic = RECORD_CHUNK_MAGIC, .thread = thread, .count = 1, .entry_bytes = sizeof entry};
    append_bytes(&header, sizeof header);
    append_bytes(&entry, sizeof entry);
}

static void append_malloc(uint32_t thread, uint64_t sequence, uint64_t pointer, uint64_t size)
{
    append(thread, (struct record_entry){.sequence = sequence,
                                         .of.call = {.pointer = pointer, .size = size},
                                         .kind = RECORD_MALLOC});
}

static void append_free(uint32_t thread, uint64_t sequence, uint64_t pointer)
{
    append(thread, (struct record_entry){
                       .sequence = sequence, .of.call.pointer = pointer, .kind = RECORD_FREE});
}

static void append_realloc(uint32_t thread, uint64_t before, uint64_t after, uint64_t old,
                           uint64_t pointer, uint64_t size)
{
    append(thread,
           (struct record_entry){.sequence = before,
                                 .sequence_after = after,
                                 .of.call = {.pointer = pointer, .argument = old, .size = size},
                                 .kind = RECORD_REALLOC});
}

static void append_mark(uint64_t sequence, const char *name)
{
    struct record_entry entry = {.sequence = sequence, .kind = RECORD_MARK};
    strcpy(entry.of.name, name);
    append(T1, entry);
}

static const char *contents(const char *path)
{
    FILE *file = fopen(path, "rb");
    ck_assert_ptr_nonnull(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    return text;
}

static const char *merged(void)
{
    ck_assert_int_eq(record_merge_to_text(raw_path, trace_path, NULL, &summary), 0);
    return contents(trace_path);
}

START_TEST(entries_of_all_threads_are_put_in_sequence)
{
    append_free(T2, 3, A);
    append_malloc(T1, 4, A, 200);
    append_malloc(T1, 1, A, 100);
    append_malloc(T1, 2, B, 50);
    ck_assert_str_eq(merged(), "1: malloc 0xa000 100\n1: malloc 0xb000 50\n"
                               "2: free 0xa000\n1: malloc 0xa000 200\n");
    ck_assert_uint_eq(summary.operations, 4);
    ck_assert_uint_eq(summary.live_at_end, 2);
}
END_TEST

START_TEST(each_kind_of_call_has_its_line)
{
    append(T1, (struct record_entry){.sequence = 1, .of.call = {A, 10, 20}, .kind = RECORD_CALLOC});
    append(T1,
           (struct record_entry){.sequence = 2, .of.call = {B, 64, 500}, .kind = RECORD_MEMALIGN});
    append_realloc(T1, 3, 4, A, A, 300);
    ck_assert_str_eq(merged(), "1: calloc 0xa000 10 20\n1: memalign 0xb000 64 500\n"
                               "1: realloc 0xa000 0xa000 300\n");
}
END_TEST

START_TEST(a_free_of_a_block_that_was_not_recorded_is_left_out)
{
    append_free(T1, 1, A);
    append_malloc(T1, 2, A, 100);
    append_free(T1, 3, A);
    append_free(T1, 4, A);
    ck_assert_str_eq(merged(), "1: malloc 0xa000 100\n1: free 0xa000\n");
    ck_assert_uint_eq(summary.unknown_frees, 2);
}
END_TEST

START_TEST(an_address_handed_out_again_is_freed_first)
{
    append_malloc(T1, 1, A, 100);
    append_malloc(T2, 2, A, 200);
    ck_assert_str_eq(merged(), "1: malloc 0xa000 100\n2: free 0xa000\n2: malloc 0xa000 200\n");
    ck_assert_uint_eq(summary.implied_frees, 1);
    ck_assert_uint_eq(summary.live_at_end, 1);
}
END_TEST

START_TEST(a_realloc_of_a_block_that_was_not_recorded_is_a_malloc)
{
    append_realloc(T1, 1, 2, A, B, 100);
    ck_assert_str_eq(merged(), "1: malloc 0xb000 100\n");
}
END_TEST

START_TEST(a_realloc_is_one_line_where_others_leave_its_addresses_alone)
{
    append_malloc(T1, 1, A, 100);
    append_realloc(T1, 2, 4, A, B, 300);
    append_malloc(T2, 3, 0xc000, 50);
    ck_assert_str_eq(merged(), "1: malloc 0xa000 100\n2: malloc 0xc000 50\n"
                               "1: realloc 0xb000 0xa000 300\n");
    ck_assert_uint_eq(summary.split_reallocs, 0);
}
END_TEST

START_TEST(a_realloc_waits_for_the_free_of_its_new_address)
{
    append_malloc(T1, 1, A, 100);
    append_malloc(T2, 2, B, 300);
    append_realloc(T1, 3, 5, A, B, 300);
    append_free(T2, 4, B);
    ck_assert_str_eq(merged(), "1: malloc 0xa000 100\n2: malloc 0xb000 300\n2: free 0xb000\n"
                               "1: realloc 0xb000 0xa000 300\n");
}
END_TEST

START_TEST(a_realloc_is_split_where_another_thread_got_the_old_address)
{
    append_malloc(T1, 1, A, 100);
    append_realloc(T1, 2, 4, A, B, 300);
    append_malloc(T2, 3, A, 50);
    ck_assert_str_eq(merged(), "1: malloc 0xa000 100\n1: free 0xa000\n2: malloc 0xa000 50\n"
                               "1: malloc 0xb000 300\n");
    ck_assert_uint_eq(summary.split_reallocs, 1);
    ck_assert_uint_eq(summary.implied_frees, 0);
}
END_TEST

START_TEST(two_reallocs_that_exchange_addresses_stay_consistent)
{
    append_malloc(T1, 1, A, 100);
    append_malloc(T2, 2, B, 100);
    append_realloc(T1, 3, 6, A, B, 200);
    append_realloc(T2, 4, 5, B, A, 200);
    ck_assert_str_eq(merged(), "1: malloc 0xa000 100\n2: malloc 0xb000 100\n1: free 0xa000\n"
                               "2: realloc 0xa000 0xb000 200\n1: malloc 0xb000 200\n");
}
END_TEST

START_TEST(marks_tell_the_lines_before_them)
{
    append_malloc(T1, 1, A, 100);
    append_mark(2, "one");
    append_free(T1, 3, A);
    append_mark(4, "a name of 23 characters");
    ck_assert_int_eq(record_merge_to_text(raw_path, trace_path, marks_path, &summary), 0);
    ck_assert_str_eq(contents(marks_path), "1 one\n2 a name of 23 characters\n");
    ck_assert_uint_eq(summary.marks, 2);
}
END_TEST

START_TEST(an_unfinished_chunk_at_the_end_is_left_out_and_counted)
{
    struct record_chunk_header header = {
        .magic = RECORD_CHUNK_MAGIC, .count = 2, .entry_bytes = sizeof(struct record_entry)};
    append_malloc(T1, 1, A, 100);
    append_bytes(&header, sizeof header);
    append_bytes("torn", 4);
    ck_assert_str_eq(merged(), "1: malloc 0xa000 100\n");
    ck_assert_uint_eq(summary.truncated_bytes, sizeof header + 4);
}
END_TEST

START_TEST(losses_of_the_recorder_are_passed_on)
{
    struct record_chunk_header header = {
        .magic = RECORD_CHUNK_MAGIC, .entry_bytes = sizeof(struct record_entry), .lost = 12};
    append_bytes(&header, sizeof header);
    ck_assert_str_eq(merged(), "");
    ck_assert_uint_eq(summary.lost, 12);
}
END_TEST

START_TEST(an_empty_file_is_an_empty_trace)
{
    append_bytes("", 0);
    ck_assert_str_eq(merged(), "");
    ck_assert_uint_eq(summary.operations, 0);
}
END_TEST

static void assert_refused(void)
{
    ck_assert_int_eq(record_merge_to_text(raw_path, trace_path, marks_path, &summary), -1);
    ck_assert_int_ne(access(trace_path, F_OK), 0);
    ck_assert_int_ne(access(marks_path, F_OK), 0);
}

START_TEST(a_missing_file_is_refused)
{
    assert_refused();
}
END_TEST

START_TEST(a_chunk_of_another_version_is_refused)
{
    struct record_chunk_header header = {.magic = RECORD_CHUNK_MAGIC, .entry_bytes = 40};
    append_malloc(T1, 1, A, 100);
    append_bytes(&header, sizeof header);
    assert_refused();
}
END_TEST

START_TEST(an_entry_of_unknown_kind_is_refused)
{
    append(T1, (struct record_entry){.sequence = 1, .kind = 99});
    assert_refused();
}
END_TEST

START_TEST(marks_that_cannot_be_written_leave_no_trace_either)
{
    append_malloc(T1, 1, A, 100);
    ck_assert_int_eq(record_merge_to_text(raw_path, trace_path, "/nonexistent/marks", &summary),
                     -1);
    ck_assert_int_ne(access(trace_path, F_OK), 0);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("merge");
    tcase_add_checked_fixture(tests, make_directory, remove_directory);
    tcase_add_test(tests, entries_of_all_threads_are_put_in_sequence);
    tcase_add_test(tests, each_kind_of_call_has_its_line);
    tcase_add_test(tests, a_free_of_a_block_that_was_not_recorded_is_left_out);
    tcase_add_test(tests, an_address_handed_out_again_is_freed_first);
    tcase_add_test(tests, a_realloc_of_a_block_that_was_not_recorded_is_a_malloc);
    tcase_add_test(tests, a_realloc_is_one_line_where_others_leave_its_addresses_alone);
    tcase_add_test(tests, a_realloc_waits_for_the_free_of_its_new_address);
    tcase_add_test(tests, a_realloc_is_split_where_another_thread_got_the_old_address);
    tcase_add_test(tests, two_reallocs_that_exchange_addresses_stay_consistent);
    tcase_add_test(tests, marks_tell_the_lines_before_them);
    tcase_add_test(tests, an_unfinished_chunk_at_the_end_is_left_out_and_counted);
    tcase_add_test(tests, losses_of_the_recorder_are_passed_on);
    tcase_add_test(tests, an_empty_file_is_an_empty_trace);
    tcase_add_test(tests, a_missing_file_is_refused);
    tcase_add_test(tests, a_chunk_of_another_version_is_refused);
    tcase_add_test(tests, an_entry_of_unknown_kind_is_refused);
    tcase_add_test(tests, marks_that_cannot_be_written_leave_no_trace_either);

    Suite *suite = suite_create("record_merge");
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
