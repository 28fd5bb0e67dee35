/* SPDX-License-Identifier: MIT */
/*
 * dlsym may call calloc (glibc's error buffer does), and that calloc is ours, before we know whom
 * to pass it to. The thread that is looking up sees NULL from record_real() and takes memory from a
 * static arena instead; blocks from the arena are never given back. Other threads wait: the look-up
 * happens once, normally in the loader, before a second thread exists.
 *
 * RTLD_NEXT and not __libc_malloc: the recorder then sits in front of any other allocator that was
 * preloaded after it, and needs no glibc.
 */
#include "record_real.h"

#include <dlfcn.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { UNKNOWN, LOOKING_UP, KNOWN };

static struct record_real family;
static _Atomic int family_state = UNKNOWN;
static _Thread_local bool looking_up;

static _Alignas(64) unsigned char arena[64 * 1024];
static _Atomic size_t arena_used;

static void look_up(const char *name, void *function, size_t function_size)
{
    void *symbol = dlsym(RTLD_NEXT, name);
    /* A copy of the bytes: ISO C has no cast from object to function pointer. */
    memcpy(function, &symbol, function_size);
}

#define LOOK_UP(name, field) look_up(name, &family.field, sizeof family.field)

static void look_up_family(void)
{
    LOOK_UP("malloc", malloc);
    LOOK_UP("calloc", calloc);
    LOOK_UP("realloc", realloc);
    LOOK_UP("free", free);
    LOOK_UP("posix_memalign", posix_memalign);
    LOOK_UP("aligned_alloc", aligned_alloc);
    LOOK_UP("memalign", memalign);
    LOOK_UP("malloc_usable_size", usable_size);
    LOOK_UP("_exit", exit_now);
    if (!family.malloc || !family.calloc || !family.realloc || !family.free ||
        !family.posix_memalign) {
        static const char message[] =
            "larder-record: no malloc family behind the recorder (a static program?)\n";
        (void)!write(STDERR_FILENO, message, sizeof message - 1);
        abort();
    }
}

static const struct record_real *record_real_slow(void)
{
    if (looking_up)
        return NULL;
    int expected = UNKNOWN;
    if (atomic_compare_exchange_strong_explicit(&family_state, &expected, LOOKING_UP,
                                                memory_order_acquire, memory_order_acquire)) {
        looking_up = true;
        look_up_family();
        looking_up = false;
        /* Pairs with the acquire loads below and in record_real. */
        atomic_store_explicit(&family_state, KNOWN, memory_order_release);
    }
    while (atomic_load_explicit(&family_state, memory_order_acquire) != KNOWN)
        sched_yield();
    return &family;
}

const struct record_real *record_real(void)
{
    /* Acquire: pairs with the release in record_real_slow, so the family is complete. */
    if (atomic_load_explicit(&family_state, memory_order_acquire) == KNOWN)
        return &family;
    return record_real_slow();
}

void *record_bootstrap_allocate(size_t alignment, size_t size)
{
    if (alignment < 16)
        alignment = 16;
    if (size > sizeof arena || alignment > 4096)
        return NULL;
    /* Take enough for the worst misalignment. Relaxed: the bytes taken are ours alone. */
    size_t want = (size + alignment + 15) & ~(size_t)15;
    size_t start = atomic_fetch_add_explicit(&arena_used, want, memory_order_relaxed);
    if (start + want > sizeof arena)
        return NULL;
    uintptr_t address = (uintptr_t)&arena[start];
    size_t padding = (size_t)(-address & (alignment - 1));
    return &arena[start + padding];
}

bool record_bootstrap_owns(const void *block)
{
    uintptr_t address = (uintptr_t)block;
    return address >= (uintptr_t)arena && address < (uintptr_t)arena + sizeof arena;
}

size_t record_bootstrap_readable(const void *block)
{
    return (size_t)((uintptr_t)arena + sizeof arena - (uintptr_t)block);
}
