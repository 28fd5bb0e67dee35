/* SPDX-License-Identifier: MIT */
/*
 * The native format: what is written is read back in every field, and a file that was damaged
 * anywhere, or made to deceive, is refused with the place.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "crc32c.h"
#include "labels.h"
#include "marks.h"
#include "native.h"
#include "trace_support.h"

static const char two_threads[] = "7: malloc 0x1000 100 1000 1010\n"
                                  "8: calloc 0x2000 3 50 1020 1030\n"
                                  "7: memalign 0x3000 64 200 1040 1050\n"
                                  "8: realloc 0x4000 0x1000 120 1060 1070\n"
                                  "7: free 0x2000 1080 1090\n"
                                  "7: free 0x2000 1080 1090\n"
                                  "8: thread_done 0x0 1100\n";

static void write_native(const struct trace *trace, bool compress, const char *name)
{
    FILE *file = fopen(path_of(name), "w");
    struct sink *sink;
    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(sink_open(&sink, file, SINK_PLAIN), 0);
    ck_assert_int_eq(native_write(trace, compress, sink), 0);
    ck_assert_int_eq(sink_close(sink), 0);
    ck_assert_int_eq(fclose(file), 0);
}

/* All that a trace can hold, in a file of few bytes. */
static struct trace full_trace(void)
{
    write_text("t.marks", "0 inference 0\n4 inference 1\n7 end\n");
    struct trace trace = must_read_text("t.txt", two_threads);
    ck_assert_int_eq(labels_name_thread(&trace, 1, "worker"), 0);
    ck_assert_int_eq(labels_set(&trace, "engine", "none, by hand"), 0);
    return trace;
}

static void make_file(bool compress)
{
    struct trace trace = full_trace();
    write_native(&trace, compress, "t.ltr");
    trace_unload(&trace);
}

/* -- Round trips ------------------------------------------------------------------------------- */

START_TEST(every_field_comes_back)
{
    struct trace trace = full_trace();
    write_native(&trace, _i != 0, "t.ltr");
    struct trace again = must_read("t.ltr");
    assert_same_trace(&trace, &again);
    assert_lifetimes(&again);
    ck_assert_str_eq(again.format, "ltr");
    ck_assert_uint_eq(again.notes.unknown_frees, 1);
    ck_assert_mem_eq(&again.notes, &trace.notes, sizeof trace.notes);
    trace_unload(&again);
    trace_unload(&trace);
}
END_TEST

START_TEST(a_trace_without_times_marks_and_labels_comes_back_without)
{
    struct trace trace = must_read_text("t.txt", "1: malloc 0x10 5\n");
    write_native(&trace, true, "t.ltr");
    struct trace again = must_read("t.ltr");
    assert_same_trace(&trace, &again);
    ck_assert_ptr_null(again.times);
    ck_assert_uint_eq(again.mark_count, 0);
    trace_unload(&again);
    trace_unload(&trace);
}
END_TEST

START_TEST(a_filtered_trace_comes_back_with_the_threads_that_are_left)
{
    struct trace trace = must_read_text("t.txt", "1: malloc 0x10 5\n2: malloc 0x20 500\n"
                                                 "1: free 0x20\n3: malloc 0x30 6\n");
    ck_assert_int_eq(labels_name_thread(&trace, 1, "two"), 0);
    ck_assert_int_eq(trace_filter_min_size(&trace, 100), 0);
    ck_assert_uint_eq(trace.thread_count, 2);
    ck_assert_uint_eq(trace.thread_ids[0], 2);
    ck_assert_str_eq(labels_thread_name(&trace, 0), "two");
    write_native(&trace, true, "t.ltr");
    struct trace again = must_read("t.ltr");
    assert_same_trace(&trace, &again);
    trace_unload(&again);
    trace_unload(&trace);
}
END_TEST

START_TEST(an_aligned_block_that_is_resized_below_the_filter_is_freed_as_any_other)
{
    struct trace trace =
        must_read_text("t.txt", "1: memalign 0x40 64 500\n1: realloc 0x40 0x40 5\n");
    trace.ops[1].alignment_log2 = 6;
    ck_assert_int_eq(trace_filter_min_size(&trace, 100), 0);
    ck_assert_uint_eq(trace.op_count, 2);
    ck_assert_uint_eq(trace.ops[1].kind, TRACE_FREE);
    write_native(&trace, true, "t.ltr");
    struct trace again = must_read("t.ltr");
    assert_same_trace(&trace, &again);
    trace_unload(&again);
    trace_unload(&trace);
}
END_TEST

