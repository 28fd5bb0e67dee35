/* SPDX-License-Identifier: MIT */
/*
 * The command under `larder record`.
 *
 * What is recorded must be merged however the command ends, so this process outlives it: signals
 * that would end it are passed on. A terminal sends Ctrl-C to both by itself; then passing it on
 * would make it two.
 */
#include "record.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "preloaded.h"
#include "tool.h"

static const int passed_signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
enum { PASSED_SIGNALS = sizeof passed_signals / sizeof passed_signals[0] };

/* Read by the handler, written with the signals blocked. 0: none. */
static volatile sig_atomic_t running;

static void pass_on(int signal, siginfo_t *info, void *unused)
{
    (void)unused;
    int error = errno;
    bool from_process = info->si_code <= 0;
    if (running != 0 && from_process)
        kill((pid_t)running, signal);
    errno = error;
}

/* One that is ignored stays so, here and in the command. */
static void catch_signals(sigset_t *caught)
{
    sigemptyset(caught);
    for (int i = 0; i < PASSED_SIGNALS; i++) {
        struct sigaction before;
        struct sigaction action = {.sa_sigaction = pass_on, .sa_flags = SA_SIGINFO};
        sigaction(passed_signals[i], NULL, &before);
        if (before.sa_handler == SIG_IGN)
            continue;
        sigaction(passed_signals[i], &action, NULL);
        sigaddset(caught, passed_signals[i]);
    }
}

static void set(const char *name, const char *value)
{
    if (value == NULL ? unsetenv(name) != 0 : setenv(name, value, 1) != 0) {
        tool_error("record", "%s: %s", name, strerror(errno));
        _exit(COMMAND_NOT_RUN);
    }
}

static void set_number(const char *name, uint64_t value)
{
    char text[32];
    snprintf(text, sizeof text, "%llu", (unsigned long long)value);
    set(name, text);
}

/* In the child: the command, under the recorder. */
static _Noreturn void become(const struct record_options *options, const char *library,
                             const char *directory, const sigset_t *mask)
{
    char prefix[4096];
    snprintf(prefix, sizeof prefix, "%s/run", directory);
    set("LARDER_RECORD_OUTPUT", prefix);
    set_number("LARDER_RECORD_MIN_SIZE", options->min_size);
    set("LARDER_RECORD_TIMES", options->timestamps ? "1" : NULL);
    set("LARDER_RECORD_WAIT", options->wait ? "1" : NULL);
    set("LARDER_RECORD_FOLLOW", options->follow_forks ? "1" : NULL);
    if (options->follow_forks)
        set("LARDER_RECORD_PROCESS", NULL);
    else
        set_number("LARDER_RECORD_PROCESS", (uint64_t)getpid());
    if (preloaded_set("record", library) != TOOL_FINE)
        _exit(COMMAND_NOT_RUN);
    sigprocmask(SIG_SETMASK, mask, NULL);
    _exit(preloaded_exec("record", options->command));
}

static int wait_for(pid_t child, const sigset_t *caught)
{
    siginfo_t info;
    sigset_t before;
    int status = 0;
    while (waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT) != 0 && errno == EINTR) {
    }
    /* from here on its id can become somebody else's */
    sigprocmask(SIG_BLOCK, caught, &before);
    running = 0;
    pid_t waited = waitpid(child, &status, 0);
    sigprocmask(SIG_SETMASK, &before, NULL);
    if (waited != child) {
        tool_error("record", "cannot wait for the command: %s", strerror(errno));
        return -1;
    }
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

int record_run_command(const struct record_options *options, const char *library,
                       const char *directory)
{
    sigset_t caught, before;
    catch_signals(&caught);
    sigprocmask(SIG_BLOCK, &caught, &before);
    pid_t child = fork();
    int error = errno;
    if (child == 0)
        become(options, library, directory, &before);
    running = child > 0 ? (sig_atomic_t)child : 0;
    sigprocmask(SIG_SETMASK, &before, NULL);
    if (child < 0) {
        tool_error("record", "cannot start a process: %s", strerror(error));
        return -1;
    }
    return wait_for(child, &caught);
}
