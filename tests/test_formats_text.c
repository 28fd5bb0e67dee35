/* SPDX-License-Identifier: MIT */
/*
 * The formats of other recorders: what each line becomes, and what is said of lines and files that
 * are wrong. (Android's text: test_trace.c; the native format: test_formats_native.c.)
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format.h"
#include "labels.h"
#include "stable_sort.h"
#include "trace_support.h"
#include "writer.h"

static void assert_op(const struct trace *trace, size_t index, enum trace_op_kind kind,
                      uint32_t block, uint64_t size)
{
    ck_assert_uint_lt(index, trace->op_count);
    ck_assert_int_eq(trace->ops[index].kind, kind);
    ck_assert_uint_eq(trace->ops[index].block, block);
    ck_assert_uint_eq(trace->ops[index].size, size);
}

/* -- glibc's mtrace ------------------------------------------------------------------------------ */

/* As glibc 2.36 writes it; also a caller with blanks, and no caller. */
static const char mtrace[] = "= Start\n"
                             "@ ./t:[0x11bf] + 0x558dd150c4a0 0x64\n"
                             "@ ./t (f(int, char)+0x4)[0x11cd] + 0x558dd150c510 0x7d0\n"
                             "@ ./t:[0x11e2] < 0x558dd150c4a0\n"
                             "@ ./t:[0x11e2] > 0x558dd150ccf0 0x1388\n"
                             "- 0x558dd150c510\n"
                             "@ ./t:[0x11f2] ! 0x558dd150ccf0 0x99999\n"
                             "@ ./t:[0x11f2] - 0x1234\n"
                             "@ ./t:[0x11f2] + 0 0x64\n"
                             "@ ./t:[0x11f2] + 0x10 0\n"
                             "= End\n";

START_TEST(mtrace_is_read)
{
    struct trace trace = must_read_text("t.txt", mtrace);
    ck_assert_str_eq(trace.format, "mtrace");
    ck_assert_uint_eq(trace.op_count, 5);
    assert_op(&trace, 0, TRACE_ALLOCATE, 0, 100);
    assert_op(&trace, 1, TRACE_ALLOCATE, 1, 2000);
    assert_op(&trace, 2, TRACE_REALLOCATE, 0, 5000);
    assert_op(&trace, 3, TRACE_FREE, 1, 0);
    assert_op(&trace, 4, TRACE_ALLOCATE, 2, 0);
    ck_assert_uint_eq(trace.notes.unknown_frees, 1);
    ck_assert_uint_eq(trace.notes.failed_allocations, 2);
    ck_assert_uint_eq(trace.thread_count, 1);
    trace_unload(&trace);
}
END_TEST

START_TEST(half_a_reallocation_in_mtrace_frees_or_allocates)
{
    struct trace trace = must_read_text("t.txt", "= Start\n+ 0x10 0x5\n< 0x10\n+ 0x20 0x6\n"
                                                 "> 0x30 0x7\n");
    ck_assert_uint_eq(trace.op_count, 4);
    assert_op(&trace, 1, TRACE_FREE, 0, 0);
    assert_op(&trace, 2, TRACE_ALLOCATE, 1, 6);
    assert_op(&trace, 3, TRACE_ALLOCATE, 2, 7);
    trace_unload(&trace);
}
END_TEST

/* -- heaptrack ----------------------------------------------------------------------------------- */

/* As heaptrack 1.4 writes it, but for a string that is longer than a line may be elsewhere. */
static void write_heaptrack(const char *rest)
{
    FILE *file = fopen(path_of("h"), "w");
    ck_assert_ptr_nonnull(file);
    fputs("v 10400 3\nX ./t\nI 1000 5e298d\ns 8 a string\ns 3000 ", file);
    for (unsigned i = 0; i < 0x3000; i++) {
        fputc('x', file);
    }
    fputs("\nt 1 0\ni 7f7e779adb9f 8 0 b 0\na 64 8\n", file);
    fputs(rest, file);
    fclose(file);
}