static unsigned next_random(uint64_t *state, unsigned limit)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)((*state >> 33) % limit);
}

START_TEST(random_traces_of_many_threads_come_back)
{
    uint64_t state = (uint64_t)_i;
    bool live[64] = {false};
    FILE *file = fopen(path_of("r.txt"), "w");
    ck_assert_ptr_nonnull(file);
    for (unsigned i = 0; i < 5000; i++) {
        unsigned address = next_random(&state, 64), thread = next_random(&state, 40);
        fprintf(file, live[address] ? "%u: free 0x%x00\n" : "%u: malloc 0x%x00 %u\n", thread,
                address + 1, next_random(&state, 100000));
        live[address] = !live[address];
    }
    fclose(file);
    struct trace trace = must_read("r.txt");
    write_native(&trace, _i % 2 != 0, "r.ltr");
    struct trace again = must_read("r.ltr");
    assert_same_trace(&trace, &again);
    trace_unload(&again);
    trace_unload(&trace);
}
END_TEST

START_TEST(a_raw_section_can_be_used_where_the_file_is_mapped)
{
    size_t size;
    make_file(false);
    unsigned char *bytes = (unsigned char *)read_whole("t.ltr", &size);
    const unsigned char *entry = bytes + 64 + 40; /* of OPS, the second */
    ck_assert_mem_eq(entry, "OPS ", 4);
    ck_assert_uint_eq(get_u32(entry + 4), NATIVE_RAW);
    uint64_t offset = get_u64(entry + 8);
    ck_assert_uint_eq(offset % 64, 0);
    const unsigned char *op = bytes + offset; /* the first of thread 7: malloc of 100 */
    ck_assert_uint_eq(get_u64(op), 100);
    ck_assert_uint_eq(get_u32(op + 8), 0);
    ck_assert_int_eq(op[12], TRACE_ALLOCATE);
    op += 16; /* its second: memalign of 200 */
    ck_assert_uint_eq(get_u64(op), 200);
    ck_assert_int_eq(op[13], 6);
    free(bytes);
}
END_TEST

START_TEST(the_checksum_is_crc32c)
{
    ck_assert_uint_eq(crc32c("123456789", 9), 0xe3069283u);
    ck_assert_uint_eq(crc32c("", 0), 0);
}
END_TEST

/* -- Damage ------------------------------------------------------------------------------------ */

START_TEST(a_file_with_any_byte_changed_is_refused)
{
    size_t size;
    make_file(_i != 0);
    char *bytes = read_whole("t.ltr", &size);
    for (size_t i = 0; i < size; i++) {
        static const char *const nothing[] = {NULL};
        static const char *const place[] = {"t.ltr: ", "byte ", NULL};
        for (int bit = 0; bit < 8; bit += 7) {
            bytes[i] = (char)(bytes[i] ^ (1 << bit));
            write_file("t.ltr", bytes, size);
            /* Without its magic it is some text. */
            assert_refused("t.ltr", i < NATIVE_MAGIC_BYTES ? nothing : place);
            bytes[i] = (char)(bytes[i] ^ (1 << bit));
        }
    }
    free(bytes);
}
END_TEST

START_TEST(a_file_cut_anywhere_or_with_more_behind_it_is_refused)
{
    static const char *const nothing[] = {NULL};
    static const char *const place[] = {"t.ltr: header, byte ", NULL};
    size_t size;
    make_file(_i != 0);
    char *bytes = read_whole("t.ltr", &size);
    for (size_t i = 0; i < size; i++) {
        write_file("t.ltr", bytes, i);
        assert_refused("t.ltr", i < NATIVE_MAGIC_BYTES ? nothing : place);
    }
    write_file("t.ltr", bytes, size + 1);
    assert_refused("t.ltr", place);
    free(bytes);
}
END_TEST

/* -- Deceit ------------------------------------------------------------------------------------ */

