/* SPDX-License-Identifier: MIT */
/*
 * What repeats: sequences of large allocations that come again and again, as inferences do, with variants that leave
 * the common way in the middle, blocks that outlive them, and memory given back meanwhile. The library may place what it
 * recognises as it likes; contents stay whole, little more is held than is live, and no page is new for ever.
 */
#include "support.h"

enum { SCRIPT_STEPS = 120, SCRIPT_BLOCKS = 64, SCRIPTS = 8 };

/* The steps of one inference. */
struct script {
    struct step {
        size_t size; /* 0: free */
        unsigned block;
    } steps[SCRIPT_STEPS + SCRIPT_BLOCKS];
    unsigned count;
};

/* From step `from` on, anew; before that, as it was. Ends with nothing live. */
static void script_make(struct script *script, struct random *random, unsigned from, size_t largest)
{
    bool live[SCRIPT_BLOCKS] = {false};

    for (unsigned i = 0; i < from; i++)
        live[script->steps[i].block] = script->steps[i].size != 0;
    script->count = from;
    while (script->count < SCRIPT_STEPS) {
        unsigned block = (unsigned)random_between(random, 0, SCRIPT_BLOCKS - 1);
        size_t size = live[block] ? 0 : random_between(random, 9 * KIB, largest);

        if (!live[block] && random_between(random, 0, 2) == 0)
            continue;
        live[block] = !live[block];
        script->steps[script->count++] = (struct step){size, block};
    }
    for (unsigned block = 0; block < SCRIPT_BLOCKS; block++) {
        if (live[block])
            script->steps[script->count++] = (struct step){0, block};
    }
}

/* Scripts of different sizes, every second one a variant of the one before. */
static void scripts_make(struct script scripts[SCRIPTS], struct random *random)
{
    for (unsigned i = 0; i < SCRIPTS; i++) {
        unsigned from = 0;

        if (i % 2 == 1) {
            scripts[i] = scripts[i - 1];
            from = SCRIPT_STEPS / 2;
        }
        script_make(&scripts[i], random, from, (64 + 32 * (i / 2)) * KIB);
    }
}

static void script_run(const struct script *script, larder_t *larder, uint64_t seed)
{
    struct {
        void *ptr;
        size_t size;
    } blocks[SCRIPT_BLOCKS] = {{NULL, 0}};

    for (unsigned i = 0; i < script->count; i++) {
        const struct step *step = &script->steps[i];

        if (step->size != 0) {
            void *ptr = larder_alloc(larder, step->size);

            expect(ptr != NULL && larder_owner(ptr) == larder);
            pattern_fill(ptr, step->size, seed + step->block);
            blocks[step->block].ptr = ptr;
            blocks[step->block].size = step->size;
        } else {
            expect(pattern_holds(blocks[step->block].ptr, blocks[step->block].size,
                                 seed + step->block));
            larder_free(larder, blocks[step->block].ptr);
        }
    }
}

static larder_t *make_fit(uint32_t decay_ms, size_t max_cached_bytes)
{
    larder_config_t config = test_config(LARDER_POLICY_FIT, NULL);

    leave_blocks_bare(&config);
    config.decay_ms = decay_ms;
    config.max_cached_bytes = max_cached_bytes;
    return must_create(&config);
}

START_TEST(what_repeats_holds_little_more_than_its_peak_and_needs_no_new_page)
{
    larder_t *larder = make_fit(UINT32_MAX, LARDER_ADAPTIVE);
    struct script scripts[SCRIPTS];
    struct random random;
    larder_stats_t third, last;

    random_init(&random, 1);
    scripts_make(scripts, &random);
    for (unsigned round = 0; round < 7; round++) {
        if (round == 3) /* pages of 64 KiB take three to settle */
            third = stats_of(larder);
        for (unsigned i = 0; i < SCRIPTS; i++)
            script_run(&scripts[i], larder, i);
    }
    assert_expectations();
    last = stats_of(larder);
    ck_assert_uint_le(last.peak_held_bytes, last.peak_live_bytes / 5 * 6 + 512 * KIB);
    ck_assert_uint_eq(last.miss_cold, third.miss_cold);
    ck_assert_uint_eq(last.backend_discards, third.backend_discards);
    must_destroy(larder);
}
END_TEST

START_TEST(what_never_repeats_soon_stops_giving_back)
{
    larder_t *larder = make_fit(UINT32_MAX, LARDER_ADAPTIVE);
    struct random random;
    struct script script;
    uint64_t given_back;

    random_init(&random, 2);
    for (unsigned i = 0; i < 600; i++) {
        script_make(&script, &random, 0, 128 * KIB);
        script_run(&script, larder, i);
    }
    assert_expectations();
    given_back = stats_of(larder).given_back_bytes;
    ck_assert_uint_le(given_back, 17 * stats_of(larder).peak_live_bytes);
    for (unsigned i = 0; i < 100; i++) {
        script_make(&script, &random, 0, 128 * KIB);
        script_run(&script, larder, i);
    }
    /* what the peak may have risen by meanwhile */
    ck_assert_uint_le(stats_of(larder).given_back_bytes, given_back + given_back / 8);
    must_destroy(larder);
}
END_TEST

