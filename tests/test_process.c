/* SPDX-License-Identifier: MIT */
/*
 * What there is once in a process: the shards of the allocation map, fixed at first use, and the
 * default instance. Each claim needs a process in which the library was not used yet: the tests run
 * in children, and those that use the library in this process come last.
 */
#include "support.h"

#if !UNDER_SANITIZER
#include <stdio.h>
#include <sys/resource.h>
#endif

static void assert_child(void (*body)(void *context), void *context)
{
    struct child_end end = run_in_child(body, context);

    ck_assert_msg(end.signal == 0 && end.status == 0, "signal %d, status %d: %s", end.signal,
                  end.status, end.output);
}

static void use_the_library(larder_policy_t policy)
{
    larder_config_t config = test_config(policy, NULL);
    larder_t *larder = larder_create("used", &config);
    void *blocks[500];

    expect(larder != NULL);
    for (size_t i = 0; i < 500; i++) {
        blocks[i] = larder_alloc(larder, 10 * i);
        expect(blocks[i] != NULL);
        expect(larder_owner(blocks[i]) == larder);
    }
    for (size_t i = 0; i < 500; i++)
        larder_free(larder, blocks[i]);
    expect(larder_destroy(larder) == 0);
    expect(errors_recorded().count == 0);
}

/* -- Shards -- */

static void refuse_bad_numbers(void *context)
{
    static const unsigned bad[] = {0, 3, 63, 1000, 1025, 2048, UINT32_MAX};

    (void)context;
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++)
        expect(larder_set_map_shards(bad[i]) == -EINVAL);
}

START_TEST(a_bad_number_of_shards_is_refused)
{
    assert_child(refuse_bad_numbers, NULL);
}
END_TEST

static void set_then_use_then_set(void *context)
{
    unsigned shards = *(unsigned *)context;

    expect(larder_set_map_shards(64) == 0);
    expect(larder_set_map_shards(shards) == 0); /* as often as one likes before the first use */
    use_the_library(LARDER_POLICY_EXACT);
    use_the_library(LARDER_POLICY_FIT);
    expect(larder_set_map_shards(64) == -EBUSY);
    expect(larder_set_map_shards(shards) == -EBUSY);
}

START_TEST(any_number_of_shards_works_and_is_fixed_at_first_use)
{
    for (unsigned shards = 1; shards <= 1024; shards *= 4)
        assert_child(set_then_use_then_set, &shards);
}
END_TEST

static void use_with_shards_from_environment(void *context)
{
    setenv("LARDER_MAP_SHARDS", context, 1);
    use_the_library(LARDER_POLICY_EXACT);
    expect(larder_set_map_shards(64) == -EBUSY);
}

START_TEST(the_number_of_shards_may_come_from_the_environment)
{
    char one[] = "1", many[] = "1024";

    assert_child(use_with_shards_from_environment, one);
    assert_child(use_with_shards_from_environment, many);
}
END_TEST

/* -- The default instance -- */

static void look_at_the_default(void *context)
{
    larder_t *larder = larder_default();
    void *block;

    (void)context;
    expect(larder != NULL);
    expect(larder_default() == larder);
    block = larder_alloc(larder, 1000);
    expect(larder_owner(block) == larder);
    expect(is_aligned(block, 64));
    larder_free(larder, block);
}

START_TEST(the_default_instance_is_always_the_same)
{
    assert_child(look_at_the_default, NULL);
}
END_TEST

static void take_settings_from_environment(void *context)
{
    (void)context;
    setenv("LARDER_ALIGNMENT", "4096", 1);
    setenv("LARDER_FILL", "171", 1);
    for (unsigned i = 0; i < 20; i++) {
        unsigned char *block = larder_alloc(larder_default(), 100);

        expect(is_aligned(block, 4096));
        expect(all_bytes_are(block, 100, 171));
    }
}

START_TEST(the_default_instance_takes_its_settings_from_the_environment)
{
    assert_child(take_settings_from_environment, NULL);
}
END_TEST

static void ask_for_the_default(void *context, unsigned index)
{
    larder_t **seen = context;

    seen[index] = larder_default();
    larder_free(seen[index], larder_alloc(seen[index], 100));
}

static void race_for_the_default(void *context)
{
    larder_t *seen[8];

    (void)context;
    run_threads(8, ask_for_the_default, seen);
    for (unsigned i = 0; i < 8; i++)
        expect(seen[i] == larder_default());
}

START_TEST(threads_that_race_for_the_default_instance_get_one)
{
    for (unsigned i = 0; i < 20; i++)
        assert_child(race_for_the_default, NULL);
}
END_TEST

static void try_to_destroy_the_default(void *context)
{
    void *block = larder_alloc(larder_default(), 1000);

    (void)context;
    expect(larder_destroy(larder_default()) == 0);
    expect(larder_owner(block) == larder_default());
    look_at_the_default(NULL);
    larder_free(NULL, block);
}

START_TEST(the_default_instance_cannot_be_destroyed)
{
    assert_child(try_to_destroy_the_default, NULL);
}
END_TEST

/* -- Little address space -- */

#if !UNDER_SANITIZER
static size_t address_space_in_use(void)
{
    FILE *file = fopen("/proc/self/statm", "r");
    unsigned long pages = 0;

    if (file) {
        if (fscanf(file, "%lu", &pages) != 1)
            pages = 0;
        fclose(file);
    }
    return pages * 4 * KIB;
}

static void live_with_little_address_space(void *context)
{
    size_t in_use = address_space_in_use();
    struct rlimit little = {in_use + 64 * MIB, in_use + 64 * MIB};
    larder_t *larder;
    void *block;

    (void)context;
    if (in_use == 0)
        return;
    expect(setrlimit(RLIMIT_AS, &little) == 0);
    larder = larder_create("small", NULL);
    expect(larder != NULL);
    for (unsigned i = 0; i < 10; i++) {
        block = larder_alloc(larder, 4 * MIB);
        expect(block != NULL);
        pattern_fill(block, 4 * MIB, i);
        larder_free(larder, block);
    }
    errno = 0;
    expect(larder_alloc(larder, 128 * MIB) == NULL);
    expect(errno == ENOMEM);
    block = larder_alloc(larder, 4 * MIB);
    expect(block != NULL);
    larder_free(larder, block);
    expect(larder_destroy(larder) == 0);
}

START_TEST(a_limit_on_address_space_leaves_the_library_working)
{
    if (emulated_or_note("a limit on address space, which the emulator does not enforce"))
        return;
    assert_child(live_with_little_address_space, NULL);
}
END_TEST
#endif

int main(void)
{
    Suite *suite = suite_create("process");
    TCase *claims = add_claims(suite, "once a process");

    tcase_add_test(claims, a_bad_number_of_shards_is_refused);
    tcase_add_test(claims, any_number_of_shards_works_and_is_fixed_at_first_use);
    tcase_add_test(claims, the_number_of_shards_may_come_from_the_environment);
    tcase_add_test(claims, the_default_instance_is_always_the_same);
    tcase_add_test(claims, the_default_instance_takes_its_settings_from_the_environment);
    tcase_add_test(claims, threads_that_race_for_the_default_instance_get_one);
    tcase_add_test(claims, the_default_instance_cannot_be_destroyed);
#if !UNDER_SANITIZER /* they need more address space than that */
    tcase_add_test(claims, a_limit_on_address_space_leaves_the_library_working);
#endif
    return run_suite(suite);
}
