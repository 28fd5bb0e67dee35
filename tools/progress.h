/* SPDX-License-Identifier: MIT */
/*
 * One line on a terminal that tells what takes so long, once it takes more than a second: what is
 * being done, and for how many seconds. Nothing is printed where stderr is no terminal.
 */
#ifndef LARDER_TOOLS_PROGRESS_H
#define LARDER_TOOLS_PROGRESS_H

/* What is done from now on: "larder convert: reading big.json". Replaces what was told before. */
void progress_tell(const char *subcommand, const char *doing, const char *what);

/* Takes the line away. To be called before anything else is printed. */
void progress_end(void);

#endif
