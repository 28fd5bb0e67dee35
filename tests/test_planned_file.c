/* SPDX-License-Identifier: MIT */
/* Plans in files, as a program sees them: what was saved is replayed, and what is not sound is refused. */
#include "planned_network.h"

#include <stdio.h>
#include <unistd.h>

static char path[64];

static void make_path(void)
{
    snprintf(path, sizeof path, "/tmp/larder-plan-%ld", (long)getpid());
}

START_TEST(saved_plans_are_replayed_by_another_instance_without_recording)
{
    larder_t *larder = make_planned(), *other = make_planned();
    struct network networks[] = {make_network(70), make_network(71)};

    make_path();
    infer(larder, &networks[0], 1, NULL);
    infer(larder, &networks[1], 2, NULL);
    ck_assert_int_eq(larder_plan_save(larder, path), 0);
    ck_assert_int_eq(larder_plan_load(other, path), 2);
    infer(other, &networks[1], 2, NULL);
    infer(other, &networks[0], 1, NULL);
    ck_assert_uint_eq(stats_of(other).plan_hits, 4 * LAYERS);
    ck_assert_uint_eq(stats_of(other).plan_deviations, 0);
    unlink(path);
    must_destroy(larder);
    must_destroy(other);
}
END_TEST

static void write_file(const char *text, size_t length)
{
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(text, 1, length, file), length);
    fclose(file);
}

START_TEST(a_damaged_plan_file_is_refused_whichever_byte_it_is)
{
    larder_t *larder = make_planned(), *other = make_planned();
    struct network network = make_network(72);
    static char text[8192];

    make_path();
    infer(larder, &network, 1, NULL);
    ck_assert_int_eq(larder_plan_save(larder, path), 0);
    FILE *file = fopen(path, "r");
    size_t length = fread(text, 1, sizeof text, file);
    fclose(file);
    ck_assert_uint_lt(length, sizeof text);
    for (size_t i = 0; i < length; i++) {
        text[i] ^= 1;
        write_file(text, length);
        int result = larder_plan_load(other, path);
        ck_assert_msg(result == -EINVAL || result == -ENOTSUP, "byte %zu: %d", i, result);
        text[i] ^= 1;
        if (i % 7 == 0) {
            write_file(text, i);
            ck_assert_int_eq(larder_plan_load(other, path), -EINVAL);
        }
    }
    ck_assert_uint_eq(stats_of(other).plans, 0);
    write_file(text, length);
    ck_assert_int_eq(larder_plan_load(other, path), 1);
    unlink(path);
    ck_assert_int_eq(larder_plan_load(other, path), -ENOENT);
    must_destroy(larder);
    must_destroy(other);
}
END_TEST

/* The checksum of what a file says so far. */
static uint64_t checksum(const char *text)
{
    uint64_t sum = UINT64_C(0xcbf29ce484222325);
    for (; *text != '\0'; text++)
        sum = (sum ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
    return sum;
}

START_TEST(a_plan_file_in_which_blocks_overlap_is_refused_although_its_checksum_is_right)
{
    static const struct {
        const char *text;
        int result;
    } files[] = {
        {"larder-plan 1\nplan 1 2 98304\n0 4 65536 64 0\n1 3 32768 64 65536\n", 1},
        {"larder-plan 1\nplan 1 2 98304\n0 4 65536 64 0\n1 3 32768 64 32768\n", -EINVAL},
        {"larder-plan 1\nplan 1 2 98303\n0 4 65536 64 0\n1 3 32768 64 65536\n", -EINVAL},
        {"larder-plan 1\nplan 1 2 98304\n0 4 65536 64 0\n3 3 32768 64 65536\n", -EINVAL},
        {"larder-plan 1\nplan 1 2 98304\n0 4 65536 64 0\n1 3 32768 48 65536\n", -EINVAL},
        {"larder-plan 1\nplan 1 3 98304\n0 4 65536 64 0\n1 3 32768 64 65536\n", -EINVAL},
        {"larder-plan 1\nplan 1 4294967295 98304\n0 4 65536 64 0\n", -E2BIG},
        {"larder-plan 2\nplan 1 1 65536\n0 4 65536 64 0\n", -ENOTSUP},
    };
    larder_t *larder = make_planned();

    make_path();
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char text[512];
        int length = snprintf(text, sizeof text, "%send %016llx\n", files[i].text,
                              (unsigned long long)checksum(files[i].text));
        write_file(text, (size_t)length);
        ck_assert_msg(larder_plan_load(larder, path) == files[i].result, "file %zu", i);
    }
    unlink(path);
    must_destroy(larder);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("planned_file");
    TCase *claims = add_claims(suite, "planned_file");

    tcase_add_test(claims, saved_plans_are_replayed_by_another_instance_without_recording);
    tcase_add_test(claims, a_damaged_plan_file_is_refused_whichever_byte_it_is);
    tcase_add_test(claims,
                   a_plan_file_in_which_blocks_overlap_is_refused_although_its_checksum_is_right);
    return run_suite(suite);
}
