/* SPDX-License-Identifier: MIT */
/*
 * Suites, instances, recorded errors, contents and random numbers: see support.h. Threads, children
 * and the counting backend are in support_threads.c and support_backend.c.
 */
#include "support.h"

#include <stdio.h>
#include <unistd.h>

extern char **environ;

static uint64_t seed_of_this_run = 20010625; /* the first day of USENIX 2001 */

static unsigned seconds_of_this_run;

/* Once, before LARDER_ variables are removed. */
static void read_environment(void)
{
    const char *seed = getenv("LARDER_TEST_SEED"), *seconds = getenv("LARDER_TEST_SECONDS");

    if (seconds)
        seconds_of_this_run = (unsigned)strtoul(seconds, NULL, 10);
    if (seed)
        seed_of_this_run = strtoull(seed, NULL, 0);
}

/* -- Suites -- */

static void forget_environment(void)
{
    for (char **entry = environ; *entry;) {
        char name[128];
        const char *end = strchr(*entry, '=');
        size_t length = end ? (size_t)(end - *entry) : 0;

        /* the size of pages is the process's, and stays */
        if (strncmp(*entry, "LARDER_", 7) != 0 || length >= sizeof name ||
            strncmp(*entry, "LARDER_TEST_PAGE_SIZE=", 22) == 0) {
            entry++;
            continue;
        }
        memcpy(name, *entry, length);
        name[length] = '\0';
        unsetenv(name);
        entry = environ;
    }
}

static void start_clean(void)
{
    errors_reset();
    forget_environment();
}

TCase *add_claims(Suite *suite, const char *name)
{
    TCase *claims = tcase_create(name);

    read_environment();
    tcase_set_timeout(claims, 110.0 + 1.5 * seconds_of_this_run);
    tcase_add_checked_fixture(claims, start_clean, assert_expectations);
    suite_add_tcase(suite, claims);
    return claims;
}

