/* SPDX-License-Identifier: MIT */
/*
 * What large blocks cost: the bounds on held memory that the span heap is there for, and the order in
 * which it chooses. Held memory is what the statistics say; where the process's resident set can be
 * trusted (no sanitizer, no emulator) it must agree.
 */
#include "support.h"

#include <stdio.h>
#include <time.h>

enum { DECAY_MS = 1 };

static larder_t *make_fit(uint32_t decay_ms)
{
    larder_config_t config = test_config(LARDER_POLICY_FIT, NULL);

    leave_blocks_bare(&config);
    config.decay_ms = decay_ms;
    return must_create(&config);
}

static void *must_alloc(larder_t *larder, size_t size)
{
    void *ptr = larder_alloc(larder, size);

    ck_assert_ptr_nonnull(ptr);
    pattern_fill(ptr, size, (uintptr_t)ptr);
    return ptr;
}

/* -- How much is held -- */

START_TEST(a_thousand_sizes_one_at_a_time_hold_one_and_a_half_of_the_largest)
{
    larder_t *larder = make_fit(UINT32_MAX);
    struct random random;
    size_t largest = 0;

    random_init(&random, 1);
    for (unsigned i = 0; i < 1000; i++) {
        size_t size = random_between(&random, 64 * KIB, 6 * MIB);

        if (size > largest)
            largest = size;
        larder_free(larder, must_alloc(larder, size));
        ck_assert_uint_le(stats_of(larder).held_bytes, largest + largest / 2);
    }
    ck_assert_uint_le(stats_of(larder).peak_held_bytes, largest + largest / 2);
    must_destroy(larder);
}
END_TEST

enum { ROUNDS = 10000, IN_FLIGHT = 16 };

static struct {
    larder_t *larder;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct {
        void *ptr;
        size_t size;
    } blocks[IN_FLIGHT]; /* a queue; under mutex, as all below */
    unsigned produced, consumed;
    size_t live;
} line = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void produce(void)
{
    struct random random;

    random_init(&random, 2);
    for (unsigned i = 0; i < ROUNDS; i++) {
        size_t size = random_between(&random, 33 * KIB, 512 * KIB);
        void *ptr;

        pthread_mutex_lock(&line.mutex);
        while (line.live + size > MIB || line.produced - line.consumed == IN_FLIGHT)
            pthread_cond_wait(&line.changed, &line.mutex);
        line.live += size;
        pthread_mutex_unlock(&line.mutex);
        ptr = larder_alloc(line.larder, size);
        expect(ptr != NULL);
        pattern_fill(ptr, size, i);
        pthread_mutex_lock(&line.mutex);
        line.blocks[i % IN_FLIGHT].ptr = ptr;
        line.blocks[i % IN_FLIGHT].size = size;
        line.produced++;
        pthread_cond_broadcast(&line.changed);
        pthread_mutex_unlock(&line.mutex);
    }
}

static void consume(void)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        void *ptr;
        size_t size;

        pthread_mutex_lock(&line.mutex);
        while (line.produced == i)
            pthread_cond_wait(&line.changed, &line.mutex);
        ptr = line.blocks[i % IN_FLIGHT].ptr;
        size = line.blocks[i % IN_FLIGHT].size;
        pthread_mutex_unlock(&line.mutex);
        expect(pattern_holds(ptr, size, i));
        larder_free(line.larder, ptr);
        pthread_mutex_lock(&line.mutex);
        line.consumed++;
        line.live -= size;
        pthread_cond_broadcast(&line.changed);
        pthread_mutex_unlock(&line.mutex);
    }
}

static void produce_or_consume(void *context, unsigned index)
{
    (void)context;
    if (index == 0)
        produce();
    else
        consume();
}

START_TEST(one_mebibyte_live_from_producer_to_consumer_holds_at_most_four)
{
    line.larder = make_fit(UINT32_MAX);
    run_threads(2, produce_or_consume, NULL);
    ck_assert_uint_eq(stats_of(line.larder).live_blocks, 0);
    ck_assert_uint_le(stats_of(line.larder).held_bytes, 4 * MIB);
    ck_assert_uint_le(stats_of(line.larder).peak_held_bytes, 4 * MIB);
    must_destroy(line.larder);
}
END_TEST

/* -- Threads that have worked and now wait -- */

enum { INFERENCE_BLOCKS = 200, LIVE_TENSORS = 8, IDLE_THREADS = 100 };