START_TEST(without_a_budget_nothing_is_given_back_early)
{
    larder_t *larder = make_fit(UINT32_MAX, SIZE_MAX);
    struct script scripts[SCRIPTS];
    struct random random;

    random_init(&random, 3);
    scripts_make(scripts, &random);
    for (unsigned round = 0; round < 4; round++) {
        for (unsigned i = 0; i < SCRIPTS; i++)
            script_run(&scripts[i], larder, i);
    }
    assert_expectations();
    ck_assert_uint_eq(stats_of(larder).backend_discards, 0);
    must_destroy(larder);
}
END_TEST

/* Whatever can come between: blocks that stay, other variants, looks at the statistics, trims, ticks. */
static void disturb(larder_t *larder, struct random *random, void *stay[], size_t count)
{
    size_t which = random_between(random, 0, count - 1);

    switch (random_between(random, 0, 9)) {
    case 0:
        (void)larder_trim(larder, random_between(random, 0, 4 * MIB));
        break;
    case 1:
        (void)larder_tick(larder);
        break;
    case 2: { /* other figures may be of different moments where other threads go on */
        larder_stats_t stats = stats_of(larder);
        expect(stats.largest_free_span <= stats.reserved_bytes);
        break;
    }
    case 3:
    case 4:
        if (stay[which] != NULL)
            expect(pattern_holds(stay[which], 20 * KIB, which));
        larder_free(larder, stay[which]);
        stay[which] = larder_alloc(larder, 20 * KIB);
        expect(stay[which] != NULL);
        pattern_fill(stay[which], 20 * KIB, which);
        break;
    default:
        break;
    }
}

enum { STAYING = 12 };

static void run_disturbed(larder_t *larder, uint64_t stream, unsigned rounds)
{
    static _Thread_local struct script scripts[SCRIPTS];
    void *stay[STAYING] = {NULL};
    struct random random;

    random_init(&random, stream);
    scripts_make(scripts, &random);
    for (unsigned round = 0; round < rounds; round++) {
        bool in_turn = round / 16 % 2 == 0;

        script_run(&scripts[in_turn ? round % SCRIPTS : random_between(&random, 0, SCRIPTS - 1)],
                   larder, stream * 1000 + round);
        if (round % 48 >= 24)
            disturb(larder, &random, stay, STAYING);
    }
    for (size_t i = 0; i < STAYING; i++) {
        if (stay[i] != NULL)
            expect(pattern_holds(stay[i], 20 * KIB, i));
        larder_free(larder, stay[i]);
    }
}

START_TEST(contents_stay_whole_whatever_comes_between)
{
    static const size_t budgets[] = {LARDER_ADAPTIVE, SIZE_MAX, 3 * MIB};
    larder_t *larder = make_fit(_i % 2 == 0 ? 1 : UINT32_MAX, budgets[_i / 2]);

    run_disturbed(larder, 10 + (uint64_t)_i, UNDER_SANITIZER ? 300 : 1500);
    assert_expectations();
    ck_assert_uint_eq(stats_of(larder).live_bytes, 0);
    larder_free_cached(larder);
    ck_assert_uint_le(stats_of(larder).cached_bytes, 64 * KIB);
    must_destroy(larder);
}
END_TEST

static void one_of_several(void *context, unsigned index)
{
    run_disturbed(context, 20 + index, UNDER_SANITIZER ? 100 : 400);
}

START_TEST(so_they_do_on_three_threads)
{
    larder_t *larder = make_fit(1, LARDER_ADAPTIVE);

    run_threads(3, one_of_several, larder);
    assert_expectations();
    ck_assert_uint_eq(stats_of(larder).live_bytes, 0);
    must_destroy(larder);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("loops");
    TCase *tc = add_claims(suite, "held memory");

    tcase_add_test(tc, what_repeats_holds_little_more_than_its_peak_and_needs_no_new_page);
    tcase_add_test(tc, what_never_repeats_soon_stops_giving_back);
    tcase_add_test(tc, without_a_budget_nothing_is_given_back_early);
    tc = add_claims(suite, "contents");
    tcase_add_loop_test(tc, contents_stay_whole_whatever_comes_between, 0, 6);
    tcase_add_test(tc, so_they_do_on_three_threads);
    return run_suite(suite);
}
