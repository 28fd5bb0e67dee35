/* SPDX-License-Identifier: MIT */
/*
 * Linux (and Android) through mmap, mprotect, madvise and futex; other POSIX systems wait by sleeping.
 *
 * Reservations are PROT_NONE mappings: they count neither as memory nor as commitment. Huge pages
 * are refused for all mappings, since one touched byte would otherwise cost 2 MiB of footprint where the system's
 * setting is "always": tables are sparse, too. (Measured 2026-11 as if it were: 7.0 MB resident for 0.5 MB live, for 0.7.)
 */
#include "os/os.h"
#include "witness.h"

#include <errno.h>
#include <sched.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#endif

#ifndef MAP_NORESERVE
#define MAP_NORESERVE 0
#endif

#ifdef LARDER_CHECKS_FULL
/* Larger pages than the machine's, for tests: every range that is worked on is then a multiple of both. */
static size_t page_size_asked(void)
{
    const char *forced = getenv("LARDER_TEST_PAGE_SIZE");
    size_t size = forced != NULL ? (size_t)strtoul(forced, NULL, 10) : 0;
    return size >= 4096 && size <= 65536 && (size & (size - 1)) == 0 ? size : 0;
}
#else
static size_t page_size_asked(void)
{
    return 0;
}
#endif

static size_t machine_page_size(void)
{
    long size = sysconf(_SC_PAGESIZE);
    return size > 0 ? (size_t)size : 4096;
}

unsigned os_processors(void)
{
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return (unsigned)CPU_COUNT(&set);
#endif
    long count = sysconf(_SC_NPROCESSORS_ONLN);
    return count > 0 ? (unsigned)count : 1;
}

size_t os_page_size(void)
{
    static _Atomic size_t known;
    /* relaxed: any thread computes the same value */
    size_t size = atomic_load_explicit(&known, memory_order_relaxed);
    if (size == 0) {
        size_t machine = machine_page_size();
        size = page_size_asked();
        if (size < machine)
            size = machine;
        atomic_store_explicit(&known, size, memory_order_relaxed);
    }
    return size;
}

/* One touched byte is to cost a page. errno may change. */
static void refuse_huge(void *ptr, size_t size)
{
#ifdef MADV_NOHUGEPAGE
    (void)madvise(ptr, size, MADV_NOHUGEPAGE); /* fails where there are no huge pages: fine */
#else
    (void)ptr;
    (void)size;
#endif
}

void *os_reserve(size_t size, size_t alignment)
{
    witness_free_of_locks("mmap");
    size_t page = machine_page_size(); /* what mmap() aligns to, whatever a test says */
    size_t extra = alignment > page ? alignment - page : 0;
    if (size > SIZE_MAX - extra)
        return NULL;
    int error = errno;
    char *start =
        mmap(NULL, size + extra, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED) {
        errno = error;
        return NULL;
    }
    char *aligned = (char *)(((uintptr_t)start + alignment - 1) & ~(uintptr_t)(alignment - 1));
    if (aligned != start)
        munmap(start, (size_t)(aligned - start));
    size_t tail = (size_t)(start + size + extra - (aligned + size));
    if (tail != 0)
        munmap(aligned + size, tail);
    refuse_huge(aligned, size);
    errno = error;
    return aligned;
}

int os_commit(void *ptr, size_t size)
{
    witness_free_of_locks("mprotect");
    int error = errno;
    int result = mprotect(ptr, size, PROT_READ | PROT_WRITE) == 0 ? 0 : -errno;
    errno = error;
    return result;
}

void os_advise_huge(void *ptr, size_t size)
{
#ifdef MADV_HUGEPAGE
    int saved = errno;
    (void)madvise(ptr, size, MADV_HUGEPAGE); /* advice */
    errno = saved;
#else
    (void)ptr;
    (void)size;
#endif
}

int os_discard(void *ptr, size_t size)
{
    witness_free_of_locks("madvise");
    int error = errno;
    int result = madvise(ptr, size, MADV_DONTNEED) == 0 ? 0 : -errno;
    errno = error;
    return result;
}

void os_unmap(void *ptr, size_t size)
{
    witness_free_of_locks("munmap");
    int error = errno;
    munmap(ptr, size);
    errno = error;
}

