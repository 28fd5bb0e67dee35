/* SPDX-License-Identifier: MIT */
/*
 * The exact search by its own header: against brute force where there are few blocks, and on larger instances of which the best
 * peak is known because they were made by cutting up a rectangle of time and addresses.
 */
#include "support.h"

#include <stdlib.h>

#include "plan_check.h"
#include "plan_search.h"

enum { FEW = 7, MANY = 300 };

static const struct plan_search_limits endless = {.nodes = UINT64_MAX};

static void *make_scratch(uint32_t count)
{
    size_t bytes = plan_search_scratch_bytes(count);
    void *scratch = malloc(bytes);
    ck_assert_ptr_nonnull(scratch);
    /* what a search relies on it must have written */
    memset(scratch, 0xA5, bytes < 16 * MIB ? bytes : 16 * MIB);
    return scratch;
}

static struct plan_outcome best(struct plan_item *items, uint32_t count, uint64_t enough,
                                const struct plan_search_limits *limits)
{
    void *scratch = make_scratch(count);
    struct plan_outcome outcome = plan_best(items, count, 0, enough, limits, scratch);
    free(scratch);
    return outcome;
}

static enum plan_search_result search(struct plan_item *items, uint32_t count, uint64_t capacity,
                                      const struct plan_search_limits *limits)
{
    void *scratch = make_scratch(count);
    enum plan_search_result result = plan_search(items, count, capacity, limits, scratch);
    free(scratch);
    return result;
}

static void assert_sound(const struct plan_item *items, uint32_t count, uint64_t peak)
{
    void *scratch = malloc(plan_check_scratch_bytes(count));
    struct plan_verdict verdict = plan_check(items, count, peak, scratch);
    free(scratch);
    ck_assert_msg(verdict.fault == PLAN_FINE, "items %u and %u: %s", verdict.a, verdict.b,
                  plan_fault_text(verdict.fault));
    ck_assert_uint_eq(plan_peak(items, count), peak);
}

/* -- Brute force: some order, with each block at its lowest place, gives a best plan -- */

static bool collide(const struct plan_item *a, const struct plan_item *b)
{
    return a->size != 0 && b->size != 0 && a->begin < b->end && b->begin < a->end &&
           a->offset < b->offset + b->size && b->offset < a->offset + a->size;
}

static void put_lowest(struct plan_item *items, uint32_t at)
{
    struct plan_item *item = &items[at];
    item->offset = 0;
    for (uint32_t i = 0; i < at; i++) {
        if (collide(item, &items[i])) {
            item->offset += item->alignment;
            i = UINT32_MAX; /* from the beginning */
        }
    }
}

static uint64_t forced_best(struct plan_item *items, uint32_t at, uint32_t count)
{
    if (at == count)
        return plan_peak(items, count);
    uint64_t lowest = UINT64_MAX;
    for (uint32_t i = at; i < count; i++) {
        struct plan_item chosen = items[i];
        items[i] = items[at];
        items[at] = chosen;
        put_lowest(items, at);
        uint64_t peak = forced_best(items, at + 1, count);
        lowest = peak < lowest ? peak : lowest;
        items[at] = items[i];
        items[i] = chosen;
    }
    return lowest;
}

static void make_few(struct plan_item *items, struct random *random, unsigned alignments)
{
    for (int i = 0; i < FEW; i++) {
        uint32_t begin = (uint32_t)random_between(random, 0, 7);
        items[i] = (struct plan_item){
            .begin = begin,
            .end = (uint32_t)random_between(random, begin + 1, 8),
            .size = random_between(random, 0, 12),
            .alignment = 1u << random_between(random, 0, alignments),
        };
    }
}

START_TEST(few_blocks_are_planned_as_low_as_brute_force_can_and_that_is_proved)
{
    struct plan_item items[FEW], copy[FEW];
    struct random random;

    random_init(&random, (uint64_t)_i);
    for (int round = 0; round < 25; round++) {
        make_few(items, &random, _i % 2 == 0 ? 0 : 3);
        memcpy(copy, items, sizeof items);
        struct plan_outcome outcome = best(items, FEW, 0, &endless);
        assert_sound(items, FEW, outcome.peak);
        ck_assert_uint_eq(outcome.peak, forced_best(copy, 0, FEW));
        ck_assert_uint_eq(outcome.bound, outcome.peak);
    }
}
END_TEST

START_TEST(a_search_finds_the_best_peak_and_nothing_below)
{
    struct plan_item items[FEW], copy[FEW];
    struct random random;

    random_init(&random, (uint64_t)_i);
    for (int round = 0; round < 25; round++) {
        make_few(items, &random, 2);
        memcpy(copy, items, sizeof items);
        uint64_t lowest = forced_best(copy, 0, FEW);
        ck_assert_int_eq(search(items, FEW, lowest, &endless), PLAN_FOUND);
        assert_sound(items, FEW, plan_peak(items, FEW));
        ck_assert_uint_le(plan_peak(items, FEW), lowest);
        if (lowest != 0)
            ck_assert_int_eq(search(items, FEW, lowest - 1, &endless), PLAN_IMPOSSIBLE);
    }
}
END_TEST

/* -- Rectangles cut up: the best peak is their height -- */

struct cut {
    struct plan_item items[MANY];
    uint32_t count, wanted;
    struct random random;
};

