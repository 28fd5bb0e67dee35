/* SPDX-License-Identifier: MIT */
/*
 * A program that knows nothing of larder and checks its malloc: one scene a run, each of which
 * prints what is wrong and fails. test_run.sh runs them on several configurations of larder.
 *
 * Built with -fno-builtin: the compiler must not leave out what is allocated only to be freed.
 */
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)

static const size_t sizes[] = {0,     1,     24,     1000,    4096,    16383,
                               16384, 16385, 100000, 1 << 20, 5 << 20, 1500};
enum { SIZES = sizeof sizes / sizeof *sizes };

static void check(bool holds, const char *claim, size_t size)
{
    if (holds)
        return;
    fprintf(stderr, "run_calls: size %zu: not so: %s\n", size, claim);
    _exit(1);
}

static void fill(unsigned char *block, size_t size, unsigned seed)
{
    for (size_t i = 0; i < size; i += 97)
        block[i] = (unsigned char)(i * 31 + seed);
}

static bool is_filled(const unsigned char *block, size_t size, unsigned seed)
{
    for (size_t i = 0; i < size; i += 97) {
        if (block[i] != (unsigned char)(i * 31 + seed))
            return false;
    }
    return true;
}

static bool is_zero(const unsigned char *block, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (block[i] != 0)
            return false;
    }
    return true;
}

/* As malloc promises: there, aligned for any type, and as large as it says. */
static void *good(void *block, size_t size, size_t alignment)
{
    check(block != NULL, "a block is given", size);
    check((uintptr_t)block % alignment == 0, "it is aligned", size);
    size_t usable = malloc_usable_size(block);
    check(usable >= size, "all of it is usable", size);
    memset(block, 0xa5, usable);
    return block;
}

/* Scene "calls": each call of the family, for sizes on both sides of the bound. */
static void aligned_calls(size_t size)
{
    for (size_t alignment = sizeof(void *); alignment <= 8 * MIB; alignment *= 8) {
        void *block = NULL;
        check(posix_memalign(&block, alignment, size) == 0, "posix_memalign succeeds", size);
        free(good(block, size, alignment));
        free(good(memalign(alignment, size), size, alignment));
        free(
            good(aligned_alloc(alignment, (size + alignment) & ~(alignment - 1)), size, alignment));
    }
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    free(good(valloc(size), size, page));
    free(good(pvalloc(size), size, page));
}

static void scene_calls(void)
{
    for (int i = 0; i < SIZES; i++) {
        size_t size = sizes[i];
        free(good(malloc(size), size, 16));
        for (int round = 0; round < 3; round++) { /* also where dirty memory is used again */
            unsigned char *zeroes = calloc(size / 4 + 1, 4);
            check(zeroes != NULL && is_zero(zeroes, size), "calloc gives zeroes", size);
            free(good(zeroes, size, 16));
        }
        aligned_calls(size);
    }
    free(NULL);
    check(malloc_usable_size(NULL) == 0, "nothing has no size", 0);
}

/* Scene "realloc": from each size to each other one, contents kept. */
static void scene_realloc(void)
{
    for (int from = 1; from < SIZES; from++) {
        for (int to = 1; to < SIZES; to++) {
            size_t kept = sizes[from] < sizes[to] ? sizes[from] : sizes[to];
            unsigned char *block = good(malloc(sizes[from]), sizes[from], 16);
            fill(block, sizes[from], 7);
            block = realloc(block, sizes[to]);
            check(block != NULL && is_filled(block, kept, 7), "contents are kept", sizes[to]);
            block = reallocarray(good(block, sizes[to], 16), 3, 50000);
            free(good(block, 150000, 16));
        }
    }
    void *block = realloc(NULL, 100000);
    block = realloc(good(block, 100000, 16), 0);
    free(block); /* NULL or a block, as the C library has it */
}

