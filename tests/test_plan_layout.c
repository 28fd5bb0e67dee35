/* SPDX-License-Identifier: MIT */
/*
 * The planner's core and its judge, by their own headers. Small random instances are planned by brute force as well: some
 * order, with each block put into the lowest gap, always gives a best plan, so trying all orders finds it.
 */
#include "support.h"

#include <stdio.h>

#include "plan_check.h"
#include "plan_layout.h"

enum { MOST = 2000, FIXED_MOST = 4 };

static _Alignas(16) char scratch[256 * (MOST + FIXED_MOST) + 4096];

static uint64_t plan(struct plan_item *items, uint32_t count)
{
    ck_assert_uint_le(plan_scratch_bytes(count), sizeof scratch);
    return plan_greedy(items, count, NULL, 0, PLAN_EFFORT_DEFAULT, scratch);
}

static struct plan_verdict judge(const struct plan_item *items, uint32_t count, uint64_t capacity)
{
    ck_assert_uint_le(plan_check_scratch_bytes(count), sizeof scratch);
    return plan_check(items, count, capacity, scratch);
}

static uint64_t bound_of(const struct plan_item *items, uint32_t count)
{
    return plan_lower_bound(items, count, scratch);
}

static void assert_plan_is_sound(const struct plan_item *items, uint32_t count, uint64_t peak)
{
    struct plan_verdict verdict = judge(items, count, peak);
    ck_assert_msg(verdict.fault == PLAN_FINE, "items %u and %u: %s", verdict.a, verdict.b,
                  plan_fault_text(verdict.fault));
    ck_assert_uint_eq(plan_peak(items, count), peak);
    ck_assert_uint_ge(peak, bound_of(items, count));
}

static void make_random(struct plan_item *items, uint32_t count, uint32_t times, size_t largest,
                        struct random *random)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t begin = (uint32_t)random_between(random, 0, times - 1);
        items[i] = (struct plan_item){
            .begin = begin,
            .end = (uint32_t)random_between(random, begin + 1, times),
            .size = random_between(random, 0, largest),
            .alignment = 1u << random_between(random, 0, 3),
        };
    }
}

/* The largest number of items that live at once, by looking at every moment. */
static uint64_t bound_by_looking(const struct plan_item *items, uint32_t count, uint32_t times)
{
    uint64_t most = 0;
    for (uint32_t t = 0; t < times; t++) {
        uint64_t live = 0;
        for (uint32_t i = 0; i < count; i++)
            live += items[i].begin <= t && t < items[i].end ? items[i].size : 0;
        most = live > most ? live : most;
    }
    return most;
}

static bool share_time(const struct plan_item *a, const struct plan_item *b)
{
    return a->begin < b->end && b->begin < a->end;
}

static bool share_addresses(const struct plan_item *a, const struct plan_item *b)
{
    return a->offset < b->offset + b->size && b->offset < a->offset + a->size;
}

static bool any_overlap(const struct plan_item *items, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t j = 0; j < i; j++) {
            if (items[i].size != 0 && items[j].size != 0 && share_time(&items[i], &items[j]) &&
                share_addresses(&items[i], &items[j]))
                return true;
        }
    }
    return false;
}

/* The lowest offset at which the last of `count` items overlaps none of the others. */
static uint64_t lowest_offset(const struct plan_item *items, uint32_t count)
{
    struct plan_item moved = items[count - 1];
    for (moved.offset = 0;; moved.offset += moved.alignment) {
        bool free = true;
        for (uint32_t i = 0; i + 1 < count && free; i++)
            free = !share_time(&items[i], &moved) || !share_addresses(&items[i], &moved);
        if (free)
            return moved.offset;
    }
}

/* The lowest peak over all orders of the items from `at` on. */
static uint64_t best_by_force(struct plan_item *items, uint32_t at, uint32_t count)
{
    if (at == count)
        return plan_peak(items, count);
    uint64_t best = UINT64_MAX;
    for (uint32_t i = at; i < count; i++) {
        struct plan_item first = items[i];
        items[i] = items[at];
        items[at] = first;
        items[at].offset = lowest_offset(items, at + 1);
        uint64_t peak = best_by_force(items, at + 1, count);
        best = peak < best ? peak : best;
        items[at] = items[i];
        items[i] = first;
    }
    return best;
}

