/* SPDX-License-Identifier: MIT */
/*
 * larder's own policies. The environment's LARDER_* settings hold, except for the two that make
 * each of these what its name says: policy and backend.
 */
#include "allocators.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "larder/larder.h"

static void *larder_allocate(void *context, size_t size)
{
    return larder_alloc(context, size);
}

static void *larder_allocate_aligned(void *context, size_t alignment, size_t size)
{
    return larder_alloc_aligned(context, alignment, size);
}

static void *larder_reallocate(void *context, void *ptr, size_t size)
{
    return larder_realloc(context, ptr, size);
}

static void larder_release(void *context, void *ptr)
{
    larder_free(context, ptr);
}

static void larder_report(void *context, struct allocator_report *out)
{
    larder_stats_t stats = {.struct_size = sizeof stats};
    if (larder_stats_get(context, &stats) == 0) {
        *out = (struct allocator_report){
            .held_bytes = stats.held_bytes,
            .peak_held_bytes = stats.peak_held_bytes,
            .live_bytes = stats.live_bytes,
            .cached_bytes = stats.cached_bytes,
            .metadata_bytes = stats.metadata_bytes,
            .calls = stats.allocations + stats.frees,
            .lock_acquisitions = stats.lock_acquisitions,
            .depot_exchanges = stats.depot_exchanges,
            .backend_calls =
                stats.backend_allocations + stats.backend_frees + stats.backend_discards,
        };
    }
}

static void larder_trim_all(void *context)
{
    larder_free_cached(context);
}

/* What larder-planned calls an inference. */
static void larder_pass_begin(void *context)
{
    larder_plan_begin(context, 0);
}

static void larder_pass_end(void *context)
{
    larder_plan_end(context);
}

static void larder_close(void *context)
{
    larder_destroy(context);
}

static int open_with(struct allocator *out, larder_policy_t policy, const larder_backend_t *backend,
                     char *why, size_t why_size)
{
    static const char *const policies[] = {"fit", "exact", "passthrough", "planned"};
    larder_config_t config;
    larder_config_init(&config);
    if (larder_config_from_environment(&config) != 0) {
        snprintf(why, why_size,
                 "a LARDER_ variable in the environment is wrong: correct or unset it");
        return -EINVAL;
    }
    config.policy = policy;
    config.backend = backend;
    larder_t *larder = larder_create("replay", &config);
    if (larder == NULL) {
        int error = errno;
        snprintf(why, why_size, "larder could not be created: %s", strerror(error));
        return -error;
    }
    *out = (struct allocator){
        .version = larder_version(),
        .policy = policies[policy],
        .context = larder,
        .allocate = larder_allocate,
        .allocate_aligned = larder_allocate_aligned,
        .reallocate = larder_reallocate,
        .release = larder_release,
        .report = larder_report,
        .close = larder_close,
        .trim = larder_trim_all,
        .frees_foreign = backend == larder_backend_system(),
    };
    return 0;
}

int larder_fit_open(struct allocator *out, char *why, size_t why_size)
{
    return open_with(out, LARDER_POLICY_FIT, larder_backend_mmap(), why, why_size);
}

int larder_exact_open(struct allocator *out, char *why, size_t why_size)
{
    return open_with(out, LARDER_POLICY_EXACT, larder_backend_system(), why, why_size);
}

int larder_planned_open(struct allocator *out, char *why, size_t why_size)
{
    int result = open_with(out, LARDER_POLICY_PLANNED, larder_backend_mmap(), why, why_size);
    if (result == 0) {
        out->pass_begin = larder_pass_begin;
        out->pass_end = larder_pass_end;
    }
    return result;
}

int larder_mimalloc_open(struct allocator *out, char *why, size_t why_size)
{
    const larder_backend_t *backend = larder_backend_mimalloc();
    if (backend == NULL) {
        snprintf(why, why_size,
                 "no mimalloc library found: install libmimalloc2.0 (Debian) or set "
                 "LARDER_MIMALLOC to one");
        return -ENODEV;
    }
    return open_with(out, LARDER_POLICY_FIT, backend, why, why_size);
}

int larder_passthrough_open(struct allocator *out, char *why, size_t why_size)
{
    return open_with(out, LARDER_POLICY_PASSTHROUGH, larder_backend_system(), why, why_size);
}
