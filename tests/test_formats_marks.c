/* SPDX-License-Identifier: MIT */
/* Marks, thread names and labels: where they come from, and that they stay where they belong. */
#include <stdlib.h>
#include <string.h>

#include "labels.h"
#include "marks.h"
#include "trace_support.h"

static const char three_lines[] = "1: malloc 0x10 100\n1: malloc 0x20 5\n1: free 0x10\n";

START_TEST(marks_beside_a_text_trace_stand_before_the_operations_they_name)
{
    write_text("t.marks", "0 inference 0\n2 inference 1\n3 end\n");
    struct trace trace = must_read_text("t.txt", three_lines);
    ck_assert_uint_eq(trace.mark_count, 3);
    ck_assert_uint_eq(trace.marks[0].op, 0);
    ck_assert_uint_eq(trace.marks[1].op, 2);
    ck_assert_str_eq(trace.marks[1].name, "inference 1");
    ck_assert_uint_eq(trace.marks[2].op, 3);
    trace_unload(&trace);
}
END_TEST

START_TEST(marks_count_lines_also_of_those_that_are_dropped)
{
    write_text("t.marks", "2 inference 0\n");
    struct trace trace = must_read_text("t.txt", "1: free 0x0\n\n1: free 0x99\n1: malloc 0x10 1\n");
    ck_assert_uint_eq(trace.marks[0].op, 0);
    trace_unload(&trace);
}
END_TEST

START_TEST(repair_and_filter_keep_marks_between_the_same_operations)
{
    static const char text[] = "1: malloc 0x10 100\n2: malloc 0x10 40\n1: free 0x10\n"
                               "2: free 0x10\n1: malloc 0x20 7\n";
    struct trace_options options = {.repair = true};
    struct trace trace;
    write_text("t.marks", "1 a\n3 b\n4 c\n5 end\n");
    write_text("t.txt", text);
    ck_assert_int_eq(trace_load(path_of("t.txt"), &options, &trace, why, sizeof why), 0);
    ck_assert_uint_eq(trace.notes.repaired, 1);
    ck_assert_uint_eq(trace.marks[0].op, 1);
    ck_assert_uint_eq(trace.marks[1].op, 3); /* before the free of the second block, still */
    ck_assert_uint_eq(trace.marks[2].op, 4);
    ck_assert_int_eq(trace_filter_min_size(&trace, 50), 0);
    ck_assert_uint_eq(trace.op_count, 2);
    ck_assert_uint_eq(trace.marks[0].op, 1);
    ck_assert_uint_eq(trace.marks[1].op, 2);
    ck_assert_uint_eq(trace.marks[3].op, 2);
    trace_unload(&trace);
}
END_TEST

START_TEST(compressed_names_share_the_marks_of_the_text)
{
    char out[64];
    ck_assert(marks_path_of("a/b.txt.zst", out, sizeof out));
    ck_assert_str_eq(out, "a/b.marks");
    ck_assert(marks_path_of("b.txt.gz", out, sizeof out));
    ck_assert_str_eq(out, "b.marks");
    ck_assert(marks_path_of("b", out, sizeof out));
    ck_assert_str_eq(out, "b.marks");
    ck_assert(!marks_path_of("-", out, sizeof out));
    ck_assert(!marks_path_of("a-longer-name", out, 12));
}
END_TEST

static const struct {
    const char *marks, *parts[4];
} mistakes[] = {
    {"inference\n", {"t.marks:1:", "expected a number", NULL}},
    {"1\n", {"t.marks:1:", "expected a number", NULL}},
    {"1 \n", {"t.marks:1:", "expected a number", NULL}},
    {"0 a\n-1 b\n", {"t.marks:2:", "expected a number", NULL}},
    {"2 a\n1 b\n", {"t.marks:2:", "do not ascend", NULL}},
    {"99999999999999999999999 a\n", {"t.marks:1:", "beyond", NULL}},
    {"4 a\n", {"t.marks:", "line 4", "t.txt has 3", NULL}},
};

START_TEST(a_mistake_in_the_marks_is_told_with_file_and_line)
{
    write_text("t.marks", mistakes[_i].marks);
    write_text("t.txt", three_lines);
    assert_refused("t.txt", mistakes[_i].parts);
}
END_TEST

