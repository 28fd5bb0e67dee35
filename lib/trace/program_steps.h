/* SPDX-License-Identifier: MIT */
/* The last part of building a program: lanes cut into steps. Private to program*.c. */
#ifndef LARDER_TRACE_PROGRAM_STEPS_H
#define LARDER_TRACE_PROGRAM_STEPS_H

#include "lanes.h"
#include "program.h"
#include "program_part.h"

/* Fills steps and waits of a program whose lanes have their operations. Returns 0 or -ENOMEM. */
int program_build_steps(const struct part *part, const struct lanes *lanes,
                        struct program *program);

#endif
