/* SPDX-License-Identifier: MIT */
/*
 * The line is printed by a timer's signal handler: so it appears whatever the program is busy with,
 * and the libraries that do the work need not know of it. The handler only writes bytes that stand
 * ready; the signal is blocked while they change.
 */
#include "progress.h"

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

static struct {
    char text[256];
    size_t length;
    volatile sig_atomic_t seconds;
    volatile sig_atomic_t shown;
    bool ticking;
} progress;

static void put(const char *text, size_t length)
{
    ssize_t ignored = write(STDERR_FILENO, text, length);
    (void)ignored;
}

static void on_second(int signal)
{
    char digits[16];
    size_t at = sizeof digits;
    (void)signal;
    progress.seconds = progress.seconds + 1;
    progress.shown = 1;
    digits[--at] = 's';
    digits[--at] = ' ';
    int left = progress.seconds;
    do {
        digits[--at] = (char)('0' + left % 10);
        left /= 10;
    } while (left > 0);
    put(progress.text, progress.length);
    put(digits + at, sizeof digits - at);
}

static void block_tick(bool blocked)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    sigprocmask(blocked ? SIG_BLOCK : SIG_UNBLOCK, &set, NULL);
}

static void start_ticking(void)
{
    struct sigaction action = {.sa_handler = on_second, .sa_flags = SA_RESTART};
    struct itimerval second = {.it_interval = {.tv_sec = 1}, .it_value = {.tv_sec = 1}};
    sigemptyset(&action.sa_mask);
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &second, NULL);
    progress.ticking = true;
}

/* "\r", then blanks over what stands there. */
static void erase(void)
{
    if (progress.shown) {
        put("\r\033[K", 4);
        progress.shown = 0;
    }
}

void progress_tell(const char *subcommand, const char *doing, const char *what)
{
    if (!isatty(STDERR_FILENO)) {
        return;
    }
    block_tick(true);
    erase();
    int length = snprintf(progress.text, sizeof progress.text, "\r\033[Klarder %s: %s %.150s, ",
                          subcommand, doing, what);
    progress.length = length < 0                                  ? 0
                      : (size_t)length < sizeof progress.text - 1 ? (size_t)length
                                                                  : sizeof progress.text - 1;
    if (!progress.ticking) {
        start_ticking();
    }
    block_tick(false);
}

void progress_end(void)
{
    if (!progress.ticking) {
        return;
    }
    struct itimerval never = {.it_value = {.tv_sec = 0}};
    setitimer(ITIMER_REAL, &never, NULL);
    block_tick(true);
    erase();
    progress.ticking = false;
    progress.seconds = 0;
    block_tick(false);
}
