/* SPDX-License-Identifier: MIT */
/*
 * Plans to and from a file (plan_file.h). What is read passes the judge before anything of it is used; offsets that suit
 * this instance are taken as they are, so that a plan searched for at length elsewhere is not lost.
 */
#include "planned.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "plan_check.h"
#include "plan_file.h"

/* ---- writing ---- */

/* Puts all plans into use, so that they stay; returns how many. */
static uint32_t hold_plans(struct planned *planned, struct plan *held[PLANS_MOST])
{
    uint32_t count = 0;
    spinlock_lock(&planned->lock);
    for (struct plan *plan = planned->plans; plan != NULL; plan = plan->next) {
        plan->uses++;
        held[count++] = plan;
    }
    spinlock_unlock(&planned->lock);
    return count;
}

static void let_go(struct planned *planned, struct plan *const *held, uint32_t count)
{
    spinlock_lock(&planned->lock);
    for (uint32_t i = 0; i < count; i++)
        held[i]->uses--;
    spinlock_unlock(&planned->lock);
}

static void write_plan(struct plan_writer *writer, const struct larder *instance,
                       const struct plan *plan)
{
    size_t edges = instance->front + instance->back;
    uint32_t first = region_first_unit();
    plan_write_head(writer, &(struct plan_head){
                                .key = plan->key,
                                .blocks = plan->count,
                                .peak = (uint64_t)(plan->end_unit - first) << UNIT_SHIFT,
                            });
    for (uint32_t k = 0; k < plan->count; k++) {
        const struct plan_step *step = &plan->steps[k];
        const struct plan_lifetime *lifetime = &plan->lifetimes[k];
        plan_write_row(writer, &(struct plan_row){
                                   .begin = lifetime->begin,
                                   .end = lifetime->end,
                                   .alignment = lifetime->alignment,
                                   .size = step->size - edges,
                                   .offset = (uint64_t)(step->start - first) << UNIT_SHIFT,
                               });
    }
}

static int write_plans(const struct larder *instance, FILE *file)
{
    struct planned *planned = instance->planned;
    struct plan *held[PLANS_MOST];
    struct plan_writer writer;
    uint32_t count = hold_plans(planned, held);
    plan_write_begin(&writer, file);
    for (uint32_t i = count; i-- > 0;) /* the oldest first, as they will be read */
        write_plan(&writer, instance, held[i]);
    let_go(planned, held, count);
    return plan_write_end(&writer);
}

int larder_plan_save(const larder_t *larder, const char *path)
{
    char aside[4096];
    if (larder == NULL || path == NULL)
        return -EINVAL;
    if (larder->planned == NULL)
        return -ENOTSUP;
    int length = snprintf(aside, sizeof aside, "%s.%ld.new", path, (long)getpid());
    if (length < 0 || (size_t)length >= sizeof aside)
        return -ENAMETOOLONG;
    FILE *file = fopen(aside, "we");
    if (file == NULL)
        return -errno;
    int error = write_plans(larder, file);
    if (fclose(file) != 0 && error == 0)
        error = -EIO;
    if (error == 0 && rename(aside, path) != 0)
        error = -errno;
    if (error != 0)
        unlink(aside);
    return error;
}

/* ---- reading ---- */

/* What one plan of the file becomes: arrays for its rows, in one mapping. */
struct loading {
    struct plan_item *items;
    struct plan_request *requests;
    uint64_t *offsets;
    char *scratch;
    size_t map_bytes;
};

static bool loading_map(struct loading *loading, uint32_t count)
{
    size_t n = (size_t)count + 1;
    size_t requests = n * sizeof *loading->items;
    size_t offsets = requests + n * sizeof *loading->requests;
    size_t scratch = (offsets + n * sizeof *loading->offsets + 15) & ~(size_t)15;
    loading->map_bytes = scratch + plan_check_scratch_bytes(count);
    char *memory = os_map(loading->map_bytes);
    if (memory == NULL)
        return false;
    loading->items = (struct plan_item *)(void *)memory;
    loading->requests = (struct plan_request *)(void *)(memory + requests);
    loading->offsets = (uint64_t *)(void *)(memory + offsets);
    loading->scratch = memory + scratch;
    return true;
}

