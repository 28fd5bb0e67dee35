/* SPDX-License-Identifier: MIT */
/*
 * Everything at once: 64 threads with blocks of random sizes that they hand to each other, threads that
 * come and go by the thousand and leave their blocks behind, instances of all kinds that are destroyed
 * under live blocks and made anew, and trims, ticks, walks and statistics of all of them meanwhile. The contents
 * of every block are verified at its end, and the books at the end of all.
 *
 * It lasts LARDER_TEST_SECONDS, or a few: `tools/dev soak` gives it minutes.
 */
#include "support.h"

#include <stdio.h>
#include <time.h>

#define WORKERS 64
#define SPAWNERS 2
#define BATCH 8 /* threads that a spawner starts at a time */
#define SLOTS 256
#define PLACES 4 /* for instances */
#define LARGEST (96 * KIB)

/* A block on its way, known to nobody but the slot it lies in. */
struct parcel {
    void *block;
    size_t size;
    uint64_t seed;
};

static struct place {
    pthread_mutex_t
        door; /* to the lock: else, where a C library prefers them, readers keep a writer out for ever */
    pthread_rwlock_t lock; /* read: inside a call on the instance */
    larder_t *larder;
} places[PLACES];
static struct parcel *_Atomic slots[SLOTS];
static _Atomic bool over;
static _Atomic uint64_t blocks_verified, threads_ended, instances_ended;

/* -- Instances -- */

static void enter(struct place *place)
{
    pthread_mutex_lock(&place->door);
    pthread_rwlock_rdlock(&place->lock);
    pthread_mutex_unlock(&place->door);
}

static void enter_alone(struct place *place)
{
    pthread_mutex_lock(&place->door);
    pthread_rwlock_wrlock(&place->lock);
    pthread_mutex_unlock(&place->door);
}

static larder_t *any_kind_of_instance(struct random *random)
{
    static const size_t caps[] = {SIZE_MAX, SIZE_MAX, 0, 512 * KIB};
    larder_config_t config =
        test_config((larder_policy_t)random_between(random, 0, 2), larder_backend_mmap());

    config.max_cached_bytes = caps[random_between(random, 0, 3)];
    config.checks = (larder_checks_t)random_between(random, 0, 1);
    config.redzone = random_between(random, 0, 3) == 0 ? 16 : 0;
    config.quarantine_bytes = random_between(random, 0, 3) == 0 ? 64 * KIB : 0;
    config.decay_ms = random_between(random, 0, 1) ? 1 : 1000;
    return larder_create("churned", &config);
}

static void replace_an_instance(struct random *random)
{
    size_t i = random_between(random, 0, PLACES - 1);

    enter_alone(&places[i]);
    larder_destroy(places[i].larder); /* its live blocks stay valid */
    places[i].larder = any_kind_of_instance(random);
    expect(places[i].larder != NULL);
    pthread_rwlock_unlock(&places[i].lock);
    atomic_fetch_add(&instances_ended, 1);
}

/* -- Blocks -- */

static struct parcel *pack(struct random *random)
{
    struct parcel *parcel = malloc(sizeof *parcel);
    size_t i = random_between(random, 0, PLACES - 1);

    parcel->size = random_size(random, LARGEST);
    parcel->seed = random_next(random);
    enter(&places[i]);
    parcel->block = larder_alloc(places[i].larder, parcel->size);
    pthread_rwlock_unlock(&places[i].lock);
    expect(parcel->block != NULL);
    pattern_fill(parcel->block, parcel->size, parcel->seed);
    return parcel;
}

static void open(struct parcel *parcel)
{
    if (parcel == NULL)
        return;
    expect(pattern_holds(parcel->block, parcel->size, parcel->seed));
    larder_free(NULL, parcel->block);
    free(parcel);
    atomic_fetch_add_explicit(&blocks_verified, 1, memory_order_relaxed);
}

/* A free of a block is a call on its owner, which must not be destroyed meanwhile; nobody knows which it
 * is, so all stay. */
static void open_safely(struct parcel *parcel)
{
    for (size_t i = 0; i < PLACES; i++)
        enter(&places[i]);
    open(parcel);
    for (size_t i = PLACES; i-- > 0;)
        pthread_rwlock_unlock(&places[i].lock);
}

