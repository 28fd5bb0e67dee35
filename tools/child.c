/* SPDX-License-Identifier: MIT */
/*
 * Children and interrupts: see child.h.
 *
 * Output goes to unnamed temporary files, not pipes: nothing can fill up and nobody has to poll.
 * The caught signals are blocked while the child is started, so that the handler never misses its
 * id.
 *
 * A time limit is a timer that the child sets for itself before it becomes the program: timers
 * outlive execv(), and nobody here has to wait for two things at once.
 */
#include "child.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/prctl.h>
#endif

#include "tool.h"

static const int caught_signals[] = {SIGINT, SIGTERM, SIGHUP};

/* Read by the handler, written with the signals blocked. 0: none. */
static volatile sig_atomic_t running;
static volatile sig_atomic_t interrupted_by;

static void on_interrupt(int signal)
{
    interrupted_by = signal;
    if (running != 0) {
        kill((pid_t)running, SIGTERM);
    }
}

static void fill_set(sigset_t *set)
{
    sigemptyset(set);
    for (size_t i = 0; i < sizeof caught_signals / sizeof caught_signals[0]; i++) {
        sigaddset(set, caught_signals[i]);
    }
}

static void set_handlers(void (*handler)(int))
{
    struct sigaction action = {.sa_handler = handler};
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof caught_signals / sizeof caught_signals[0]; i++) {
        sigaction(caught_signals[i], &action, NULL);
    }
}

void child_catch_interrupts(void)
{
    set_handlers(on_interrupt);
}

/* The alarm ends a program that does not catch it. 0: never. */
static void set_alarm(uint64_t after_ns)
{
    uint64_t us = (after_ns + 999) / 1000;
    struct itimerval timer = {
        .it_value = {.tv_sec = (time_t)(us / 1000000), .tv_usec = (suseconds_t)(us % 1000000)}};
    signal(SIGALRM, SIG_DFL);
    setitimer(ITIMER_REAL, &timer, NULL);
}

/* How a child is run. */
struct job {
    const char *const *argv;
    FILE *output, *errors;
    uint64_t most_ns; /* 0: for as long as it likes */
};

/* In the child; never returns. */
static _Noreturn void become(const struct job *job, pid_t parent, const sigset_t *mask)
{
    set_handlers(SIG_DFL);
    set_alarm(job->most_ns);
    sigprocmask(SIG_SETMASK, mask, NULL);
#if defined(__linux__)
    prctl(PR_SET_PDEATHSIG, SIGKILL);
#endif
    if (getppid() == parent && dup2(fileno(job->output), STDOUT_FILENO) >= 0 &&
        dup2(fileno(job->errors), STDERR_FILENO) >= 0) {
        execv(tool_program(), (char *const *)(uintptr_t)job->argv);
        fprintf(stderr, "%s: %s\n", tool_program(), strerror(errno));
    }
    _exit(127);
}

static void read_back(FILE *file, char *text)
{
    rewind(file);
    size_t length = fread(text, 1, CHILD_OUTPUT_MAX - 1, file);
    text[length] = '\0';
}

/*
 * Waits for the end of the child without reaping it, then takes it from the handler's hands before
 * its id can become somebody else's.
 */
static int wait_for(pid_t child, const sigset_t *caught, struct child_result *out)
{
    siginfo_t info;
    sigset_t before;
    int status = 0;
    while (waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT) != 0 && errno == EINTR) {
    }
    sigprocmask(SIG_BLOCK, caught, &before);
    running = 0;
    int result = waitpid(child, &status, 0) == child ? 0 : -errno;
    sigprocmask(SIG_SETMASK, &before, NULL);
    out->exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    out->signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    return result;
}

static int run_job(const struct job *job, struct child_result *out)
{
    sigset_t caught, before;
    fill_set(&caught);
    sigprocmask(SIG_BLOCK, &caught, &before);
    pid_t parent = getpid();
    pid_t child = interrupted_by != 0 ? -1 : fork();
    if (child == 0) {
        become(job, parent, &before);
    }
    int error = interrupted_by != 0 ? EINTR : errno;
    running = child > 0 ? (sig_atomic_t)child : 0;
    sigprocmask(SIG_SETMASK, &before, NULL);
    if (child < 0) {
        return -error;
    }
    int result = wait_for(child, &caught, out);
    read_back(job->output, out->output);
    read_back(job->errors, out->errors);
    bool late = result == 0 && job->most_ns > 0 && out->signal == SIGALRM;
    return interrupted_by != 0 ? -EINTR : late ? -ETIMEDOUT : result;
}

static int run_in_files(const char *const *argv, uint64_t most_ns, struct child_result *out)
{
    struct job job = {.argv = argv, .output = tmpfile(), .errors = tmpfile(), .most_ns = most_ns};
    int result = job.output != NULL && job.errors != NULL ? 0 : -errno;
    if (result == 0) {
        result = run_job(&job, out);
    }
    if (job.output != NULL) {
        fclose(job.output);
    }
    if (job.errors != NULL) {
        fclose(job.errors);
    }
    return result;
}

int child_run(const char *const *argv, struct child_result *out)
{
    return run_in_files(argv, 0, out);
}

int child_run_within(const char *const *argv, uint64_t most_ns, struct child_result *out)
{
    return run_in_files(argv, most_ns > 0 ? most_ns : 1, out);
}

bool child_interrupted(void)
{
    return interrupted_by != 0;
}

void child_die_of_interrupt(void)
{
    set_handlers(SIG_DFL);
    raise(interrupted_by);
    _exit(128 + interrupted_by);
}