/* What malloc_usable_size() tells may be used, and realloc() keeps it. */
static void scene_usable(void)
{
    for (int i = 1; i < SIZES; i++) {
        unsigned char *block = malloc(sizes[i]);
        size_t usable = malloc_usable_size(block);
        fill(block, usable, 3);
        block = realloc(block, usable + 300000);
        check(is_filled(block, usable, 3), "usable bytes are kept", sizes[i]);
        free(block);
    }
}

/* Scene "errno". */
static void scene_errno(void)
{
    volatile size_t absurd = SIZE_MAX / 2;
    void *out = &out, *kept = malloc(100000);
    for (int i = 0; i < SIZES; i++) {
        void *block = malloc(sizes[i]);
        errno = E2BIG;
        free(block);
        check(errno == E2BIG, "free keeps errno", sizes[i]);
    }
    errno = 0;
    check(malloc(absurd) == NULL && errno == ENOMEM, "malloc sets ENOMEM", absurd);
    errno = 0;
    check(calloc(absurd, 4) == NULL && errno == ENOMEM, "calloc sets ENOMEM", absurd);
    errno = 0;
    check(realloc(kept, absurd) == NULL && errno == ENOMEM, "realloc sets ENOMEM", absurd);
    errno = 0;
    check(reallocarray(kept, absurd, 4) == NULL && errno == ENOMEM, "reallocarray sets ENOMEM", 4);
    errno = 0;
    check(pvalloc(SIZE_MAX) == NULL && errno == ENOMEM, "pvalloc sets ENOMEM", SIZE_MAX);
    errno = E2BIG;
    check(posix_memalign(&out, 64, absurd) == ENOMEM && errno == E2BIG && out == (void *)&out,
          "posix_memalign returns its error, and nothing else changes", absurd);
    check(posix_memalign(&out, 3, 100) == EINVAL && posix_memalign(&out, 0, 100) == EINVAL &&
              posix_memalign(&out, 2, 100) == EINVAL,
          "posix_memalign refuses a bad alignment", 3);
    free(good(kept, 100000, 16));
}

/* Scene "fresh": large zeroes that nobody writes to cost next to no memory. */
static void scene_fresh(void)
{
    struct rusage before, after;
    free(malloc(100000));
    getrusage(RUSAGE_SELF, &before);
    unsigned char *block = calloc(64, MIB);
    getrusage(RUSAGE_SELF, &after);
    check(after.ru_minflt - before.ru_minflt < 1000, "calloc leaves fresh pages alone", 64 * MIB);
    check(is_zero(block, 64 * MIB), "they read as zero", 64 * MIB);
    free(block);
}

/* Scene "threads": blocks change hands, threads end and free even after their teardown. */
enum { THREADS = 4, SLOTS = 64, ROUNDS = 10000, SHORT_THREADS = 100 };
static void *_Atomic slots[SLOTS];
static pthread_key_t late_key;

static void free_late(void *block)
{
    free(block);
    pthread_setspecific(late_key, malloc(50000));
}

static void *exchange(void *argument)
{
    uint64_t random = (uintptr_t)argument * 0x9E3779B97F4A7C15u + 1;
    for (int i = 0; i < ROUNDS; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        size_t slot = (size_t)(random >> 33) % SLOTS, size = (random >> 45) % 60000 + 8;
        size_t *block = atomic_exchange(&slots[slot], NULL);
        if (block != NULL)
            check(block[0] <= malloc_usable_size(block), "a block is whose it was", block[0]);
        block = (random >> 60) < 8 ? realloc(block, size) : (free(block), malloc(size));
        block[0] = size;
        free(atomic_exchange(&slots[slot], block));
    }
    return NULL;
}

static void *short_life(void *only_frees)
{
    free(only_frees);
    if (only_frees == NULL) {
        pthread_setspecific(late_key, malloc(50000));
        free(malloc(200000));
    }
    return NULL;
}

