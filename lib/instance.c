/* SPDX-License-Identifier: MIT */
/* Instances, giving memory back, scopes, the process. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "config.h"
#include "entry.h"
#include "error.h"
#include "thread_state.h"

/* ---- instances ---- */

larder_t *larder_create(const char *name, const larder_config_t *config)
{
    larder_config_t checked;
    int error = config_read(&checked, config);
    if (error != 0) {
        errno = -error;
        return NULL;
    }
    return cache_create_instance(name, &checked);
}

static larder_t *default_instance;

static void create_default(void)
{
    larder_config_t config;
    larder_config_init(&config);
    (void)larder_config_from_environment(&config); /* what is wrong has been reported */
    default_instance = larder_create("default", &config);
    if (default_instance == NULL)
        default_instance = larder_create("default", NULL);
}

larder_t *larder_default(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, create_default);
    return default_instance;
}

size_t larder_destroy(larder_t *larder)
{
    if (larder == NULL || larder == default_instance)
        return 0;
    return cache_destroy_instance(larder);
}

const char *larder_name(const larder_t *larder)
{
    return larder->name;
}

/* ---- giving memory back ---- */

void larder_free_cached(larder_t *larder)
{
    cache_trim(larder, 0);
}

size_t larder_trim(larder_t *larder, size_t bytes)
{
    return cache_trim(larder, bytes);
}

void larder_flush_thread(larder_t *larder)
{
    thread_state_flush(larder);
}

size_t larder_tick(larder_t *larder)
{
    if (larder != NULL)
        return cache_tick(larder);
    size_t bytes = 0;
    for (struct larder *each = cache_next_instance(NULL); each != NULL;
         each = cache_next_instance(each)) {
        bytes += cache_tick(each);
    }
    return bytes;
}

/* Of what is cached. Trims while the process still works leave something: its next inference would fault all of it in again. */
static unsigned percent_to_keep(int level)
{
    if (level < LARDER_TRIM_RUNNING_MODERATE)
        return 100;
    if (level < LARDER_TRIM_RUNNING_LOW)
        return 50;
    if (level < LARDER_TRIM_RUNNING_CRITICAL)
        return 25;
    return level >= LARDER_TRIM_UI_HIDDEN && level < LARDER_TRIM_BACKGROUND ? 25 : 0;
}

static size_t trim_level(struct larder *instance, int level)
{
    unsigned percent = percent_to_keep(level);
    if (percent == 100)
        cache_tick(instance);
    else
        cache_trim(instance, (size_t)(cache_cached_bytes(instance) * percent / 100));
    return (size_t)cache_cached_bytes(instance);
}

size_t larder_trim_level(larder_t *larder, int level)
{
    if (larder != NULL)
        return trim_level(larder, level);
    size_t bytes = 0;
    for (struct larder *each = cache_next_instance(NULL); each != NULL;
         each = cache_next_instance(each)) {
        bytes += trim_level(each, level);
    }
    return bytes;
}

/* ---- scopes ---- */

/* Scopes deeper than SCOPE_CHECKED nest as well, but their order is not checked. */
larder_t *larder_scope_enter(larder_t *larder)
{
    larder_t *previous = thread_state.current;
    uint32_t depth = thread_state.scope_depth++;
    if (depth < SCOPE_CHECKED)
        thread_state.scopes[depth] = previous;
    thread_state.current = larder;
    return previous;
}

void larder_scope_leave(larder_t *previous)
{
    uint32_t depth = thread_state.scope_depth;
    if (depth == 0 || (depth <= SCOPE_CHECKED && thread_state.scopes[depth - 1] != previous)) {
        larder_t *told = thread_state.current != NULL ? thread_state.current : previous;
        error_report(told, LARDER_ERROR_SCOPE, "larder_scope_leave", previous, 0,
                     depth == 0 ? "no scope is open on this thread" : "not the innermost scope");
        return;
    }
    thread_state.scope_depth = depth - 1;
    thread_state.current = previous;
}

larder_t *larder_current(void)
{
    return thread_state.current;
}

larder_task_t larder_bind_current(void (*function)(void *context), void *context)
{
    return (larder_task_t){.function = function, .context = context, .larder = larder_current()};
}

void larder_task_run(void *task)
{
    const larder_task_t *bound = task;
    larder_t *previous = larder_scope_enter(bound->larder);
    bound->function(bound->context);
    larder_scope_leave(previous);
}

void *larder_current_alloc(size_t size)
{
    enum { SYSTEM_ALIGNMENT = 64 };
    larder_t *current = thread_state.current;
    if (current != NULL)
        return larder_alloc(current, size);
    void *ptr = NULL;
    int error = posix_memalign(&ptr, SYSTEM_ALIGNMENT, size);
    if (error != 0)
        errno = error;
    return error == 0 ? ptr : NULL;
}

void larder_current_free(void *ptr)
{
    larder_t *current = thread_state.current;
    /* larder_current_alloc() outside a scope gives the system's memory: such a pointer may come in here under
     * any instance */
    if (current != NULL && (current->backend.flags & LARDER_BACKEND_FREES_FOREIGN) == 0)
        current = NULL;
    entry_free(current, ptr, "larder_current_free");
}

/* ---- the process ---- */

const char *larder_version(void)
{
    return LARDER_VERSION_STRING;
}

int larder_set_map_shards(unsigned shards)
{
    return allocation_map_set_shards(shards);
}
