/* SPDX-License-Identifier: MIT */
/*
 * What a cache line costs that two processors want: for `cost_model`.
 *
 * Prints one line of JSON, nanoseconds each, the least of several rounds (what disturbs only adds):
 *   own_ns        an atomic exchange on a line that nobody else touches
 *   transfer_ns   a line's way from one processor to the other: two threads answer each other through it
 *   contended_ns  an atomic addition where two threads do nothing else to the same line: how often it can be had at all
 *
 * Each thread has a processor of its own. With only one processor there is nothing to measure, and
 * the last two are missing.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

enum { ROUNDS = 9, STEPS = 50000 };

static struct {
    _Alignas(128) _Atomic uint32_t line;
    _Alignas(128) _Atomic uint32_t ready; /* threads that have arrived */
} shared;

static double now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return 1e9 * (double)time.tv_sec + (double)time.tv_nsec;
}

static cpu_set_t processors; /* that this process may use; read before any thread is bound to one */

/* Binds the calling thread to the first of them, or the second. */
static bool bind_to(int which)
{
    for (size_t cpu = 0; cpu < (size_t)CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &processors) && which-- == 0) {
            cpu_set_t one;
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            return pthread_setaffinity_np(pthread_self(), sizeof one, &one) == 0;
        }
    }
    return false;
}

/* Both threads are here: so that neither runs alone for long. */
static void meet(void)
{
    atomic_fetch_add(&shared.ready, 1);
    while (atomic_load(&shared.ready) < 2) {
    }
}

/* Waits until the line says `turn`, then says the other's turn. */
static void answer(uint32_t turn)
{
    for (uint32_t i = 0; i < STEPS; i++) {
        while (atomic_load_explicit(&shared.line, memory_order_acquire) != 2 * i + turn) {
        }
        atomic_store_explicit(&shared.line, 2 * i + turn + 1, memory_order_release);
    }
}

static void add(void)
{
    for (int i = 0; i < STEPS; i++) {
        atomic_fetch_add_explicit(&shared.line, 1, memory_order_relaxed);
    }
}

static void *answer_second(void *unused)
{
    bind_to(1);
    meet();
    answer(1);
    return unused;
}

static void *add_second(void *unused)
{
    bind_to(1);
    meet();
    add();
    return unused;
}

static double measure_own(void)
{
    double begin = now_ns();
    for (uint32_t i = 0; i < STEPS; i++) {
        atomic_exchange_explicit(&shared.line, i, memory_order_acq_rel);
    }
    return (now_ns() - begin) / STEPS;
}

/* Both threads from the start of the first to the end of the last; below zero: no second thread. */
static double measure_both(void *(*second)(void *), bool answers)
{
    pthread_t thread;
    atomic_store(&shared.line, 0);
    atomic_store(&shared.ready, 0);
    if (pthread_create(&thread, NULL, second, NULL) != 0)
        return -1;
    meet();
    double begin = now_ns();
    if (answers) {
        answer(0);
    } else {
        add();
    }
    pthread_join(thread, NULL);
    return (now_ns() - begin) / (2.0 * STEPS);
}

static double least(double a, double b)
{
    return b >= 0 && b < a ? b : a;
}

int main(void)
{
    double own = 1e12, transfer = 1e12, contended = 1e12;
    bool both = sched_getaffinity(0, sizeof processors, &processors) == 0 &&
                CPU_COUNT(&processors) > 1 && bind_to(0);
    for (int i = 0; i < ROUNDS; i++) {
        own = least(own, measure_own());
        if (both) {
            transfer = least(transfer, measure_both(answer_second, true));
            contended = least(contended, measure_both(add_second, false));
        }
    }
    printf("{\"own_ns\": %.2f", own);
    if (both) {
        printf(", \"transfer_ns\": %.2f, \"contended_ns\": %.2f", transfer, contended);
    }
    puts("}");
    return 0;
}