static void scene_threads(void)
{
    pthread_t threads[THREADS], one;
    pthread_key_create(&late_key, free_late);
    for (uintptr_t i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, exchange, (void *)i);
    for (int i = 0; i < SHORT_THREADS; i++) {
        pthread_create(&one, NULL, short_life, i % 2 == 0 ? NULL : malloc(300000));
        pthread_join(one, NULL);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < SLOTS; i++)
        free(slots[i]);
}

/* Scene "keys": a thread's value beyond the first keys, for which the C library allocates. */
static void scene_keys(void)
{
    pthread_key_t key;
    for (int i = 0; i < 100; i++)
        check(pthread_key_create(&key, NULL) == 0, "there are keys", (size_t)i);
    scene_threads();
}

/* Scene "fork": other threads allocate, children too. */
static _Atomic bool over;

static void *churn(void *unused)
{
    while (!over)
        free(good(malloc(200000), 200000, 16));
    return unused;
}

static void scene_fork(void)
{
    pthread_t thread;
    pthread_create(&thread, NULL, churn, NULL);
    unsigned char *block = good(malloc(300000), 300000, 16);
    fill(block, 300000, 9);
    for (int i = 0; i < 6; i++) {
        int status = 0;
        pid_t child = fork();
        if (child == 0) {
            check(is_filled(block, 300000, 9), "a child has its parent's blocks", 300000);
            free(block);
            scene_calls();
            _exit(0);
        }
        check(waitpid(child, &status, 0) == child && status == 0, "the child is fine", (size_t)i);
    }
    over = true;
    pthread_join(thread, NULL);
    free(block);
}

/* Scene "early": from before main to after it. */
static unsigned char *from_constructor;

static void free_at_exit(void)
{
    check(is_filled(from_constructor, 70000, 1), "a block lives from constructor to exit", 70000);
    free(from_constructor);
    free(good(malloc(100000), 100000, 16));
}

__attribute__((constructor)) static void allocate_early(void)
{
    from_constructor = good(malloc(70000), 70000, 16);
    fill(from_constructor, 70000, 1);
}

static void scene_early(void)
{
    atexit(free_at_exit);
}

/* Scene "dlopen": a library that comes and goes, and with it what it allocates. */
static void scene_dlopen(void)
{
    for (int i = 0; i < 20; i++) {
        void *library = dlopen("libm.so.6", RTLD_NOW | RTLD_LOCAL);
        check(library != NULL && dlsym(library, "no such name") == NULL && dlerror() != NULL,
              "a library can be opened, and tells what it has not", 0);
        dlclose(library);
    }
}

/* Scene "served": prints who serves a request of so many bytes; larder's blocks are whole units. */
static void scene_served(void)
{
    for (int i = 1; i < SIZES; i++) {
        void *block = malloc(sizes[i]);
        size_t usable = malloc_usable_size(block);
        printf("%zu %s\n", sizes[i], usable % 512 == 0 ? "larder" : "next");
        free(block);
    }
}

/* Scene "closed": stderr is closed at the end, as programs do to see whether it was written. */
static void scene_closed(void)
{
    free(good(malloc(100000), 100000, 16));
    fclose(stderr);
}

static const struct {
    const char *name;
    void (*run)(void);
} scenes[] = {
    {"calls", scene_calls},   {"realloc", scene_realloc}, {"usable", scene_usable},
    {"errno", scene_errno},   {"fresh", scene_fresh},     {"threads", scene_threads},
    {"keys", scene_keys},     {"fork", scene_fork},       {"early", scene_early},
    {"dlopen", scene_dlopen}, {"served", scene_served},   {"closed", scene_closed},
};

int main(int argc, char **argv)
{
    for (size_t i = 0; argc == 2 && i < sizeof scenes / sizeof *scenes; i++) {
        if (strcmp(argv[1], scenes[i].name) == 0) {
            scenes[i].run();
            return 0;
        }
    }
    fprintf(stderr, "usage: run_calls SCENE\n");
    return 2;
}