START_TEST(a_plan_of_random_blocks_overlaps_nowhere_and_is_aligned)
{
    static struct plan_item items[MOST];
    struct random random;

    random_init(&random, (uint64_t)_i);
    uint32_t count = (uint32_t)random_between(&random, 0, _i % 8 == 0 ? MOST : 100);
    make_random(items, count, 1 + (uint32_t)random_between(&random, 0, 3 * count), 1000, &random);
    uint64_t peak = plan(items, count);
    assert_plan_is_sound(items, count, peak);
    if (count <= 200)
        ck_assert(!any_overlap(items, count));
}
END_TEST

START_TEST(a_plan_of_few_blocks_is_no_better_than_brute_force_and_hardly_worse)
{
    enum { COUNT = 6, TIMES = 8, ROUNDS = 20 };
    struct plan_item items[COUNT], copy[COUNT];
    struct random random;
    uint64_t found = 0, best = 0;

    random_init(&random, (uint64_t)_i);
    for (int round = 0; round < ROUNDS; round++) {
        make_random(items, COUNT, TIMES, 20, &random);
        memcpy(copy, items, sizeof items);
        uint64_t forced = best_by_force(copy, 0, COUNT), peak = plan(items, COUNT);
        assert_plan_is_sound(items, COUNT, peak);
        ck_assert_uint_ge(peak, forced);
        found += peak;
        best += forced;
    }
    ck_assert_uint_le(found, best + best / 20);
}
END_TEST

START_TEST(the_lower_bound_is_what_lives_at_the_worst_moment)
{
    enum { COUNT = 60, TIMES = 50 };
    struct plan_item items[COUNT];
    struct random random;

    random_init(&random, (uint64_t)_i);
    make_random(items, COUNT, TIMES, 1000, &random);
    ck_assert_uint_eq(bound_of(items, COUNT), bound_by_looking(items, COUNT, TIMES));
}
END_TEST

/* A chain of layers, as an inference makes it: each output lives until the next layer has read it. */
START_TEST(a_chain_of_layers_with_work_space_is_planned_at_its_lower_bound)
{
    enum { LAYERS = 200 };
    static struct plan_item items[2 * LAYERS];
    struct random random;

    random_init(&random, (uint64_t)_i);
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        uint32_t t = 3 * layer;
        items[2 * layer] = (struct plan_item){
            .begin = t, .end = t + 5, .size = random_between(&random, 1, 1000) * 8};
        items[2 * layer + 1] =
            (struct plan_item){.begin = t + 1, .end = t + 2, .size = random_size(&random, 4000)};
    }
    uint64_t peak = plan(items, 2 * LAYERS);
    assert_plan_is_sound(items, 2 * LAYERS, peak);
    ck_assert_uint_eq(peak, bound_of(items, 2 * LAYERS));
}
END_TEST

START_TEST(holes_of_equal_size_are_all_used)
{
    /* four blocks of one size, of which the first and third end; two later ones of that size fit into their places */
    struct plan_item items[] = {
        {.begin = 0, .end = 2, .size = 64}, {.begin = 0, .end = 9, .size = 64},
        {.begin = 0, .end = 2, .size = 64}, {.begin = 0, .end = 9, .size = 64},
        {.begin = 3, .end = 9, .size = 64}, {.begin = 3, .end = 9, .size = 64},
    };
    uint64_t peak = plan(items, 6);
    assert_plan_is_sound(items, 6, peak);
    ck_assert_uint_eq(peak, 4 * 64);
}
END_TEST

START_TEST(fixed_blocks_keep_their_places_and_are_in_nobodys_way_when_they_do_not_live)
{
    struct plan_item fixed[] = {
        {.begin = 0, .end = UINT32_MAX, .size = 10, .offset = 20},
        {.begin = 0, .end = 4, .size = 100, .offset = 40},
    };
    struct plan_item items[] = {
        {.begin = 0, .end = 9, .size = 20},
        {.begin = 0, .end = 4, .size = 10},
        {.begin = 5, .end = 9, .size = 60},
    };
    struct plan_item all[5];

    uint64_t peak = plan_greedy(items, 3, fixed, 2, PLAN_EFFORT_DEFAULT, scratch);
    memcpy(all, items, sizeof items);
    memcpy(&all[3], fixed, sizeof fixed);
    ck_assert_int_eq(judge(all, 5, UINT64_MAX).fault, PLAN_FINE);
    ck_assert_uint_eq(items[0].offset, 0);
    ck_assert_uint_eq(items[1].offset, 30);
    ck_assert_uint_eq(items[2].offset, 30);
    ck_assert_uint_eq(peak, 90);
}
END_TEST

