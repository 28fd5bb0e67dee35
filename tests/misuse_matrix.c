/* SPDX-License-Identifier: MIT */
/*
 * The cases and the table, see misuse_matrix.h. What cannot be caught, and stands here as SILENT or is left out:
 *   - a pointer freed again after its address was handed out again: that frees the new owner's block, and
 *     it is the new owner's free that is caught;
 *   - under default checks, two threads that free a block at the same instant;
 *   - reading and writing freed blocks, but by the sanitizers (test_poison.c).
 */
#include "misuse_matrix.h"

#include <stdio.h>
#include <unistd.h>

void announce(struct scene *scene, const void *ptr)
{
    scene->announced = ptr;
    fprintf(stderr, "announced %p\n", ptr);
}

static void *take(struct scene *scene)
{
    void *block = larder_alloc(scene->larder, scene->size);

    expect(block != NULL);
    return block;
}

/* One between two that stay live. */
static void *take_between(struct scene *scene)
{
    void *block;

    scene->kept[0] = take(scene);
    block = take(scene);
    scene->kept[1] = take(scene);
    return block;
}

static void bad_free(struct scene *scene, larder_t *through, void *ptr)
{
    announce(scene, ptr);
    larder_free(through, ptr);
}

/* -- Double frees -- */

static void free_twice(struct scene *scene)
{
    void *block = take_between(scene);

    larder_free(scene->larder, block);
    bad_free(scene, scene->larder, block);
}

static void free_twice_through_another_instance(struct scene *scene)
{
    void *block = take_between(scene);

    larder_free(scene->larder, block);
    bad_free(scene, scene->other, block);
}

static void free_one_of_many_twice(struct scene *scene)
{
    void *blocks[40];

    for (unsigned i = 0; i < 40; i++)
        blocks[i] = take(scene);
    for (unsigned i = 0; i < 40; i++)
        larder_free(scene->larder, blocks[i]);
    bad_free(scene, scene->larder, blocks[7]);
}

static void *free_here(void *argument)
{
    void **pair = argument;

    larder_free(pair[0], pair[1]);
    return NULL;
}

static void free_in_another_thread(larder_t *larder, void *block)
{
    void *pair[] = {larder, block};
    pthread_t thread;

    expect(pthread_create(&thread, NULL, free_here, pair) == 0);
    pthread_join(thread, NULL);
}

static void free_again_after_another_thread(struct scene *scene)
{
    void *block = take_between(scene);

    free_in_another_thread(scene->larder, block);
    bad_free(scene, scene->larder, block);
}

static void free_after_flush(struct scene *scene)
{
    void *block = take_between(scene);

    larder_free(scene->larder, block);
    larder_flush_thread(scene->larder);
    bad_free(scene, scene->larder, block);
}

static void free_after_release(struct scene *scene)
{
    void *block = take(scene);

    larder_free(scene->larder, block);
    larder_free_cached(scene->larder);
    bad_free(scene, scene->larder, block);
}

/* The address is handed out again in between: the third free is caught, its caller being innocent. */
static void free_after_reuse(struct scene *scene)
{
    void *block = take_between(scene), *again;

    larder_free(scene->larder, block);
    again = take(scene);
    announce(scene, block);
    larder_free(scene->larder, block);
    if (again == block)
        larder_free(scene->larder, again);
}

static struct meeting duel;

static void *free_at_the_signal(void *argument)
{
    meeting_wait(&duel);
    return free_here(argument);
}

/* Under default checks both may succeed, so there the second comes after the first. */
static void free_by_two_threads_at_once(struct scene *scene)
{
    void *pair[] = {scene->larder, take_between(scene)};
    pthread_t thread;

    announce(scene, pair[1]);
    meeting_init(&duel, scene->strict ? 2 : 1);
    expect(pthread_create(&thread, NULL, free_at_the_signal, pair) == 0);
    if (scene->strict)
        meeting_wait(&duel);
    else
        pthread_join(thread, NULL);
    larder_free(pair[0], pair[1]);
    if (scene->strict)
        pthread_join(thread, NULL);
}

static void realloc_freed(struct scene *scene)
{
    void *block = take_between(scene);

    larder_free(scene->larder, block);
    announce(scene, block);
    expect(larder_realloc(scene->larder, block, 2 * scene->size) == NULL);
}

/* -- Pointers that are not what they should be -- */

static void free_misaligned(struct scene *scene)
{
    bad_free(scene, scene->larder, byte_at(take(scene), 1));
}

