/* SPDX-License-Identifier: MIT */
/*
 * A radix sort from the lowest byte to the highest (Knuth, The Art of Computer Programming, volume
 * 3, 5.2.5): each round keeps the order of the one before among equal bytes. Rounds in which all
 * bytes are equal, as the high ones of times are, cost one look.
 */
#include "stable_sort.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "pages.h"

static unsigned byte_of(const struct sort_entry *entry, unsigned round)
{
    return (unsigned)(entry->key >> (8 * round)) & 0xff;
}

/* One round, from `from` to `to`; false: nothing to do, all bytes are equal. */
static bool sort_round(const struct sort_entry *from, struct sort_entry *to, size_t count,
                       unsigned round)
{
    size_t starts[257] = {0};
    for (size_t i = 0; i < count; i++) {
        starts[byte_of(&from[i], round) + 1]++;
    }
    if (starts[byte_of(&from[0], round) + 1] == count) {
        return false;
    }
    for (unsigned byte = 0; byte < 256; byte++) {
        starts[byte + 1] += starts[byte];
    }
    for (size_t i = 0; i < count; i++) {
        to[starts[byte_of(&from[i], round)]++] = from[i];
    }
    return true;
}

int stable_sort(struct sort_entry *entries, size_t count)
{
    if (count < 2) {
        return 0;
    }
    struct sort_entry *other = pages_allocate(count * sizeof *other);
    if (other == NULL) {
        return -ENOMEM;
    }
    struct sort_entry *from = entries, *to = other;
    for (unsigned round = 0; round < 8; round++) {
        if (sort_round(from, to, count, round)) {
            struct sort_entry *swap = from;
            from = to;
            to = swap;
        }
    }
    if (from != entries) {
        memcpy(entries, from, count * sizeof *entries);
    }
    pages_free(other, count * sizeof *other);
    return 0;
}
