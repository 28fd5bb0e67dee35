/* SPDX-License-Identifier: MIT */
/*
 * Fixed workloads whose cost is counted, not timed: see `guard`.
 *
 * guard_workloads NAME runs one and prints what larder counted meanwhile, as one line of JSON. All that is to
 * be counted happens inside guard_run(), by which callgrind switches its own counting on and off; what is
 * set up once happens before. One thread, no clock (nothing decays), sizes from a fixed sequence: the
 * counts are the same each time, and the instructions nearly so (addresses differ).
 */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "larder/larder.h"

enum { LIVE_MAX = 64 };

struct workload {
    const char *name;
    void (*run)(larder_t *larder, unsigned rounds);
    unsigned rounds;
    larder_checks_t checks;
};

static void pairs(larder_t *larder, unsigned rounds, size_t size)
{
    for (unsigned i = 0; i < rounds; i++) {
        larder_free(larder, larder_alloc(larder, size));
    }
}

static void pairs_64(larder_t *larder, unsigned rounds)
{
    pairs(larder, rounds, 64);
}

static void pairs_4k(larder_t *larder, unsigned rounds)
{
    pairs(larder, rounds, 4096);
}

static void pairs_100k(larder_t *larder, unsigned rounds)
{
    pairs(larder, rounds, 100000);
}

static void pairs_1m(larder_t *larder, unsigned rounds)
{
    pairs(larder, rounds, 1 << 20);
}

static void batches(larder_t *larder, unsigned rounds, size_t size)
{
    void *blocks[16];
    for (unsigned i = 0; i < rounds; i++) {
        for (size_t b = 0; b < 16; b++) {
            blocks[b] = larder_alloc(larder, size);
        }
        for (size_t b = 0; b < 16; b++) {
            larder_free(larder, blocks[b]);
        }
    }
}

static void batches_1k(larder_t *larder, unsigned rounds)
{
    batches(larder, rounds, 1024);
}

static void batches_4k(larder_t *larder, unsigned rounds)
{
    batches(larder, rounds, 4096);
}

static void batches_256k(larder_t *larder, unsigned rounds)
{
    batches(larder, rounds, 256 * 1024);
}

/* Sizes that never repeat in the same order: the span heap splits and joins all the time. */
static void mixed(larder_t *larder, unsigned rounds)
{
    void *live[LIVE_MAX] = {NULL};
    uint32_t state = 12345;
    for (unsigned i = 0; i < rounds; i++) {
        state = state * 1664525u + 1013904223u;
        size_t slot = state >> 26;
        size_t size = (size_t)1024 << (state >> 8 & 7);
        larder_free(larder, live[slot]);
        live[slot] = larder_alloc(larder, size + (state >> 12 & 1023));
    }
    for (size_t slot = 0; slot < LIVE_MAX; slot++) {
        larder_free(larder, live[slot]);
    }
}

/* The same large blocks in the same order again and again, as an inference makes them. */
static void inferences(larder_t *larder, unsigned rounds)
{
    void *live[LIVE_MAX];
    for (unsigned i = 0; i < rounds; i++) {
        for (size_t b = 0; b < LIVE_MAX; b++) {
            live[b] = larder_alloc(larder, 20000 + b * 7000);
        }
        for (size_t b = 0; b < LIVE_MAX; b++) {
            larder_free(larder, live[b]);
        }
    }
}

static void reallocations(larder_t *larder, unsigned rounds)
{
    for (unsigned i = 0; i < rounds; i++) {
        void *block = larder_alloc(larder, 500);
        for (size_t size = 1000; size < 300000; size *= 3) {
            block = larder_realloc(larder, block, size);
        }
        larder_free(larder, block);
    }
}

/* What a trim gives back has to be fetched again. */
static void trims(larder_t *larder, unsigned rounds)
{
    for (unsigned i = 0; i < rounds; i++) {
        batches(larder, 1, 30000);
        batches(larder, 1, 2000);
        larder_free_cached(larder);
    }
}

static void lookups_of_strangers(larder_t *larder, unsigned rounds)
{
    char strangers[64];
    for (unsigned i = 0; i < rounds; i++) {
        (void)larder_owner(&strangers[i % sizeof strangers]);
    }
    (void)larder;
}

static const struct workload workloads[] = {
    {"pairs_64", pairs_64, 2000, LARDER_CHECKS_DEFAULT},
    {"pairs_4k", pairs_4k, 2000, LARDER_CHECKS_DEFAULT},
    {"pairs_4k_strict", pairs_4k, 2000, LARDER_CHECKS_STRICT},
    {"pairs_100k", pairs_100k, 2000, LARDER_CHECKS_DEFAULT},
    {"pairs_1m", pairs_1m, 2000, LARDER_CHECKS_DEFAULT},
    {"batches_1k", batches_1k, 200, LARDER_CHECKS_DEFAULT},
    {"batches_4k", batches_4k, 200, LARDER_CHECKS_DEFAULT},
    {"batches_256k", batches_256k, 200, LARDER_CHECKS_DEFAULT},
    {"mixed", mixed, 4000, LARDER_CHECKS_DEFAULT},
    {"inferences", inferences, 60, LARDER_CHECKS_DEFAULT},
    {"reallocations", reallocations, 200, LARDER_CHECKS_DEFAULT},
    {"trims", trims, 40, LARDER_CHECKS_DEFAULT},
    {"lookups_of_strangers", lookups_of_strangers, 2000, LARDER_CHECKS_DEFAULT},
};

/* Not inlined, and by a name that callgrind finds. */
__attribute__((noinline)) void guard_run(const struct workload *workload, larder_t *larder);

void guard_run(const struct workload *workload, larder_t *larder)
{
    workload->run(larder, workload->rounds);
}

static void print_counts(const struct workload *workload, const larder_stats_t *before,
                         const larder_stats_t *after)
{
    uint64_t calls = after->allocations + after->frees - before->allocations - before->frees;
    printf("{\"calls\": %" PRIu64 ", \"locks\": %" PRIu64 ", \"exchanges\": %" PRIu64
           ", \"backend_calls\": %" PRIu64 ", \"discards\": %" PRIu64 "}\n",
           calls > 0 ? calls : workload->rounds,
           after->lock_acquisitions - before->lock_acquisitions,
           after->depot_exchanges - before->depot_exchanges,
           after->backend_allocations + after->backend_frees - before->backend_allocations -
               before->backend_frees,
           after->backend_discards - before->backend_discards);
}

static int run(const struct workload *workload)
{
    larder_config_t config;
    larder_stats_t before = {.struct_size = sizeof before}, after = {.struct_size = sizeof after};
    larder_config_init(&config);
    config.decay_ms = UINT32_MAX;
    config.checks = workload->checks;
    larder_t *larder = larder_create("guard", &config);
    if (larder == NULL) {
        fputs("guard_workloads: no memory: close other programs\n", stderr);
        return 1;
    }
    workload->run(larder, 2); /* what is set up once */
    larder_stats_get(larder, &before);
    guard_run(workload, larder);
    larder_stats_get(larder, &after);
    print_counts(workload, &before, &after);
    larder_destroy(larder);
    return 0;
}

int main(int argc, char **argv)
{
    for (size_t i = 0; i < sizeof workloads / sizeof workloads[0]; i++) {
        if (argc == 1) {
            puts(workloads[i].name);
        } else if (strcmp(argv[1], workloads[i].name) == 0) {
            return run(&workloads[i]);
        }
    }
    if (argc > 1) {
        fprintf(stderr, "guard_workloads: no workload '%s': name one of those it lists without\n",
                argv[1]);
    }
    return argc == 1 ? 0 : 2;
}
