/* SPDX-License-Identifier: MIT */
/* Files and comparisons for the tests of formats: see trace_support.h. */
#include "trace_support.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "labels.h"

char why[512];

static char directory[64];

static void make_directory(void)
{
    /* In memory where possible: some file systems flush a file that is written over, and the tests
     * do that thousands of times. */
    const char *parent = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(directory, sizeof directory, "%s/larder-test-XXXXXX", parent);
    ck_assert_ptr_nonnull(mkdtemp(directory));
    why[0] = '\0';
}

static void remove_directory(void)
{
    DIR *entries = opendir(directory);
    struct dirent *entry;
    while (entries != NULL && (entry = readdir(entries)) != NULL) {
        if (entry->d_name[0] != '.') {
            unlink(path_of(entry->d_name));
        }
    }
    if (entries != NULL) {
        closedir(entries);
    }
    rmdir(directory);
}

TCase *add_file_claims(Suite *suite, const char *name)
{
    TCase *tcase = tcase_create(name);
    tcase_add_checked_fixture(tcase, make_directory, remove_directory);
    tcase_set_timeout(tcase, 60);
    suite_add_tcase(suite, tcase);
    return tcase;
}

int run_file_suite(Suite *suite)
{
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

const char *path_of(const char *name)
{
    static char paths[4][512];
    static unsigned turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof paths[0], "%s/%.255s", directory, name);
    return path;
}

void write_file(const char *name, const void *bytes, size_t size)
{
    FILE *file = fopen(path_of(name), "w");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(bytes, 1, size, file), size);
    ck_assert_int_eq(fclose(file), 0);
}

void write_text(const char *name, const char *text)
{
    write_file(name, text, strlen(text));
}

char *read_whole(const char *name, size_t *size)
{
    FILE *file = fopen(path_of(name), "r");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(fseek(file, 0, SEEK_END), 0);
    long end = ftell(file);
    ck_assert_int_ge(end, 0);
    rewind(file);
    char *bytes = malloc((size_t)end + 1);
    ck_assert_ptr_nonnull(bytes);
    ck_assert_uint_eq(fread(bytes, 1, (size_t)end, file), (size_t)end);
    fclose(file);
    bytes[end] = '\0';
    *size = (size_t)end;
    return bytes;
}

struct trace must_read(const char *name)
{
    struct trace trace;
    ck_assert_msg(trace_load(path_of(name), NULL, &trace, why, sizeof why) == 0, "%s", why);
    return trace;
}

struct trace must_read_text(const char *name, const char *text)
{
    write_text(name, text);
    return must_read(name);
}

void assert_refused(const char *name, const char *const *parts)
{
    struct trace trace;
    why[0] = '\0';
    int result = trace_load(path_of(name), NULL, &trace, why, sizeof why);
    ck_assert_msg(result < 0, "%s was read", name);
    ck_assert_ptr_null(trace.ops);
    ck_assert_ptr_null(strchr(why, '\n'));
    for (; *parts != NULL; parts++) {
        ck_assert_msg(strstr(why, *parts) != NULL, "'%s' is not in: %s", *parts, why);
    }
}

void assert_same_ops(const struct trace *a, const struct trace *b)
{
    ck_assert_uint_eq(a->op_count, b->op_count);
    ck_assert_uint_eq(a->block_count, b->block_count);
    for (size_t i = 0; i < a->op_count; i++) {
        const struct trace_op *left = &a->ops[i], *right = &b->ops[i];
        if (left->size != right->size || left->block != right->block ||
            left->thread != right->thread || left->kind != right->kind ||
            left->alignment_log2 != right->alignment_log2) {
            ck_abort_msg("operation %zu differs: kind %d %d, block %u %u, size %llu %llu", i,
                         left->kind, right->kind, left->block, right->block,
                         (unsigned long long)left->size, (unsigned long long)right->size);
        }
    }
}

void assert_same_trace(const struct trace *a, const struct trace *b)
{
    assert_same_ops(a, b);
    ck_assert_uint_eq(a->thread_count, b->thread_count);
    for (size_t i = 0; i < a->thread_count; i++) {
        ck_assert_uint_eq(a->thread_ids[i], b->thread_ids[i]);
        ck_assert_str_eq(labels_thread_name(a, i), labels_thread_name(b, i));
    }
    ck_assert_int_eq(a->times != NULL, b->times != NULL);
    for (size_t i = 0; a->times != NULL && i < a->op_count; i++) {
        ck_assert_uint_eq(a->times[i].start_ns, b->times[i].start_ns);
        ck_assert_uint_eq(a->times[i].end_ns, b->times[i].end_ns);
    }
    ck_assert_uint_eq(a->mark_count, b->mark_count);
    for (size_t i = 0; i < a->mark_count; i++) {
        ck_assert_uint_eq(a->marks[i].op, b->marks[i].op);
        ck_assert_str_eq(a->marks[i].name, b->marks[i].name);
    }
    ck_assert_uint_eq(a->label_bytes, b->label_bytes);
    if (a->label_bytes > 0) {
        ck_assert_mem_eq(a->labels, b->labels, a->label_bytes);
    }
}

void assert_lifetimes(const struct trace *trace)
{
    enum { UNBORN, LIVE, GONE };
    unsigned char *states = calloc(trace->block_count + (size_t)1, 1);
    uint32_t born = 0;
    ck_assert_ptr_nonnull(states);
    for (size_t i = 0; i < trace->op_count; i++) {
        const struct trace_op *op = &trace->ops[i];
        ck_assert_uint_lt(op->thread, trace->thread_count);
        if (op->kind == TRACE_THREAD_DONE) {
            ck_assert_uint_eq(op->block, TRACE_NO_BLOCK);
            continue;
        }
        ck_assert_uint_lt(op->block, trace->block_count);
        if (op->kind == TRACE_ALLOCATE || op->kind == TRACE_CALLOC) {
            ck_assert_uint_eq(op->block, born++);
            states[op->block] = LIVE;
        } else {
            ck_assert_int_eq(states[op->block], LIVE);
            states[op->block] = op->kind == TRACE_FREE ? GONE : LIVE;
        }
    }
    ck_assert_uint_eq(born, trace->block_count);
    free(states);
}
