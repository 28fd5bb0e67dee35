/* SPDX-License-Identifier: MIT */
/*
 * Runs the misuse matrix: each case for each policy, checks level and kind of backend, with blocks of two sizes,
 * alone and while seven other threads use the same instance; each in a process of its own, which must end
 * as the table says, with a line that names call, pointer, kind, state, size and owner.
 */
#include "misuse_matrix.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#define OTHERS 7

static const size_t sizes[] = {100, 300 * 1024};

struct combination {
    const struct misuse *misuse;
    larder_policy_t policy;
    bool strict;
    bool foreign; /* over a backend that takes foreign pointers */
    size_t size;
    unsigned threads;
};

/* -- A backend that takes any pointer, and remembers the foreign one -- */

static const void *_Atomic handed_over;

static void free_or_remember(void *context, void *ptr, size_t size)
{
    (void)context;
    if (size == 0)
        atomic_store(&handed_over, ptr);
    else
        larder_backend_mmap()->free(larder_backend_mmap()->context, ptr, size);
}

static larder_backend_t taking_backend(void)
{
    larder_backend_t backend = *larder_backend_mmap();

    backend.name = "taking";
    backend.free = free_or_remember;
    backend.flags |= LARDER_BACKEND_FREES_FOREIGN;
    return backend;
}

/* -- In the child -- */

/* What seven threads free in so many steps fits into the quarantine beside what the cases free. */
#define QUARANTINED_STEPS 200u

static _Atomic bool over;
static unsigned most_steps = UINT32_MAX;
static _Atomic uint64_t next_seed = 1;

static void *use_it_meanwhile(void *argument)
{
    struct scene *scene = argument;
    void *blocks[8] = {NULL};
    struct random random = {atomic_fetch_add(&next_seed, 1)}; /* stderr is for the line alone */

    for (unsigned step = 0; step < most_steps && (!atomic_load(&over) || step < 100); step++) {
        size_t i = random_between(&random, 0, 7);

        larder_free(scene->larder, blocks[i]);
        blocks[i] =
            larder_alloc(scene->larder, random_between(&random, 512, 4096)); /* no case's size */
        expect(blocks[i] != NULL);
        if (step % 64 == 63)
            sched_yield();
    }
    for (size_t i = 0; i < 8; i++)
        larder_free(scene->larder, blocks[i]);
    return NULL;
}

/* From here on the thread's large blocks come from an arena, the first few of them. */
static void enter_a_recorded_inference(struct scene *scene)
{
    void *blocks[4];

    for (unsigned round = 0; round < 2; round++) {
        expect(larder_plan_begin(scene->larder, 1) == 0);
        for (unsigned i = 0; i < 4; i++)
            expect((blocks[i] = larder_alloc(scene->larder, scene->size)) != NULL);
        for (unsigned i = 0; i < 4; i++)
            larder_free(scene->larder, blocks[i]);
        expect(larder_plan_end(scene->larder) == 0);
    }
    expect(larder_plan_begin(scene->larder, 1) == 0);
}

static enum outcome outcome_of(const struct combination *combination)
{
    return combination->misuse->expected[combination->policy][combination->strict];
}

/* Where the case goes on to its end: nothing may be lost, and nothing have been told. */
static void check_books(struct scene *scene, const struct combination *combination)
{
    enum outcome outcome = outcome_of(combination);

    if (outcome == UNOWNED || outcome == FORGOTTEN || outcome == CAUGHT || outcome == GONE)
        expect(atomic_load(&handed_over) == scene->announced);
    if (outcome != FINE)
        return;
    expect(larder_destroy(scene->larder) == 0);
    expect(larder_destroy(scene->other) == 0);
}

static void run_case(void *context)
{
    const struct combination *combination = context;
    larder_backend_t taking = taking_backend();
    struct scene scene = {.size = combination->size, .strict = combination->strict};
    larder_config_t config;
    pthread_t others[OTHERS];

    larder_config_init(&config);
    config.policy = combination->policy;
    config.checks = combination->strict ? LARDER_CHECKS_STRICT : LARDER_CHECKS_DEFAULT;
    config.backend = combination->foreign ? &taking : larder_backend_mmap();
    config.redzone = combination->misuse->redzone;
    config.fill =
        combination->strict ? 0xDB : -1; /* filling must not come before a free is settled */
    config.quarantine_bytes = combination->misuse->quarantine;
    config.decay_ms = UINT32_MAX;
    scene.larder = larder_create("kitchen", &config);
    scene.other = larder_create("kitchen", &config);
    expect(scene.larder != NULL && scene.other != NULL);
    if (combination->misuse->quarantine > 0)
        most_steps = QUARANTINED_STEPS; /* more would push the case's block out of it */
    for (unsigned i = 1; i < combination->threads; i++)
        expect(pthread_create(&others[i - 1], NULL, use_it_meanwhile, &scene) == 0);
    if (combination->policy == LARDER_POLICY_PLANNED)
        enter_a_recorded_inference(&scene);
    combination->misuse->act(&scene);
    atomic_store(&over, true);
    for (unsigned i = 1; i < combination->threads; i++)
        pthread_join(others[i - 1], NULL);
    check_books(&scene, combination);
}

