/* SPDX-License-Identifier: MIT */
/* A libFuzzer harness for the file of marks beside a text trace, and for labels. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "labels.h"
#include "marks.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_marks(const uint8_t *data, size_t size)
{
    char path[64], why[512];
    struct trace trace = {.op_count = 0};
    struct marks_file marks;
    int fd = memfd_create("fuzz", 0);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size) {
        abort();
    }
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (marks_file_read(path, &marks, why, sizeof why) == 0) {
        for (uint64_t line = 0; line < 100; line++) {
            if (marks_file_advance(&marks, &trace, line) != 0) {
                abort();
            }
        }
        marks_file_release(&marks);
    } else if (strchr(why, '\n') != NULL) {
        abort();
    }
    marks_clear(&trace);
    close(fd);
}

static void read_labels(const uint8_t *data, size_t size)
{
    struct trace trace = {.op_count = 0};
    size_t offset = 0, length;
    if (labels_parse(&trace, (const char *)data, size, &offset) != 0) {
        if (offset > size) {
            abort();
        }
    } else {
        const char *value = labels_get(&trace, "engine", &length);
        if (value != NULL && (size_t)(value - trace.labels) + length >= trace.label_bytes) {
            abort();
        }
        if (labels_set(&trace, "engine", "another") != 0 ||
            labels_get(&trace, "engine", &length) == NULL || length != strlen("another")) {
            abort();
        }
    }
    trace_unload(&trace);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    read_marks(data, size);
    read_labels(data, size);
    return 0;
}
