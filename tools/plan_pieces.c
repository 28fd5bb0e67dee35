/* SPDX-License-Identifier: MIT */
/*
 * The search for a plan, with a time limit, a line of progress and Ctrl-C.
 *
 * Where nothing is live, what came before and what comes after are planned apart from each other: each such piece only has
 * to stay within the peak of the worst.
 */
#include "plan.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "plan_sort.h"
#include "tool.h"

enum { PROGRESS_EVERY_MS = 200, PROGRESS_AFTER_MS = 1000 };

/* ---- the search, watched ---- */

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal)
{
    (void)signal;
    interrupted = 1;
}

/* Ctrl-C ends the search; a second one ends the program. */
static void catch_interrupts(void)
{
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
}

struct watch {
    uint64_t begun_ms, told_ms, limit_ms;
    uint64_t enough;            /* units; 0: nothing is */
    uint64_t unit, peak, bound; /* of the piece at hand, in units */
    uint32_t piece, pieces;
    bool on_terminal, has_line;
};

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void show_progress(struct watch *watch, uint64_t now)
{
    char peak[32], bound[32];
    watch->told_ms = now;
    watch->has_line = true;
    fprintf(stderr,
            "\rlarder plan: %3" PRIu64 " s, piece %" PRIu32 " of %" PRIu32
            ", peak %s, lower bound %s\033[K",
            (now - watch->begun_ms) / 1000, watch->piece, watch->pieces,
            tool_format_bytes(watch->peak * watch->unit, peak, sizeof peak),
            tool_format_bytes(watch->bound * watch->unit, bound, sizeof bound));
}

static void end_progress(struct watch *watch)
{
    if (watch->has_line)
        fputs("\r\033[K", stderr);
    watch->has_line = false;
}

static bool should_stop(void *context)
{
    struct watch *watch = context;
    uint64_t now = now_ms();
    if (watch->on_terminal && now - watch->begun_ms >= PROGRESS_AFTER_MS &&
        now - watch->told_ms >= PROGRESS_EVERY_MS) {
        show_progress(watch, now);
    }
    return interrupted || now - watch->begun_ms >= watch->limit_ms;
}

static void note_step(void *context, uint64_t peak, uint64_t bound)
{
    struct watch *watch = context;
    watch->peak = peak;
    watch->bound = bound;
}

/* ---- pieces ---- */

struct piece {
    uint32_t first, count; /* in the order by time */
};

struct planning {
    struct plan_blocks *blocks;
    struct watch watch;
    uint32_t *order; /* items by time of beginning */
    struct piece *pieces;
    struct plan_item *items; /* of one piece */
    void *scratch;
};

static void planning_release(struct planning *planning)
{
    free(planning->order);
    free(planning->pieces);
    free(planning->items);
    free(planning->scratch);
}

/* Cuts the blocks wherever nothing is live; returns the longest piece's count, 0 where there is no memory. */
static uint32_t find_pieces(struct planning *planning)
{
    const struct plan_blocks *blocks = planning->blocks;
    uint64_t *keys = malloc(blocks->count * sizeof *keys);
    planning->order = malloc(blocks->count * sizeof *planning->order);
    planning->pieces = malloc(blocks->count * sizeof *planning->pieces);
    if (keys == NULL || planning->order == NULL || planning->pieces == NULL) {
        free(keys);
        return 0;
    }
    for (uint32_t i = 0; i < blocks->count; i++)
        keys[i] = blocks->items[i].begin;
    plan_sort(planning->order, keys, blocks->count);
    free(keys);
    uint32_t longest = 0, end = 0, pieces = 0;
    for (uint32_t i = 0; i < blocks->count; i++) {
        const struct plan_item *item = &blocks->items[planning->order[i]];
        if (i == 0 || item->begin >= end)
            planning->pieces[pieces++] = (struct piece){i, 0};
        uint32_t count = ++planning->pieces[pieces - 1].count;
        longest = count > longest ? count : longest;
        end = item->end > end ? item->end : end;
    }
    planning->watch.pieces = pieces;
    return longest;
}

static struct plan_outcome plan_piece(struct planning *planning, const struct piece *piece,
                                      uint64_t enough)
{
    struct plan_item *all = planning->blocks->items;
    const uint32_t *order = &planning->order[piece->first];
    const struct plan_search_limits limits = {
        .nodes = planning->watch.limit_ms != 0 ? UINT64_MAX : 0,
        .stop = should_stop,
        .tell = note_step,
        .context = &planning->watch,
    };
    planning->watch.piece++;
    for (uint32_t i = 0; i < piece->count; i++)
        planning->items[i] = all[order[i]];
    struct plan_outcome outcome = plan_best(planning->items, piece->count, PLAN_EFFORT_DEFAULT / 4,
                                            enough, &limits, planning->scratch);
    for (uint32_t i = 0; i < piece->count; i++)
        all[order[i]].offset = planning->items[i].offset;
    return outcome;
}

/* The most that lives at once in any piece. */
static uint64_t live_bound(struct planning *planning)
{
    uint64_t most = 0;
    for (uint32_t p = 0; p < planning->watch.pieces; p++) {
        const struct piece *piece = &planning->pieces[p];
        for (uint32_t i = 0; i < piece->count; i++)
            planning->items[i] = planning->blocks->items[planning->order[piece->first + i]];
        uint64_t live = plan_lower_bound(planning->items, piece->count, planning->scratch);
        most = live > most ? live : most;
    }
    return most;
}

/* Plans all pieces; 0 or -ENOMEM. */
static int plan_all(struct planning *planning, struct plan_outcome *whole)
{
    uint32_t longest = find_pieces(planning);
    if (longest == 0)
        return -ENOMEM;
    planning->items = malloc(longest * sizeof *planning->items);
    planning->scratch = aligned_alloc(64, (plan_search_scratch_bytes(longest) + 63) & ~(size_t)63);
    if (planning->items == NULL || planning->scratch == NULL)
        return -ENOMEM;
    *whole = (struct plan_outcome){.bound = live_bound(planning)};
    for (uint32_t p = 0; p < planning->watch.pieces; p++) {
        uint64_t enough = whole->peak > whole->bound ? whole->peak : whole->bound;
        if (enough < planning->watch.enough)
            enough = planning->watch.enough;
        struct plan_outcome outcome = plan_piece(planning, &planning->pieces[p], enough);
        whole->peak = outcome.peak > whole->peak ? outcome.peak : whole->peak;
        whole->bound = outcome.bound > whole->bound ? outcome.bound : whole->bound;
    }
    end_progress(&planning->watch);
    return 0;
}

int plan_pieces(struct plan_blocks *blocks, const struct plan_limits *limits, struct plan_end *end)
{
    struct planning planning = {.blocks = blocks};
    planning.watch = (struct watch){
        .begun_ms = now_ms(),
        .limit_ms = (uint64_t)limits->seconds * 1000,
        .enough = limits->capacity / blocks->unit,
        .unit = blocks->unit,
        .on_terminal = isatty(STDERR_FILENO) != 0,
    };
    catch_interrupts();
    int result = plan_all(&planning, &end->outcome);
    end->seconds = (double)(now_ms() - planning.watch.begun_ms) / 1000;
    end->interrupted = interrupted != 0;
    planning_release(&planning);
    return result;
}