static void cut_up(struct cut *cut, struct plan_item whole, uint32_t pieces)
{
    uint64_t width = whole.end - whole.begin;
    bool wide = width > 1, high = whole.size > 1;
    if (pieces <= 1 || (!wide && !high)) {
        whole.offset = 0;
        cut->items[cut->count++] = whole;
        return;
    }
    struct plan_item first = whole, second = whole;
    if (wide && (!high || random_between(&cut->random, 0, 1) == 0)) {
        first.end = second.begin =
            whole.begin + (uint32_t)random_between(&cut->random, 1, (size_t)width - 1);
    } else {
        first.size = random_between(&cut->random, 1, (size_t)whole.size - 1);
        second.size = whole.size - first.size;
    }
    cut_up(cut, first, pieces / 2);
    cut_up(cut, second, pieces - pieces / 2);
}

static void make_cut(struct cut *cut, uint64_t stream, uint32_t pieces)
{
    random_init(&cut->random, stream);
    cut->count = 0;
    cut_up(cut, (struct plan_item){.begin = 0, .end = 500, .size = 1000}, pieces);
}

START_TEST(a_rectangle_cut_up_is_put_together_again)
{
    static struct cut cut;
    /* counted, so it is the same on every machine; these need less than a tenth of it */
    const struct plan_search_limits limits = {.nodes = 2000000};

    make_cut(&cut, (uint64_t)_i, 40);
    struct plan_outcome outcome = best(cut.items, cut.count, 0, &limits);
    assert_sound(cut.items, cut.count, outcome.peak);
    ck_assert_uint_eq(outcome.peak, 1000);
}
END_TEST

/* -- Limits -- */

START_TEST(a_search_that_is_stopped_leaves_a_sound_plan)
{
    static struct cut cut;
    const struct plan_search_limits limits = {.nodes = 300 + 500 * (uint64_t)_i};

    make_cut(&cut, (uint64_t)_i, MANY);
    struct plan_outcome outcome = best(cut.items, cut.count, 0, &limits);
    assert_sound(cut.items, cut.count, outcome.peak);
    ck_assert_uint_ge(outcome.peak, outcome.bound);
}
END_TEST

static bool stop_at_once(void *asked)
{
    ++*(unsigned *)asked;
    return true;
}

START_TEST(a_search_ends_when_it_is_told_to)
{
    static struct cut cut;
    unsigned asked = 0;
    const struct plan_search_limits limits = {
        .nodes = UINT64_MAX, .stop = stop_at_once, .context = &asked};

    make_cut(&cut, 5, MANY);
    ck_assert_int_eq(search(cut.items, cut.count, 1000, &limits), PLAN_GAVE_UP);
    ck_assert_uint_eq(asked, 1);
}
END_TEST

START_TEST(a_plan_that_is_good_enough_ends_the_search)
{
    static struct cut cut;

    make_cut(&cut, 1, 60);
    struct plan_outcome outcome = best(cut.items, cut.count, 1200, &endless);
    assert_sound(cut.items, cut.count, outcome.peak);
    ck_assert_uint_le(outcome.peak, 1200);
}
END_TEST

struct told {
    uint64_t peak, bound;
    unsigned times;
};

static void hear(void *context, uint64_t peak, uint64_t bound)
{
    struct told *told = context;
    ck_assert(told->times == 0 || peak < told->peak || bound > told->bound);
    *told = (struct told){peak, bound, told->times + 1};
}

START_TEST(each_step_forward_is_told)
{
    static struct cut cut;
    struct told told = {0};
    const struct plan_search_limits limits = {.nodes = 2000000, .tell = hear, .context = &told};

    make_cut(&cut, 2, 40);
    struct plan_outcome outcome = best(cut.items, cut.count, 0, &limits);
    ck_assert_uint_ge(told.times, 1);
    ck_assert_uint_eq(told.peak, outcome.peak);
    ck_assert_uint_eq(told.bound, outcome.bound);
}
END_TEST

START_TEST(no_blocks_and_blocks_without_a_size_need_nothing)
{
    struct plan_item items[2] = {{.begin = 0, .end = 2}, {.begin = 1, .end = 3}};

    ck_assert_uint_eq(best(items, 0, 0, &endless).peak, 0);
    ck_assert_uint_eq(best(items, 2, 0, &endless).peak, 0);
    ck_assert_int_eq(search(items, 2, 0, &endless), PLAN_FOUND);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("plan_search");
    TCase *claims = add_claims(suite, "plan search");

    tcase_add_loop_test(claims, few_blocks_are_planned_as_low_as_brute_force_can_and_that_is_proved,
                        0, 8);
    tcase_add_loop_test(claims, a_search_finds_the_best_peak_and_nothing_below, 0, 4);
    tcase_add_loop_test(claims, a_rectangle_cut_up_is_put_together_again, 0, 12);
    tcase_add_loop_test(claims, a_search_that_is_stopped_leaves_a_sound_plan, 0, 6);
    tcase_add_test(claims, a_search_ends_when_it_is_told_to);
    tcase_add_test(claims, a_plan_that_is_good_enough_ends_the_search);
    tcase_add_test(claims, each_step_forward_is_told);
    tcase_add_test(claims, no_blocks_and_blocks_without_a_size_need_nothing);
    return run_suite(suite);
}