/* Tensors of 1 KiB to 1 MiB, of which a few are live at a time, as in a network. */
static void infer(larder_t *larder, uint64_t stream)
{
    struct {
        void *ptr;
        size_t size;
    } live[LIVE_TENSORS] = {{NULL, 0}};
    struct random random;

    random_init(&random, stream);
    for (unsigned i = 0; i < INFERENCE_BLOCKS + LIVE_TENSORS; i++) {
        unsigned place = i % LIVE_TENSORS;

        if (live[place].ptr != NULL)
            expect(pattern_holds(live[place].ptr, live[place].size, stream + place));
        larder_free(larder, live[place].ptr);
        live[place].ptr = NULL;
        if (i >= INFERENCE_BLOCKS)
            continue;
        live[place].size = KIB << random_between(&random, 0, 10);
        live[place].ptr = larder_alloc(larder, live[place].size);
        expect(live[place].ptr != NULL);
        pattern_fill(live[place].ptr, live[place].size, stream + place);
    }
}

static struct {
    larder_t *larder;
    pthread_mutex_t turn;
    struct meeting all_done, measured;
    bool in_turn;
} idlers = {.turn = PTHREAD_MUTEX_INITIALIZER};

static void infer_and_wait(void *context, unsigned index)
{
    (void)context;
    if (idlers.in_turn)
        pthread_mutex_lock(&idlers.turn);
    infer(idlers.larder, idlers.in_turn ? 3 : 3 + index);
    if (idlers.in_turn)
        pthread_mutex_unlock(&idlers.turn);
    meeting_wait(&idlers.all_done);
    meeting_wait(&idlers.measured);
}

static void sleep_ms(long milliseconds)
{
    struct timespec time = {milliseconds / 1000, (milliseconds % 1000) * 1000000};

    while (nanosleep(&time, &time) != 0 && errno == EINTR) {
    }
}

/* Sleeps past the decay and ticks, until `bytes` are held or, much later, hope is lost. */
static void tick_until_held(larder_t *larder, uint64_t bytes)
{
    for (unsigned i = 0; i < 2000 && stats_of(larder).held_bytes > bytes; i++) {
        sleep_ms(2 * DECAY_MS);
        larder_tick(larder);
    }
}

struct parked {
    pthread_t threads[IDLE_THREADS];
    unsigned count;
};

static void *idler_main(void *index)
{
    infer_and_wait(NULL, (unsigned)(uintptr_t)index);
    return NULL;
}

/* Returns when each thread has run its inference and waits. */
static void park(struct parked *parked, unsigned count, bool in_turn)
{
    parked->count = count;
    idlers.in_turn = in_turn;
    meeting_init(&idlers.all_done, count + 1);
    meeting_init(&idlers.measured, count + 1);
    for (uintptr_t i = 0; i < count; i++)
        ck_assert_int_eq(pthread_create(&parked->threads[i], NULL, idler_main, (void *)i), 0);
    meeting_wait(&idlers.all_done);
}

static void let_go(struct parked *parked)
{
    meeting_wait(&idlers.measured);
    for (unsigned i = 0; i < parked->count; i++)
        pthread_join(parked->threads[i], NULL);
}

START_TEST(a_hundred_idle_threads_hold_at_most_64_kib_each)
{
    static struct parked parked;
    uint64_t held_by_one;

    idlers.larder = make_fit(UINT32_MAX);
    park(&parked, 1, true);
    held_by_one = stats_of(idlers.larder).held_bytes;
    let_go(&parked);
    must_destroy(idlers.larder);

    idlers.larder = make_fit(UINT32_MAX);
    park(&parked, IDLE_THREADS, true);
    ck_assert_uint_le(stats_of(idlers.larder).thread_cached_bytes, IDLE_THREADS * 64 * KIB);
    ck_assert_uint_le(stats_of(idlers.larder).held_bytes,
                      held_by_one + (IDLE_THREADS - 1) * 64 * KIB);
    let_go(&parked);
    must_destroy(idlers.larder);
}
END_TEST

/* How many of them infer at once is the machine's affair: what their peak took of larder's own records stays. */
START_TEST(threads_that_inferred_together_hold_their_bound_a_mebibyte_and_records_after_the_decay)
{
    static struct parked parked;
    uint64_t bound = MIB + IDLE_THREADS * 64 * KIB;

    idlers.larder = make_fit(DECAY_MS);
    park(&parked, IDLE_THREADS, false);
    bound += stats_of(idlers.larder).peak_held_bytes / 64;
    tick_until_held(idlers.larder, bound);
    ck_assert_uint_le(stats_of(idlers.larder).held_bytes, bound);
    let_go(&parked);
    must_destroy(idlers.larder);
}
END_TEST

