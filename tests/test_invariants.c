/* SPDX-License-Identifier: MIT */
/*
 * The checks of builds with -Dchecks=full (invariant.h): each invariant is broken once, in a process of its own, and traffic goes
 * on until a slow path sees it and ends that process with its line. Elsewhere they are empty, and so is this suite.
 */
#include "support.h"

#include <signal.h>
#include <stdio.h>

#include "cache_check.h"
#include "exact_check.h"
#include "map_check.h"
#include "map_table.h"
#include "thread_state.h"

#ifdef LARDER_CHECKS_FULL
#define BLOCKS 600
#define BLOCK 256

static larder_t *create(larder_policy_t policy, size_t cap)
{
    larder_config_t config;
    larder_t *larder;

    larder_config_init(&config);
    config.policy = policy;
    config.backend = larder_backend_mmap();
    config.checks = LARDER_CHECKS_DEFAULT;
    config.redzone = 0;
    config.fill = -1;
    config.decay_ms = UINT32_MAX;
    config.max_cached_bytes = cap;
    larder = larder_create("tested", &config);
    expect(larder != NULL);
    return larder;
}

/* Enough for full magazines, listed runs and spares of the class, and for walks to be due. */
static void use(larder_t *larder, unsigned rounds)
{
    static void *blocks[BLOCKS];

    while (rounds-- > 0) {
        for (unsigned i = 0; i < BLOCKS; i++)
            expect((blocks[i] = larder_alloc(larder, BLOCK)) != NULL);
        for (unsigned i = 0; i < BLOCKS; i++)
            larder_free(larder, blocks[i]);
        larder_free(larder, larder_alloc(larder, 300000));
    }
}

static struct depot *depot_in_use(larder_t *larder)
{
    use(larder, 2);
    return &larder->depots[size_class_of(BLOCK, larder->class_shift)];
}

/* -- Depots and runs -- */

static void miscount_full_magazines(void *larder)
{
    depot_in_use(larder)->full_count++;
    use(larder, 50);
}

static void lose_the_last_spare(void *larder)
{
    struct depot *depot = depot_in_use(larder);

    expect(depot->spares != NULL && depot->spares->next != NULL);
    depot->spares->next = NULL;
    use(larder, 50);
}

static void free_a_block_that_is_in_a_magazine(void *larder)
{
    struct depot *depot = depot_in_use(larder);
    struct magazine *full = atomic_load(&depot->full);
    struct block_state *state = full->rounds[0].state;
    struct run *run = run_of_state(state, depot->record_size);

    run->free_bits |= UINT64_C(1) << (state - run->states);
    use(larder, 50);
}

static void cache_a_live_block(void *larder)
{
    struct depot *depot = depot_in_use(larder);
    struct magazine *full = atomic_load(&depot->full);

    word_store(&full->rounds[0].state->word, STATE_LIVE | BLOCK);
    (void)depot_reap_count(depot, 0, UINT32_MAX);
}

static void overwrite_a_unit_of_a_spare(void *larder)
{
    struct run *spare = depot_in_use(larder)->spares;

    word_store(&spare->region->words[spare->start + 1], 0);
    use(larder, 50);
}

static void forget_a_region(void *larder)
{
    struct region *region;

    (void)depot_in_use(larder);
    region = ((struct larder *)larder)->small_heap.regions;
    allocation_map_remove_region(atomic_load(&region->base), atomic_load(&region->size));
    use(larder, 50);
}

/* -- Threads -- */

static struct bin *bin_in_use(larder_t *larder)
{
    use(larder, 2);
    return &thread_cache_of(larder)->bins[size_class_of(BLOCK, larder->class_shift)];
}

static void give_a_thread_room_for_nothing(void *larder)
{
    (void)bin_in_use(larder);
    thread_cache_give(thread_cache_of(larder), 4096);
    use(larder, 50);
}

static void shrink_a_full_bins_allotment(void *larder)
{
    struct bin *bin = bin_in_use(larder);

    bin->allotted = bin_count(bin) - 1;
    larder_flush_thread(larder_create("other", NULL)); /* not this one's */
    use(larder, 50);
}

/* -- Spans -- */

static void miscount_clean_pages(void *larder)
{
    use(larder, 2);
    ((struct larder *)larder)->heap.clean_pages++;
    larder_free_cached(larder);
}

/* -- The store under `exact` -- */

