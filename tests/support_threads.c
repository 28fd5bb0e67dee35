/* SPDX-License-Identifier: MIT */
/*
 * Threads and child processes of the tests (see support.h). Check's assertions leave a test with
 * longjmp or exit, which only the thread that runs the test may do: others use expect(), which
 * counts, and the test fails when they have been joined.
 */
#include "support.h"

#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHILD_SECONDS 60
#define EXPECTATION_STATUS 99

#ifdef UNDER_COVERAGE
void __gcov_dump(void); /* of the compiler's own library, which _exit() goes past */
#else
static void __gcov_dump(void)
{
}
#endif

static _Atomic unsigned expectations_failed;
static _Atomic bool in_forked_child;

void expectation_failed(const char *file, int line, const char *condition)
{
    /* the first few say enough */
    if (atomic_fetch_add(&expectations_failed, 1) < 5)
        fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, condition);
    if (atomic_load(&in_forked_child))
        end_child(EXPECTATION_STATUS);
}

void end_child(int status)
{
    __gcov_dump();
    _exit(status);
}

void assert_expectations(void)
{
    unsigned failed = atomic_exchange(&expectations_failed, 0);

    ck_assert_msg(failed == 0, "%u expectations of threads did not hold, see stderr", failed);
}

/* -- Meetings -- */

void meeting_init(struct meeting *meeting, unsigned count)
{
    pthread_mutex_init(&meeting->mutex, NULL);
    pthread_cond_init(&meeting->everyone_here, NULL);
    meeting->count = count;
    meeting->waiting = 0;
    meeting->round = 0;
}

void meeting_wait(struct meeting *meeting)
{
    pthread_mutex_lock(&meeting->mutex);
    if (++meeting->waiting == meeting->count) {
        meeting->waiting = 0;
        meeting->round++;
        pthread_cond_broadcast(&meeting->everyone_here);
    } else {
        unsigned round = meeting->round;

        while (round == meeting->round)
            pthread_cond_wait(&meeting->everyone_here, &meeting->mutex);
    }
    pthread_mutex_unlock(&meeting->mutex);
}

/* -- Threads -- */

struct start {
    struct meeting *meeting;
    thread_body *body;
    void *context;
    unsigned index;
};

static void *thread_main(void *argument)
{
    struct start *start = argument;

    meeting_wait(start->meeting);
    start->body(start->context, start->index);
    return NULL;
}

void run_threads(unsigned count, thread_body *body, void *context)
{
    struct meeting meeting;
    pthread_t *threads = calloc(count, sizeof *threads);
    struct start *starts = calloc(count, sizeof *starts);

    ck_assert(threads && starts);
    meeting_init(&meeting, count);
    for (unsigned i = 0; i < count; i++) {
        starts[i] = (struct start){&meeting, body, context, i};
        ck_assert_int_eq(pthread_create(&threads[i], NULL, thread_main, &starts[i]), 0);
    }
    for (unsigned i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    free(starts);
    free(threads);
    assert_expectations();
}

/* -- Child processes -- */

static void child_main(void (*body)(void *context), void *context, int output)
{
    struct rlimit no_core = {0, 0};

    setrlimit(RLIMIT_CORE, &no_core);
    dup2(output, STDERR_FILENO);
    signal(SIGALRM, SIG_DFL); /* Check's handler would end the parent, too */
    alarm(CHILD_SECONDS);
    atomic_store(&in_forked_child, true);
    body(context);
    end_child(0);
}

struct child_end run_in_child(void (*body)(void *context), void *context)
{
    struct child_end end = {0, 0, ""};
    FILE *output = tmpfile(); /* a file, not a pipe: the child never waits for a reader */
    int status = 0;
    pid_t child;

    ck_assert_ptr_nonnull(output);
    fflush(NULL);
    child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0)
        child_main(body, context, fileno(output));
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    end.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    end.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    rewind(output);
    end.output[fread(end.output, 1, sizeof end.output - 1, output)] = '\0';
    fclose(output);
    return end;
}
