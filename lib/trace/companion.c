/* SPDX-License-Identifier: MIT */
/*
 * The sleeping thread: see companion.h.
 *
 * It sleeps in sem_wait() from before companion_start() returns until companion_stop(). Creating a
 * thread makes the C library allocate its thread-local storage, a few hundred bytes of this
 * process's malloc; the stack is a mapping.
 */
#include "companion.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>

/* Room for the thread-local storage of preloaded libraries; hardly any of it is touched. */
#define STACK_BYTES (256 * 1024)

static struct {
    unsigned users;
    pthread_t thread;
    sem_t asleep; /* posted by the thread right before it sleeps */
    sem_t end;    /* posted to end it */
} companion;

static void wait_for(sem_t *semaphore)
{
    while (sem_wait(semaphore) != 0 && errno == EINTR) {
    }
}

static void *sleep_until_end(void *unused)
{
    (void)unused;
    sem_post(&companion.asleep);
    wait_for(&companion.end);
    return NULL;
}

/* The thread inherits a mask without signals: they stay with those who handle them. */
static int create_thread(void)
{
    pthread_attr_t attributes;
    sigset_t all, before;
    int error = pthread_attr_init(&attributes);
    if (error != 0) {
        return -error;
    }
    sigfillset(&all);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&companion.thread, &attributes, sleep_until_end, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return -error;
}

int companion_start(void)
{
    if (companion.users == 0) {
        sem_init(&companion.asleep, 0, 0);
        sem_init(&companion.end, 0, 0);
        int result = create_thread();
        if (result != 0) {
            return result;
        }
        wait_for(&companion.asleep);
    }
    companion.users++;
    return 0;
}

void companion_stop(void)
{
    if (--companion.users == 0) {
        sem_post(&companion.end);
        pthread_join(companion.thread, NULL);
        sem_destroy(&companion.asleep);
        sem_destroy(&companion.end);
    }
}