/* A raw file taken apart, changed, and given fitting checksums again. */
struct forgery {
    unsigned char *bytes;
    size_t size;
};

static unsigned char *entry_of(const struct forgery *forgery, const char *tag)
{
    uint32_t count = get_u32(forgery->bytes + 12);
    for (uint32_t i = 0; i < count; i++) {
        unsigned char *entry = forgery->bytes + 64 + 40 * (size_t)i;
        if (memcmp(entry, tag, 4) == 0) {
            return entry;
        }
    }
    ck_abort_msg("no section %s", tag);
    return NULL;
}

static struct forgery begin_forgery(void)
{
    struct forgery forgery;
    make_file(false);
    forgery.bytes = (unsigned char *)read_whole("t.ltr", &forgery.size);
    return forgery;
}

/* Writes the file with checksums that fit. */
static void finish_forgery(struct forgery *forgery)
{
    uint32_t count = get_u32(forgery->bytes + 12);
    size_t room = (forgery->size - 64) / 40; /* the count may be forged, too */
    for (uint32_t i = 0; i < count && i < room; i++) {
        unsigned char *entry = forgery->bytes + 64 + 40 * (size_t)i;
        uint64_t offset = get_u64(entry + 8), size = get_u64(entry + 16);
        if (offset <= forgery->size && size <= forgery->size - offset) {
            put_u32(entry + 32, crc32c(forgery->bytes + offset, (size_t)size));
        }
    }
    if (count <= room) {
        put_u32(forgery->bytes + 56, crc32c(forgery->bytes + 64, 40 * (size_t)count));
    }
    put_u32(forgery->bytes + 60, crc32c(forgery->bytes, 60));
    write_file("t.ltr", forgery->bytes, forgery->size);
    free(forgery->bytes);
}