static void free_interior(struct scene *scene)
{
    bad_free(scene, scene->larder, byte_at(take(scene), 64));
}

static void free_last_byte(struct scene *scene)
{
    bad_free(scene, scene->larder, byte_at(take(scene), (ptrdiff_t)scene->size - 1));
}

static void free_stack(struct scene *scene)
{
    _Alignas(64) char local[64];

    bad_free(scene, scene->larder, byte_at(local, 0));
}

static void free_static(struct scene *scene)
{
    static _Alignas(64) char fixed[64];

    bad_free(scene, scene->larder, fixed);
}

static void free_wild(struct scene *scene)
{
    bad_free(scene, scene->larder, (void *)(uintptr_t)0x1240);
}

/* -- Instances -- */

static void free_through_another_instance(struct scene *scene)
{
    larder_free(scene->other, take(scene));
    larder_free(NULL, take(scene));
}

static void free_block_of_destroyed_instance(struct scene *scene)
{
    larder_t *gone = larder_create("gone", NULL);
    void *block = larder_alloc(gone, scene->size);

    expect(larder_destroy(gone) == 1);
    pattern_fill(block, scene->size, 1);
    expect(pattern_holds(block, scene->size, 1));
    larder_free(scene->larder, block);
}

static void free_twice_of_destroyed_instance(struct scene *scene)
{
    larder_config_t config;
    larder_t *gone;
    void *block, *kept;

    larder_config_init(&config);
    config.backend = larder_backend_mmap();
    gone = larder_create("kitchen", &config); /* the line is to name it */
    block = larder_alloc(gone, scene->size);
    kept = larder_alloc(gone, scene->size);
    expect(larder_destroy(gone) == 2);
    larder_free(scene->larder, block);
    announce(scene, block);
    larder_free(scene->larder, block);
    larder_free(scene->larder, kept);
}

/* -- Blocks that others release -- */

static void record_free_of_live(struct scene *scene)
{
    void *block = take(scene);

    announce(scene, block);
    expect(larder_record_free(block) == 0);
    expect(larder_owner(block) == NULL);
    /* its memory is the caller's now: it is not given back here */
}

static void record_free_of_cached(struct scene *scene)
{
    void *block = take_between(scene);

    larder_free(scene->larder, block);
    announce(scene, block);
    (void)larder_record_free(block);
}

static void record_free_of_unknown(struct scene *scene)
{
    char local[8];

    announce(scene, local);
    expect(larder_record_free(byte_at(local, 0)) == 0);
    expect(larder_record_free(NULL) == 0);
}

/* -- Overruns -- */

static void overrun_after(struct scene *scene)
{
    unsigned char *block = take(scene);

    *byte_at(block, (ptrdiff_t)scene->size) ^= 0xFF;
    bad_free(scene, scene->larder, block);
}

static void overrun_before(struct scene *scene)
{
    unsigned char *block = take(scene);

    *byte_at(block, -1) ^= 0xFF;
    bad_free(scene, scene->larder, block);
}

static void overrun_found_by_realloc(struct scene *scene)
{
    unsigned char *block = take(scene);

    *byte_at(block, (ptrdiff_t)scene->size) ^= 0xFF;
    announce(scene, block);
    expect(larder_realloc(scene->larder, block, 4 * scene->size) != NULL);
}

/* -- The ends of threads and of the process -- */

static pthread_key_t late_key;
static struct scene *late_scene;

static void work_late(void *block)
{
    larder_free(late_scene->larder, block);
    for (unsigned i = 0; i < 50; i++)
        larder_free(late_scene->larder, take(late_scene));
    if (late_scene->announced ==
        NULL) { /* once more, after larder's own destructor surely has run */
        late_scene->announced = block;
        pthread_setspecific(late_key, take(late_scene));
    }
}

static void *leave_a_block_behind(void *argument)
{
    struct scene *scene = argument;

    pthread_setspecific(late_key, take(scene));
    larder_free(scene->larder, take(scene));
    return NULL;
}

static void free_during_and_after_teardown(struct scene *scene)
{
    pthread_t thread;

    late_scene = scene;
    expect(pthread_key_create(&late_key, work_late) == 0);
    expect(pthread_create(&thread, NULL, leave_a_block_behind, scene) == 0);
    pthread_join(thread, NULL);
}

static void *exit_larder, *exit_block;
static size_t exit_size;