void *os_map(size_t size)
{
    witness_free_of_locks("mmap");
    int error = errno;
    void *ptr = mmap(NULL, size, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (ptr != MAP_FAILED)
        refuse_huge(ptr, size);
    errno = error;
    return ptr == MAP_FAILED ? NULL : ptr;
}

/* Where a long has 32 bits and time_t has 64, the futex call of old takes the former's timespec. */
#ifdef SYS_futex_time64
#define WAIT_CALL (sizeof(time_t) > sizeof(long) ? SYS_futex_time64 : SYS_futex)
#else
#define WAIT_CALL SYS_futex
#endif

void os_wait(_Atomic uint32_t *word, uint32_t value, unsigned timeout_us)
{
    struct timespec timeout = {.tv_sec = (time_t)(timeout_us / 1000000u),
                               .tv_nsec = (long)(timeout_us % 1000000u) * 1000};
    int error = errno;
#if defined(__linux__) && defined(SYS_futex)
    syscall(WAIT_CALL, (uint32_t *)word, FUTEX_WAIT_PRIVATE, value, &timeout, NULL, 0);
#else
    (void)value;
    (void)word;
    nanosleep(&timeout, NULL);
#endif
    errno = error;
}

void os_wake(_Atomic uint32_t *word)
{
#if defined(__linux__) && defined(SYS_futex)
    int error = errno;
    syscall(SYS_futex, (uint32_t *)word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    errno = error;
#else
    (void)word;
#endif
}

_Atomic bool os_barrier_found;
static _Atomic int local_barrier; /* an exchange on anything is a full barrier */

#if defined(__linux__) && defined(SYS_membarrier)
/* from linux/membarrier.h, which older systems lack */
enum { BARRIER_PRIVATE = 1 << 3, BARRIER_REGISTER_PRIVATE = 1 << 4 };

static _Atomic bool barrier_ever_found;

/* On Android the filter over an app's system calls may end the process for one it does not know; elsewhere filters refuse. */
static bool may_ask_for_barrier(void)
{
#if defined(__ANDROID__)
    return prctl(PR_GET_SECCOMP, 0, 0, 0, 0) == 0;
#else
    return true;
#endif
}

void os_barrier_prepare(void)
{
    int error = errno;
    bool found = may_ask_for_barrier() &&
                 syscall(SYS_membarrier, BARRIER_REGISTER_PRIVATE, 0, 0) == 0 &&
                 syscall(SYS_membarrier, BARRIER_PRIVATE, 0, 0) == 0;
    errno = error;
    if (found)
        atomic_store_explicit(&barrier_ever_found, true, memory_order_relaxed);
    atomic_store_explicit(&os_barrier_found, found, memory_order_relaxed);
}

/*
 * A sandbox entered after os_barrier_prepare() may refuse the call, when others already rely on it. What is left is to wait: no
 * processor keeps a store to itself, or a load unfinished, for anything near 20 ms. From then on nobody is told that there
 * is a barrier, so that each caller waits a few times at most.
 */
static void barrier_by_waiting(void)
{
    struct timespec long_enough = {.tv_sec = 0, .tv_nsec = 20 * 1000 * 1000};
    atomic_store_explicit(&os_barrier_found, false, memory_order_relaxed);
    nanosleep(&long_enough, NULL);
}

void os_barrier_everywhere(void)
{
    int error = errno;
    if (os_barrier_is_remote() && syscall(SYS_membarrier, BARRIER_PRIVATE, 0, 0) == 0)
        return;
    if (atomic_load_explicit(&barrier_ever_found, memory_order_relaxed))
        barrier_by_waiting();
    errno = error;
    atomic_exchange_explicit(&local_barrier, 1, memory_order_seq_cst);
}
#else
void os_barrier_prepare(void)
{
}

void os_barrier_everywhere(void)
{
    atomic_exchange_explicit(&local_barrier, 1, memory_order_seq_cst);
}
#endif

void os_yield(void)
{
    sched_yield();
}

uint32_t os_now_ms(void)
{
    struct timespec now;
#ifdef CLOCK_MONOTONIC_COARSE
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
#else
    clock_gettime(CLOCK_MONOTONIC, &now);
#endif
    return (uint32_t)((uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u);
}