static void hand_over(struct random *random)
{
    size_t i = random_between(random, 0, SLOTS - 1);

    open_safely(atomic_exchange(&slots[i], random_between(random, 0, 2) ? pack(random) : NULL));
}

/* -- What others ask for meanwhile -- */

static int count_block(void *context, void *ptr, size_t size)
{
    (void)ptr;
    (void)size;
    ++*(uint64_t *)context;
    return 0;
}

static void look_after_an_instance(struct random *random)
{
    size_t i = random_between(random, 0, PLACES - 1);
    larder_stats_t stats = {.struct_size = sizeof stats};
    uint64_t count = 0;

    enter(&places[i]);
    switch (random_between(random, 0, 5)) {
    case 0:
        larder_trim(places[i].larder, 100 * KIB);
        break;
    case 1:
        larder_free_cached(places[i].larder);
        break;
    case 2:
        larder_flush_thread(places[i].larder);
        break;
    case 3:
        larder_walk(places[i].larder, count_block, &count);
        break;
    case 4:
        expect(larder_stats_get(places[i].larder, &stats) == 0 && stats.errors == 0);
        break;
    default:
        larder_tick(places[i].larder);
    }
    pthread_rwlock_unlock(&places[i].lock);
}

/* Of all instances: those that are just being destroyed are not its caller's affair. */
static void tick_all(void)
{
    larder_tick(NULL);
    larder_flush_thread(NULL);
}

/* -- Threads -- */

static void work_a_while(struct random *random, unsigned steps)
{
    for (unsigned step = 0; step < steps; step++) {
        hand_over(random);
        if (random_between(random, 0, 199) == 0)
            look_after_an_instance(random);
        if (random_between(random, 0, 499) == 0)
            tick_all();
    }
}

static void *live_shortly(void *seed)
{
    struct random random = {(uintptr_t)seed};

    work_a_while(&random, 10);
    atomic_fetch_add(&threads_ended, 1);
    return NULL;
}

static void spawn(struct random *random)
{
    pthread_t threads[BATCH];

    for (unsigned i = 0; i < BATCH; i++) {
        void *seed = (void *)(uintptr_t)random_next(random);

        expect(pthread_create(&threads[i], NULL, live_shortly, seed) == 0);
    }
    for (unsigned i = 0; i < BATCH; i++)
        pthread_join(threads[i], NULL);
}

static bool time_is_up(const struct timespec *begin)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec - begin->tv_sec >= (time_t)test_seconds(2);
}

static void play_a_part(void *context, unsigned index)
{
    struct random random;

    random_init(&random, index + 1);
    do {
        if (index == 0)
            replace_an_instance(&random);
        else if (index <= SPAWNERS)
            spawn(&random);
        else
            work_a_while(&random, 100);
        if (index == 0 && time_is_up(context))
            atomic_store(&over, true);
    } while (!atomic_load(&over));
}

START_TEST(nothing_is_lost_when_threads_and_instances_come_and_go)
{
    struct timespec begin;
    struct random random;

    random_init(&random, 0);
    for (size_t i = 0; i < PLACES; i++) {
        pthread_mutex_init(&places[i].door, NULL);
        pthread_rwlock_init(&places[i].lock, NULL);
        places[i].larder = any_kind_of_instance(&random);
        ck_assert_ptr_nonnull(places[i].larder);
    }
    clock_gettime(CLOCK_MONOTONIC, &begin);
    run_threads(1 + SPAWNERS + WORKERS, play_a_part, &begin);
    for (size_t i = 0; i < SLOTS; i++)
        open(atomic_exchange(&slots[i], NULL));
    for (size_t i = 0; i < PLACES; i++) {
        ck_assert_uint_eq(stats_of(places[i].larder).live_blocks, 0);
        must_destroy(places[i].larder);
    }
    fprintf(stderr, "note: %llu blocks verified, %llu threads and %llu instances came and went\n",
            (unsigned long long)atomic_load(&blocks_verified),
            (unsigned long long)atomic_load(&threads_ended),
            (unsigned long long)atomic_load(&instances_ended));
    ck_assert_uint_gt(atomic_load(&blocks_verified), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("stress of comings and goings");
    TCase *claims = add_claims(suite, "all at once");

    tcase_add_test(claims, nothing_is_lost_when_threads_and_instances_come_and_go);
    return run_suite(suite);
}
