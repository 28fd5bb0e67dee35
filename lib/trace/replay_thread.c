/* SPDX-License-Identifier: MIT */
/* Threads and their stacks: see replay_thread.h. */
#include "replay_thread.h"

#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pages.h"

/* Room for the thread-local storage of preloaded libraries, and of the thread sanitizer: 0.9 MB. */
#define STACK_BYTES ((size_t)1024 * 1024)
#define STACK_WRITTEN_BYTES ((size_t)24 * 1024)

static size_t page_size(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

/* With a page below that guards it. */
static size_t stack_size(void)
{
    long least = sysconf(_SC_THREAD_STACK_MIN);
    size_t page = page_size();
    size_t size = STACK_BYTES + (least > 0 ? (size_t)least : 0) + page;
    return (size + page - 1) / page * page;
}

int thread_open(struct replay_thread *thread)
{
    size_t bytes = stack_size();
    thread->started = false;
    thread->stack = pages_allocate(bytes);
    if (thread->stack == NULL) {
        return -ENOMEM;
    }
    mprotect(thread->stack, page_size(), PROT_NONE);
    memset(thread->stack + bytes - STACK_WRITTEN_BYTES, 0xff, STACK_WRITTEN_BYTES);
    return 0;
}

static int create(pthread_t *id, char *stack, size_t stack_bytes, void *(*run)(void *),
                  void *argument)
{
    pthread_attr_t attributes;
    sigset_t all, before;
    int error = pthread_attr_init(&attributes);
    if (error != 0) {
        return -error;
    }
    sigfillset(&all);
    pthread_attr_setstack(&attributes, stack, stack_bytes);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* inherited */
    error = pthread_create(id, &attributes, run, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return -error;
}

int thread_start(struct replay_thread *thread, void *(*run)(void *), void *argument)
{
    size_t guard = page_size();
    int result = create(&thread->id, thread->stack + guard, stack_size() - guard, run, argument);
    thread->started = result == 0;
    return result;
}

void thread_join(struct replay_thread *thread)
{
    if (thread->started) {
        pthread_join(thread->id, NULL);
        thread->started = false;
    }
}

void thread_close(struct replay_thread *thread)
{
    thread_join(thread);
    pages_free(thread->stack, stack_size());
    thread->stack = NULL;
}

/* -- How many there can be --------------------------------------------------------------------- */

static void *wait_for_end(void *argument)
{
    sem_t *end = argument;
    while (sem_wait(end) != 0 && errno == EINTR) {
    }
    return NULL;
}

size_t thread_count_possible(size_t wanted)
{
    size_t count = 0, bytes = stack_size();
    size_t table_bytes = wanted * (sizeof(pthread_t) + sizeof(char *));
    pthread_t *threads = pages_allocate(table_bytes);
    char **stacks = threads != NULL ? (char **)(threads + wanted) : NULL;
    sem_t end;
    sem_init(&end, 0, 0);
    for (; threads != NULL && count < wanted; count++) {
        stacks[count] = pages_allocate(bytes);
        if (stacks[count] == NULL ||
            create(&threads[count], stacks[count], bytes, wait_for_end, &end) != 0) {
            pages_free(stacks[count], bytes);
            break;
        }
    }
    for (size_t i = 0; i < count; i++) {
        sem_post(&end);
    }
    for (size_t i = 0; i < count; i++) {
        pthread_join(threads[i], NULL);
        pages_free(stacks[i], bytes);
    }
    sem_destroy(&end);
    pages_free(threads, table_bytes);
    return count;
}
