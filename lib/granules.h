/* SPDX-License-Identifier: MIT */
/*
 * Which addresses may be larder's: a table of two bits for each granule of address space, for a malloc that stands in front
 * of another one and has to tell, for every pointer it is handed, whose it is. The allocation map knows too, but
 * answers "nobody's" by hashing and probing; this is a shift, a load and a test.
 *
 * Off until granules_enable(): a program that links larder hands it larder's own pointers and needs no table. The
 * table is address space, of which only the pages of granules in use cost memory (one page a 64 GiB).
 *
 * Written by the allocation map: a granule is marked before a block in it is handed out, and a region's marks go before
 * its memory does. So whoever holds a block finds its mark, and whoever holds another allocator's block finds
 * none of a region. Marks of blocks with a record are never taken back: they mean "look it up".
 */
#ifndef LARDER_GRANULES_H
#define LARDER_GRANULES_H

#include "allocation_map.h"
#include "os/os.h"

enum granule_kind {
    GRANULE_FOREIGN = 0, /* nothing of larder's */
    GRANULE_REGION = 1,  /* all of it lies in a region */
    GRANULE_BLOCKS = 2   /* a block with a record may start here; so may another allocator's */
};

/* User space of 48 bits, or all of 32; a region above it is refused. */
enum { GRANULE_ADDRESS_BITS = sizeof(void *) == 8 ? 48 : 32 };
#define GRANULES ((uintptr_t)1 << (GRANULE_ADDRESS_BITS - MAP_GRANULE_SHIFT))

extern _Atomic(_Atomic uint8_t *) granule_table; /* NULL: off */

/* Begins to mark. Before the first instance exists, or its blocks would be missing. 0 or -ENOMEM. */
int granules_enable(void);

/* Called by the allocation map; nothing while off. False: out of the table's range. */
bool granules_mark(uintptr_t base, size_t size, enum granule_kind kind);
void granules_unmark_region(uintptr_t base, size_t size);

static inline bool granules_are_on(void)
{
    /* relaxed: whoever has a block got it after the table was published */
    return atomic_load_explicit(&granule_table, memory_order_relaxed) != NULL;
}

/* The table must be on. */
static inline enum granule_kind granule_kind_of(const void *ptr)
{
    uintptr_t granule = os_untagged(ptr) >> MAP_GRANULE_SHIFT;
    if (__builtin_expect(granule >= GRANULES, 0))
        return GRANULE_FOREIGN;
    /* relaxed, both: a mark that matters here was made before the block was handed over */
    _Atomic uint8_t *table = atomic_load_explicit(&granule_table, memory_order_relaxed);
    unsigned bits = atomic_load_explicit(&table[granule / 4], memory_order_relaxed);
    bits >>= granule % 4 * 2;
    return (bits & GRANULE_REGION) != 0 ? GRANULE_REGION : (enum granule_kind)(bits & 2u);
}

#endif
