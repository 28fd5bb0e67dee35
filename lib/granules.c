/* SPDX-License-Identifier: MIT */
#include "granules.h"

#include <errno.h>

_Atomic(_Atomic uint8_t *) granule_table;

int granules_enable(void)
{
    if (granules_are_on())
        return 0;
    _Atomic uint8_t *table = os_map(GRANULES / 4);
    if (table == NULL)
        return -ENOMEM;
    /* release: for threads that look before they have been handed a block */
    atomic_store_explicit(&granule_table, table, memory_order_release);
    return 0;
}

bool granules_mark(uintptr_t base, size_t size, enum granule_kind kind)
{
    _Atomic uint8_t *table = atomic_load_explicit(&granule_table, memory_order_acquire);
    if (table == NULL)
        return true;
    uintptr_t first = base >> MAP_GRANULE_SHIFT;
    uintptr_t last = (base + size - 1) >> MAP_GRANULE_SHIFT;
    if (last >= GRANULES)
        return false;
    for (uintptr_t granule = first; granule <= last; granule++) {
        uint8_t bits = (uint8_t)(kind << granule % 4 * 2);
        /* relaxed: handing the block over orders it */
        if ((atomic_load_explicit(&table[granule / 4], memory_order_relaxed) & bits) == 0)
            atomic_fetch_or_explicit(&table[granule / 4], bits, memory_order_relaxed);
    }
    return true;
}

void granules_unmark_region(uintptr_t base, size_t size)
{
    _Atomic uint8_t *table = atomic_load_explicit(&granule_table, memory_order_acquire);
    if (table == NULL)
        return;
    uintptr_t last = (base + size - 1) >> MAP_GRANULE_SHIFT;
    for (uintptr_t granule = base >> MAP_GRANULE_SHIFT; granule <= last; granule++) {
        uint8_t bits = (uint8_t)(GRANULE_REGION << granule % 4 * 2);
        /* release: before the system call that gives the range to somebody else */
        atomic_fetch_and_explicit(&table[granule / 4], (uint8_t)~bits, memory_order_release);
    }
}