int run_suite(Suite *suite)
{
    SRunner *runner = srunner_create(suite);
    int failed;

    read_environment();
    forget_environment();
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

unsigned test_seconds(unsigned otherwise)
{
    return seconds_of_this_run ? seconds_of_this_run : otherwise;
}

bool emulated_or_note(const char *left_out)
{
    if (!getenv("MESON_EXE_WRAPPER"))
        return false;
    fprintf(stderr, "note: left out under an emulator: %s\n", left_out);
    return true;
}

size_t page_size(void)
{
    const char *forced = getenv("LARDER_TEST_PAGE_SIZE");

    return forced ? (size_t)strtoul(forced, NULL, 10) : (size_t)sysconf(_SC_PAGESIZE);
}

/* -- Instances -- */

larder_config_t test_config(larder_policy_t policy, const larder_backend_t *backend)
{
    larder_config_t config;

    larder_config_init(&config);
    config.policy = policy;
    config.backend = backend;
    config.decay_ms = UINT32_MAX;
    config.error_handler = record_error;
    return config;
}

larder_t *must_create(const larder_config_t *config)
{
    larder_t *larder = larder_create("tested", config);

    ck_assert_msg(larder != NULL, "larder_create: %s", strerror(errno));
    return larder;
}

larder_t *make_instance(larder_policy_t policy, const larder_backend_t *backend)
{
    larder_config_t config = test_config(policy, backend);

    return must_create(&config);
}

void leave_blocks_bare(larder_config_t *config)
{
    config->redzone = 0;
    config->fill = -1;
}

larder_t *make_bare_instance(larder_policy_t policy, const larder_backend_t *backend)
{
    larder_config_t config = test_config(policy, backend);

    leave_blocks_bare(&config);
    return must_create(&config);
}

void must_destroy(larder_t *larder)
{
    struct error_log errors;
    size_t orphans = larder_destroy(larder);

    ck_assert_uint_eq(orphans, 0);
    errors = errors_recorded();
    ck_assert_msg(errors.count == 0, "%u errors, the last: %s", errors.count, errors.message);
}

const struct variant variants[VARIANT_COUNT] = {
    {LARDER_POLICY_FIT, "system", "fit over system"},
    {LARDER_POLICY_FIT, "mmap", "fit over mmap"},
    {LARDER_POLICY_FIT, "mimalloc", "fit over mimalloc"},
    {LARDER_POLICY_EXACT, "system", "exact over system"},
    {LARDER_POLICY_EXACT, "mmap", "exact over mmap"},
    {LARDER_POLICY_EXACT, "mimalloc", "exact over mimalloc"},
    {LARDER_POLICY_PASSTHROUGH, "system", "passthrough over system"},
    {LARDER_POLICY_PASSTHROUGH, "mmap", "passthrough over mmap"},
    {LARDER_POLICY_PASSTHROUGH, "mimalloc", "passthrough over mimalloc"},
};

const larder_policy_t caching_policies[CACHING_POLICY_COUNT] = {LARDER_POLICY_FIT,
                                                                LARDER_POLICY_EXACT};

const larder_backend_t *backend_or_note(const char *name)
{
    const larder_backend_t *backend = NULL;

    if (!UNDER_THREAD_SANITIZER || strcmp(name, "mimalloc") != 0) {
        backend = larder_backend_by_name(name);
        if (backend)
            return backend;
        ck_assert_int_eq(errno, ENOENT);
    }
    ck_assert_str_eq(name, "mimalloc");
    fprintf(stderr, "note: %s is left out here\n", name);
    return NULL;
}

bool variant_config(int index, larder_config_t *config)
{
    const larder_backend_t *backend = backend_or_note(variants[index].backend_name);

    if (!backend)
        return false;
    *config = test_config(variants[index].policy, backend);
    return true;
}

larder_stats_t stats_of(const larder_t *larder)
{
    larder_stats_t stats = {.struct_size = sizeof stats};

    ck_assert_int_eq(larder_stats_get(larder, &stats), 0);
    return stats;
}

/* -- Errors -- */

static pthread_mutex_t error_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct error_log error_log; /* under error_mutex */

static void copy_text(char *to, size_t capacity, const char *from)
{
    snprintf(to, capacity, "%s", from ? from : "(null)");
}

void record_error(void *context, const larder_error_t *error)
{
    (void)context;
    pthread_mutex_lock(&error_mutex);
    error_log.count++;
    error_log.kind = error->kind;
    error_log.struct_size = error->struct_size;
    error_log.ptr = error->ptr;
    error_log.size = error->size;
    copy_text(error_log.call, sizeof error_log.call, error->call);
    copy_text(error_log.state, sizeof error_log.state, error->state);
    copy_text(error_log.instance, sizeof error_log.instance, error->instance);
    copy_text(error_log.message, sizeof error_log.message, error->message);
    pthread_mutex_unlock(&error_mutex);
}

struct error_log errors_recorded(void)
{
    struct error_log copy;

    pthread_mutex_lock(&error_mutex);
    copy = error_log;
    pthread_mutex_unlock(&error_mutex);
    return copy;
}

void errors_reset(void)
{
    pthread_mutex_lock(&error_mutex);
    memset(&error_log, 0, sizeof error_log);
    pthread_mutex_unlock(&error_mutex);
}

/* -- Contents -- */

#define WRITTEN_IN_FULL (16 * KIB)
#define PAGE_STEP (4 * KIB)

static unsigned char pattern_byte(uint64_t seed, size_t offset)
{
    uint64_t mixed = (seed + offset) * UINT64_C(0x9E3779B97F4A7C15);

    return (unsigned char)(mixed >> 56);
}

static size_t next_offset(size_t offset, size_t size)
{
    if (size <= WRITTEN_IN_FULL || offset < 64 || offset + 64 >= size)
        return offset + 1;
    return offset + PAGE_STEP < size - 64 ? offset + PAGE_STEP : size - 64;
}

void pattern_fill(void *ptr, size_t size, uint64_t seed)
{
    unsigned char *bytes = ptr;

    for (size_t i = 0; i < size; i = next_offset(i, size))
        bytes[i] = pattern_byte(seed, i);
}

bool pattern_holds(const void *ptr, size_t size, uint64_t seed)
{
    const unsigned char *bytes = ptr;

    for (size_t i = 0; i < size; i = next_offset(i, size))
        if (bytes[i] != pattern_byte(seed, i))
            return false;
    return true;
}

bool all_bytes_are(const void *ptr, size_t size, int byte)
{
    const unsigned char *bytes = ptr;

    for (size_t i = 0; i < size; i++)
        if (bytes[i] != (unsigned char)byte)
            return false;
    return true;
}

unsigned char *byte_at(void *ptr, ptrdiff_t offset)
{
    return (unsigned char *)ptr + offset;
}

bool is_aligned(const void *ptr, size_t alignment)
{
    return ((uintptr_t)ptr & (alignment - 1)) == 0;
}

/* -- Random numbers: splitmix64 (Steele, Lea and Flood, OOPSLA 2014) -- */

void random_init(struct random *random, uint64_t stream)
{
    static _Atomic bool told;

    random->state = seed_of_this_run ^ (stream * UINT64_C(0xD1342543DE82EF95));
    if (!atomic_exchange(&told, true))
        fprintf(stderr, "LARDER_TEST_SEED=%llu\n", (unsigned long long)seed_of_this_run);
}

uint64_t random_next(struct random *random)
{
    uint64_t z = (random->state += UINT64_C(0x9E3779B97F4A7C15));

    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

size_t random_between(struct random *random, size_t lowest, size_t highest)
{
    return lowest + (size_t)(random_next(random) % (highest - lowest + 1));
}

size_t random_size(struct random *random, size_t highest)
{
    unsigned bits = 0;

    while ((highest >> bits) > 1)
        bits++;
    return random_between(random, 1, (size_t)1 << random_between(random, 0, bits));
}