/* Reads and judges the rows of a plan. */
static int read_rows(struct plan_reader *reader, const struct plan_head *head,
                     const struct larder *instance, struct loading *loading)
{
    for (uint32_t k = 0; k < head->blocks; k++) {
        struct plan_row row;
        if (plan_read_row(reader, &row) != 0)
            return -EINVAL;
        if (row.size > SIZE_MAX / 4 || row.alignment == 0 ||
            (row.alignment & (row.alignment - 1)) != 0)
            return -EINVAL;
        loading->items[k] = (struct plan_item){.begin = row.begin,
                                               .end = row.end,
                                               .size = row.size,
                                               .offset = row.offset,
                                               .alignment = row.alignment};
        loading->requests[k] =
            (struct plan_request){.size = (size_t)row.size + instance->front + instance->back,
                                  .begin = row.begin,
                                  .end = row.end,
                                  .alignment = row.alignment};
        loading->offsets[k] = row.offset;
    }
    struct plan_verdict verdict =
        plan_check(loading->items, head->blocks, head->peak, loading->scratch);
    return verdict.fault == PLAN_FINE ? 0 : -EINVAL;
}

/* Leaves the requests that the policy can take care of; returns how many. */
static uint32_t keep_possible(const struct larder *instance, struct loading *loading,
                              uint32_t count)
{
    uint32_t kept = 0;
    for (uint32_t k = 0; k < count; k++) {
        if (!planned_takes(instance, PLANNED_ABOVE, loading->requests[k].size,
                           loading->requests[k].alignment))
            continue;
        loading->requests[kept] = loading->requests[k];
        loading->offsets[kept++] = loading->offsets[k];
    }
    return kept;
}

/* Reads a plan's rows and makes a plan of them; *plan is NULL where there is nothing to plan. */
static int load_plan(struct plan_reader *reader, const struct plan_head *head,
                     struct larder *instance, struct plan **plan)
{
    struct loading loading;
    *plan = NULL;
    if (head->blocks > PLAN_REQUESTS_MOST)
        return -E2BIG;
    if (!loading_map(&loading, head->blocks))
        return -ENOMEM;
    int error = read_rows(reader, head, instance, &loading);
    uint32_t kept = error == 0 ? keep_possible(instance, &loading, head->blocks) : 0;
    size_t above;
    kept = planned_choose(instance, loading.requests, loading.offsets, kept, &above);
    if (kept != 0) {
        *plan = planned_make(head->key, above, loading.requests, loading.offsets, kept);
        if (*plan == NULL)
            error = -ENOMEM;
    }
    os_unmap(loading.items, loading.map_bytes);
    return error;
}

/* Loads all plans, or none. */
static int load_plans(struct larder *instance, FILE *file)
{
    struct plan_reader reader;
    struct plan_head head;
    struct plan *plans[PLANS_MOST];
    int count = 0, got = 0, error = plan_read_begin(&reader, file);
    while (error == 0 && (got = plan_read_head(&reader, &head)) == 1) {
        struct plan *plan;
        error = count < PLANS_MOST ? load_plan(&reader, &head, instance, &plan) : -E2BIG;
        if (error == 0 && plan != NULL)
            plans[count++] = plan;
    }
    if (error == 0)
        error = got;
    for (int i = 0; i < count; i++) {
        if (error == 0) {
            planned_publish(instance->planned, plans[i]);
        } else {
            planned_unmap(plans[i]);
        }
    }
    return error == 0 ? count : error;
}

int larder_plan_load(larder_t *larder, const char *path)
{
    if (larder == NULL || path == NULL)
        return -EINVAL;
    if (larder->planned == NULL)
        return -ENOTSUP;
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return -errno;
    int result = load_plans(larder, file);
    fclose(file);
    return result;
}
