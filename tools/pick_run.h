/* SPDX-License-Identifier: MIT */
/* Which allocators there are: the beginning of `larder pick`. pick_run() itself is in pick.h. */
#ifndef LARDER_TOOLS_PICK_RUN_H
#define LARDER_TOOLS_PICK_RUN_H

#include "pick.h"

/*
 * Leaves only those in the table that can be had here, with their versions; the others are told.
 * Returns an exit code, or -1 to go on.
 */
int pick_probe_backends(struct pick *pick);

#endif
