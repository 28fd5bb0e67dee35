/* SPDX-License-Identifier: MIT */
/*
 * Handing the current scope to the threads of a pool. The pool is one as engines have it: a queue of functions with an
 * argument, a few threads that take from it, and a wait for the last; it knows nothing of larder.
 */
#include "support.h"

enum { THREADS = 4, QUEUE = 64 };

struct job {
    void (*function)(void *argument);
    void *argument;
};

struct pool {
    pthread_mutex_t mutex;
    pthread_cond_t work, idle;
    struct job queue[QUEUE];
    unsigned taken, submitted, done; /* of the queue; guarded by mutex, as all below */
    bool closing;
    pthread_t threads[THREADS];
};

static void *serve(void *argument)
{
    struct pool *pool = argument;
    pthread_mutex_lock(&pool->mutex);
    for (;;) {
        while (pool->taken == pool->submitted && !pool->closing)
            pthread_cond_wait(&pool->work, &pool->mutex);
        if (pool->taken == pool->submitted)
            break;
        struct job job = pool->queue[pool->taken++ % QUEUE];
        pthread_mutex_unlock(&pool->mutex);
        job.function(job.argument);
        pthread_mutex_lock(&pool->mutex);
        if (++pool->done == pool->submitted)
            pthread_cond_broadcast(&pool->idle);
    }
    pthread_mutex_unlock(&pool->mutex);
    return NULL;
}

static void pool_open(struct pool *pool)
{
    memset(pool, 0, sizeof *pool);
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->idle, NULL);
    for (unsigned i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&pool->threads[i], NULL, serve, pool), 0);
}

static void pool_submit(struct pool *pool, void (*function)(void *argument), void *argument)
{
    pthread_mutex_lock(&pool->mutex);
    ck_assert_uint_lt(pool->submitted - pool->taken, QUEUE);
    pool->queue[pool->submitted++ % QUEUE] = (struct job){function, argument};
    pthread_cond_signal(&pool->work);
    pthread_mutex_unlock(&pool->mutex);
}

static void pool_wait(struct pool *pool)
{
    pthread_mutex_lock(&pool->mutex);
    while (pool->done != pool->submitted)
        pthread_cond_wait(&pool->idle, &pool->mutex);
    pthread_mutex_unlock(&pool->mutex);
    assert_expectations();
}

static void pool_close(struct pool *pool)
{
    pthread_mutex_lock(&pool->mutex);
    pool->closing = true;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->mutex);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(pool->threads[i], NULL);
}

/* What a layer's part of the work does with memory. */
static void work_expecting(void *instance)
{
    for (size_t size = KIB; size <= MIB; size *= 4) {
        void *scratch = larder_current_alloc(size);
        expect(larder_current() == instance);
        expect(larder_owner(scratch) == instance);
        pattern_fill(scratch, size, size);
        expect(pattern_holds(scratch, size, size));
        larder_current_free(scratch);
    }
}

static void expect_no_scope(void *unused)
{
    (void)unused;
    expect(larder_current() == NULL);
}

START_TEST(a_pools_thread_has_no_scope_unless_it_is_handed_one)
{
    struct pool pool;
    larder_t *larder = make_instance(LARDER_POLICY_FIT, NULL);
    larder_t *previous = larder_scope_enter(larder);

    pool_open(&pool);
    pool_submit(&pool, expect_no_scope, NULL);
    pool_wait(&pool);
    larder_task_t task = larder_bind_current(work_expecting, larder);
    pool_submit(&pool, larder_task_run, &task);
    pool_wait(&pool);
    ck_assert_uint_ge(stats_of(larder).allocations, 6);
    pool_close(&pool);
    larder_scope_leave(previous);
    must_destroy(larder);
}
END_TEST

START_TEST(one_task_may_be_run_by_all_threads_at_once)
{
    struct pool pool;
    larder_t *larder = make_instance(LARDER_POLICY_FIT, NULL);
    larder_t *previous = larder_scope_enter(larder);
    larder_task_t task = larder_bind_current(work_expecting, larder);

    pool_open(&pool);
    larder_scope_leave(previous); /* bound is bound */
    for (unsigned i = 0; i < QUEUE / 2; i++)
        pool_submit(&pool, larder_task_run, &task);
    pool_wait(&pool);
    pool_close(&pool);
    ck_assert_uint_eq(stats_of(larder).allocations, QUEUE / 2 * 6);
    must_destroy(larder);
}
END_TEST

START_TEST(threads_are_left_as_they_were_found)
{
    struct pool pool;
    larder_t *larder = make_instance(LARDER_POLICY_FIT, NULL);
    larder_t *previous = larder_scope_enter(larder);
    larder_task_t task = larder_bind_current(work_expecting, larder);

    pool_open(&pool);
    for (unsigned i = 0; i < QUEUE / 4; i++) {
        pool_submit(&pool, larder_task_run, &task);
        pool_submit(&pool, expect_no_scope, NULL);
    }
    pool_wait(&pool);
    pool_close(&pool);
    larder_scope_leave(previous);
    must_destroy(larder);
}
END_TEST

START_TEST(two_models_share_a_pool_and_keep_their_memory_apart)
{
    struct pool pool;
    larder_t *models[2];
    larder_task_t tasks[2];

    pool_open(&pool);
    for (unsigned i = 0; i < 2; i++) {
        models[i] = make_instance(caching_policies[i], NULL);
        larder_t *previous = larder_scope_enter(models[i]);
        tasks[i] = larder_bind_current(work_expecting, models[i]);
        larder_scope_leave(previous);
    }
    for (unsigned i = 0; i < QUEUE / 2; i++)
        pool_submit(&pool, larder_task_run, &tasks[i % 2]);
    pool_wait(&pool);
    pool_close(&pool);
    for (unsigned i = 0; i < 2; i++) {
        ck_assert_uint_eq(stats_of(models[i]).allocations, QUEUE / 4 * 6);
        must_destroy(models[i]);
    }
}
END_TEST

START_TEST(a_task_bound_outside_of_scopes_runs_outside_of_scopes)
{
    larder_t *larder = make_instance(LARDER_POLICY_FIT, NULL);
    larder_task_t task = larder_bind_current(expect_no_scope, NULL);
    larder_t *previous = larder_scope_enter(larder);

    larder_task_run(&task);
    ck_assert_ptr_eq(larder_current(), larder);
    larder_scope_leave(previous);
    assert_expectations();
    must_destroy(larder);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pool");
    TCase *claims = add_claims(suite, "threads of a pool");

    tcase_add_test(claims, a_pools_thread_has_no_scope_unless_it_is_handed_one);
    tcase_add_test(claims, one_task_may_be_run_by_all_threads_at_once);
    tcase_add_test(claims, threads_are_left_as_they_were_found);
    tcase_add_test(claims, two_models_share_a_pool_and_keep_their_memory_apart);
    tcase_add_test(claims, a_task_bound_outside_of_scopes_runs_outside_of_scopes);
    return run_suite(suite);
}
