/* SPDX-License-Identifier: MIT */
/*
 * A program to be recorded: known calls, in a known order, one scene a run. It finds the recorder's
 * functions as any program would. test_record.sh knows what each scene must leave in the trace.
 */
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STRESS_THREADS = 4, STRESS_SLOTS = 256, STRESS_ROUNDS = 100000, SHORT_THREADS = 300 };

static void (*record_start)(void);
static void (*record_stop)(void);
static void (*record_mark)(const char *name);

static pthread_barrier_t barrier;
static void *handed_over;
static void *from_before[2];

static void find(const char *name, void *function, size_t function_size)
{
    void *symbol = dlsym(RTLD_DEFAULT, name);
    if (!symbol) {
        fprintf(stderr, "record_calls: %s not found: not under the recorder\n", name);
        exit(1);
    }
    memcpy(function, &symbol, function_size);
}

static void *checked(void *block)
{
    if (!block)
        abort();
    return block;
}

static void meet(void)
{
    pthread_barrier_wait(&barrier);
}

/* Scene "calls": every call of the family, two threads taking turns. */
static void *second_of_calls(void *unused)
{
    meet();
    free(handed_over);
    free(from_before[0]);
    handed_over = realloc(from_before[1], 70000);
    meet();
    meet();
    return unused;
}

static void every_call(void)
{
    void *a = checked(malloc(1000)), *b = checked(calloc(10, 20)), *c = NULL;
    if (posix_memalign(&c, 64, 3000) != 0)
        abort();
    void *d = checked(aligned_alloc(128, 2560)), *e = checked(memalign(256, 777));
    void *f = checked(valloc(100)), *g = checked(pvalloc(5000));
    a = checked(realloc(a, 500000));
    b = checked(reallocarray(b, 40, 50));
    record_mark("half-way");
    handed_over = c;
    meet();
    meet();
    free(handed_over);
    void *h = checked(realloc(NULL, 11));
    if (realloc(h, 0) != NULL)
        abort();
    free(NULL);
    free(a), free(b), free(d), free(e), free(f);
    (void)g; /* stays live */
}

static void fail_calls(void)
{
    volatile size_t absurd = SIZE_MAX / 2;
    void *kept = checked(malloc(4321)), *out = NULL;
    if (malloc(absurd) || calloc(absurd, 4) || realloc(kept, absurd) ||
        reallocarray(kept, absurd, 4) || posix_memalign(&out, 3, 100) == 0)
        abort();
    free(kept);
}

static void scene_calls(void)
{
    pthread_t second;
    pthread_barrier_init(&barrier, NULL, 2);
    from_before[0] = checked(malloc(100)), from_before[1] = checked(malloc(200));
    pthread_create(&second, NULL, second_of_calls, NULL);
    record_mark("outside");
    record_start();
    every_call();
    fail_calls();
    record_stop();
    free(checked(malloc(99999)));
    meet();
    pthread_join(second, NULL);
}

/* Scene "windows": a block that is freed between two windows, and its address handed out again. */
static void scene_windows(void)
{
    record_start();
    void *block = checked(malloc(300000));
    record_stop();
    uintptr_t address = (uintptr_t)block;
    free(block);
    record_start();
    block = checked(malloc(300000));
    record_stop();
    if ((uintptr_t)block != address)
        exit(77);
}

/* Scene "stress": threads exchange blocks through shared slots; in the end all are freed. */
static void *_Atomic slots[STRESS_SLOTS];

static void *stress(void *argument)
{
    uint64_t state = (uintptr_t)argument * 0x9E3779B97F4A7C15u + 1;
    for (int i = 0; i < STRESS_ROUNDS; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        size_t slot = (size_t)(state >> 33) % STRESS_SLOTS, size = (state >> 45) % 3000 + 1;
        void *block = atomic_exchange(&slots[slot], NULL);
        if (!block)
            block = checked(malloc(size));
        else if ((state >> 60) < 8)
            block = checked(realloc(block, size));
        else
            free(block), block = NULL;
        if (block)
            free(atomic_exchange(&slots[slot], block));
    }
    return NULL;
}

static void scene_stress(void)
{
    pthread_t threads[STRESS_THREADS];
    for (uintptr_t i = 0; i < STRESS_THREADS; i++)
        pthread_create(&threads[i], NULL, stress, (void *)i);
    for (int i = 0; i < STRESS_THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < STRESS_SLOTS; i++)
        free(slots[i]);
}

