/* SPDX-License-Identifier: MIT */
/* Result files, whole or not at all: see output.h. */
#include "output.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What the signal handler removes; written with the signals blocked. */
static const char *volatile open_files[4];

#define OPEN_FILES (sizeof open_files / sizeof open_files[0])

static const int interrupts[] = {SIGINT, SIGTERM, SIGHUP};

/* Lists a file for removal, or no longer, unless there are too many. */
static void list(const char *file, const char *instead_of)
{
    sigset_t set, before;
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof interrupts / sizeof interrupts[0]; i++) {
        sigaddset(&set, interrupts[i]);
    }
    sigprocmask(SIG_BLOCK, &set, &before);
    for (size_t i = 0; i < OPEN_FILES; i++) {
        if (open_files[i] == instead_of) {
            open_files[i] = file;
            break;
        }
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
}

static void remove_and_end(int signal_number)
{
    for (size_t i = 0; i < OPEN_FILES; i++) {
        if (open_files[i] != NULL) {
            unlink(open_files[i]);
        }
    }
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

void output_remove_on_signals(void)
{
    struct sigaction action = {.sa_handler = remove_and_end}, before;
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof interrupts / sizeof interrupts[0]; i++) {
        if (sigaction(interrupts[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN) {
            sigaction(interrupts[i], &action, NULL);
        }
    }
}

static int fail(const char *path, int error, char *why, size_t why_size)
{
    snprintf(why, why_size, "%s: cannot be written: %s", path, strerror(error));
    return -error;
}

int output_open(struct output *output, const char *path, char *why, size_t why_size)
{
    *output = (struct output){.path = path};
    int length = snprintf(output->temporary, sizeof output->temporary, "%s.XXXXXX", path);
    if (length < 0 || (size_t)length >= sizeof output->temporary) {
        return fail(path, ENAMETOOLONG, why, why_size);
    }
    int fd = mkstemp(output->temporary);
    if (fd < 0) {
        return fail(path, errno, why, why_size);
    }
    /* mkstemp() makes files for the owner alone; a result is as open as any other file. */
    mode_t mask = umask(0);
    umask(mask);
    output->file = fchmod(fd, 0666 & ~mask) == 0 ? fdopen(fd, "w") : NULL;
    list(output->temporary, NULL);
    if (output->file == NULL) {
        int error = errno;
        list(NULL, output->temporary);
        close(fd);
        unlink(output->temporary);
        return fail(path, error, why, why_size);
    }
    return 0;
}

int output_commit(struct output *output, char *why, size_t why_size)
{
    int failed = ferror(output->file);
    errno = EIO;
    failed = fclose(output->file) != 0 || failed;
    output->file = NULL;
    if (failed || rename(output->temporary, output->path) != 0) {
        int error = errno;
        unlink(output->temporary);
        list(NULL, output->temporary);
        return fail(output->path, error, why, why_size);
    }
    list(NULL, output->temporary);
    return 0;
}

void output_abandon(struct output *output)
{
    if (output->file != NULL) {
        fclose(output->file);
        unlink(output->temporary);
        list(NULL, output->temporary);
        output->file = NULL;
    }
}
