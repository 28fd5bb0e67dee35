/* SPDX-License-Identifier: MIT */
/*
 * What a sandbox or a container takes away: system calls that a seccomp filter refuses, before larder is used
 * or afterwards, and memory that a control group limits. Each in a child process.
 */
#include "support.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cache.h"

#define NO_FILTER 77

/* From here on the process's `number` fails with `error`. Ends the child where there is no seccomp. */
static void refuse(long number, int error)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ((uint32_t)error & SECCOMP_RET_DATA)),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof filter[0], filter};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        _exit(NO_FILTER);
}

struct refusal {
    const char *name;
    long number;
    int error;
};

static const struct refusal refusals[] = {
    {"madvise", SYS_madvise, EPERM},       {"madvise", SYS_madvise, ENOMEM},
    {"mprotect", SYS_mprotect, EPERM},     {"mprotect", SYS_mprotect, ENOMEM},
    {"membarrier", SYS_membarrier, EPERM}, {"membarrier", SYS_membarrier, ENOSYS},
};
#define REFUSAL_COUNT 6

static struct sandbox {
    const struct refusal *refusal;
    larder_policy_t policy;
    bool afterwards;
} sandbox;

static void use(larder_t *larder, uint64_t seed)
{
    struct random random = {seed};
    void *blocks[16] = {NULL};
    size_t sizes[16] = {0};

    for (unsigned step = 0; step < 2000; step++) {
        size_t i = random_between(&random, 0, 15);

        expect(blocks[i] == NULL || pattern_holds(blocks[i], sizes[i], i + seed));
        larder_free(larder, blocks[i]);
        sizes[i] = random_size(&random, 300 * KIB);
        blocks[i] = larder_alloc(larder, sizes[i]);
        /* without mprotect there is no memory in regions, and the backend has none either */
        expect(blocks[i] != NULL || (errno == ENOMEM && sandbox.refusal->number == SYS_mprotect));
        if (blocks[i] != NULL)
            pattern_fill(blocks[i], sizes[i], i + seed);
        if (step % 500 == 499)
            larder_trim(larder, 0);
    }
    for (unsigned i = 0; i < 16; i++)
        larder_free(larder, blocks[i]);
}

static void *use_in_a_thread(void *larder)
{
    use(larder, 100);
    return NULL;
}

static void live_in_a_sandbox(void *context)
{
    larder_config_t config;
    larder_t *larder;
    pthread_t thread;

    (void)context;
    larder_config_init(&config);
    config.policy = sandbox.policy;
    config.backend = larder_backend_mmap();
    if (!sandbox.afterwards)
        refuse(sandbox.refusal->number, sandbox.refusal->error);
    larder = larder_create("tested", &config);
    expect(larder != NULL);
    for (unsigned i = 0; i < 300; i++) /* the lock of large blocks is this thread's by now */
        larder_free(larder, larder_alloc(larder, 100 * KIB));
    if (sandbox.afterwards)
        refuse(sandbox.refusal->number, sandbox.refusal->error);
    use(larder, 1);
    /* a new thread's stack needs mprotect */
    if (sandbox.refusal->number != SYS_mprotect) {
        expect(pthread_create(&thread, NULL, use_in_a_thread, larder) == 0);
        use(larder, 2);
        pthread_join(thread, NULL);
    }
    if (sandbox.refusal->number == SYS_membarrier && sandbox.policy == LARDER_POLICY_FIT)
        expect(!os_barrier_is_remote());
    expect(larder_destroy(larder) == 0);
}

START_TEST(a_refused_system_call_costs_speed_or_memory_but_no_block)
{
    struct child_end end;

    if (emulated_or_note("system calls refused by a filter"))
        return;
    sandbox = (struct sandbox){&refusals[_i / 6], (larder_policy_t)(_i / 2 % 3), _i % 2};
    end = run_in_child(live_in_a_sandbox, NULL);
    if (end.status == NO_FILTER) {
        fputs("note: no seccomp filters here\n", stderr);
        return;
    }
    ck_assert_msg(end.signal == 0 && end.status == 0,
                  "%s, error %d, policy %d: signal %d, status %d: %s", sandbox.refusal->name,
                  sandbox.refusal->error, (int)sandbox.policy, end.signal, end.status, end.output);
}
END_TEST

/* -- A control group's limit -- */

static char group[128];

static bool write_to(const char *name, const char *text)
{
    char path[256];
    ssize_t written = -1;

    snprintf(path, sizeof path, "%s/%s", group, name);
    int file = open(path, O_WRONLY);
    if (file >= 0) {
        written = write(file, text, strlen(text));
        close(file);
    }
    return written == (ssize_t)strlen(text);
}

/* A group of 96 MiB, of either version, or false. */
static bool make_group(void)
{
    static const char *const roots[] = {"/sys/fs/cgroup/memory", "/sys/fs/cgroup"};
    static const char *const limits[] = {"memory.limit_in_bytes", "memory.max"};

    for (unsigned i = 0; i < 2; i++) {
        snprintf(group, sizeof group, "%s/larder-test-%ld", roots[i], (long)getpid());
        if (mkdir(group, 0700) != 0)
            continue;
        if (write_to(limits[i], "100663296"))
            return true;
        rmdir(group);
    }
    return false;
}

/* Live blocks of at most 48 MiB, of ever other sizes: what is cached must not end the process. */
static void live_within_the_limit(void *context)
{
    char self[32];
    struct random random = {3};
    void *blocks[24] = {NULL};
    larder_t *larder;

    (void)context;
    snprintf(self, sizeof self, "%ld", (long)getpid());
    if (!write_to("cgroup.procs", self))
        _exit(NO_FILTER);
    larder = larder_create("tested", NULL);
    for (unsigned step = 0; step < 4000; step++) {
        size_t i = random_between(&random, 0, 23), size = random_size(&random, 2 * MIB);

        larder_free(larder, blocks[i]);
        blocks[i] = larder_alloc(larder, size);
        expect(blocks[i] != NULL);
        memset(blocks[i], 1, size);
    }
    for (unsigned i = 0; i < 24; i++)
        larder_free(larder, blocks[i]);
    expect(larder_destroy(larder) == 0);
}

START_TEST(what_is_cached_fits_into_a_container_with_twice_the_live_bytes)
{
    struct child_end end;

    if (emulated_or_note("a container's limit"))
        return;
    if (!make_group()) {
        fputs("note: no control group can be made here\n", stderr);
        return;
    }
    end = run_in_child(live_within_the_limit, NULL);
    for (unsigned i = 0; i < 100 && rmdir(group) != 0; i++)
        usleep(10000);
    if (end.status == NO_FILTER) {
        fputs("note: no process can be moved into a control group here\n", stderr);
        return;
    }
    ck_assert_msg(end.signal == 0 && end.status == 0, "signal %d, status %d: %s", end.signal,
                  end.status, end.output);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("refusals");
    TCase *claims = add_claims(suite, "sandboxes");

#if !UNDER_SANITIZER /* whose own calls would be refused */
    tcase_add_loop_test(claims, a_refused_system_call_costs_speed_or_memory_but_no_block, 0,
                        6 * REFUSAL_COUNT);
    tcase_add_test(claims, what_is_cached_fits_into_a_container_with_twice_the_live_bytes);
#endif
    return run_suite(suite);
}
