/* SPDX-License-Identifier: MIT */
/*
 * Misuse, told to the instance's error handler; without one, one line on stderr and abort().
 */
#ifndef LARDER_ERROR_H
#define LARDER_ERROR_H

#include <larder/larder.h>

/* `instance` may be NULL: nobody's pointer, and no instance named. No lock may be held. Never allocates. */
void error_report(struct larder *instance, larder_error_kind_t kind, const char *call,
                  const void *ptr, size_t size, const char *state);

#endif