START_TEST(heaptrack_is_read)
{
    write_heaptrack("+ 0\na 7d0 9\n+ 1\n+ 1\nc a\nR 1000\n- 1\n- 0\n- 0\n# end\n");
    struct trace trace = must_read("h");
    ck_assert_str_eq(trace.format, "heaptrack");
    ck_assert_uint_eq(trace.op_count, 5);
    assert_op(&trace, 0, TRACE_ALLOCATE, 0, 100);
    assert_op(&trace, 1, TRACE_ALLOCATE, 1, 2000);
    assert_op(&trace, 2, TRACE_ALLOCATE, 2, 2000);
    assert_op(&trace, 3, TRACE_FREE, 2, 0); /* the youngest of its kind */
    assert_op(&trace, 4, TRACE_FREE, 0, 0);
    ck_assert_uint_eq(trace.notes.unknown_frees, 1); /* older than the recording */
    trace_unload(&trace);
}
END_TEST

/* -- MiniMalloc ---------------------------------------------------------------------------------- */

START_TEST(minimalloc_is_read_in_order_of_time_frees_first)
{
    struct trace trace = must_read_text("p.csv", "id,lower,upper,size\nb,5,9,20\na,0,5,10\n"
                                                 "c,5,6,30\n");
    ck_assert_str_eq(trace.format, "minimalloc");
    ck_assert_uint_eq(trace.op_count, 6);
    assert_op(&trace, 0, TRACE_ALLOCATE, 0, 10);
    assert_op(&trace, 1, TRACE_FREE, 0, 0);
    assert_op(&trace, 2, TRACE_ALLOCATE, 1, 20);
    assert_op(&trace, 3, TRACE_ALLOCATE, 2, 30);
    assert_op(&trace, 4, TRACE_FREE, 2, 0);
    assert_op(&trace, 5, TRACE_FREE, 1, 0);
    trace_unload(&trace);
}
END_TEST

START_TEST(minimalloc_s_columns_come_in_any_order_with_others_between)
{
    struct trace trace = must_read_text("p.csv", "size,id,upper,hint,lower\n7,x,3,,1\n");
    ck_assert_uint_eq(trace.op_count, 2);
    assert_op(&trace, 0, TRACE_ALLOCATE, 0, 7);
    trace_unload(&trace);
}
END_TEST

/* -- PyTorch ------------------------------------------------------------------------------------- */

#define MEMORY(tid, ts, bytes, address)                                                            \
    "{\"ph\":\"i\",\"cat\":\"cpu_instant_event\",\"name\":\"[memory]\",\"pid\":1,\"tid\":" tid     \
    ",\"ts\":" ts ",\"args\":{\"Total Allocated\":610,\"Bytes\":" bytes ",\"Addr\":" address       \
    ",\"Device Id\":-1,\"Device Type\":0}}"

static bool have_json(void)
{
    struct trace trace;
    write_text("empty.json", "[]");
    bool have = trace_load(path_of("empty.json"), NULL, &trace, why, sizeof why) != -ENOTSUP;
    if (!have) {
        puts("left out: this build has no yajl");
    }
    return have;
}

START_TEST(pytorch_events_are_sorted_by_time_and_only_the_cpu_s_count)
{
    static const char text[] =
        "{\"schemaVersion\":1,\"deviceProperties\":[{\"name\":\"[memory]\",\"ts\":\"x\"}],\n"
        "\"traceEvents\":[\n"
        "{\"ph\":\"M\",\"name\":\"thread_name\",\"pid\":1,\"tid\":2,\"ts\":0,"
        "\"args\":{\"name\":\"main \\\"thread\\\"\"}},\n"
        "{\"ph\":\"X\",\"name\":\"ProfilerStep#3\",\"tid\":2,\"ts\":1.5,\"dur\":2},\n"
        "{\"ph\":\"X\",\"name\":\"ProfilerStep#4\",\"tid\":2,\"ts\":3.5,\"dur\":4},\n" MEMORY(
            "2", "4", "-400",
            "1000") ",\n" MEMORY("2", "2.001", "400",
                                 "1000") ",\n" MEMORY("3", "2.001", "50",
                                                      "2000") ",\n{\"ph\":\"i\",\"name\":\"[memory]"
                                                              "\",\"tid\":2,\"ts\":1,\"args\":{"
                                                              "\"Bytes\":9,\"Addr\":9,"
                                                              "\"Device "
                                                              "Type\":1,\"other\":{\"Bytes\":[1,{"
                                                              "\"Addr\":2}]}}},\n" MEMORY(
                                                                  "2", "8e0", "-1",
                                                                  "77") "],\"other\":[]}";
    if (!have_json()) {
        return;
    }
    struct trace trace = must_read_text("p.json", text);
    ck_assert_str_eq(trace.format, "pytorch");
    ck_assert_uint_eq(trace.op_count, 3);
    assert_op(&trace, 0, TRACE_ALLOCATE, 0, 400);
    assert_op(&trace, 1, TRACE_ALLOCATE, 1, 50);
    assert_op(&trace, 2, TRACE_FREE, 0, 0);
    ck_assert_uint_eq(trace.times[0].start_ns, 2001);
    ck_assert_uint_eq(trace.thread_ids[1], 3);
    ck_assert_str_eq(labels_thread_name(&trace, 0), "main \"thread\"");
    ck_assert_uint_eq(trace.notes.unknown_frees, 1);
    ck_assert_uint_eq(trace.mark_count, 3);
    ck_assert_str_eq(trace.marks[0].name, "inference 3");
    ck_assert_uint_eq(trace.marks[0].op, 0);
    ck_assert_str_eq(trace.marks[1].name, "inference 4");
    ck_assert_uint_eq(trace.marks[1].op, 2);
    ck_assert_str_eq(trace.marks[2].name, "end");
    ck_assert_uint_eq(trace.marks[2].op, 3);
    trace_unload(&trace);
}
END_TEST

