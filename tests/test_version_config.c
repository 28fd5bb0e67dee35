/* SPDX-License-Identifier: MIT */
/*
 * The version, the defaults, and settings in structures of programs that were compiled against an
 * older or a newer header. Settings that come as text are in test_environment.c.
 */
#include "support.h"

#include <stdio.h>

START_TEST(the_library_says_the_version_of_its_header)
{
    char expected[32];

    snprintf(expected, sizeof expected, "%d.%d.%d", LARDER_VERSION_MAJOR, LARDER_VERSION_MINOR,
             LARDER_VERSION_PATCH);
    ck_assert_str_eq(LARDER_VERSION_STRING, expected);
    ck_assert_str_eq(larder_version(), LARDER_VERSION_STRING);
}
END_TEST

#ifdef LARDER_CHECKS_FULL
enum { REDZONE_UNASKED = 32, FILL_UNASKED = 0xDB };
#else
enum { REDZONE_UNASKED = 0, FILL_UNASKED = -1 };
#endif

START_TEST(init_sets_the_documented_defaults)
{
    larder_config_t config;

    memset(&config, 0xEE, sizeof config);
    larder_config_init(&config);
    ck_assert_uint_eq(config.struct_size, sizeof config);
    ck_assert_int_eq(config.policy, LARDER_POLICY_FIT);
    ck_assert_ptr_null(config.backend);
    ck_assert_uint_eq(config.alignment, 64);
    ck_assert_uint_eq(config.padding_before, 0);
    ck_assert_uint_eq(config.padding_after, 0);
    ck_assert_uint_eq(config.redzone, REDZONE_UNASKED);
    ck_assert_uint_eq(config.min_cached_size, 0);
    ck_assert_uint_eq(config.max_cached_size, SIZE_MAX);
    ck_assert_uint_eq(config.max_cached_bytes, LARDER_ADAPTIVE);
    ck_assert_uint_eq(config.thread_cached_bytes, 56 * KIB);
    ck_assert_uint_eq(config.decay_ms, 1000);
    ck_assert_int_eq(config.fill, FILL_UNASKED);
    ck_assert_uint_eq(config.quarantine_bytes, 0);
    ck_assert_int_eq(config.checks, LARDER_CHECKS_DEFAULT);
    ck_assert(config.error_handler == NULL);
    ck_assert_ptr_null(config.error_context);
}
END_TEST

START_TEST(a_name_keeps_31_bytes_of_its_own_copy)
{
    char name[] = "0123456789012345678901234567890123456789";
    larder_t *named = larder_create(name, NULL);
    larder_t *unnamed = larder_create(NULL, NULL);

    ck_assert_ptr_nonnull(named);
    ck_assert_ptr_nonnull(unnamed);
    memset(name, 'x', sizeof name - 1);
    ck_assert_str_eq(larder_name(named), "0123456789012345678901234567890");
    ck_assert_str_eq(larder_name(unnamed), "larder");
    must_destroy(named);
    must_destroy(unnamed);
}
END_TEST

/* -- Sizes of structures -- */

START_TEST(a_smaller_structure_of_an_older_program_is_accepted_and_not_read_beyond)
{
    larder_config_t config = test_config(LARDER_POLICY_EXACT, NULL);
    larder_t *larder;
    void *block;

    config.alignment = 256;
    config.struct_size = offsetof(larder_config_t, fill);
    memset((char *)&config + config.struct_size, 0xEE, sizeof config - config.struct_size);
    larder = must_create(&config);
    block = larder_alloc(larder, 1000);
    ck_assert(is_aligned(block, 256));
    larder_free(larder, block);
    must_destroy(larder);
}
END_TEST

START_TEST(a_larger_structure_of_a_newer_program_is_accepted_where_its_tail_is_zero)
{
    struct {
        larder_config_t config;
        char unknown[64];
    } newer;
    larder_t *larder;

    memset(&newer, 0, sizeof newer);
    newer.config = test_config(LARDER_POLICY_FIT, NULL);
    newer.config.struct_size = sizeof newer;
    larder = must_create(&newer.config);
    must_destroy(larder);
}
END_TEST

START_TEST(statistics_fill_no_more_than_an_older_program_has_room_for)
{
    larder_t *larder = make_instance(LARDER_POLICY_FIT, NULL);
    larder_stats_t stats;
    size_t old = offsetof(larder_stats_t, peak_live_bytes);
    void *block = larder_alloc(larder, 1000);

    memset(&stats, 0xEE, sizeof stats);
    stats.struct_size = old;
    ck_assert_int_eq(larder_stats_get(larder, &stats), 0);
    ck_assert_uint_eq(stats.live_bytes, 1000);
    ck_assert(all_bytes_are((char *)&stats + old, sizeof stats - old, 0xEE));
    stats.struct_size = 0;
    ck_assert_int_eq(larder_stats_get(larder, &stats), -EINVAL);
    larder_free(larder, block);
    must_destroy(larder);
}
END_TEST

/* -- Bad settings -- */

static void spoil(larder_config_t *config, int how)
{
    static larder_backend_t no_functions = {.struct_size = sizeof no_functions, .name = "none"};

    switch (how) {
    case 0:
        config->struct_size = 0;
        break;
    case 1:
        config->policy = (larder_policy_t)99;
        break;
    case 2:
        config->alignment = 4;
        break;
    case 3:
        config->alignment = 48;
        break;
    case 4:
        config->alignment = 8192;
        break;
    case 5:
        config->padding_before = 4097;
        break;
    case 6:
        config->padding_after = 4097;
        break;
    case 7:
        config->redzone = 4097;
        break;
    case 8:
        config->fill = 256;
        break;
    case 9:
        config->fill = -2;
        break;
    case 10:
        config->checks = (larder_checks_t)99;
        break;
    default:
        config->backend = &no_functions;
        break;
    }
}

START_TEST(a_bad_setting_is_refused)
{
    larder_config_t config = test_config(LARDER_POLICY_FIT, NULL);

    spoil(&config, _i);
    errno = 0;
    ck_assert_ptr_null(larder_create("bad", &config));
    ck_assert_int_eq(errno, EINVAL);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("version and configuration");
    TCase *claims = add_claims(suite, "settings");

    tcase_add_test(claims, the_library_says_the_version_of_its_header);
    tcase_add_test(claims, init_sets_the_documented_defaults);
    tcase_add_test(claims, a_name_keeps_31_bytes_of_its_own_copy);
    tcase_add_test(claims, a_smaller_structure_of_an_older_program_is_accepted_and_not_read_beyond);
    tcase_add_test(claims,
                   a_larger_structure_of_a_newer_program_is_accepted_where_its_tail_is_zero);
    tcase_add_test(claims, statistics_fill_no_more_than_an_older_program_has_room_for);
    tcase_add_loop_test(claims, a_bad_setting_is_refused, 0, 12);
    return run_suite(suite);
}