static size_t resident_bytes(void)
{
    char text[256];
    size_t kib = 0;
    FILE *status = fopen("/proc/self/status", "r");

    while (status && fgets(text, sizeof text, status))
        if (sscanf(text, "VmRSS: %zu", &kib) == 1)
            break;
    if (status)
        fclose(status);
    return kib * KIB;
}

START_TEST(after_the_last_inference_the_decay_and_a_tick_hold_what_is_live_and_little_more)
{
    larder_t *larder = make_fit(DECAY_MS);
    size_t resident = resident_bytes(), sizes[40], live = 0;
    void *weights[40], *tensors[40];
    struct random random;
    uint64_t bound;

    random_init(&random, 4);
    for (unsigned i = 0; i < 40; i++) { /* every weight has a large tensor beside it */
        sizes[i] = random_between(&random, 64 * KIB, 300 * KIB);
        live += sizes[i];
        weights[i] = must_alloc(larder, sizes[i]);
        tensors[i] = must_alloc(larder, MIB);
    }
    for (unsigned i = 0; i < 40; i++)
        larder_free(larder, tensors[i]);
    for (uint64_t i = 0; i < 5; i++)
        infer(larder, i);
    bound = live + MIB + 40 * page_size(); /* a weight shares its first and last page */
    ck_assert_uint_gt(stats_of(larder).peak_held_bytes, 40 * MIB); /* else this shows nothing */
    tick_until_held(larder, bound);
    ck_assert_uint_le(stats_of(larder).held_bytes, bound);
    if (!UNDER_SANITIZER && resident != 0 && !emulated_or_note("the resident set"))
        ck_assert_uint_le(resident_bytes(), resident + bound + MIB);
    for (unsigned i = 0; i < 40; i++) {
        ck_assert(pattern_holds(weights[i], sizes[i], (uintptr_t)weights[i]));
        larder_free(larder, weights[i]);
    }
    must_destroy(larder);
}
END_TEST

/* -- Neighbours -- */

START_TEST(live_blocks_keep_their_contents_when_what_lies_between_is_discarded)
{
    enum { BLOCKS = 40 };
    larder_t *larder = make_fit(0);
    struct random random;
    size_t sizes[BLOCKS];
    void *blocks[BLOCKS];

    random_init(&random, 5);
    for (unsigned i = 0; i < BLOCKS; i++) {
        sizes[i] = random_between(&random, 32 * KIB, 200 * KIB);
        blocks[i] = larder_alloc(larder, sizes[i]);
    }
    for (unsigned round = 0; round < 30; round++) {
        /* every byte: a page given back wrongly reads as zero */
        for (unsigned i = 0; i < BLOCKS; i++)
            memset(blocks[i], (int)(1 + (round + i) % 255), sizes[i]);
        for (unsigned i = round % 2; i < BLOCKS; i += 2)
            larder_free(larder, blocks[i]);
        switch (round % 3) {
        case 0:
            larder_tick(larder);
            break;
        case 1:
            larder_trim(larder, 500 * KIB);
            break;
        default:
            larder_free_cached(larder);
            break;
        }
        for (unsigned i = 1 - round % 2; i < BLOCKS; i += 2)
            ck_assert(all_bytes_are(blocks[i], sizes[i], (int)(1 + (round + i) % 255)));
        for (unsigned i = round % 2; i < BLOCKS; i += 2) {
            sizes[i] = random_between(&random, 32 * KIB, 200 * KIB);
            blocks[i] = larder_alloc(larder, sizes[i]);
        }
    }
    ck_assert_uint_gt(stats_of(larder).given_back_bytes, MIB);
    for (unsigned i = 0; i < BLOCKS; i++)
        larder_free(larder, blocks[i]);
    must_destroy(larder);
}
END_TEST

START_TEST(a_block_of_a_region_is_refused_by_record_free_and_stays_live)
{
    static const size_t sizes[] = {100, 5000, 20000, 100 * KIB, 3 * MIB};
    larder_t *larder = make_fit(UINT32_MAX);

    for (unsigned i = 0; i < 5; i++) {
        void *block = must_alloc(larder, sizes[i]);

        errors_reset();
        ck_assert_int_eq(larder_record_free(block), -EPERM);
        ck_assert_uint_eq(errors_recorded().count, 1);
        ck_assert_int_eq((int)errors_recorded().kind, LARDER_ERROR_REFUSED);
        ck_assert_ptr_eq(larder_owner(block), larder);
        ck_assert_uint_eq(stats_of(larder).live_bytes, sizes[i]);
        ck_assert(pattern_holds(block, sizes[i], (uintptr_t)block));
        larder_free(larder, block);
        ck_assert_uint_eq(errors_recorded().count, 1);
    }
    errors_reset();
    must_destroy(larder);
}
END_TEST