static struct block_record *record_in_store(larder_t *larder)
{
    struct exact_store *store = &larder->exact;

    use(larder, 2);
    larder_flush_thread(larder);
    expect(exact_bucket_of(store, BLOCK)->sizes != NULL);
    return exact_bucket_of(store, BLOCK)->sizes;
}

/* All of it, at once. */
static void check_bucket(larder_t *larder)
{
    struct exact_bucket *bucket = exact_bucket_of(&larder->exact, BLOCK);

    bucket->pace = (struct check_pace){0};
    exact_check_bucket(larder, bucket);
}

static void store_a_live_block(void *larder)
{
    struct block_record *record = record_in_store(larder);

    word_store(&record->below->word, WORD(WORD_LIVE));
    use(larder, 50);
}

static void store_a_block_that_the_map_does_not_know(void *larder)
{
    struct block_record *record = record_in_store(larder);

    allocation_map_remove_block(atomic_load(&record->below->address));
    use(larder, 50);
}

static void make_a_ring_of_a_stack(void *larder)
{
    struct block_record *record = record_in_store(larder);

    record->below->below->below = record->below;
    check_bucket(larder);
}

static void miscount_the_stores_bytes(void *larder)
{
    (void)record_in_store(larder);
    atomic_store(&((struct larder *)larder)->exact.bytes, BLOCK);
    check_bucket(larder);
}

static void give_a_table_room_for_nothing(void *larder)
{
    use(larder, 2);
    thread_cache_give(thread_cache_of(larder), 4096);
    use(larder, 50);
}

/* -- The map -- */

#define SLOTS 8

static struct {
    struct table table;
    struct slot slots[SLOTS];
} small;
static struct shard shard;

/* The n-th key with home slot 3; no walk has been, so the next call makes one. */
static uintptr_t key_with_home(unsigned n)
{
    for (uintptr_t key = 64;; key += 64) {
        if (home_slot(hash_key(key), SLOTS - 1) == 3 && n-- == 0)
            return key;
    }
}

static void set_slot(size_t i, uintptr_t key, void *value)
{
    atomic_store(&small.table.slots[i].key, key);
    atomic_store(&small.table.slots[i].value, value);
}

static void check_map_with_two_keys(void)
{
    map_check(&shard, 10, key_with_home(0), &small);
}

static void prepare_shard(void)
{
    small.table.mask = SLOTS - 1;
    atomic_store(&shard.table, &small.table);
    set_slot(3, key_with_home(0), &small);
    set_slot(4, key_with_home(1), &small);
    shard.entries = 2;
    check_map_with_two_keys(); /* which is in order */
    shard.pace = (struct check_pace){0};
}

static void part_a_key_from_its_home(void *unused)
{
    (void)unused;
    prepare_shard();
    set_slot(4, 0, NULL);
    set_slot(5, key_with_home(1), &small);
    check_map_with_two_keys();
}

static void enter_a_key_twice(void *unused)
{
    (void)unused;
    prepare_shard();
    set_slot(5, key_with_home(1), &small);
    shard.entries = 3;
    check_map_with_two_keys();
}

static void miscount_entries(void *unused)
{
    (void)unused;
    prepare_shard();
    shard.entries = 3;
    check_map_with_two_keys();
}

static void enter_another_shards_key(void *unused)
{
    uintptr_t key = key_with_home(0), other = key;

    (void)unused;
    prepare_shard();
    for (unsigned n = 1; shard_number(hash_key(other), 9) == shard_number(hash_key(key), 9); n++)
        other = key_with_home(n);
    set_slot(4, other, &small);
    map_check(&shard, 9, key, &small);
}

static void find_a_removed_key(void *unused)
{
    (void)unused;
    prepare_shard();
    map_check(&shard, 10, key_with_home(1), NULL);
}

static void leave_a_sequence_odd(void *unused)
{
    (void)unused;
    prepare_shard();
    atomic_store(&shard.sequence, 1);
    check_map_with_two_keys();
}

/* -- Accounts, and what is left at the end -- */

static void take_off_more_than_there_is(void *larder)
{
    cache_unreserve(larder, (uint64_t)1 << 40);
}

static void lose_spares(void *larder)
{
    struct depot *depot = depot_in_use(larder);

    larder_flush_thread(larder);
    expect(depot->spares != NULL);
    depot->spares = NULL;
    depot->spare_min = 0;
    atomic_store(&depot->spare_count, 0);
    larder_destroy(larder);
}

