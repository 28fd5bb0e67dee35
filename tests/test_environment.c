/* SPDX-License-Identifier: MIT */
/*
 * Settings that come as text: one by one, and from LARDER_ variables of the environment.
 */
#include "support.h"

/* -- Text -- */

START_TEST(each_setting_can_be_set_from_text_in_either_case)
{
    larder_config_t config;

    larder_config_init(&config);
    ck_assert_int_eq(larder_config_set(&config, "policy", "exact"), 0);
    ck_assert_int_eq(config.policy, LARDER_POLICY_EXACT);
    ck_assert_int_eq(larder_config_set(&config, "POLICY", "passthrough"), 0);
    ck_assert_int_eq(config.policy, LARDER_POLICY_PASSTHROUGH);
    ck_assert_int_eq(larder_config_set(&config, "policy", "fit"), 0);
    ck_assert_int_eq(config.policy, LARDER_POLICY_FIT);
    ck_assert_int_eq(larder_config_set(&config, "backend", "system"), 0);
    ck_assert_ptr_eq(config.backend, larder_backend_system());
    ck_assert_int_eq(larder_config_set(&config, "alignment", "4096"), 0);
    ck_assert_uint_eq(config.alignment, 4096);
    ck_assert_int_eq(larder_config_set(&config, "padding_before", "16"), 0);
    ck_assert_uint_eq(config.padding_before, 16);
    ck_assert_int_eq(larder_config_set(&config, "padding_after", "32"), 0);
    ck_assert_uint_eq(config.padding_after, 32);
    ck_assert_int_eq(larder_config_set(&config, "redzone", "64"), 0);
    ck_assert_uint_eq(config.redzone, 64);
    ck_assert_int_eq(larder_config_set(&config, "decay_ms", "4294967295"), 0);
    ck_assert_uint_eq(config.decay_ms, UINT32_MAX);
    ck_assert_int_eq(larder_config_set(&config, "fill", "255"), 0);
    ck_assert_int_eq(config.fill, 255);
    ck_assert_int_eq(larder_config_set(&config, "checks", "strict"), 0);
    ck_assert_int_eq(config.checks, LARDER_CHECKS_STRICT);
}
END_TEST

START_TEST(sizes_take_suffixes)
{
    larder_config_t config;

    larder_config_init(&config);
    ck_assert_int_eq(larder_config_set(&config, "min_cached_size", "123"), 0);
    ck_assert_uint_eq(config.min_cached_size, 123);
    ck_assert_int_eq(larder_config_set(&config, "max_cached_size", "5k"), 0);
    ck_assert_uint_eq(config.max_cached_size, 5 * KIB);
    ck_assert_int_eq(larder_config_set(&config, "max_cached_bytes", "7M"), 0);
    ck_assert_uint_eq(config.max_cached_bytes, 7 * MIB);
    ck_assert_int_eq(larder_config_set(&config, "thread_cached_bytes", "1g"), 0);
    ck_assert_uint_eq(config.thread_cached_bytes, 1024 * MIB);
}
END_TEST

static const char *const bad_values[][2] = {
    {"policy", "best"},
    {"policy", ""},
    {"backend", "disk"},
    {"alignment", "3"},
    {"alignment", "4"},
    {"alignment", "8192"},
    {"padding_before", "4097"},
    {"padding_after", "-1"},
    {"redzone", "5k"},
    {"max_cached_bytes", ""},
    {"max_cached_bytes", "k"},
    {"max_cached_bytes", "12q"},
    {"max_cached_bytes", "12kk"},
    {"max_cached_bytes", "99999999999g"},
    {"max_cached_bytes", "99999999999999999999999999"},
    {"decay_ms", "4294967296"},
    {"decay_ms", "soon"},
    {"fill", "256"},
    {"fill", "-2"},
    {"quarantine_bytes", "-1"},
    {"checks", "none"},
};
#define BAD_VALUE_COUNT ((int)(sizeof bad_values / sizeof bad_values[0]))

START_TEST(a_bad_value_is_refused_and_changes_nothing)
{
    larder_config_t config = test_config(LARDER_POLICY_EXACT, NULL);
    const char *const *setting = bad_values[_i];
    larder_config_t before;

    memcpy(&before, &config, sizeof before); /* with its holes, which an assignment may leave out */
    ck_assert_msg(larder_config_set(&config, setting[0], setting[1]) == -EINVAL,
                  "%s=\"%s\" is accepted", setting[0], setting[1]);
    ck_assert_mem_eq(&config, &before, sizeof config);
}
END_TEST

