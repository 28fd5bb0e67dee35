/* SPDX-License-Identifier: MIT */
/*
 * The children of `larder pick`: which allocators there are, and one replay.
 */
#ifndef LARDER_TOOLS_PICK_REPLAY_H
#define LARDER_TOOLS_PICK_REPLAY_H

#include "pick.h"

/*
 * Leaves only those in the table that can be had here, with their versions; the others are told.
 * Returns an exit code, or -1 to go on.
 */
int pick_probe_backends(struct pick *pick);

struct pick_replayed {
    struct pick_sample sample;
    char policy[16];
    char why[512]; /* it failed */
};

/*
 * Replays a case with so many passes (0: as many as the replay likes) in a child, for `most_ns` at
 * most (UINT64_MAX: no limit). Returns 0; -EINTR after an interrupt; -ETIMEDOUT where the time was
 * up; -EIO where it failed, with the reason in `why`.
 */
int pick_replay(const struct pick *pick, const struct pick_case *one, size_t backend,
                unsigned passes, uint64_t most_ns, struct pick_replayed *out);

#endif