/* The threads' operations: 7: 0 malloc, 1 memalign, 2 free; 8: 3 calloc, 4 realloc, 5 thread_done. */
static const struct {
    const char *tag; /* "" for the header, else a section; with a '*' in front its table entry */
    size_t offset;
    size_t bytes;
    uint64_t value;
    const char *parts[4];
} forgeries[] = {
    {"", 8, 2, 2, {"header, byte 8", "version 2", NULL}},
    {"", 12, 4, 65, {"header, byte 12", "64 sections", NULL}},
    {"", 16, 8, UINT64_MAX, {"header, byte", "ends here", NULL}},
    {"", 24, 4, 3, {"section THRD", "counts in the header", NULL}},
    {"", 24, 4, UINT32_MAX, {"section THRD", "counts in the header", NULL}},
    {"", 28, 4, 4, {"header, byte 28", "more slots than blocks", NULL}},
    {"", 28, 4, 1, {"section OPS", "a slot that there is not", NULL}},
    {"", 32, 4, 4, {"section OPS", "another number of allocations", NULL}},
    {"", 36, 4, 7, {"section OPS", "counts in the header", NULL}},
    {"", 36, 4, UINT32_MAX, {"section OPS", "counts in the header", NULL}},
    {"", 40, 4, 9, {"section EDGE", "counts in the header", NULL}},
    {"", 44, 4, 0, {"section MARK", "counts in the header", NULL}},
    {"", 48, 4, 1, {"section ORDR", "counts in the header", NULL}},
    {"*OPS ", 0, 4, 0x20202020, {"section OPS", "missing", NULL}},
    {"*OPS ", 0, 1, 1, {"section table", "no text", NULL}},
    {"*OPS ", 0, 4, 0x44524854, {"section table", "twice", NULL}},
    {"*OPS ", 4, 4, 2, {"section table", "unknown encoding", NULL}},
    {"*OPS ", 4, 4, 1, {"section OPS", NULL}},
    {"*OPS ", 8, 8, UINT64_MAX - 8, {"section table", "not free", NULL}},
    {"*OPS ", 8, 8, 64, {"section table", "not free", NULL}},
    {"*OPS ", 16, 8, UINT64_MAX, {"section table", "not free", NULL}},
    {"*OPS ", 24, 8, 97, {"section table", "too long", NULL}},
    {"*note", 0, 1, 'N', {"section Note", "not known", NULL}},
    {"*note", 16, 8, 47, {"section table", "byte", NULL}},
    {"THRD", 4, 4, 0, {"section THRD", "entry 0", "without operations", NULL}},
    {"THRD", 4, 4, 4, {"section THRD", "more operations", NULL}},
    {"THRD", 4, 4, 2, {"section THRD", "fewer operations", NULL}},
    {"THRD", 8, 4, UINT32_MAX, {"section THRD", "more operations or edges", NULL}},
    {"THRD", 48, 4, 7, {"section THRD", "entry 1", "occurs twice", NULL}},
    {"THRD", 48, 4, UINT32_MAX, {"section THRD", "entry 1", "thread id", NULL}},
    {"THRD", 48 + 12 + 27, 1, 'x', {"section THRD", "entry 1", "name has no end", NULL}},
    {"OPS ", 0, 8, UINT64_C(1) << 63, {"section OPS", "entry 0", "2^63", NULL}},
    {"OPS ", 8, 4, 99, {"section OPS", "entry 0", "a slot that there is not", NULL}},
    {"OPS ", 12, 1, 5, {"section OPS", "entry 0", "unknown kind", NULL}},
    {"OPS ", 12, 1, 3, {"section OPS", "entry 0", "size where none", NULL}},
    {"OPS ", 13, 1, 31, {"section OPS", "entry 0", "alignment above", NULL}},
    {"OPS ", 14, 2, 4, {"section OPS", "entry 0", "unknown flags", NULL}},
    {"OPS ", 16 + 8, 4, 0, {"section OPS", "entry 1", "in use", NULL}},
    {"OPS ", 32 + 8, 4, 0, {NULL}},
    {"OPS ", 32, 8, 1, {"section OPS", "entry 2", "size where none", NULL}},
    {"OPS ", 32 + 13, 1, 1, {"section OPS", "entry 2", "alignment where none", NULL}},
    {"OPS ", 80 + 8, 4, 0, {"section OPS", "entry 5", "slot that there is not", NULL}},
    {"ORDR", 0, 4, 1, {"section ORDR", "entry 0", "before its turn", NULL}},
    {"ORDR", 0, 4, UINT32_MAX, {"section ORDR", "entry 0", "before its turn", NULL}},
    {"ORDR", 4, 4, 0, {"section ORDR", "entry 0", "no operations", NULL}},
    {"ORDR", 4, 4, UINT32_MAX, {"section ORDR", "entry 0", "more than the thread has", NULL}},
    {"ORDR", 32 + 8, 4, 0, {NULL}},
    {"EDGE", 0, 4, 99, {"section EDGE", "entry 0", "no such operation", NULL}},
    {"EDGE", 4, 4, 0, {"section EDGE", "entry 0", "own thread", NULL}},
    {"EDGE", 4, 4, 99, {"section EDGE", "entry 0", NULL}},
    {"EDGE", 8, 4, 99, {"section EDGE", "entry 0", NULL}},
    {"EDGE", 8, 4, 2, {"section EDGE", "entry 0", "recorded later", NULL}},
    {"EDGE", 0, 4, 1, {"section EDGE", "entry 0", NULL}},
    {"MARK", 0, 4, 7, {"section MARK", "entry 0", NULL}},
    {"MARK", 32, 4, 0, {NULL}},
    {"MARK", 64, 4, 3, {"section MARK", "entry 2", "ascend", NULL}},
    {"MARK", 31, 1, 'x', {"section MARK", "entry 0", NULL}},
    {"meta", 0, 1, '=', {"section meta", "byte 0", "KEY=VALUE", NULL}},
    {"meta", 8, 1, '\n', {"section meta", "KEY=VALUE", NULL}},
};

START_TEST(a_file_made_to_deceive_is_refused_with_section_and_place)
{
    struct forgery forgery = begin_forgery();
    const char *tag = forgeries[_i].tag;
    unsigned char *at = forgery.bytes;
    if (tag[0] == '*') {
        at = entry_of(&forgery, tag + 1);
    } else if (tag[0] != '\0') {
        at = forgery.bytes + get_u64(entry_of(&forgery, tag) + 8);
    }
    for (size_t i = 0; i < forgeries[_i].bytes; i++) {
        at[forgeries[_i].offset + i] = (unsigned char)(forgeries[_i].value >> (8 * i));
    }
    finish_forgery(&forgery);
    if (forgeries[_i].parts[0] != NULL) {
        assert_refused("t.ltr", forgeries[_i].parts);
    } else {
        /* Whether it is refused depends on what the change hits; it must be one or the other. */
        struct trace trace;
        if (trace_load(path_of("t.ltr"), NULL, &trace, why, sizeof why) == 0) {
            assert_lifetimes(&trace);
            trace_unload(&trace);
        }
    }
}
END_TEST

