/* SPDX-License-Identifier: MIT */
/*
 * What a run is measured with. Whether pages are mapped is read from /proc/self/pagemap, page by
 * page: the kernel's sums may be off by dozens of pages a processor.
 */
#include <check.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "measure.h"
#include "program.h"
#include "replay.h"
#include "trace.h"

/* -- Pages of this program --------------------------------------------------------------------- */

/* In the program's file, as its code is, and nothing of it is ever used. */
static const unsigned char constants[1 << 20] = {1};

struct range {
    char *begin;
    size_t pages;
    size_t page_size;
};

/* The whole pages among the constants. */
static struct range cold_range(void)
{
    size_t page_size = (size_t)sysconf(_SC_PAGESIZE);
    size_t before = (size_t)(-(uintptr_t)constants & (page_size - 1));
    return (struct range){
        .begin = (char *)(uintptr_t)constants + before,
        .pages = (sizeof constants - before) / page_size,
        .page_size = page_size,
    };
}

/* How many pages of the range this process has mapped; SIZE_MAX where nothing says so. */
static size_t count_mapped(struct range range)
{
    const uint64_t present = (uint64_t)1 << 63;
    size_t mapped = 0;
    int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    for (size_t i = 0; fd >= 0 && i < range.pages; i++) {
        uint64_t page = (uintptr_t)range.begin / range.page_size + i, entry;
        if (pread(fd, &entry, sizeof entry, (off_t)(page * sizeof entry)) != sizeof entry) {
            close(fd);
            return SIZE_MAX;
        }
        mapped += (entry & present) != 0;
    }
    if (fd >= 0) {
        close(fd);
    }
    return fd >= 0 ? mapped : SIZE_MAX;
}

/*
 * Takes the range away again: the next access maps it anew from the file. False, after a word, where
 * that or the count does not work, as under an emulator that has the addresses elsewhere.
 */
static bool make_cold(struct range range)
{
    bool cold = madvise(range.begin, range.pages * range.page_size, MADV_DONTNEED) == 0 &&
                count_mapped(range) == 0;
    if (cold) {
        (void)*(volatile char *)range.begin;
        size_t mapped = count_mapped(range);
        cold = mapped > 0 && mapped < range.pages / 2 &&
               madvise(range.begin, range.pages * range.page_size, MADV_DONTNEED) == 0;
    }
    if (!cold) {
        fprintf(stderr, "skipped: it cannot be told here which pages are mapped\n");
    }
    return cold;
}

/* Half of them would do: the kernel may take some back at any time. */
static void assert_mapped(size_t mapped, struct range range)
{
    ck_assert_msg(mapped > range.pages / 2, "%zu of %zu pages are mapped", mapped, range.pages);
}

START_TEST(pages_of_modules_that_were_never_used_get_mapped)
{
    struct range range = cold_range();
    if (!make_cold(range)) {
        return;
    }
    measure_map_modules();
    assert_mapped(count_mapped(range), range);
}
END_TEST

/* -- Replays ----------------------------------------------------------------------------------- */

/* At the first allocation of a replay, by when its base was read; SIZE_MAX: not yet. Relaxed: read when the threads are gone. */
static atomic_size_t mapped_at_first_call;

static void *allocate_and_look(void *context, size_t size)
{
    (void)context;
    if (atomic_load_explicit(&mapped_at_first_call, memory_order_relaxed) == SIZE_MAX) {
        atomic_store_explicit(&mapped_at_first_call, count_mapped(cold_range()),
                              memory_order_relaxed);
    }
    return malloc(size);
}

static void release(void *context, void *block)
{
    (void)context;
    free(block);
}

static struct program one_block(void)
{
    char path[] = "/tmp/larder-test-measure-XXXXXX", why[512];
    const char *text = "1: malloc 0x10 100\n1: free 0x10\n";
    struct trace trace;
    struct program program;
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    int result = trace_load(path, NULL, &trace, why, sizeof why);
    unlink(path);
    ck_assert_msg(result == 0, "%s", why);
    ck_assert_int_eq(program_build(&trace, &program), 0);
    trace_unload(&trace);
    return program;
}

START_TEST(all_code_is_mapped_before_a_replay_calls_the_allocator)
{
    const struct allocator looking = {
        .name = "looking",
        .allocate = allocate_and_look,
        .release = release,
    };
    struct program program = one_block();
    struct replay_settings settings = {.passes = 3, .streams = (unsigned)_i};
    struct replay_result result;
    char why[256] = "";
    struct range range = cold_range();
    if (make_cold(range)) {
        atomic_store_explicit(&mapped_at_first_call, SIZE_MAX, memory_order_relaxed);
        ck_assert_msg(replay_run(&program, &looking, &settings, &result, why, sizeof why) == 0,
                      "%s", why);
        assert_mapped(atomic_load_explicit(&mapped_at_first_call, memory_order_relaxed), range);
    }
    program_release(&program);
}
END_TEST

/* -- Figures ----------------------------------------------------------------------------------- */

START_TEST(the_median_of_an_even_number_is_the_mean_of_the_middle_two)
{
    uint64_t odd[] = {9, 1, 5}, even[] = {9, 1, 5, 6};
    ck_assert_double_eq(measure_median(odd, 3), 5);
    ck_assert_double_eq(measure_median(even, 4), 5.5);
    ck_assert_double_eq(measure_median(NULL, 0), 0);
}
END_TEST

START_TEST(peak_rss_counts_from_the_reset_or_is_unknown)
{
    const size_t size = (size_t)64 << 20;
    void *pages =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    ck_assert_ptr_ne(pages, MAP_FAILED);
    uint64_t before = measure_peak_rss();
    munmap(pages, size);
    if (measure_reset_peak_rss() == 0) {
        ck_assert_uint_lt(measure_peak_rss(), before - size / 2);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("measure");
    TCase *pages = tcase_create("pages");
    tcase_add_test(pages, pages_of_modules_that_were_never_used_get_mapped);
    tcase_add_loop_test(pages, all_code_is_mapped_before_a_replay_calls_the_allocator, 1, 3);
    suite_add_tcase(suite, pages);

    TCase *figures = tcase_create("figures");
    tcase_add_test(figures, the_median_of_an_even_number_is_the_mean_of_the_middle_two);
    tcase_add_test(figures, peak_rss_counts_from_the_reset_or_is_unknown);
    suite_add_tcase(suite, figures);
    tcase_set_timeout(pages, 60);
    tcase_set_timeout(figures, 60);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
