/* SPDX-License-Identifier: MIT */
/*
 * What larder needs of an operating system, and nothing else. No other file calls mmap, futex, or a
 * clock. None of these functions may be called while one of larder's locks is held, except
 * os_now_ms() and os_wake(). All keep errno: a free() may come down here, and must not change it.
 */
#ifndef LARDER_OS_H
#define LARDER_OS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Asked for at run time: 4, 16 or 64 KiB. */
size_t os_page_size(void);

/* Processors that this process may run on, at least 1. */
unsigned os_processors(void);

/*
 * Reserves address space at a multiple of `alignment`, without access and without cost. NULL where there
 * is none left (RLIMIT_AS, 32 bit): try a smaller size.
 */
void *os_reserve(size_t size, size_t alignment);

/* Makes a page range of a reservation usable: zeroed, and paid for when touched. 0 or -errno. */
int os_commit(void *ptr, size_t size);

/* Asks for huge pages in a reserved range; where there are none, nothing happens. */
void os_advise_huge(void *ptr, size_t size);

/* Gives pages back, keeps the range usable (it reads as zero afterwards). 0 or -errno. */
int os_discard(void *ptr, size_t size);

/* Ends a reservation or an os_map(). */
void os_unmap(void *ptr, size_t size);

/* Zeroed pages, usable at once; NULL where there are none. */
void *os_map(size_t size);

/* Sleeps while *word == value, at most `timeout_us`; may return early for no reason. */
void os_wait(_Atomic uint32_t *word, uint32_t value, unsigned timeout_us);

/* Wakes one thread that sleeps on `word`. */
void os_wake(_Atomic uint32_t *word);

/* Lets another thread run. */
void os_yield(void);

/*
 * Every running thread of the process executes a full memory barrier before this returns; a system call. Usable
 * if os_barrier_prepare() found it so, else a plain barrier of the calling thread.
 */
void os_barrier_everywhere(void);
void os_barrier_prepare(void);
extern _Atomic bool os_barrier_found;

/* True if os_barrier_everywhere() reaches other threads. */
static inline bool os_barrier_is_remote(void)
{
    return atomic_load_explicit(&os_barrier_found, memory_order_relaxed);
}

/* A clock that never goes back, in milliseconds, a few milliseconds coarse: 3 ns a call. */
uint32_t os_now_ms(void);

/* True if at least `idle_ms` lie between `since` and `now`; another thread's `since` may be the later one. */
static inline bool os_is_idle(uint32_t since, uint32_t now, uint32_t idle_ms)
{
    if (idle_ms == 0)
        return true;
    return (int32_t)(now - since) >= 0 && now - since >= idle_ms;
}

/* Tells the processor that this is a spin loop. */
static inline void os_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__) || (defined(__arm__) && __ARM_ARCH >= 7)
    __asm__ volatile("yield");
#endif
}

/* An address without the tag that arm64 allows in its top byte. */
static inline uintptr_t os_untagged(const void *ptr)
{
#if defined(__aarch64__)
    return (uintptr_t)ptr & UINT64_C(0x00ffffffffffffff);
#else
    return (uintptr_t)ptr;
#endif
}

#endif
