/* SPDX-License-Identifier: MIT */
/* Result files, whole or not at all: see output.h. */
#include "output.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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
    if (output->file == NULL) {
        int error = errno;
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
        return fail(output->path, error, why, why_size);
    }
    return 0;
}

void output_abandon(struct output *output)
{
    if (output->file != NULL) {
        fclose(output->file);
        unlink(output->temporary);
        output->file = NULL;
    }
}