START_TEST(an_unknown_key_is_refused)
{
    larder_config_t config;

    larder_config_init(&config);
    ck_assert_int_eq(larder_config_set(&config, "polcy", "fit"), -ENOENT);
    ck_assert_int_eq(larder_config_set(&config, "LARDER_POLICY", "fit"), -ENOENT);
    ck_assert_int_eq(larder_config_set(&config, "", "fit"), -ENOENT);
}
END_TEST

/* -- The environment -- */

START_TEST(good_variables_are_applied)
{
    larder_config_t config = test_config(LARDER_POLICY_FIT, NULL);

    setenv("LARDER_POLICY", "exact", 1);
    setenv("LARDER_MAX_CACHED_BYTES", "64m", 1);
    setenv("LARDER_DECAY_MS", "50", 1);
    setenv("LARDER_MAP_SHARDS", "64", 1); /* not a setting of instances, but known */
    ck_assert_int_eq(larder_config_from_environment(&config), 0);
    ck_assert_uint_eq(errors_recorded().count, 0);
    ck_assert_int_eq(config.policy, LARDER_POLICY_EXACT);
    ck_assert_uint_eq(config.max_cached_bytes, 64 * MIB);
    ck_assert_uint_eq(config.decay_ms, 50);
    ck_assert_uint_eq(config.alignment, 64);
}
END_TEST

START_TEST(an_unknown_variable_is_reported_and_the_good_ones_are_applied)
{
    larder_config_t config = test_config(LARDER_POLICY_FIT, NULL);
    struct error_log error;

    setenv("LARDER_ALIGNEMENT", "16", 1);
    setenv("LARDER_FILL", "7", 1);
    ck_assert_int_eq(larder_config_from_environment(&config), -EINVAL);
    error = errors_recorded();
    ck_assert_uint_eq(error.count, 1);
    ck_assert_int_eq(error.kind, LARDER_ERROR_CONFIG);
    ck_assert_msg(strstr(error.message, "LARDER_ALIGNEMENT"), "message: %s", error.message);
    ck_assert_uint_eq(config.alignment, 64);
    ck_assert_int_eq(config.fill, 7);
}
END_TEST

START_TEST(each_bad_value_is_reported_with_name_and_value)
{
    larder_config_t config = test_config(LARDER_POLICY_FIT, NULL);
    struct error_log error;

    setenv("LARDER_ALIGNMENT", "17", 1);
    setenv("LARDER_REDZONE", "128", 1);
    ck_assert_int_eq(larder_config_from_environment(&config), -EINVAL);
    error = errors_recorded();
    ck_assert_uint_eq(error.count, 1);
    ck_assert_int_eq(error.kind, LARDER_ERROR_CONFIG);
    ck_assert_msg(strstr(error.message, "LARDER_ALIGNMENT"), "message: %s", error.message);
    ck_assert_msg(strstr(error.message, "17"), "message: %s", error.message);
    ck_assert_uint_eq(config.alignment, 64);
    ck_assert_uint_eq(config.redzone, 128);
}
END_TEST

static void read_environment_without_handler(void *context)
{
    larder_config_t config;

    (void)context;
    setenv("LARDER_POLCY", "fit", 1);
    larder_config_init(&config);
    expect(larder_config_from_environment(&config) == -EINVAL);
}

START_TEST(without_a_handler_an_unknown_variable_is_told_on_stderr_and_nobody_aborts)
{
    struct child_end end = run_in_child(read_environment_without_handler, NULL);

    ck_assert_msg(end.signal == 0 && end.status == 0, "signal %d, status %d: %s", end.signal,
                  end.status, end.output);
    ck_assert_msg(strstr(end.output, "LARDER_POLCY"), "stderr: %s", end.output);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("settings as text");
    TCase *claims = add_claims(suite, "text");
    TCase *environment = add_claims(suite, "environment");

    tcase_add_test(claims, each_setting_can_be_set_from_text_in_either_case);
    tcase_add_test(claims, sizes_take_suffixes);
    tcase_add_loop_test(claims, a_bad_value_is_refused_and_changes_nothing, 0, BAD_VALUE_COUNT);
    tcase_add_test(claims, an_unknown_key_is_refused);
    tcase_add_test(environment, good_variables_are_applied);
    tcase_add_test(environment, an_unknown_variable_is_reported_and_the_good_ones_are_applied);
    tcase_add_test(environment, each_bad_value_is_reported_with_name_and_value);
    tcase_add_test(environment,
                   without_a_handler_an_unknown_variable_is_told_on_stderr_and_nobody_aborts);
    return run_suite(suite);
}