static void work_at_exit(void)
{
    larder_free(exit_larder, exit_block);
    exit_block = larder_alloc(exit_larder, exit_size);
    if (!exit_block)
        _exit(3);
    pattern_fill(exit_block, exit_size, 9);
    larder_free(NULL, exit_block);
    _exit(0);
}

/* The case's own process ends here. */
static void allocate_at_exit(struct scene *scene)
{
    exit_larder = scene->larder;
    exit_block = take(scene);
    exit_size = scene->size;
    expect(atexit(work_at_exit) == 0);
    exit(4); /* which work_at_exit() changes to 0 */
}

/* -- Scopes -- */

static void leave_scopes_out_of_order(struct scene *scene)
{
    larder_t *first = larder_scope_enter(scene->larder);
    larder_t *second = larder_scope_enter(scene->other);

    (void)second;
    announce(scene, first);
    larder_scope_leave(first);
}

static void *leave_here(void *previous)
{
    larder_scope_leave(previous);
    return NULL;
}

static void leave_a_scope_on_the_wrong_thread(struct scene *scene)
{
    larder_t *outer = larder_scope_enter(scene->larder);
    larder_t *previous = larder_scope_enter(scene->larder);
    pthread_t thread;

    (void)outer;
    announce(scene, previous);
    expect(pthread_create(&thread, NULL, leave_here, previous) == 0);
    pthread_join(thread, NULL);
}

/* -- Use of what has been freed -- */

/* Without a quarantine the third free would be the one that is caught, of the new owner. */
static void free_after_much_reuse(struct scene *scene)
{
    void *block = take(scene);

    larder_free(scene->larder, block);
    for (unsigned i = 0; i < 20; i++)
        larder_free(scene->larder, take(scene));
    bad_free(scene, scene->larder, block);
}

static void write_after_free(struct scene *scene)
{
    unsigned char *block;

    (void)larder_plan_end(scene->larder); /* what lies in an arena does not wait */
    block = take(scene);
    larder_free(scene->larder, block);
    *byte_at(block, (ptrdiff_t)scene->size) ^= 0xFF; /* in the redzone */
    announce(scene, block);
    larder_free_cached(scene->larder);
}

/* -- Questions -- */

static void ask_about_what_is_not_live(struct scene *scene)
{
    void *block = take(scene);
    char local[8];

    larder_free(scene->larder, block);
    expect(larder_usable_size(block) == 0 && larder_owner(block) == NULL);
    expect(larder_usable_size(byte_at(local, 0)) == 0 && larder_owner(local) == NULL);
    expect(larder_usable_size(NULL) == 0 && larder_owner(NULL) == NULL);
    larder_free(scene->larder, NULL);
}

/* -- The table -- */

/* Under `planned` the same is promised as under `fit`: in an arena, where large blocks are, and elsewhere. */
#define ROW(fit, fit_strict, exact, exact_strict, passthrough, passthrough_strict)                 \
    ROW_WITH_PLANNED(fit, fit_strict, exact, exact_strict, passthrough, passthrough_strict, fit,   \
                     fit_strict)
#define ROW_WITH_PLANNED(fit, fit_strict, exact, exact_strict, passthrough, passthrough_strict,    \
                         planned, planned_strict)                                                  \
    {                                                                                              \
        {fit, fit_strict}, {exact, exact_strict}, {passthrough, passthrough_strict},               \
        {                                                                                          \
            planned, planned_strict                                                                \
        }                                                                                          \
    }
#define EVERYWHERE(o) ROW(o, o, o, o, o, o)
/* Under passthrough a freed block is forgotten at once. */
#define WHERE_CACHED(o) ROW(o, o, o, o, FORGOTTEN, FORGOTTEN)
/* A place in an arena is known for as long as the arena is. */
#define WHERE_RELEASED                                                                             \
    ROW_WITH_PLANNED(FORGOTTEN, FORGOTTEN, FORGOTTEN, FORGOTTEN, FORGOTTEN, FORGOTTEN, GONE, GONE)
/* A span that has become part of a larger hole is no block's start any more. */
#define WHEREVER_IT_WENT ROW(CAUGHT, CAUGHT, DOUBLE, DOUBLE, FORGOTTEN, FORGOTTEN)
/* While another thread puts a span into its heap, it is for a moment no block's start; under passthrough it is known a
 * moment longer. */
#define WHILE_IT_GOES ROW(DOUBLE, CAUGHT, DOUBLE, DOUBLE, CAUGHT, CAUGHT)
/* Without regions only strict checks look at all blocks. */
#define INTERIOR ROW(INVALID, INVALID, UNOWNED, INVALID, UNOWNED, INVALID)