START_TEST(pytorch_s_bare_array_and_large_times_are_read)
{
    if (!have_json()) {
        return;
    }
    struct trace trace =
        must_read_text("p.json", " \n[" MEMORY("140234567890123", "1336304245461.149", "8405385216",
                                               "128803317743616") "]");
    ck_assert_uint_eq(trace.op_count, 1);
    assert_op(&trace, 0, TRACE_ALLOCATE, 0, UINT64_C(8405385216));
    ck_assert_uint_eq(trace.times[0].start_ns, UINT64_C(1336304245461149));
    trace_unload(&trace);
}
END_TEST

START_TEST(memory_for_pytorch_s_json_does_not_grow_with_the_file)
{
    /* 64 MiB of strings and other events around two that count. */
    if (!have_json()) {
        return;
    }
    FILE *file = fopen(path_of("big.json"), "w");
    ck_assert_ptr_nonnull(file);
    fputs("[" MEMORY("1", "1", "100", "16"), file);
    for (unsigned i = 0; i < 200000; i++) {
        fprintf(file,
                ",\n{\"ph\":\"X\",\"cat\":\"cpu_op\",\"name\":\"aten::conv%u\",\"tid\":1,\"ts\":%u,"
                "\"dur\":1,\"args\":{\"Input Dims\":[[1,3,224,224],[%u]],\"Call stack\":\"a;b\"}}",
                i, i, i);
    }
    fputs(",\n" MEMORY("1", "9", "-100", "16") "]\n", file);
    fclose(file);
    struct trace trace = must_read("big.json");
    ck_assert_uint_eq(trace.op_count, 2);
    ck_assert_uint_lt(trace.op_capacity * sizeof *trace.ops, 1 << 17);
    trace_unload(&trace);
}
END_TEST

/* -- Mistakes ------------------------------------------------------------------------------------ */

