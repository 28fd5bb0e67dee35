/* SPDX-License-Identifier: MIT */
#include "witness.h"

#ifdef LARDER_CHECKS_FULL

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char *const names[RANKS] = {
    "none",       "thread caches", "instances",  "instance", "depot",  "exact bucket",
    "quarantine", "planned",       "small heap", "heap",     "budget", "region's runs",
    "map",        "shard",         "pool",       "metadata",
};

static __thread __attribute__((tls_model("initial-exec"))) struct {
    uint32_t held[RANKS];
    uint32_t looking_away;
} witness;

static _Noreturn void end(const char *what, const char *held)
{
    char line[128];
    int length = snprintf(line, sizeof line, "larder: lock order: %s with the lock of %s held\n",
                          what, held);
    if (write(STDERR_FILENO, line, (size_t)length) < 0) { /* nothing can be done about it */
    }
    abort();
}

void witness_take(enum lock_rank rank)
{
    if (rank == RANK_NONE || witness.looking_away != 0)
        return;
    for (unsigned held = rank; held < RANKS; held++) {
        if (witness.held[held] != 0)
            end(names[rank], names[held]);
    }
    witness.held[rank]++;
}

void witness_leave(enum lock_rank rank)
{
    if (rank == RANK_NONE || witness.looking_away != 0)
        return;
    if (witness.held[rank]-- == 0)
        end("left", "nobody");
}

void witness_free_of_locks(const char *call)
{
    if (witness.looking_away != 0)
        return;
    for (unsigned held = 0; held < RANKS; held++) {
        if (witness.held[held] != 0)
            end(call, names[held]);
    }
}

void witness_look_away(void)
{
    witness.looking_away++;
}

void witness_look_again(void)
{
    witness.looking_away--;
}

#else

typedef int witness_is_empty; /* ISO C wants a declaration */

#endif