/* -- The choice of a hole -- */

#define HOLES 3

/* Holes of these sizes, one after the other with live blocks between them, made in the `order`-th order. */
static void make_holes(larder_t *larder, const size_t sizes[HOLES], void *holes[HOLES], int order)
{
    static const unsigned orders[6][HOLES] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                              {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};

    for (unsigned i = 0; i < HOLES; i++) {
        holes[i] = must_alloc(larder, sizes[i]);
        must_alloc(larder, 70 * KIB); /* never freed: larder_destroy() is told so */
    }
    for (unsigned i = 0; i < HOLES; i++)
        larder_free(larder, holes[orders[order][i]]);
}

START_TEST(a_request_gets_the_smallest_hole_that_fits)
{
    static const size_t sizes[HOLES] = {MIB, 128 * KIB, 400 * KIB};
    larder_t *larder = make_fit(UINT32_MAX);
    void *holes[HOLES];

    make_holes(larder, sizes, holes, _i);
    ck_assert_ptr_eq(larder_alloc(larder, 300 * KIB), holes[2]);
    /* 100 KiB are left of that one */
    ck_assert_ptr_eq(larder_alloc(larder, 110 * KIB), holes[1]);
    /* the large one is still whole, for whoever needs it */
    ck_assert_ptr_eq(larder_alloc(larder, MIB), holes[0]);
    ck_assert_uint_eq(larder_destroy(larder), 6);
}
END_TEST

START_TEST(among_equal_holes_a_request_gets_the_lowest)
{
    static const size_t sizes[HOLES] = {200 * KIB, 200 * KIB, 200 * KIB};
    larder_t *larder = make_fit(UINT32_MAX);
    void *holes[HOLES];

    make_holes(larder, sizes, holes, _i);
    ck_assert_uint_lt((uintptr_t)holes[0], (uintptr_t)holes[1]);
    ck_assert_uint_lt((uintptr_t)holes[1], (uintptr_t)holes[2]);
    for (unsigned i = 0; i < HOLES; i++)
        ck_assert_ptr_eq(larder_alloc(larder, 150 * KIB), holes[i]);
    ck_assert_uint_eq(larder_destroy(larder), 6);
}
END_TEST

START_TEST(a_hole_is_filled_before_memory_that_was_never_touched)
{
    static const size_t sizes[HOLES] = {MIB, 2 * MIB, MIB};
    larder_t *larder = make_fit(UINT32_MAX);
    void *holes[HOLES];
    uint64_t held;

    make_holes(larder, sizes, holes, _i);
    held = stats_of(larder).held_bytes;
    for (unsigned i = 0; i < 40; i++) /* 4 MiB in blocks of 100 KiB: 10 + 20 + 10 of them */
        must_alloc(larder, 100 * KIB);
    ck_assert_uint_le(stats_of(larder).held_bytes, held + 64 * KIB);
    ck_assert_uint_eq(larder_destroy(larder), 43);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("large_blocks");
    TCase *held = add_claims(suite, "held memory"), *choice = add_claims(suite, "choice");

    tcase_add_test(held, a_thousand_sizes_one_at_a_time_hold_one_and_a_half_of_the_largest);
    tcase_add_test(held, one_mebibyte_live_from_producer_to_consumer_holds_at_most_four);
    tcase_add_test(held, a_hundred_idle_threads_hold_at_most_64_kib_each);
    tcase_add_test(
        held,
        threads_that_inferred_together_hold_their_bound_a_mebibyte_and_records_after_the_decay);
    tcase_add_test(held,
                   after_the_last_inference_the_decay_and_a_tick_hold_what_is_live_and_little_more);
    tcase_add_test(choice, live_blocks_keep_their_contents_when_what_lies_between_is_discarded);
    tcase_add_test(choice, a_block_of_a_region_is_refused_by_record_free_and_stays_live);
    tcase_add_loop_test(choice, a_request_gets_the_smallest_hole_that_fits, 0, 6);
    tcase_add_loop_test(choice, among_equal_holes_a_request_gets_the_lowest, 0, 6);
    tcase_add_loop_test(choice, a_hole_is_filled_before_memory_that_was_never_touched, 0, 6);
    return run_suite(suite);
}