static const struct {
    const char *text, *parts[4];
    bool json;
} mistakes[] = {
    {"= Start\n@ ./t + 0x10\n", {"bad:2:", "expected '+ 0xADDRESS", NULL}, false},
    {"= Start\nhello\n", {"bad:2:", "found 'hello'", NULL}, false},
    {"= Start\n@ ./t ? 0x10 0x5\n", {"bad:2:", "expected", NULL}, false},
    {"= Start\n@ ./t + 0x10 0xfffffffffffffffff\n", {"bad:2:", NULL}, false},
    {"= Start\n@ ./t + 0x10 0xffffffffffffffff\n", {"bad:2:", "2^63", NULL}, false},
    {"= Start\n+ -10 0x5\n", {"bad:2:", "expected", NULL}, false},
    {"= Start\n= End\n", {"bad: no allocation", NULL}, false},
    {"v 10400 9\n", {"bad:1:", "format from 1 to 3", NULL}, false},
    {"v 10400\n", {"bad:1:", "format from 1 to 3", NULL}, false},
    {"v 10400 3\n+ 0\n", {"bad:2:", "index of an 'a' line", NULL}, false},
    {"v 10400 3\na 64 1\n- 1\n", {"bad:3:", "index of an 'a' line", NULL}, false},
    {"v 10400 3\na zz 1\n", {"bad:2:", "'a SIZE TRACE'", NULL}, false},
    {"v 10400 3\na 11111111111111111 1\n", {"bad:2:", "'a SIZE TRACE'", NULL}, false},
    {"v 10400 3\nZ 1\n", {"bad:2:", "a line of heaptrack's", NULL}, false},
    {"id,lower,upper,size\n1,2,3\n", {"bad:2:", "fewer columns", NULL}, false},
    {"id,lower,upper,size\n1,3,3,5\n", {"bad:2:", "not below upper", NULL}, false},
    {"id,lower,upper,size\n1,-3,3,5\n", {"bad:2:", "as lower, found '-3'", NULL}, false},
    {"id,lower,upper,size\n1,0,3,99999999999999999999\n", {"bad:2:", "as size", NULL}, false},
    {"id,lower,upper,size\n1,0,,5\n", {"bad:2:", "as upper", NULL}, false},
    {"[", {"bad: byte 1:", "not valid JSON", NULL}, true},
    {"[{\"name\":}]", {"bad: byte ", "not valid JSON", NULL}, true},
    {"{\"other\":[]}", {"bad:", "traceEvents", NULL}, true},
    {"[{\"name\":\"[memory]\",\"ts\":1}]", {"bad: byte ", "Bytes or Addr", NULL}, true},
    {"[" MEMORY("1", "-1", "1", "1") "]", {"bad: byte ", "a time before 0", NULL}, true},
    {"[" MEMORY("1", "1e300", "1", "1") "]", {"bad: byte ", "a time before 0", NULL}, true},
    {"[" MEMORY("1", "1", "1e30", "1") "]", {"bad: byte ", "number of bytes", NULL}, true},
    {"[]x", {"bad: byte ", "not valid JSON", NULL}, true},
    {"[]", {"bad: no allocation", NULL}, true},
    {"\x7f"
     "ELF",
     {"bad:1: not a trace", "'?ELF'", "--help", NULL},
     false},
};

START_TEST(a_mistake_is_told_with_file_and_place)
{
    if (!mistakes[_i].json || have_json()) {
        write_text("bad", mistakes[_i].text);
        assert_refused("bad", mistakes[_i].parts);
    }
}
END_TEST

START_TEST(deep_nesting_and_long_strings_in_json_are_refused)
{
    static const char *const deep[] = {"deep: byte ", "nested more than 1000", NULL};
    static const char *const longer[] = {"long: byte ", "a string of a megabyte", NULL};
    if (!have_json()) {
        return;
    }
    enum { BYTES = 24 << 20 };
    char *text = malloc(BYTES);
    ck_assert_ptr_nonnull(text);
    memset(text, '[', BYTES);
    write_file("deep", text, BYTES);
    assert_refused("deep", deep);
    memset(text, '\\', BYTES);
    text[0] = '[';
    text[1] = '"';
    write_file("long", text, BYTES);
    assert_refused("long", longer);
    free(text);
}
END_TEST

/* -- Any damage ---------------------------------------------------------------------------------- */

static const struct sample {
    const char *name, *text;
} samples[] = {
    {"mtrace", mtrace},
    {"heaptrack", "v 10400 3\ns 3 abc\na 64 1\n+ 0\na 7d0 2\n+ 1\n+ 1\nc a\n- 1\n- 0\n"},
    {"minimalloc", "id,lower,upper,size\nb,5,9,20\na,0,5,10\nc,5,6,30\n"},
    {"pytorch", "{\"traceEvents\":[" MEMORY("1", "2.5", "400", "1000") "," MEMORY(
                    "2", "3", "-400", "1000") "],\"x\":{}}"},
};
#define SAMPLES ((int)(sizeof samples / sizeof samples[0]))

/* Reads what was written as "t": it is refused with one line, or it keeps the promises. */
static void read_or_refuse(void)
{
    struct trace trace;
    why[0] = '\0';
    if (trace_load(path_of("t"), NULL, &trace, why, sizeof why) == 0) {
        assert_lifetimes(&trace);
        trace_unload(&trace);
    } else {
        ck_assert_ptr_nonnull(strstr(why, "/t:"));
        ck_assert_ptr_null(strchr(why, '\n'));
    }
}

