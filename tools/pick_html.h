/* SPDX-License-Identifier: MIT */
/* The report with charts: what pick measured, and what only a report wants, handed to bench/report. */
#ifndef LARDER_TOOLS_PICK_HTML_H
#define LARDER_TOOLS_PICK_HTML_H

#include <stddef.h>
#include <stdio.h>

#include "pick.h"

/*
 * Measures the curves and writes the report into `out`. Returns 0, or a negative errno and the reason
 * in `why`.
 */
int pick_write_html(struct pick *pick, FILE *out, char *why, size_t why_size);

#endif