static const struct {
    larder_policy_t policy;
    bool capped;
    void (*act)(void *larder);
    const char *line;
} broken[] = {
    {LARDER_POLICY_FIT, false, miscount_full_magazines, "depot: full magazines in all"},
    {LARDER_POLICY_FIT, false, lose_the_last_spare, "depot: spare runs in all"},
    {LARDER_POLICY_FIT, false, free_a_block_that_is_in_a_magazine, "depot: a "},
    {LARDER_POLICY_FIT, false, cache_a_live_block, "depot: a live block among the free ones"},
    {LARDER_POLICY_FIT, false, overwrite_a_unit_of_a_spare,
     "depot: a unit of a run that says otherwise"},
    {LARDER_POLICY_FIT, false, forget_a_region, "depot: a run that the map does not know"},
    {LARDER_POLICY_FIT, false, give_a_thread_room_for_nothing,
     "thread cache: a thread's room and allotments"},
    {LARDER_POLICY_FIT, false, shrink_a_full_bins_allotment, "thread cache: a "},
    {LARDER_POLICY_FIT, false, miscount_clean_pages, "span heap: clean pages"},
    {LARDER_POLICY_EXACT, false, store_a_live_block, "exact store: a block that is not cached"},
    {LARDER_POLICY_EXACT, false, store_a_block_that_the_map_does_not_know,
     "exact store: a block that the map does not know"},
    {LARDER_POLICY_EXACT, false, make_a_ring_of_a_stack, "exact store: a stack without an end"},
    {LARDER_POLICY_EXACT, false, miscount_the_stores_bytes, "exact store: bytes in all"},
    {LARDER_POLICY_EXACT, false, give_a_table_room_for_nothing,
     "exact store: a thread's room and blocks"},
    {LARDER_POLICY_FIT, false, part_a_key_from_its_home,
     "allocation map: a key that is not where a search for it ends"},
    {LARDER_POLICY_FIT, false, enter_a_key_twice,
     "allocation map: a key that is not where a search for it ends"},
    {LARDER_POLICY_FIT, false, miscount_entries, "allocation map: entries in all"},
    {LARDER_POLICY_FIT, false, enter_another_shards_key, "allocation map: a key in another shard"},
    {LARDER_POLICY_FIT, false, find_a_removed_key, "allocation map: a key that is found again"},
    {LARDER_POLICY_FIT, false, leave_a_sequence_odd, "allocation map: a sequence that is odd"},
    {LARDER_POLICY_FIT, true, take_off_more_than_there_is,
     "cache: more taken off an account than was on it"},
    {LARDER_POLICY_FIT, false, lose_spares, "cache: units in use at the end"},
};
#define BROKEN_COUNT (sizeof broken / sizeof broken[0])

static void break_it(void *row)
{
    unsigned i = *(unsigned *)row;

    broken[i].act(create(broken[i].policy, broken[i].capped ? 4 * MIB : SIZE_MAX));
}

START_TEST(what_is_broken_ends_the_process_with_its_line)
{
    unsigned row = (unsigned)_i;
    struct child_end end = run_in_child(break_it, &row);

    ck_assert_msg(end.signal == SIGABRT && strstr(end.output, "larder: ") &&
                      strstr(end.output, broken[row].line),
                  "%s: signal %d, status %d: %s", broken[row].line, end.signal, end.status,
                  end.output);
}
END_TEST

START_TEST(what_is_sound_is_silent)
{
    larder_t *larder = create((larder_policy_t)_i, SIZE_MAX);

    use(larder, 10);
    larder_free_cached(larder);
    use(larder, 10);
    ck_assert_uint_eq(larder_destroy(larder), 0);
}
END_TEST
#endif

int main(void)
{
    Suite *suite = suite_create("invariants");
    TCase *claims = add_claims(suite, "checks");

    (void)claims;
#ifdef LARDER_CHECKS_FULL
    tcase_add_loop_test(claims, what_is_broken_ends_the_process_with_its_line, 0, BROKEN_COUNT);
    tcase_add_loop_test(claims, what_is_sound_is_silent, 0, 4);
#else
    fputs("note: no invariants are checked in this build (-Dchecks=full)\n", stderr);
#endif
    return run_suite(suite);
}