/* -- In the test -- */

static const char *phrase_of(enum outcome outcome)
{
    switch (outcome) {
    case FINE:
    case SILENT:
        break;
    case CAUGHT:
    case GONE:
        return "";
    case DOUBLE:
        return "double free";
    case INVALID:
        return "not the start of a block";
    case UNOWNED:
    case FORGOTTEN:
        return "nobody owns this pointer";
    case REFUSED:
        return "refused";
    case REDZONE:
        return "bytes around the block were overwritten";
    case WRITTEN:
        return "written to after it had been freed";
    case SCOPE:
        return "scope left";
    }
    return NULL;
}

static bool says_all(const struct combination *combination, const struct child_end *end)
{
    char pointer[32] = "", call[80];
    const char *line = strstr(end->output, "announced ");

    if (!line || sscanf(line, "announced %31[^\n]", pointer) != 1)
        return false;
    line += strlen("announced ");
    line = strchr(line, '\n');
    if (!line++)
        return false;
    /* printf has more than one name for a null pointer */
    if (strstr(pointer, "nil") || strcmp(pointer, "0") == 0)
        pointer[0] = '\0';
    snprintf(call, sizeof call, "larder: %s(", combination->misuse->call);
    return strstr(line, call) && strstr(line, pointer) &&
           strstr(line, phrase_of(outcome_of(combination))) && strstr(line, "state ") &&
           strstr(line, "size ") && strstr(line, "instance kitchen");
}

static bool ends_as_promised(const struct combination *combination, const struct child_end *end)
{
    enum outcome outcome = outcome_of(combination);

    /* realloc would have to know how much to copy */
    bool may_hand_over =
        combination->foreign && strcmp(combination->misuse->call, "larder_realloc") != 0;
    bool went_on = end->signal == 0 && end->status == 0;
    bool caught = end->signal == SIGABRT && says_all(combination, end);

    if (outcome == FINE || outcome == SILENT ||
        ((outcome == UNOWNED || outcome == FORGOTTEN) && may_hand_over))
        return went_on;
    return caught || ((outcome == CAUGHT || outcome == GONE) && may_hand_over && went_on);
}

static void assert_combination(const struct combination *combination)
{
    static const char *const policies[] = {"fit", "exact", "passthrough", "planned"};
    struct child_end end = run_in_child(run_case, (void *)(uintptr_t)combination);

    ck_assert_msg(ends_as_promised(combination, &end),
                  "%s: %s, checks %s, %s backend, %zu bytes, %u threads: signal %d, status %d: %s",
                  combination->misuse->name, policies[combination->policy],
                  combination->strict ? "strict" : "default",
                  combination->foreign ? "taking" : "mmap", combination->size, combination->threads,
                  end.signal, end.status, end.output);
}

/* Sanitizers and emulators make each process dear: a third of the combinations. */
static bool is_left_out(unsigned bits)
{
    bool foreign = bits & 2, large = bits & 4, many = bits & 8;

    if (!UNDER_SANITIZER && !getenv("MESON_EXE_WRAPPER"))
        return false;
    return foreign != large || (many && foreign);
}

START_TEST(misuse_ends_as_the_table_says)
{
    for (unsigned bits = 0; bits < MATRIX_POLICIES << 4; bits++) {
        struct combination combination = {
            .misuse = &misuses[_i],
            .policy = (larder_policy_t)(bits >> 4),
            .strict = bits & 1,
            .foreign = bits & 2,
            .size = sizes[(bits >> 2) & 1],
            .threads = bits & 8 ? 1 + OTHERS : 1,
        };

        if (is_left_out(bits))
            continue;
        /* AddressSanitizer does not let it come so far: test_poison.c */
        if (outcome_of(&combination) == WRITTEN && UNDER_SANITIZER && !UNDER_THREAD_SANITIZER)
            continue;
        if (combination.threads > 1 &&
            (outcome_of(&combination) == FORGOTTEN || outcome_of(&combination) == GONE ||
             (combination.misuse->alone && combination.policy == LARDER_POLICY_PASSTHROUGH)))
            continue;
        assert_combination(&combination);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("misuse matrix");
    TCase *claims = add_claims(suite, "each policy, checks, backend, size, threads");

    tcase_add_loop_test(claims, misuse_ends_as_the_table_says, 0, misuse_count);
    return run_suite(suite);
}
