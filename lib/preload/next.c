/* SPDX-License-Identifier: MIT */
/*
 * dlsym may call calloc (glibc's error buffer does), and that calloc is ours, before we know whom
 * to pass it to. The thread that is looking up sees NULL from next_family() and takes memory from a
 * static arena instead; blocks from the arena are never given back. Other threads wait: the look-up
 * happens once, normally in the loader, before a second thread exists.
 *
 * RTLD_NEXT and not __libc_malloc: an interposer then sits in front of any other allocator that was
 * preloaded after it, and needs no glibc.
 */
#include "next.h"

#include <dlfcn.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct next_family next_found;
_Atomic int next_state = NEXT_UNKNOWN;
static _Thread_local bool looking_up;

_Alignas(64) unsigned char next_arena[NEXT_ARENA_SIZE];
static _Atomic size_t arena_used;

static void look_up(const char *name, void *function, size_t function_size)
{
    void *symbol = dlsym(RTLD_NEXT, name);
    /* A copy of the bytes: ISO C has no cast from object to function pointer. */
    memcpy(function, &symbol, function_size);
}

#define LOOK_UP(name, field) look_up(name, &next_found.field, sizeof next_found.field)

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
    if (!next_found.malloc || !next_found.calloc || !next_found.realloc || !next_found.free ||
        !next_found.posix_memalign) {
        static const char message[] =
            "larder: no malloc family behind the preloaded one (a static program?)\n";
        (void)!write(STDERR_FILENO, message, sizeof message - 1);
        abort();
    }
}

const struct next_family *next_family_slow(void)
{
    if (looking_up)
        return NULL;
    int expected = NEXT_UNKNOWN;
    if (atomic_compare_exchange_strong_explicit(&next_state, &expected, NEXT_LOOKING_UP,
                                                memory_order_acquire, memory_order_acquire)) {
        looking_up = true;
        look_up_family();
        looking_up = false;
        /* Pairs with the acquire loads below and in next_family. */
        atomic_store_explicit(&next_state, NEXT_KNOWN, memory_order_release);
    }
    while (atomic_load_explicit(&next_state, memory_order_acquire) != NEXT_KNOWN)
        sched_yield();
    return &next_found;
}

void *next_arena_allocate(size_t alignment, size_t size)
{
    if (alignment < 16)
        alignment = 16;
    if (size > sizeof next_arena || alignment > 4096)
        return NULL;
    /* Take enough for the worst misalignment. Relaxed: the bytes taken are ours alone. */
    size_t want = (size + alignment + 15) & ~(size_t)15;
    size_t start = atomic_fetch_add_explicit(&arena_used, want, memory_order_relaxed);
    if (start + want > sizeof next_arena)
        return NULL;
    uintptr_t address = (uintptr_t)&next_arena[start];
    size_t padding = (size_t)(-address & (alignment - 1));
    return &next_arena[start + padding];
}

size_t next_arena_readable(const void *block)
{
    return (size_t)((uintptr_t)next_arena + sizeof next_arena - (uintptr_t)block);
}
