/* SPDX-License-Identifier: MIT */
/*
 * The instance that serves an unmodified program, its settings and its statistics.
 *
 * Environment, read once:
 *   LARDER_MIN_SIZE   requests of fewer bytes go to the next malloc
 *   LARDER_STATS      1: statistics on stderr at exit; json: as a line of JSON
 *   LARDER_...        the settings of an instance, see larder/larder.h
 */
#ifndef LARDER_PRELOAD_RUN_INSTANCE_H
#define LARDER_PRELOAD_RUN_INSTANCE_H

#include <larder/larder.h>
#include <stdbool.h>

#include "next.h"

/* False in the loader, before the C library has set `environ`. */
bool run_environment_is_there(void);

/* The smallest request for larder, at least 1. */
size_t run_min_size(void);

/* Makes the instance, once; NULL where that is impossible. */
larder_t *run_instance_create(const struct next_family *next);

#endif
