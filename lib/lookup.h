/* SPDX-License-Identifier: MIT */
/* From an address to the block that starts there, whatever tier it lies in. */
#ifndef LARDER_LOOKUP_H
#define LARDER_LOOKUP_H

#include "fit.h"

enum lookup_result {
    LOOKUP_FIT,     /* a block in a region, live or cached: see `fit` */
    LOOKUP_RECORD,  /* a block with a record, live or cached: see `record` */
    LOOKUP_INVALID, /* inside a region, but no block starts there */
    LOOKUP_UNKNOWN  /* nobody's */
};

struct lookup {
    struct larder *owner; /* NULL if unknown */
    struct fit_block fit;
    struct block_record *record;
    const char *state; /* "live", "cached", "interior", "unknown" */
    size_t size;       /* asked for */
    size_t usable;     /* from the address on */
    bool live;
};

enum lookup_result lookup_address(const void *ptr, struct lookup *found);

#endif
