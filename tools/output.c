/* SPDX-License-Identifier: MIT */
/* Result files, whole or not at all: see output.h. */
#include "output.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What the signal handler removes; written with the signals blocked. */
static const char *volatile open_files[4];

#define OPEN_FILES (sizeof open_files / sizeof open_files[0])

static const int interrupts[] = {SIGINT, SIGTERM, SIGHUP};

/* No interrupt between a file's creation or removal and its listing. */
static void block_interrupts(sigset_t *before)
{
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof interrupts / sizeof interrupts[0]; i++) {
        sigaddset(&set, interrupts[i]);
    }
    sigprocmask(SIG_BLOCK, &set, before);
}

static void unblock_interrupts(const sigset_t *before)
{
    sigprocmask(SIG_SETMASK, before, NULL);
}

/* Puts a name in place of another, NULL for none; there is room for few, further ones are not
 * removed. */
static void list(const char *file, const char *instead_of)
{
    for (size_t i = 0; i < OPEN_FILES; i++) {
        if (open_files[i] == instead_of) {
            open_files[i] = file;
            return;
        }
    }
}

/* mkstemp() that the signal handler knows of. */
static int create_listed(char *name)
{
    sigset_t before;
    block_interrupts(&before);
    int fd = mkstemp(name);
    if (fd >= 0) {
        list(name, NULL);
    }
    unblock_interrupts(&before);
    return fd;
}

/* What is left of an output: renamed to its path, or removed. */
static int settle(struct output *output, bool keep)
{
    sigset_t before;
    block_interrupts(&before);
    int result = keep ? rename(output->temporary, output->path) : -1;
    int error = errno;
    if (result != 0) {
        unlink(output->temporary);
    }
    list(NULL, output->temporary);
    unblock_interrupts(&before);
    errno = error;
    return result;
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
    int fd = create_listed(output->temporary);
    if (fd < 0) {
        return fail(path, errno, why, why_size);
    }
    /* mkstemp() makes files for the owner alone; a result is as open as any other file. */
    mode_t mask = umask(0);
    umask(mask);
    output->file = fchmod(fd, 0666 & ~mask) == 0 ? fdopen(fd, "w") : NULL;
    if (output->file == NULL) {
        int error = errno;
        close(fd);
        (void)settle(output, false);
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
    if (settle(output, !failed) != 0) {
        return fail(output->path, errno, why, why_size);
    }
    return 0;
}

void output_abandon(struct output *output)
{
    if (output->file != NULL) {
        fclose(output->file);
        (void)settle(output, false);
        output->file = NULL;
    }
}
