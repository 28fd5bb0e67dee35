/* SPDX-License-Identifier: MIT */
/*
 * What the replays of `larder pick` are planned with: shared by pick_trial.c, which makes the plan, and
 * pick_run.c, which carries it out.
 */
#ifndef LARDER_TOOLS_PICK_PLAN_H
#define LARDER_TOOLS_PICK_PLAN_H

#include "pick.h"
#include "pick_pace.h"

#define PICK_TRIAL_PASSES 4

/* An allocator on a case. */
struct pick_cell {
    struct pick_case *of;
    size_t backend;
    struct pace_cell pace;
};

struct pick_plan {
    struct pick *pick;
    struct pick_cell *cells;
    size_t cell_count;
    size_t runs, done;
    double replays_ns; /* when replays have to have ended, from the start; INFINITY: never */
    uint64_t random;
    bool failed;
    bool late; /* a round was ended by the clock */
};

/* Since the program began. */
double pick_elapsed_ns(const struct pick *pick);

/* Puts the numbers from 0 on in random order. */
void pick_shuffle(struct pick_plan *plan, size_t *numbers, size_t count);

/* Shows how far it is, on a terminal: "[3/8] 20 s at most DOING TRACE: ALLOCATOR". */
void pick_show_progress(const struct pick_plan *plan, const struct pick_case *one, size_t backend,
                        const char *doing);

/*
 * Runs one replay; a failure is told and noted. Returns 0 where the next one can follow, also after a
 * failure; -EINTR; -ETIMEDOUT.
 */
int pick_run_replay(struct pick_plan *plan, struct pick_case *one, size_t backend, unsigned passes,
                    struct pick_sample *sample);

/* Tries all allocators on all traces. Returns 0 or -EINTR. */
int pick_try_all(struct pick_plan *plan);

/* Lists the cells, once allocators were tried if they are to be. Returns 0, or -1, which has been told. */
int pick_make_cells(struct pick_plan *plan);

#endif
