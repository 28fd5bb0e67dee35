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
static char raw_path[64], open_path[64], trace_path[64], marks_path[64];
static char text[4096];
static struct record_merge_summary summary;

static void make_directory(void)
{
    ck_assert_ptr_nonnull(mkdtemp(directory));
    snprintf(raw_path, sizeof raw_path, "%s/it.raw", directory);
    snprintf(open_path, sizeof open_path, "%s/it.open", directory);
    snprintf(trace_path, sizeof trace_path, "%s/trace", directory);
    snprintf(marks_path, sizeof marks_path, "%s/marks", directory);
    memset(&summary, 0xff, sizeof summary);
}

static void remove_directory(void)
{
    unlink(raw_path), unlink(open_path), unlink(trace_path), unlink(marks_path);
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
    struct record_chunk_header header = {.magic = RECORD_CHUNK_MAGIC,
                                         .thread = thread,
                                         .count = 1,
                                         .entry_bytes = sizeof entry,
                                         .slot = RECORD_NO_SLOT};
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
                                 .later = (uint32_t)(after - before),
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

START_TEST(what_is_neither_chunk_nor_whole_ends_the_trace)
{
    append_malloc(T1, 1, A, 100);
    for (int i = 0; i < 100; i++)
        append_bytes("torn", 4);
    ck_assert_str_eq(merged(), "1: malloc 0xa000 100\n");
    ck_assert_uint_eq(summary.truncated_bytes, 400);
}
END_TEST

/* A chunk of mallocs of 1, 2, ... bytes, from the entry numbered `first` on. */
static void append_slot(FILE *file, uint32_t slot, uint32_t serial, uint32_t first, uint32_t count)
{
    struct record_chunk_header header = {.magic = RECORD_CHUNK_MAGIC,
                                         .thread = slot + 1,
                                         .count = count,
                                         .entry_bytes = sizeof(struct record_entry),
                                         .slot = slot,
                                         .serial = serial};
    fwrite(&header, sizeof header, 1, file);
    for (uint32_t i = first; i < first + count; i++) {
        struct record_entry entry = {
            .sequence = 100 * slot + i,
            .of.call = {.pointer = (slot + 1) * 0x100000 + i * 16, .size = i},
            .kind = RECORD_MALLOC};
        fwrite(&entry, sizeof entry, 1, file);
    }
}

static void append_open_slot(uint32_t slot, uint32_t serial, uint32_t first, uint32_t count)
{
    FILE *file = fopen(open_path, "ab");
    ck_assert_ptr_nonnull(file);
    fseek(file, 0, SEEK_END);
    append_slot(file, slot, serial, first, count);
    size_t used = sizeof(struct record_chunk_header) + count * sizeof(struct record_entry);
    for (; used < RECORD_SLOT_BYTES; used++)
        fputc(0, file);
    fclose(file);
}

static void append_raw_slot(uint32_t slot, uint32_t serial, uint32_t first, uint32_t count)
{
    FILE *file = fopen(raw_path, "ab");
    ck_assert_ptr_nonnull(file);
    append_slot(file, slot, serial, first, count);
    fclose(file);
}

START_TEST(a_killed_process_leaves_what_its_threads_had_in_their_slots)
{
    append_raw_slot(0, 0, 1, 2);
    append_open_slot(0, 1, 3, 1);
    append_open_slot(1, 0, 1, 1);
    ck_assert_str_eq(merged(), "1: malloc 0x100010 1\n1: malloc 0x100020 2\n"
                               "1: malloc 0x100030 3\n2: malloc 0x200010 1\n");
}
END_TEST

START_TEST(slots_alone_are_enough)
{
    append_open_slot(0, 0, 1, 1);
    ck_assert_str_eq(merged(), "1: malloc 0x100010 1\n");
}
END_TEST

START_TEST(a_slot_that_was_written_out_just_before_the_end_is_read_once)
{
    append_raw_slot(0, 0, 1, 2);
    append_raw_slot(0, 1, 3, 2);
    append_open_slot(0, 1, 3, 2);
    ck_assert_str_eq(merged(), "1: malloc 0x100010 1\n1: malloc 0x100020 2\n"
                               "1: malloc 0x100030 3\n1: malloc 0x100040 4\n");
}
END_TEST

START_TEST(of_a_chunk_that_grew_between_two_writes_the_rest_is_taken_too)
{
    append_raw_slot(0, 5, 1, 1);
    append_raw_slot(0, 5, 1, 3);
    ck_assert_str_eq(merged(), "1: malloc 0x100010 1\n1: malloc 0x100020 2\n"
                               "1: malloc 0x100030 3\n");
}
END_TEST

START_TEST(a_threads_end_stands_behind_all_that_it_did)
{
    append_malloc(T1, 1, A, 100);
    append(T1, (struct record_entry){.sequence = 2, .kind = RECORD_THREAD_DONE});
    append_malloc(T2, 3, B, 7);
    append_free(T1, 4, A);
    append_free(T2, 5, B);
    ck_assert_str_eq(merged(), "1: malloc 0xa000 100\n2: malloc 0xb000 7\n1: free 0xa000\n"
                               "1: thread_done 0x0\n2: free 0xb000\n");
}
END_TEST

START_TEST(times_stand_at_the_ends_of_lines)
{
    append(T1, (struct record_entry){.sequence = 1,
                                     .of.call = {.pointer = A, .size = 9},
                                     .time_ns = 1000,
                                     .kind = RECORD_MALLOC});
    append(T1, (struct record_entry){
                   .sequence = 2, .of.call.pointer = A, .time_ns = 1001, .kind = RECORD_FREE});
    append(T1, (struct record_entry){.sequence = 3, .time_ns = 1002, .kind = RECORD_THREAD_DONE});
    ck_assert_str_eq(merged(), "1: malloc 0xa000 9 1000 1000\n1: free 0xa000 1001 1001\n"
                               "1: thread_done 0x0 1002\n");
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
    tcase_add_test(tests, what_is_neither_chunk_nor_whole_ends_the_trace);
    tcase_add_test(tests, a_killed_process_leaves_what_its_threads_had_in_their_slots);
    tcase_add_test(tests, slots_alone_are_enough);
    tcase_add_test(tests, a_slot_that_was_written_out_just_before_the_end_is_read_once);
    tcase_add_test(tests, of_a_chunk_that_grew_between_two_writes_the_rest_is_taken_too);
    tcase_add_test(tests, a_threads_end_stands_behind_all_that_it_did);
    tcase_add_test(tests, times_stand_at_the_ends_of_lines);
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