START_TEST(a_file_cut_or_changed_anywhere_is_read_or_refused)
{
    char text[1024];
    size_t size = strlen(samples[_i].text);
    ck_assert_uint_lt(size, sizeof text);
    for (size_t i = 0; i < size; i++) {
        write_file("t", samples[_i].text, i);
        read_or_refuse();
        static const char changes[] = {'0', '9', '-', ' ', '\n', '"', ',', '\0', '\xff'};
        for (size_t c = 0; c < sizeof changes; c++) {
            memcpy(text, samples[_i].text, size);
            text[i] = changes[c];
            write_file("t", text, size);
            read_or_refuse();
        }
    }
}
END_TEST

START_TEST(each_format_is_known_by_its_beginning_and_by_its_name)
{
    if (strcmp(samples[_i].name, "pytorch") == 0 && !have_json()) {
        return;
    }
    struct trace trace = must_read_text("t", samples[_i].text);
    ck_assert_str_eq(trace.format, samples[_i].name);
    struct trace_options options = {.from = samples[_i].name};
    struct trace named;
    ck_assert_int_eq(trace_load(path_of("t"), &options, &named, why, sizeof why), 0);
    assert_same_trace(&trace, &named);
    trace_unload(&named);
    trace_unload(&trace);
    ck_assert_ptr_null(trace_format_named("nonsense"));
}
END_TEST

START_TEST(sorting_keeps_the_order_of_equal_keys)
{
    enum { COUNT = 5000 };
    static struct sort_entry entries[COUNT];
    uint64_t state = 42;
    for (uint32_t i = 0; i < COUNT; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        entries[i] = (struct sort_entry){.key = (state >> 60) << (state >> 58 & 63), .index = i};
    }
    ck_assert_int_eq(stable_sort(entries, COUNT), 0);
    for (uint32_t i = 1; i < COUNT; i++) {
        ck_assert(entries[i - 1].key < entries[i].key || (entries[i - 1].key == entries[i].key &&
                                                          entries[i - 1].index < entries[i].index));
    }
}
END_TEST

START_TEST(the_ending_of_a_path_tells_what_to_write)
{
    ck_assert_ptr_eq(trace_writer_for("a.ltr"), &trace_writer_native);
    ck_assert_ptr_eq(trace_writer_for("a.raw.ltr"), &trace_writer_native_raw);
    ck_assert_ptr_eq(trace_writer_for("dir/a.txt.zst"), &trace_writer_android);
    ck_assert_ptr_eq(trace_writer_for("a.csv.gz"), &trace_writer_minimalloc);
    ck_assert_ptr_eq(trace_writer_for("a.json"), &trace_writer_perfetto);
    ck_assert_ptr_null(trace_writer_for("a.gz"));
    ck_assert_ptr_null(trace_writer_for(".ltr"));
    ck_assert_ptr_null(trace_writer_for("-"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("formats_text");
    TCase *lines = add_file_claims(suite, "lines");
    tcase_add_test(lines, mtrace_is_read);
    tcase_add_test(lines, half_a_reallocation_in_mtrace_frees_or_allocates);
    tcase_add_test(lines, heaptrack_is_read);
    tcase_add_test(lines, minimalloc_is_read_in_order_of_time_frees_first);
    tcase_add_test(lines, minimalloc_s_columns_come_in_any_order_with_others_between);
    tcase_add_test(lines, sorting_keeps_the_order_of_equal_keys);
    TCase *json = add_file_claims(suite, "json");
    tcase_add_test(json, pytorch_events_are_sorted_by_time_and_only_the_cpu_s_count);
    tcase_add_test(json, pytorch_s_bare_array_and_large_times_are_read);
    tcase_add_test(json, memory_for_pytorch_s_json_does_not_grow_with_the_file);
    tcase_add_test(json, deep_nesting_and_long_strings_in_json_are_refused);
    TCase *refused = add_file_claims(suite, "refused");
    tcase_add_loop_test(refused, a_mistake_is_told_with_file_and_place, 0,
                        (int)(sizeof mistakes / sizeof mistakes[0]));
    tcase_add_loop_test(refused, a_file_cut_or_changed_anywhere_is_read_or_refused, 0, SAMPLES);
    tcase_add_loop_test(refused, each_format_is_known_by_its_beginning_and_by_its_name, 0, SAMPLES);
    tcase_add_test(refused, the_ending_of_a_path_tells_what_to_write);
    return run_file_suite(suite);
}