/* Scene "short": many threads, one after the other, each freeing in a destructor as well. */
static pthread_key_t short_key;

static void *short_life(void *unused)
{
    free(checked(malloc(100)));
    pthread_setspecific(short_key, checked(malloc(200)));
    return unused;
}

static void scene_short(void)
{
    pthread_key_create(&short_key, free);
    record_start();
    for (int i = 0; i < SHORT_THREADS; i++) {
        pthread_t thread;
        pthread_create(&thread, NULL, short_life, NULL);
        pthread_join(thread, NULL);
    }
    record_stop();
}

/* Scene "late": a destructor that comes again in every round, so frees after the recorder's. */
static pthread_key_t late_key;

static void free_late(void *block)
{
    free(block);
    pthread_setspecific(late_key, malloc(300));
}

static void *late_life(void *unused)
{
    pthread_setspecific(late_key, checked(malloc(300)));
    return unused;
}

static void scene_late(void)
{
    pthread_t thread;
    pthread_key_create(&late_key, free_late);
    record_start();
    pthread_create(&thread, NULL, late_life, NULL);
    pthread_join(thread, NULL);
    record_stop();
}

/* Scenes "running", "exit-now", "quick-exit": another thread's buffer must be written out too. */
static void *allocate_and_stay(void *unused)
{
    handed_over = checked(malloc(1111));
    meet();
    pause();
    return unused;
}

static void start_other_thread(void)
{
    pthread_t thread;
    pthread_barrier_init(&barrier, NULL, 2);
    record_start();
    pthread_create(&thread, NULL, allocate_and_stay, NULL);
    meet();
}

static void scene_running(void)
{
    start_other_thread();
    exit(0);
}

static void scene_exit_now(void)
{
    start_other_thread();
    _exit(0);
}

static void scene_quick_exit(void)
{
    start_other_thread();
    quick_exit(0);
}

/* Scene "fork": the parent's recording goes on, the child leaves nothing, forked or vforked. */
static void scene_fork(void)
{
    record_start();
    free(checked(malloc(2222)));
    pid_t child = fork();
    if (child == 0) {
        free(checked(malloc(3333)));
        record_start();
        free(checked(malloc(3333)));
        exit(0);
    }
    waitpid(child, NULL, 0);
    child = vfork();
    if (child == 0)
        _exit(0);
    waitpid(child, NULL, 0);
    free(checked(malloc(4444)));
}

/* Scene "closed": a daemon closes descriptors it does not know. */
static void scene_closed(void)
{
    record_start();
    for (int i = 0; i < 5000; i++)
        free(checked(malloc(100)));
    for (int file = 3; file < 1024; file++)
        close(file);
    if (chdir("/") != 0)
        abort();
    for (int i = 0; i < 5000; i++)
        free(checked(malloc(100)));
}

/* Scene "killed": nobody gets to run anything any more; another thread's entries must be kept, too. */
static void scene_killed(void)
{
    start_other_thread();
    free(checked(malloc(5555)));
    kill(getpid(), SIGKILL);
}

/* Scene "waits": until a signal ends it. */
static void scene_waits(void)
{
    record_start();
    free(checked(malloc(6666)));
    puts("ready");
    fflush(stdout);
    for (;;)
        pause();
}

static const struct {
    const char *name;
    void (*run)(void);
} scenes[] = {
    {"calls", scene_calls},       {"windows", scene_windows},
    {"stress", scene_stress},     {"short", scene_short},
    {"late", scene_late},         {"running", scene_running},
    {"exit-now", scene_exit_now}, {"quick-exit", scene_quick_exit},
    {"fork", scene_fork},         {"closed", scene_closed},
    {"killed", scene_killed},     {"waits", scene_waits},
};

int main(int argc, char **argv)
{
    find("larder_record_start", &record_start, sizeof record_start);
    find("larder_record_stop", &record_stop, sizeof record_stop);
    find("larder_mark", &record_mark, sizeof record_mark);
    for (size_t i = 0; argc == 2 && i < sizeof scenes / sizeof *scenes; i++) {
        if (strcmp(argv[1], scenes[i].name) == 0) {
            scenes[i].run();
            return 0;
        }
    }
    fprintf(stderr, "usage: record_calls SCENE\n");
    return 2;
}
