/* SPDX-License-Identifier: MIT */
/*
 * The thread that ticks, for whoever asks for one.
 *
 * It sleeps on a condition with a deadline, so stopping does not wait for the interval. Signals are the program's: the thread blocks them
 * all. After a fork the child has the state but not the thread, and perhaps a locked mutex: the process id tells, and all
 * begins anew.
 */
#include <errno.h>
#include <larder/larder.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <time.h>
#include <unistd.h>

enum { DEFAULT_INTERVAL_MS = 250, STACK_BYTES = 128 * 1024 };

static struct {
    pid_t process; /* that the rest is about */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool running, stopping; /* guarded by mutex, as the interval */
    uint32_t interval_ms;
    pthread_t thread;
} ticker;

/* Called by the first to use it in a process; two threads at once are the caller's mistake. */
static void prepare(void)
{
    if (ticker.process == getpid())
        return;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&ticker.changed, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&ticker.mutex, NULL);
    ticker.running = ticker.stopping = false;
    ticker.process = getpid();
}

static struct timespec deadline(uint32_t interval_ms)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_sec += (time_t)(interval_ms / 1000);
    at.tv_nsec += (long)(interval_ms % 1000) * 1000000;
    if (at.tv_nsec >= 1000000000) {
        at.tv_sec++;
        at.tv_nsec -= 1000000000;
    }
    return at;
}

static void *tick_on(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&ticker.mutex);
    while (!ticker.stopping) {
        struct timespec at = deadline(ticker.interval_ms);
        if (pthread_cond_timedwait(&ticker.changed, &ticker.mutex, &at) != ETIMEDOUT)
            continue;
        pthread_mutex_unlock(&ticker.mutex);
        (void)larder_tick(NULL);
        pthread_mutex_lock(&ticker.mutex);
    }
    pthread_mutex_unlock(&ticker.mutex);
    return NULL;
}

static int start_thread(void)
{
    sigset_t all, before;
    pthread_attr_t attributes;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    (void)pthread_attr_setstacksize(&attributes, STACK_BYTES); /* else the default */
    pthread_sigmask(SIG_BLOCK, &all, &before);
    int error = pthread_create(&ticker.thread, &attributes, tick_on, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return -error;
}

int larder_ticker_start(uint32_t interval_ms)
{
    prepare();
    pthread_mutex_lock(&ticker.mutex);
    ticker.interval_ms = interval_ms != 0 ? interval_ms : DEFAULT_INTERVAL_MS;
    int error = 0;
    if (!ticker.running) {
        error = start_thread();
        ticker.running = error == 0;
    } else {
        pthread_cond_signal(&ticker.changed);
    }
    pthread_mutex_unlock(&ticker.mutex);
    return error;
}

void larder_ticker_stop(void)
{
    prepare();
    pthread_mutex_lock(&ticker.mutex);
    bool running = ticker.running;
    ticker.stopping = running;
    pthread_cond_signal(&ticker.changed);
    pthread_mutex_unlock(&ticker.mutex);
    if (!running)
        return;
    pthread_join(ticker.thread, NULL);
    ticker.running = ticker.stopping = false;
}