START_TEST(written_marks_are_read_back)
{
    struct trace trace = must_read_text("t.txt", three_lines);
    ck_assert_int_eq(marks_add(&trace, 1, "a name that is longer than a mark can hold"), 0);
    ck_assert_int_eq(marks_add(&trace, 3, "tab\there"), 0);
    ck_assert_str_eq(trace.marks[0].name, "a name that is longer than ");
    ck_assert_str_eq(trace.marks[1].name, "tab?here");
    FILE *out = fopen(path_of("t.marks"), "w");
    ck_assert_ptr_nonnull(out);
    marks_write(&trace, out);
    fclose(out);
    struct trace again = must_read("t.txt");
    assert_same_trace(&trace, &again);
    trace_unload(&trace);
    trace_unload(&again);
}
END_TEST

static void assert_label(const struct trace *trace, const char *key, const char *value)
{
    size_t length;
    const char *found = labels_get(trace, key, &length);
    ck_assert_ptr_nonnull(found);
    ck_assert_uint_eq(length, strlen(value));
    ck_assert_mem_eq(found, value, length);
}

START_TEST(labels_are_set_replaced_and_found)
{
    struct trace trace = must_read_text("t.txt", three_lines);
    size_t length;
    ck_assert_ptr_null(labels_get(&trace, "engine", &length));
    ck_assert_int_eq(labels_set(&trace, "engine", "PyTorch"), 0);
    ck_assert_int_eq(labels_set(&trace, "eng", "x=y"), 0);
    ck_assert_int_eq(labels_set(&trace, "empty", ""), 0);
    ck_assert_int_eq(labels_set(&trace, "engine", "ONNX Runtime 1.30"), 0);
    assert_label(&trace, "engine", "ONNX Runtime 1.30");
    assert_label(&trace, "eng", "x=y");
    assert_label(&trace, "empty", "");
    ck_assert_int_lt(labels_set(&trace, "two words", "x"), 0);
    ck_assert_int_lt(labels_set(&trace, "", "x"), 0);
    ck_assert_int_lt(labels_set(&trace, "key", "two\nlines"), 0);
    trace_unload(&trace);
}
END_TEST

START_TEST(a_text_of_labels_is_taken_whole_or_refused_with_the_place)
{
    struct trace trace = must_read_text("t.txt", three_lines);
    size_t offset;
    ck_assert_int_eq(labels_parse(&trace, "a=1\nb=2\n", 8, &offset), 0);
    assert_label(&trace, "b", "2");
    ck_assert_int_lt(labels_parse(&trace, "a=1\nb\n", 6, &offset), 0);
    ck_assert_uint_eq(offset, 4);
    ck_assert_int_lt(labels_parse(&trace, "a=1\nb=2", 7, &offset), 0);
    ck_assert_uint_eq(offset, 4);
    trace_unload(&trace);
}
END_TEST

START_TEST(threads_have_names_where_they_were_given_one)
{
    struct trace trace = must_read_text("t.txt", three_lines);
    ck_assert_str_eq(labels_thread_name(&trace, 0), "");
    ck_assert_int_eq(labels_name_thread(&trace, 0, "main\nthread"), 0);
    ck_assert_str_eq(labels_thread_name(&trace, 0), "main?thread");
    trace_unload(&trace);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("formats_marks");
    TCase *marks = add_file_claims(suite, "marks");
    tcase_add_test(marks, marks_beside_a_text_trace_stand_before_the_operations_they_name);
    tcase_add_test(marks, marks_count_lines_also_of_those_that_are_dropped);
    tcase_add_test(marks, repair_and_filter_keep_marks_between_the_same_operations);
    tcase_add_test(marks, compressed_names_share_the_marks_of_the_text);
    tcase_add_test(marks, written_marks_are_read_back);
    tcase_add_loop_test(marks, a_mistake_in_the_marks_is_told_with_file_and_line, 0,
                        (int)(sizeof mistakes / sizeof mistakes[0]));
    TCase *labels = add_file_claims(suite, "labels");
    tcase_add_test(labels, labels_are_set_replaced_and_found);
    tcase_add_test(labels, a_text_of_labels_is_taken_whole_or_refused_with_the_place);
    tcase_add_test(labels, threads_have_names_where_they_were_given_one);
    return run_file_suite(suite);
}
