/* SPDX-License-Identifier: MIT */
/* Inferences: found by marks. */
#include <stdio.h>
#include <stdlib.h>

#include "phases.h"
#include "trace_support.h"

static struct phases must_find(const struct trace *trace)
{
    struct phases phases;
    ck_assert_int_eq(phases_find(trace, &phases), 0);
    return phases;
}

static void assert_phase(const struct phases *phases, size_t index, uint32_t begin, uint32_t end)
{
    ck_assert_uint_lt(index, phases->count);
    ck_assert_uint_eq(phases->phases[index].begin, begin);
    ck_assert_uint_eq(phases->phases[index].end, end);
}

static const char six_lines[] = "1: malloc 0x10 1\n1: free 0x10\n1: malloc 0x10 2\n"
                                "1: free 0x10\n1: malloc 0x10 3\n1: free 0x10\n";

START_TEST(a_mark_begins_an_inference_and_ends_the_one_before)
{
    write_text("t.marks", "1 inference 0\n2 other\n3 inference 1\n5 end\n");
    struct trace trace = must_read_text("t.txt", six_lines);
    struct phases phases = must_find(&trace);
    ck_assert_int_eq(phases.source, PHASES_MARKS);
    ck_assert_uint_eq(phases.count, 2);
    assert_phase(&phases, 0, 1, 3);
    assert_phase(&phases, 1, 3, 5);
    phases_release(&phases);
    trace_unload(&trace);
}
END_TEST

START_TEST(without_an_end_the_last_inference_reaches_to_the_end_of_the_trace)
{
    write_text("t.marks", "0 inference\n4 inference\n4 inference\n");
    struct trace trace = must_read_text("t.txt", six_lines);
    struct phases phases = must_find(&trace);
    ck_assert_uint_eq(phases.count, 2); /* the one in between is empty */
    assert_phase(&phases, 0, 0, 4);
    assert_phase(&phases, 1, 4, 6);
    phases_release(&phases);
    trace_unload(&trace);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("phases");
    TCase *marks = add_file_claims(suite, "marks");
    tcase_add_test(marks, a_mark_begins_an_inference_and_ends_the_one_before);
    tcase_add_test(marks, without_an_end_the_last_inference_reaches_to_the_end_of_the_trace);
    return run_file_suite(suite);
}