START_TEST(a_section_that_may_be_ignored_is)
{
    struct forgery forgery = begin_forgery();
    memcpy(entry_of(&forgery, "note"), "when", 4);
    finish_forgery(&forgery);
    struct trace trace = must_read("t.ltr");
    ck_assert_uint_eq(trace.notes.unknown_frees, 0);
    trace_unload(&trace);
}
END_TEST

START_TEST(contents_out_of_proportion_are_refused_before_they_take_memory)
{
    static const char *const parts[] = {"section table", "too long", NULL};
    if (!native_can_compress()) {
        puts("left out: this build has no zstd");
        return;
    }
    struct forgery forgery;
    make_file(true);
    forgery.bytes = (unsigned char *)read_whole("t.ltr", &forgery.size);
    unsigned char *entry = entry_of(&forgery, "THRD");
    ck_assert_uint_eq(get_u32(entry + 4), NATIVE_ZSTD);
    put_u64(entry + 24, UINT64_C(1) << 40);
    finish_forgery(&forgery);
    assert_refused("t.ltr", parts);
}
END_TEST

START_TEST(a_file_without_allocations_is_refused)
{
    static const char *const parts[] = {"t.ltr: no allocation", NULL};
    struct trace trace = must_read_text("t.txt", "1: malloc 0x10 5\n1: thread_done 0x0\n");
    ck_assert_int_eq(trace_filter_min_size(&trace, 100), 0);
    write_native(&trace, true, "t.ltr");
    assert_refused("t.ltr", parts);
    trace_unload(&trace);
}
END_TEST

START_TEST(a_full_disk_is_told)
{
    struct trace trace = full_trace();
    FILE *file = fopen("/dev/full", "w");
    if (file == NULL) {
        puts("left out: no /dev/full here");
    } else {
        struct sink *sink;
        setvbuf(file, NULL, _IONBF, 0);
        ck_assert_int_eq(sink_open(&sink, file, SINK_PLAIN), 0);
        ck_assert_int_eq(native_write(&trace, false, sink), 0);
        ck_assert_int_eq(sink_close(sink), -EIO);
        fclose(file);
    }
    trace_unload(&trace);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("formats_native");
    TCase *trips = add_file_claims(suite, "round trips");
    tcase_add_loop_test(trips, every_field_comes_back, 0, 2);
    tcase_add_test(trips, a_trace_without_times_marks_and_labels_comes_back_without);
    tcase_add_test(trips, a_filtered_trace_comes_back_with_the_threads_that_are_left);
    tcase_add_test(trips, an_aligned_block_that_is_resized_below_the_filter_is_freed_as_any_other);
    tcase_add_loop_test(trips, random_traces_of_many_threads_come_back, 0, 6);
    tcase_add_test(trips, a_raw_section_can_be_used_where_the_file_is_mapped);
    tcase_add_test(trips, the_checksum_is_crc32c);
    TCase *damage = add_file_claims(suite, "damage");
    tcase_add_loop_test(damage, a_file_with_any_byte_changed_is_refused, 0, 2);
    tcase_add_loop_test(damage, a_file_cut_anywhere_or_with_more_behind_it_is_refused, 0, 2);
    tcase_add_test(damage, a_full_disk_is_told);
    TCase *deceit = add_file_claims(suite, "deceit");
    tcase_add_loop_test(deceit, a_file_made_to_deceive_is_refused_with_section_and_place, 0,
                        (int)(sizeof forgeries / sizeof forgeries[0]));
    tcase_add_test(deceit, a_section_that_may_be_ignored_is);
    tcase_add_test(deceit, contents_out_of_proportion_are_refused_before_they_take_memory);
    tcase_add_test(deceit, a_file_without_allocations_is_refused);
    return run_file_suite(suite);
}
