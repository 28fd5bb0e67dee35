/* SPDX-License-Identifier: MIT */
/* See heaps_support.h. */
#include "heaps_support.h"

#include "fit.h"
#include "heap_invariants.h"
#include "lookup.h"
#include "thread_state.h"

struct larder *larder;

void set_up(void)
{
    larder = make_bare_instance(LARDER_POLICY_FIT, larder_backend_mmap());
}

void tear_down(void)
{
    must_destroy(larder);
}

struct span_heap *own_heap(void)
{
    return thread_cache_of(larder)->heap;
}

struct span_heap *heap_of(const void *block)
{
    struct lookup found;
    return lookup_address(block, &found) == LOOKUP_FIT ? found.fit.region->heap : NULL;
}

void meet_others(void)
{
    uint32_t enough = thread_state.crowd.enough;
    thread_note_meeting(own_heap(), enough != 0 ? enough : CROWD_MEETINGS);
}

void *alloc_crowded(size_t size)
{
    meet_others();
    return larder_alloc(larder, size);
}

void assert_all_is_free(void)
{
    struct heap_census census;
    fit_release_spares(larder);
    ck_assert(instance_is_sound(larder, &census));
    ck_assert_uint_eq(census.used_units, 0);
    ck_assert_uint_le(census.free_spans, census.regions);
    larder_free_cached(larder);
    ck_assert_uint_eq(stats_of(larder).free_committed_bytes, 0);
    ck_assert_uint_eq(stats_of(larder).regions, 0);
}

void take_in_turn(void *context, unsigned index)
{
    (void)context;
    (void)index;
    for (int i = 0; i < 1000; i++) {
        void *block = larder_alloc(larder, LARGE);
        expect(heap_of(block) == &larder->heap);
        larder_free(larder, block);
    }
}
