/* SPDX-License-Identifier: MIT */
/* A network to plan for: see planned_network.h. */
#include "planned_network.h"

larder_t *make_planned(void)
{
    return make_instance(LARDER_POLICY_PLANNED, larder_backend_mmap());
}

struct network make_network(uint64_t stream)
{
    struct network network;
    struct random random;
    random_init(&random, stream);
    for (int i = 0; i < LAYERS; i++) {
        network.output[i] = random_between(&random, 10 * KIB, 300 * KIB);
        network.work[i] = random_between(&random, 9 * KIB, 100 * KIB);
    }
    return network;
}

void *take(struct run *run, int slot, size_t size)
{
    void *ptr = larder_alloc(run->larder, size);
    ck_assert_ptr_nonnull(ptr);
    pattern_fill(ptr, size, run->seed + (uint64_t)slot);
    run->blocks[slot] = ptr;
    run->sizes[slot] = size;
    return ptr;
}

void give(struct run *run, int slot)
{
    if (run->blocks[slot] == NULL)
        return;
    ck_assert(pattern_holds(run->blocks[slot], run->sizes[slot], run->seed + (uint64_t)slot));
    larder_free(run->larder, run->blocks[slot]);
    run->blocks[slot] = NULL;
}

void infer(larder_t *larder, const struct network *network, uint64_t key, void **places)
{
    struct run run = {.larder = larder, .seed = key + 1000};
    ck_assert_int_eq(larder_plan_begin(larder, key), 0);
    for (int i = 0; i < LAYERS; i++) {
        void *output = take(&run, i, network->output[i]);
        if (places != NULL)
            places[i] = output;
        take(&run, LAYERS + i, network->work[i]);
        give(&run, LAYERS + i);
        if (i >= 2)
            give(&run, i - 2);
    }
    give(&run, LAYERS - 2);
    give(&run, LAYERS - 1);
    ck_assert_int_eq(larder_plan_end(larder), 0);
}
