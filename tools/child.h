/* SPDX-License-Identifier: MIT */
/*
 * Running this program as a child and keeping what it prints.
 *
 * An interrupt (SIGINT, SIGTERM, SIGHUP) ends the child, by its id, and sets a flag; the caller
 * then cleans up and calls child_die_of_interrupt(). A child never outlives its parent, even one
 * that was killed.
 */
#ifndef LARDER_TOOLS_CHILD_H
#define LARDER_TOOLS_CHILD_H

#include <stdbool.h>
#include <stdint.h>

#define CHILD_OUTPUT_MAX 32768

struct child_result {
    int exit_code; /* or -1: ended by `signal` */
    int signal;
    char output[CHILD_OUTPUT_MAX]; /* the beginning of what it wrote to stdout */
    char errors[CHILD_OUTPUT_MAX]; /* the same for stderr */
};

/* From here on interrupts are caught. */
void child_catch_interrupts(void);

/*
 * Runs this program with the arguments (ended by NULL, argv[0] included) until it ends. Returns 0,
 * or a negative errno where it could not be started; -EINTR after an interrupt.
 */
int child_run(const char *const *argv, struct child_result *out);

/* The same, but no longer than `most_ns`: then the child is killed, and -ETIMEDOUT returned. */
int child_run_within(const char *const *argv, uint64_t most_ns, struct child_result *out);

bool child_interrupted(void);

/* Ends this process as the caught interrupt would have. */
_Noreturn void child_die_of_interrupt(void);

#endif