START_TEST(the_same_blocks_always_get_the_same_plan)
{
    enum { COUNT = 300 };
    struct plan_item first[COUNT], second[COUNT];
    struct random random;

    random_init(&random, 1);
    make_random(first, COUNT, 200, 5000, &random);
    memcpy(second, first, sizeof first);
    plan(first, COUNT);
    memset(scratch, 0xA5, sizeof scratch);
    plan(second, COUNT);
    ck_assert_mem_eq(first, second, sizeof first);
}
END_TEST

START_TEST(the_judge_finds_each_fault)
{
    struct plan_item items[] = {
        {.begin = 0, .end = 4, .size = 10, .offset = 0},
        {.begin = 2, .end = 6, .size = 10, .offset = 16, .alignment = 16},
        {.begin = 4, .end = 8, .size = 10, .offset = 6},
        {.begin = 0, .end = 8, .size = 0, .offset = 5},
    };
    ck_assert_int_eq(judge(items, 4, 26).fault, PLAN_FINE);
    ck_assert_int_eq(judge(items, 4, 25).fault, PLAN_TOO_HIGH);
    items[2].begin = 3;
    struct plan_verdict verdict = judge(items, 4, 26);
    ck_assert_int_eq(verdict.fault, PLAN_OVERLAP);
    ck_assert_uint_eq(verdict.a + verdict.b, 2);
    items[2].begin = 4;
    items[2].offset = 7;
    ck_assert_int_eq(judge(items, 4, 26).fault, PLAN_OVERLAP);
    items[2].offset = 6;
    items[1].offset = 17;
    ck_assert_int_eq(judge(items, 4, UINT64_MAX).fault, PLAN_MISALIGNED);
    items[1].offset = 16;
    items[3].end = 0;
    ck_assert_int_eq(judge(items, 4, 26).fault, PLAN_NO_LIFETIME);
    items[3].end = 8;
    items[0].size = UINT64_MAX;
    ck_assert_int_eq(judge(items, 4, UINT64_MAX).fault, PLAN_TOO_HIGH);
}
END_TEST

START_TEST(the_judge_agrees_with_a_look_at_all_pairs)
{
    enum { COUNT = 40 };
    struct plan_item items[COUNT];
    struct random random;

    random_init(&random, (uint64_t)_i);
    for (int round = 0; round < 20; round++) {
        make_random(items, COUNT, 60, 12, &random);
        for (int i = 0; i < COUNT; i++) {
            items[i].alignment = 1;
            items[i].offset = random_between(&random, 0, 3000);
        }
        bool fine = judge(items, COUNT, UINT64_MAX).fault == PLAN_FINE;
        ck_assert_int_eq(fine, !any_overlap(items, COUNT));
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("plan_layout");
    TCase *claims = add_claims(suite, "plan layout");

    tcase_add_loop_test(claims, a_plan_of_random_blocks_overlaps_nowhere_and_is_aligned, 0, 64);
    tcase_add_loop_test(claims, a_plan_of_few_blocks_is_no_better_than_brute_force_and_hardly_worse,
                        0, 8);
    tcase_add_loop_test(claims, the_lower_bound_is_what_lives_at_the_worst_moment, 0, 16);
    tcase_add_loop_test(claims, a_chain_of_layers_with_work_space_is_planned_at_its_lower_bound, 0,
                        4);
    tcase_add_test(claims, holes_of_equal_size_are_all_used);
    tcase_add_test(claims,
                   fixed_blocks_keep_their_places_and_are_in_nobodys_way_when_they_do_not_live);
    tcase_add_test(claims, the_same_blocks_always_get_the_same_plan);
    tcase_add_test(claims, the_judge_finds_each_fault);
    tcase_add_loop_test(claims, the_judge_agrees_with_a_look_at_all_pairs, 0, 8);
    return run_suite(suite);
}
