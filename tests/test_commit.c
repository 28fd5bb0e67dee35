/* SPDX-License-Identifier: MIT */
/*
 * Regions are reserved and made usable bit by bit, outside of the span heap's lock. This suite stands in for
 * the system's mprotect(): it can refuse, and it can let something happen while one thread is
 * still waiting for it. Whatever it does, no block may be handed out of which a byte is not yet usable. And for madvise(), to
 * see for what huge pages are refused.
 */
#include "support.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cache.h"
#include "heap_invariants.h"

static void (*before_commit)(void);      /* called once, before the next mprotect() */
static _Atomic unsigned refused_commits; /* how many of the next ones fail */

/* Takes the place of the C library's. */
int mprotect(void *ptr, size_t size, int protection)
{
    void (*hook)(void) = before_commit;

    before_commit = NULL;
    if (hook != NULL)
        hook();
    if (atomic_load(&refused_commits) != 0) {
        atomic_fetch_sub(&refused_commits, 1);
        errno = ENOMEM;
        return -1;
    }
    return (int)syscall(SYS_mprotect, ptr, size, protection);
}

#ifdef MADV_NOHUGEPAGE
static struct {
    uintptr_t begin, end;
} without_huge_pages[64];
static unsigned ranges_without;

int madvise(void *ptr, size_t size, int advice)
{
    if (advice == MADV_NOHUGEPAGE && ranges_without < 64) {
        without_huge_pages[ranges_without].begin = (uintptr_t)ptr;
        without_huge_pages[ranges_without++].end = (uintptr_t)ptr + size;
    }
    return (int)syscall(SYS_madvise, ptr, size, advice);
}

static bool goes_without_huge_pages(const void *ptr, size_t size)
{
    for (unsigned i = 0; i < ranges_without; i++) {
        if ((uintptr_t)ptr >= without_huge_pages[i].begin &&
            (uintptr_t)ptr + size <= without_huge_pages[i].end)
            return true;
    }
    return false;
}

/* What is sparse, all of it. */
START_TEST(neither_regions_nor_their_tables_are_left_to_huge_pages)
{
    struct larder *larder = make_instance(LARDER_POLICY_FIT, NULL);
    struct span_heap *heaps[] = {&larder->heap, &larder->small_heap};

    larder_free(larder, larder_alloc(larder, MIB));
    larder_free(larder, larder_alloc(larder, 5000));
    ck_assert(goes_without_huge_pages(larder, sizeof *larder));
    for (int i = 0; i < 2; i++) {
        struct region *region = heaps[i]->regions;

        ck_assert_ptr_nonnull(region);
        ck_assert(goes_without_huge_pages(region, sizeof *region));
        ck_assert(goes_without_huge_pages(region->tables, region->table_size));
        ck_assert(goes_without_huge_pages(region_address(region, 0), atomic_load(&region->size)));
    }
    must_destroy(larder);
}
END_TEST
#endif

/* Every byte of the block lies below what its region has had committed. */
static bool is_usable(const void *ptr, size_t size)
{
    struct region *region = allocation_map_region((uintptr_t)ptr);
    size_t offset;

    if (region == NULL || !region_contains(region, (uintptr_t)ptr, &offset))
        return true; /* not cut from a region */
    return !region->reserved || offset + size <= atomic_load(&region->committed);
}

static larder_t *tested;
static void *taken_meanwhile;
static size_t size_meanwhile, alignment_meanwhile;

static void take_meanwhile(void)
{
    taken_meanwhile = larder_alloc_aligned(tested, alignment_meanwhile, size_meanwhile);
    ck_assert_ptr_nonnull(taken_meanwhile);
    ck_assert_msg(is_usable(taken_meanwhile, size_meanwhile),
                  "a block of %zu bytes lies where another thread's commit is still under way",
                  size_meanwhile);
    memset(taken_meanwhile, 1, size_meanwhile);
}

/* What a second thread takes while a first one waits for its commit, and at which alignments. */
static const struct {
    size_t alignment, size, other_alignment, other_size;
} pairs[] = {
    {64, 40000, 64, 40000},    {64, 40000, 1024, 600},     {64, 33 * KIB + 512, 1024, 1024},
    {4096, 40000, 1024, 2000}, {65536, 40000, 1024, 2000}, {65536, 100000, 64, 5000},
    {64, 100, 64, 5000},       {64, 5000, 64, 5000},       {1024, 1500, 1024, 1500},
};

START_TEST(a_block_taken_while_another_commit_is_under_way_is_usable)
{
    larder_config_t config = test_config(LARDER_POLICY_FIT, NULL);
    void *blocks[600];
    unsigned count = 0;

    config.redzone = _i % 2 == 0 ? 0 : 16;
    tested = must_create(&config);
    alignment_meanwhile = pairs[_i / 2].other_alignment;
    size_meanwhile = pairs[_i / 2].other_size;
    /* one in a few dozen of these needs a commit, and finds the visitor in its way */
    for (; count < 600; count++) {
        taken_meanwhile = NULL;
        before_commit = take_meanwhile;
        blocks[count] = larder_alloc_aligned(tested, pairs[_i / 2].alignment, pairs[_i / 2].size);
        before_commit = NULL;
        ck_assert_ptr_nonnull(blocks[count]);
        ck_assert(is_usable(blocks[count], pairs[_i / 2].size));
        larder_free(tested, taken_meanwhile);
    }
    while (count > 0)
        larder_free(tested, blocks[--count]);
    must_destroy(tested);
}
END_TEST

START_TEST(after_a_refused_commit_no_block_is_handed_out_that_is_not_usable)
{
    static const size_t sizes[] = {100, 1000, 5000, 20000, 100 * KIB, 3 * MIB};
    larder_config_t config = test_config(LARDER_POLICY_FIT, NULL);
    struct heap_census census;

    if (_i / 6 == 1)
        config.max_cached_bytes = 2 * MIB;
    tested = must_create(&config);
    for (unsigned refused = 1; refused <= 4; refused++) {
        void *blocks[100];
        unsigned count = 0, wanted = sizes[_i % 6] > MIB ? 5 : 100;

        atomic_store(&refused_commits, refused);
        for (; count < wanted; count++) {
            blocks[count] = larder_alloc(tested, sizes[_i % 6]);
            ck_assert(blocks[count] == NULL || is_usable(blocks[count], sizes[_i % 6]));
            if (blocks[count] != NULL)
                memset(blocks[count], 1, sizes[_i % 6]);
        }
        atomic_store(&refused_commits, 0);
        while (count > 0)
            larder_free(tested, blocks[--count]);
        ck_assert(instance_is_sound(tested, &census));
        larder_free_cached(tested); /* the next round begins with nothing committed */
    }
    must_destroy(tested);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("commit");
    TCase *claims = add_claims(suite, "commit");

    tcase_add_loop_test(claims, a_block_taken_while_another_commit_is_under_way_is_usable, 0,
                        2 * (int)(sizeof pairs / sizeof *pairs));
    tcase_add_loop_test(claims, after_a_refused_commit_no_block_is_handed_out_that_is_not_usable, 0,
                        12);
#ifdef MADV_NOHUGEPAGE
    tcase_add_test(claims, neither_regions_nor_their_tables_are_left_to_huge_pages);
#endif
    return run_suite(suite);
}
