/* SPDX-License-Identifier: MIT */
/*
 * Tells AddressSanitizer and Valgrind which bytes nobody owns. The only file that knows either of them.
 *
 * A block is poisoned when it is freed, before anybody else can get it, and unpoisoned when it is handed out, so that
 * whatever happens to it in between (magazines, depot, runs, spans, a purge) needs no thought: larder never reads or
 * writes what is cached. Always whole blocks, with their padding, which therefore is always room of the block's own
 * where something is poisoned. Memory that a backend gets back or is to discard is unpoisoned before, as it knows
 * nothing of larder.
 *
 * AddressSanitizer: in every build with it. Valgrind: in builds with all checks, where its header is found; its requests
 * are instructions that do nothing elsewhere, but a hit path has no room even for these. In any other
 * build nothing is compiled.
 */
#ifndef LARDER_POISON_H
#define LARDER_POISON_H

#include <stddef.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POISON_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define POISON_ASAN 1
#endif

#if defined(POISON_ASAN)
#include <sanitizer/asan_interface.h>
#elif defined(LARDER_CHECKS_FULL) && defined(__has_include)
#if __has_include(<valgrind/memcheck.h>)
#include <valgrind/memcheck.h>
#define POISON_VALGRIND 1
#endif
#endif

/*
 * poison_cached(): nobody may touch these bytes. poison_live(): they are their next owner's; what they contain counts as known, since
 * calloc() relies on pages that read as zero. Macros, so that where they do nothing their arguments are not even
 * loaded: the hit path then compiles to what it was.
 */
#if defined(POISON_ASAN) || defined(POISON_VALGRIND)
#define POISON_ACTIVE 1
#else
#define POISON_ACTIVE 0
#endif
#if defined(POISON_ASAN)
#define poison_cached(ptr, size) __asan_poison_memory_region(ptr, size)
#define poison_live(ptr, size) __asan_unpoison_memory_region(ptr, size)
#elif defined(POISON_VALGRIND)
#define poison_cached(ptr, size) (void)VALGRIND_MAKE_MEM_NOACCESS(ptr, size)
#define poison_live(ptr, size) (void)VALGRIND_MAKE_MEM_DEFINED(ptr, size)
#else
#define poison_cached(ptr, size) ((void)sizeof(ptr), (void)sizeof(size))
#define poison_live(ptr, size) ((void)sizeof(ptr), (void)sizeof(size))
#endif

#endif
