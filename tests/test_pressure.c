/* SPDX-License-Identifier: MIT */
/*
 * Memory pressure: the levels of Android's onTrimMemory(), and what the kernel of Linux tells of stalls. Real pressure cannot be had
 * in a test without taking the machine's memory; so the kernel's part is asked whether it takes the trigger, and its wake-up is
 * what every POLLPRI is: here the urgent byte of a connection.
 */
#include <larder_pressure.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "support.h"

enum { BLOCKS = 32 };

/* Leaves some MiB cached, and `live` of the blocks in use. */
static void fill_cache(larder_t *larder, void *blocks[BLOCKS], unsigned live)
{
    for (unsigned i = 0; i < BLOCKS; i++) {
        blocks[i] = larder_alloc(larder, 256 * KIB);
        pattern_fill(blocks[i], 256 * KIB, i);
    }
    for (unsigned i = live; i < BLOCKS; i++)
        larder_free(larder, blocks[i]);
}

static size_t cached(const larder_t *larder)
{
    return (size_t)stats_of(larder).cached_bytes;
}

static const struct level {
    int level;
    unsigned percent; /* of what is cached that may stay */
} levels[] = {
    {-1, 100},
    {0, 100},
    {LARDER_TRIM_RUNNING_MODERATE, 50},
    {LARDER_TRIM_RUNNING_MODERATE + 1, 50},
    {LARDER_TRIM_RUNNING_LOW, 25},
    {LARDER_TRIM_RUNNING_CRITICAL, 0},
    {LARDER_TRIM_UI_HIDDEN, 25},
    {LARDER_TRIM_BACKGROUND, 0},
    {LARDER_TRIM_MODERATE, 0},
    {LARDER_TRIM_COMPLETE, 0},
    {INT32_MAX, 0},
};
enum { LEVEL_COUNT = sizeof levels / sizeof levels[0] };

START_TEST(each_level_leaves_its_part_of_what_is_cached)
{
    const struct level *level = &levels[_i];
    larder_t *larder = make_instance(LARDER_POLICY_FIT, NULL);
    void *blocks[BLOCKS];

    fill_cache(larder, blocks, 0);
    size_t before = cached(larder), left = larder_trim_level(larder, level->level);
    ck_assert_uint_ge(before, BLOCKS * 256 * KIB);
    ck_assert_uint_eq(left, cached(larder));
    ck_assert_uint_le(left, before / 100 * level->percent + 100);
    /* no more than a block's worth goes beyond what was asked for */
    ck_assert_uint_ge(left + 512 * KIB, before / 100 * level->percent);
    must_destroy(larder);
}
END_TEST

START_TEST(live_blocks_keep_their_contents_at_every_level)
{
    larder_t *larder = make_instance(LARDER_POLICY_FIT, NULL);
    void *blocks[BLOCKS];

    fill_cache(larder, blocks, BLOCKS / 2);
    larder_trim_level(larder, levels[_i].level);
    for (unsigned i = 0; i < BLOCKS / 2; i++) {
        ck_assert(pattern_holds(blocks[i], 256 * KIB, i));
        larder_free(larder, blocks[i]);
    }
    must_destroy(larder);
}
END_TEST

START_TEST(no_instance_means_all_of_them)
{
    larder_t *fit = make_instance(LARDER_POLICY_FIT, NULL);
    larder_t *exact = make_instance(LARDER_POLICY_EXACT, NULL);
    void *blocks[BLOCKS];

    fill_cache(fit, blocks, 0);
    fill_cache(exact, blocks, 0);
    ck_assert_uint_gt(cached(exact), 0);
    size_t left = larder_trim_level(NULL, LARDER_TRIM_COMPLETE);
    ck_assert_uint_eq(cached(fit), 0);
    ck_assert_uint_eq(cached(exact), 0);
    ck_assert_uint_eq(left, 0);
    must_destroy(fit);
    must_destroy(exact);
}
END_TEST

/* A connection of two sockets of this machine; false where there is none to be had. */
static bool connect_pair(int ends[2])
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ends[0] = ends[1] = -1;
    if (listener >= 0 && bind(listener, (struct sockaddr *)&address, size) == 0 &&
        listen(listener, 1) == 0 &&
        getsockname(listener, (struct sockaddr *)&address, &size) == 0) {
        ends[0] = socket(AF_INET, SOCK_STREAM, 0);
        if (ends[0] >= 0 && connect(ends[0], (struct sockaddr *)&address, size) == 0)
            ends[1] = accept(listener, NULL, NULL);
    }
    close(listener);
    return ends[1] >= 0;
}

START_TEST(a_wake_up_trims_and_a_time_out_does_not)
{
    larder_t *larder = make_instance(LARDER_POLICY_FIT, NULL);
    void *blocks[BLOCKS];
    int ends[2];

    fill_cache(larder, blocks, 0);
    if (!connect_pair(ends)) {
        printf("skipped: no connection to this machine itself\n");
    } else {
        size_t before = cached(larder);
        ck_assert_int_eq(larder_pressure_wait(ends[1], larder, LARDER_TRIM_COMPLETE, 0), 0);
        ck_assert_uint_eq(cached(larder), before);
        ck_assert_int_eq(send(ends[0], "!", 1, MSG_OOB), 1);
        ck_assert_int_eq(larder_pressure_wait(ends[1], larder, LARDER_TRIM_COMPLETE, -1), 1);
        ck_assert_uint_eq(cached(larder), 0);
    }
    close(ends[0]);
    close(ends[1]);
    must_destroy(larder);
}
END_TEST

START_TEST(waiting_on_what_can_never_wake_is_an_error_and_no_endless_loop)
{
    int ends[2];

    ck_assert_int_eq(pipe(ends), 0);
    close(ends[1]); /* the other end hung up: poll() returns at once, without POLLPRI */
    ck_assert_int_eq(larder_pressure_wait(ends[0], NULL, LARDER_TRIM_COMPLETE, -1), -EBADF);
    close(ends[0]);
}
END_TEST

START_TEST(the_kernel_takes_the_trigger_or_says_why_not)
{
    int fd = larder_pressure_open(1000000, 2000000);

    if (fd < 0) {
        printf("skipped: this kernel has no pressure stall information for us (%s)\n",
               strerror(-fd));
        ck_assert(fd == -ENOENT || fd == -EOPNOTSUPP || fd == -EPERM || fd == -EACCES ||
                  fd == -EINVAL || fd == -EROFS);
        return;
    }
    ck_assert_int_ge(larder_pressure_wait(fd, NULL, LARDER_TRIM_RUNNING_LOW, 0), 0);
    close(fd);
    ck_assert_int_eq(larder_pressure_open(2, 1), -EINVAL);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pressure");
    TCase *android = add_claims(suite, "levels");
    TCase *kernel = add_claims(suite, "the kernel");

    tcase_add_loop_test(android, each_level_leaves_its_part_of_what_is_cached, 0, LEVEL_COUNT);
    tcase_add_loop_test(android, live_blocks_keep_their_contents_at_every_level, 0, LEVEL_COUNT);
    tcase_add_test(android, no_instance_means_all_of_them);
    tcase_add_test(kernel, a_wake_up_trims_and_a_time_out_does_not);
    tcase_add_test(kernel, waiting_on_what_can_never_wake_is_an_error_and_no_endless_loop);
    tcase_add_test(kernel, the_kernel_takes_the_trigger_or_says_why_not);
    return run_suite(suite);
}
