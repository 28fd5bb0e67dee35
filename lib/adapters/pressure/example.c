/* SPDX-License-Identifier: MIT */
/*
 * A program that gives its cached memory back when the machine is short of it: one thread works, another one waits for the kernel's word.
 *
 * usage: larder-pressure-example [INFERENCES]
 *
 * Run it beside something that takes all memory, with some millions of inferences, to see it trim. Exit code 77: this kernel does not
 * tell of pressure, or not us.
 */
#include <larder_pressure.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STALL_US = 150000, WINDOW_US = 2000000, LOOK_AGAIN_MS = 50, TENSORS = 8 };

struct watch {
    int fd;
    _Atomic int ending;
    int trims; /* the watcher's until it has been joined */
};

static void *wait_for_pressure(void *argument)
{
    struct watch *watch = argument;
    while (!atomic_load_explicit(&watch->ending, memory_order_relaxed)) {
        int woken = larder_pressure_wait(watch->fd, NULL, LARDER_TRIM_RUNNING_LOW, LOOK_AGAIN_MS);
        if (woken < 0) {
            fprintf(stderr, "example: waiting for pressure: %s\n", strerror(-woken));
            break;
        }
        watch->trims += woken;
    }
    return NULL;
}

/* Stands for a network: tensors of several sizes, some of which live side by side. */
static void infer(larder_t *larder)
{
    void *tensors[TENSORS];
    for (size_t i = 0; i < TENSORS; i++) {
        size_t size = (size_t)100000 * (i + 1);
        tensors[i] = larder_alloc(larder, size);
        if (tensors[i] != NULL)
            memset(tensors[i], (int)i, size);
    }
    for (size_t i = 0; i < TENSORS; i++)
        larder_free(larder, tensors[i]);
}

int main(int argc, char **argv)
{
    long inferences = argc > 1 ? strtol(argv[1], NULL, 10) : 100;
    struct watch watch = {.fd = larder_pressure_open(STALL_US, WINDOW_US)};
    if (watch.fd < 0) {
        printf("skipped: no word of memory pressure from this kernel: %s\n", strerror(-watch.fd));
        return 77;
    }
    larder_t *larder = larder_create("example", NULL);
    pthread_t watcher;
    if (larder == NULL || pthread_create(&watcher, NULL, wait_for_pressure, &watch) != 0) {
        perror("example: no instance, or no thread");
        return 1;
    }
    for (long i = 0; i < inferences; i++)
        infer(larder);
    atomic_store_explicit(&watch.ending, 1, memory_order_relaxed);
    pthread_join(watcher, NULL);
    printf("%ld inferences, %d trims under pressure\n", inferences, watch.trims);
    larder_stats_print(larder, stdout);
    close(watch.fd);
    return larder_destroy(larder) == 0 ? 0 : 1;
}