const struct misuse misuses[] = {
    {"double free", "larder_free", free_twice, WHERE_CACHED(DOUBLE), 0, 0, false},
    {"double free through another instance", "larder_free", free_twice_through_another_instance,
     WHERE_CACHED(DOUBLE), 0, 0, false},
    {"double free of one of many", "larder_free", free_one_of_many_twice, WHEREVER_IT_WENT, 0, 0,
     false},
    {"double free after another thread", "larder_free", free_again_after_another_thread,
     WHERE_CACHED(DOUBLE), 0, 0, false},
    {"double free after a flush", "larder_free", free_after_flush, WHERE_CACHED(DOUBLE), 0, 0,
     false},
    {"double free after release", "larder_free", free_after_release, WHERE_RELEASED, 0, 0, false},
    {"double free after reuse", "larder_free", free_after_reuse, WHERE_CACHED(DOUBLE), 0, 0, false},
    {"double free by two threads", "larder_free", free_by_two_threads_at_once, WHILE_IT_GOES, 0, 0,
     false},
    {"realloc of a freed block", "larder_realloc", realloc_freed, WHERE_CACHED(DOUBLE), 0, 0,
     false},
    {"misaligned pointer", "larder_free", free_misaligned, INTERIOR, 0, 0, false},
    {"interior pointer", "larder_free", free_interior, INTERIOR, 0, 0, false},
    {"pointer to the last byte", "larder_free", free_last_byte, INTERIOR, 0, 0, false},
    {"stack pointer", "larder_free", free_stack, EVERYWHERE(UNOWNED), 0, 0, false},
    {"static pointer", "larder_free", free_static, EVERYWHERE(UNOWNED), 0, 0, false},
    {"wild pointer", "larder_free", free_wild, EVERYWHERE(UNOWNED), 0, 0, false},
    {"free through another instance", "larder_free", free_through_another_instance,
     EVERYWHERE(FINE), 0, 0, false},
    {"free of a destroyed instance's block", "larder_free", free_block_of_destroyed_instance,
     EVERYWHERE(FINE), 0, 0, false},
    {"double free of a destroyed instance's block", "larder_free", free_twice_of_destroyed_instance,
     EVERYWHERE(DOUBLE), 0, 0, false},
    {"record_free of a live block", "larder_record_free", record_free_of_live,
     ROW(REFUSED, REFUSED, SILENT, SILENT, SILENT, SILENT), 0, 0, false},
    {"record_free of a cached block", "larder_record_free", record_free_of_cached,
     ROW(REFUSED, REFUSED, DOUBLE, DOUBLE, SILENT, SILENT), 0, 0, true},
    {"record_free of an unknown pointer", "larder_record_free", record_free_of_unknown,
     EVERYWHERE(FINE), 0, 0, false},
    {"byte written after a block", "larder_free", overrun_after, EVERYWHERE(REDZONE), 16, 0, false},
    {"byte written before a block", "larder_free", overrun_before, EVERYWHERE(REDZONE), 16, 0,
     false},
    {"overrun found by realloc", "larder_realloc", overrun_found_by_realloc, EVERYWHERE(REDZONE),
     16, 0, false},
    {"double free after reuse, in quarantine", "larder_free", free_after_much_reuse,
     EVERYWHERE(DOUBLE), 0, 16 * MIB, false},
    {"realloc of a freed block, in quarantine", "larder_realloc", realloc_freed, EVERYWHERE(DOUBLE),
     0, 16 * MIB, false},
    {"write after free, in quarantine", "larder_free", write_after_free, EVERYWHERE(WRITTEN), 16,
     16 * MIB, false},
    {"free during and after a thread's teardown", "larder_free", free_during_and_after_teardown,
     EVERYWHERE(FINE), 0, 0, false},
    {"allocation in an atexit handler", "larder_free", allocate_at_exit, EVERYWHERE(SILENT), 0, 0,
     false},
    {"scopes left out of order", "larder_scope_leave", leave_scopes_out_of_order, EVERYWHERE(SCOPE),
     0, 0, false},
    {"scope left on the wrong thread", "larder_scope_leave", leave_a_scope_on_the_wrong_thread,
     EVERYWHERE(SCOPE), 0, 0, false},
    {"questions about what is not live", "larder_usable_size", ask_about_what_is_not_live,
     EVERYWHERE(FINE), 0, 0, true},
};
const int misuse_count = sizeof misuses / sizeof misuses[0];
