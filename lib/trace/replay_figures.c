/* SPDX-License-Identifier: MIT */
/* Medians over sections: see replay_figures.h. */
#include "replay_figures.h"

#include <errno.h>
#include <string.h>

#include "measure.h"
#include "pages.h"

/* A figure of one pass is kept in parts, so that a section of many passes with few faults is not rounded to none. */
#define PARTS 1024u

int figures_open(struct figures *figures, size_t most)
{
    size_t sections_bytes = most * sizeof *figures->sections;
    size_t sorted_bytes = most * sizeof *figures->sorted;
    *figures = (struct figures){.most = most};
    figures->sections = pages_allocate(sections_bytes);
    figures->sorted = pages_allocate(sorted_bytes);
    if (figures->sections == NULL || figures->sorted == NULL) {
        return -ENOMEM;
    }
    memset(figures->sections, 0xff, sections_bytes);
    memset(figures->sorted, 0xff, sorted_bytes);
    return 0;
}

void figures_close(struct figures *figures)
{
    pages_free(figures->sections, figures->most * sizeof *figures->sections);
    pages_free(figures->sorted, figures->most * sizeof *figures->sorted);
}

uint64_t figures_shortest_ns(const struct figures *figures)
{
    uint64_t shortest = UINT64_MAX;
    for (size_t i = 0; i < figures->count; i++) {
        const struct section_result *section = &figures->sections[i];
        uint64_t ns = section->crew.wall_ns / section->passes;
        shortest = ns < shortest ? ns : shortest;
    }
    return shortest;
}

void figures_add_busy(struct figures *figures, size_t lane, double share, size_t passes)
{
    if (lane == 0) {
        figures->busy_passes += passes;
    }
    if (lane < REPLAY_LANES_SHOWN) {
        figures->busy[lane] += share * (double)passes;
        figures->busy_lanes = lane + 1 > figures->busy_lanes ? lane + 1 : figures->busy_lanes;
    }
}

/* -- Medians ----------------------------------------------------------------------------------- */

typedef uint64_t section_figure(const struct section_result *section);

static uint64_t faults_of(const struct section_result *section)
{
    return section->faults;
}

static uint64_t op_ns_of(const struct section_result *section)
{
    return section->crew.op_ns;
}

static uint64_t wall_ns_of(const struct section_result *section)
{
    return section->crew.wall_ns;
}

static uint64_t cpu_ns_of(const struct section_result *section)
{
    return section->cpu_ns;
}

static uint64_t waited_ns_of(const struct section_result *section)
{
    return section->crew.waited_ns;
}

static uint64_t waits_of(const struct section_result *section)
{
    return section->crew.waits;
}

/* The median over sections from `first` on, of one pass; their figures, in parts, stay in figures->sorted. */
static double median_of(struct figures *figures, size_t first, section_figure *figure)
{
    for (size_t i = first; i < figures->count; i++) {
        const struct section_result *section = &figures->sections[i];
        figures->sorted[i - first] = figure(section) * PARTS / section->passes;
    }
    return measure_median(figures->sorted, figures->count - first) / PARTS;
}

static double cpus_busy(const struct figures *figures, size_t first)
{
    double cpu_ns = 0, elapsed_ns = 0;
    for (size_t i = first; i < figures->count; i++) {
        cpu_ns += (double)figures->sections[i].cpu_ns;
        elapsed_ns += (double)figures->sections[i].elapsed_ns;
    }
    return elapsed_ns > 0 ? cpu_ns / elapsed_ns : 0;
}

void figures_sum_up(struct figures *figures, size_t ops_per_pass, struct replay_result *out)
{
    size_t first = 0, passes = 0, before = 0;
    for (size_t i = 0; i < figures->count; i++) {
        passes += figures->sections[i].passes;
    }
    while (first + 1 < figures->count && before < passes / 3) {
        before += figures->sections[first++].passes;
    }
    double ops = (double)ops_per_pass;
    size_t last = figures->count - first - 1;
    out->passes = passes;
    out->ops_per_pass = ops_per_pass;
    out->faults_per_pass = median_of(figures, first, faults_of);
    out->pass_ns = median_of(figures, first, wall_ns_of);
    out->cpu_ns_per_op = median_of(figures, first, cpu_ns_of) / ops;
    out->cpus_busy = cpus_busy(figures, first);
    out->waiting_ns = median_of(figures, first, waited_ns_of);
    out->waits = median_of(figures, first, waits_of);
    out->ns_per_op = median_of(figures, first, op_ns_of) / ops;
    out->ns_per_op_min = (double)figures->sorted[0] / PARTS / ops;
    out->ns_per_op_max = (double)figures->sorted[last] / PARTS / ops;
    for (size_t i = 0; i < figures->busy_lanes; i++) {
        out->busy[i] = figures->busy[i] / (double)figures->busy_passes;
    }
    out->busy_count = figures->busy_lanes;
}
