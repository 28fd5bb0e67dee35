/* SPDX-License-Identifier: MIT */
/* Settings of the interposers, from the environment. */
#ifndef LARDER_PRELOAD_SETTINGS_H
#define LARDER_PRELOAD_SETTINGS_H

#include <stddef.h>

/*
 * A size in bytes, with an optional suffix k, m or g (powers of 1024). `otherwise` where the
 * variable is unset or empty, and, after a line on stderr, where it is no size.
 */
size_t setting_size(const char *name, size_t otherwise);

#endif
