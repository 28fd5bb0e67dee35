/* SPDX-License-Identifier: MIT */
#ifndef LARDER_CONFIG_H
#define LARDER_CONFIG_H

#include <larder/larder.h>

/* Defaults overlaid with what the caller's struct_size covers; 0 or -EINVAL if a setting is out of range. */
int config_read(larder_config_t *to, const larder_config_t *from);

#endif
