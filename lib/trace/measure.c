/* SPDX-License-Identifier: MIT */
/* Clock, faults and resident size: see measure.h. /proc is read with plain system calls. */
#include "measure.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#if defined(__linux__)
#include <link.h>
#endif

static uint64_t read_clock(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t measure_now_ns(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

uint64_t measure_cpu_ns(void)
{
    return read_clock(CLOCK_PROCESS_CPUTIME_ID);
}

uint64_t measure_minor_faults(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (uint64_t)usage.ru_minflt;
}

int measure_reset_peak_rss(void)
{
    int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    ssize_t written = write(fd, "5", 1);
    int result = written == 1 ? 0 : -errno;
    close(fd);
    return result;
}

/* The number of kB behind `key` in a /proc file, as bytes; UINT64_MAX where there is none. */
static uint64_t read_kilobytes(const char *path, const char *key)
{
    char text[8192];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return UINT64_MAX;
    }
    size_t length = 0;
    ssize_t got;
    while (length < sizeof text - 1 &&
           (got = read(fd, text + length, sizeof text - 1 - length)) > 0) {
        length += (size_t)got;
    }
    close(fd);
    text[length] = '\0';
    const char *found = strstr(text, key);
    return found == NULL ? UINT64_MAX : strtoull(found + strlen(key), NULL, 10) * 1024;
}

#if defined(__linux__)
/*
 * Reads what it is not meant to read: bytes between variables, and variables that other threads
 * write to. It is not madvise(MADV_POPULATE_READ), which Linux has since 5.14 and emulators ignore.
 */
__attribute__((no_sanitize_address, no_sanitize_thread)) static void
read_pages(uintptr_t begin, uintptr_t end, uintptr_t page_size)
{
    for (uintptr_t page = begin & ~(page_size - 1); page < end; page += page_size) {
        (void)*(const volatile char *)page;
    }
}

/* A segment beyond `p_filesz` is .bss: memory, which counts for who writes to it. */
static int map_module(struct dl_phdr_info *module, size_t size, void *page_size)
{
    (void)size;
    for (size_t i = 0; i < module->dlpi_phnum; i++) {
        uintptr_t begin = (uintptr_t)(module->dlpi_addr + module->dlpi_phdr[i].p_vaddr);
        if (module->dlpi_phdr[i].p_type == PT_LOAD && (module->dlpi_phdr[i].p_flags & PF_R) != 0) {
            read_pages(begin, begin + (uintptr_t)module->dlpi_phdr[i].p_filesz,
                       *(const uintptr_t *)page_size);
        }
    }
    return 0;
}

void measure_map_modules(void)
{
    uintptr_t page_size = (uintptr_t)sysconf(_SC_PAGESIZE);
    dl_iterate_phdr(map_module, &page_size);
}
#else
void measure_map_modules(void)
{
}
#endif

uint64_t measure_peak_rss(void)
{
    return read_kilobytes("/proc/self/status", "VmHWM:");
}

uint64_t measure_available_memory(void)
{
    return read_kilobytes("/proc/meminfo", "MemAvailable:");
}

static int compare(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left;
    uint64_t b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

double measure_median(uint64_t *values, size_t count)
{
    if (count == 0) {
        return 0;
    }
    qsort(values, count, sizeof *values, compare);
    size_t middle = count / 2;
    return count % 2 == 1 ? (double)values[middle]
                          : ((double)values[middle - 1] + (double)values[middle]) / 2;
}
