/* SPDX-License-Identifier: MIT */
/* Sharing time out: see pick_pace.h. */
#include "pick_pace.h"

#define REPLAY_NS_MOST 1e9
/* Of the time, for cells with pauses, where there are others. */
#define SHARE_OF_GAPS 0.3
/* The same where they would not get a single round otherwise. */
#define SHARE_OF_GAPS_MOST 0.5

static double cell_cost(const struct pace_cell *cell)
{
    return cell->start_ns + cell->pass_ns * (double)cell->passes;
}

double pace_cost(const struct pace_cell *cells, size_t count, bool with_gap)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        sum += cells[i].with_gap == with_gap ? cell_cost(&cells[i]) : 0;
    }
    return sum;
}

/* Lets the passes of each cell of a kind take `slot_ns`; returns what a round then costs. */
static double set_slot(struct pace_cell *cells, size_t count, bool with_gap, double slot_ns)
{
    for (size_t i = 0; i < count; i++) {
        if (cells[i].with_gap == with_gap) {
            double passes = slot_ns / (cells[i].pass_ns + 1);
            cells[i].passes = passes < PACE_PASSES_LEAST  ? PACE_PASSES_LEAST
                              : passes > PACE_PASSES_MOST ? PACE_PASSES_MOST
                                                          : (unsigned)passes;
        }
    }
    return pace_cost(cells, count, with_gap);
}

/* The longest slot with which so many rounds take no longer than `left_ns`. */
static void fill(const struct pace *pace, struct pace_cell *cells, size_t count, bool with_gap,
                 unsigned rounds, double left_ns)
{
    double low = 0, high = REPLAY_NS_MOST;
    for (int step = 0; step < 40 && rounds > 0; step++) {
        double middle = (low + high) / 2;
        if (set_slot(cells, count, with_gap, middle) * pace->slowness * rounds <= left_ns) {
            low = middle;
        } else {
            high = middle;
        }
    }
    set_slot(cells, count, with_gap, low);
}

static unsigned at_most(unsigned rounds, double round_ns, double left_ns)
{
    while (rounds > 0 && round_ns * rounds > left_ns) {
        rounds--;
    }
    return rounds;
}

void pace_round(struct pace *pace, struct pace_cell *cells, size_t count)
{
    double left = pace->left_ns > 0 ? pace->left_ns : 0;
    double gap_round = set_slot(cells, count, true, 0) * pace->slowness;
    double main_round = set_slot(cells, count, false, 0) * pace->slowness;
    double share = pace->main_wanted > 0 ? SHARE_OF_GAPS * left : left;
    unsigned gaps = at_most(pace->gap_wanted, gap_round, share);
    if (gaps == 0 && pace->gap_wanted > 0 && !pace->gap_began &&
        gap_round <= SHARE_OF_GAPS_MOST * left) {
        gaps = 1;
    }
    unsigned mains = at_most(pace->main_wanted, main_round, left - gaps * gap_round);
    if (mains == 0 && pace->main_wanted > 0 && !pace->main_began) {
        mains = 1; /* it is ended by the clock, then */
    }
    fill(pace, cells, count, true, gaps, gap_round * gaps > share ? gap_round * gaps : share);
    gap_round = pace_cost(cells, count, true) * pace->slowness;
    fill(pace, cells, count, false, mains, left - gaps * gap_round);
    pace->main_left = mains;
    pace->gap_left = gaps;
}
