/* SPDX-License-Identifier: MIT */
/*
 * The judge of plans: knows nothing of how they are made, and shares no code with that but a sort. Every plan that is to be
 * used, written or read passes through it.
 */
#ifndef LARDER_PLAN_CHECK_H
#define LARDER_PLAN_CHECK_H

#include "plan_layout.h"

enum plan_fault {
    PLAN_FINE,
    PLAN_NO_LIFETIME, /* of item a: it does not end after it begins */
    PLAN_MISALIGNED,  /* the offset of item a */
    PLAN_TOO_HIGH,    /* item a ends above the capacity */
    PLAN_OVERLAP      /* items a and b share addresses while both live */
};

struct plan_verdict {
    enum plan_fault fault;
    uint32_t a, b;
};

/* Bytes of scratch memory, at a multiple of 16, that plan_check() wants. */
size_t plan_check_scratch_bytes(uint32_t count);

/* The first fault found. `capacity` (UINT64_MAX: none) is in units, as sizes and offsets are. O(n log n). */
struct plan_verdict plan_check(const struct plan_item *items, uint32_t count, uint64_t capacity,
                               void *scratch);

/* A few words for a report. */
const char *plan_fault_text(enum plan_fault fault);

#endif
