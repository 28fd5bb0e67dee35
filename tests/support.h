/* SPDX-License-Identifier: MIT */
/*
 * The vocabulary of the tests, so that each of them reads as its claim.
 *
 * The tests see the library as a user does: through larder.h alone. What they need besides is here:
 * instances whose misuse is recorded instead of aborting, a backend that counts, checks and fails
 * on command, threads that start together and report instead of longjmp-ing out of Check, blocks
 * filled with a pattern that tells whose they are, and random numbers that can be repeated.
 *
 * Nothing here is random without a printed seed (LARDER_TEST_SEED=n repeats a run), and nothing
 * waits for a clock: threads meet at a `struct meeting`, faults come by count.
 */
#ifndef LARDER_TESTS_SUPPORT_H
#define LARDER_TESTS_SUPPORT_H

#include <check.h>
#include <errno.h>
#include <larder/larder.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define KIB ((size_t)1024)
#define MIB (KIB * KIB)

#ifndef __has_feature
#define __has_feature(feature) 0
#endif
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
#define UNDER_THREAD_SANITIZER 1
#else
#define UNDER_THREAD_SANITIZER 0
#endif
#if UNDER_THREAD_SANITIZER || defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer) || \
    __has_feature(memory_sanitizer)
#define UNDER_SANITIZER 1
#else
#define UNDER_SANITIZER 0
#endif

/* -- Suites ------------------------------------------------------------------------------------ */

/* A test case with a generous time-out, whose tests start with no error recorded and no LARDER_
 * variable set. */
TCase *add_claims(Suite *suite, const char *name);

/*
 * What main() returns. Takes LARDER_TEST_SEED from the environment, and then removes every LARDER_
 * variable, so that the claims hold whatever the caller has set.
 */
int run_suite(Suite *suite);

/* How long a test that may go on for ever is to last: LARDER_TEST_SECONDS of the environment, else `otherwise`. */
unsigned test_seconds(unsigned otherwise);

/*
 * True, with a note, where an emulator runs this process (Meson says so): `left_out` tells what that
 * makes impossible to test.
 */
bool emulated_or_note(const char *left_out);

/* What the library takes for the size of a page: the machine's, or what it is told for a test. */
size_t page_size(void);

/* -- Instances --------------------------------------------------------------------------------- */

/* Defaults, with errors recorded and, so that clocks play no part, without decay. */
larder_config_t test_config(larder_policy_t policy, const larder_backend_t *backend);

larder_t *must_create(const larder_config_t *config);

/* Creates one from test_config(). */
larder_t *make_instance(larder_policy_t policy, const larder_backend_t *backend);

/*
 * Without the redzones and the fill that builds with all checks have unasked: for claims about sizes, places, counts, fresh
 * pages and the hit path, which hold of blocks alone.
 */
void leave_blocks_bare(larder_config_t *config);
larder_t *make_bare_instance(larder_policy_t policy, const larder_backend_t *backend);

/* Destroys it; it must have no live blocks and there must have been no errors. */
void must_destroy(larder_t *larder);

/* Each policy over each backend, for loop tests: tcase_add_loop_test(tc, test, 0,
 * VARIANT_COUNT). */
struct variant {
    larder_policy_t policy;
    const char *backend_name;
    const char *name;
};
#define VARIANT_COUNT 9
extern const struct variant variants[VARIANT_COUNT];

/*
 * The backend of that name, or NULL with a note where there is no mimalloc on this machine; also
 * under thread sanitizer, which sees races in mimalloc as it is not built with it.
 */
const larder_backend_t *backend_or_note(const char *name);

/* test_config() of that variant; false where its backend is not to be had. */
bool variant_config(int index, larder_config_t *config);

/* The policies that keep freed blocks, for loop tests from 0 to 2. */
#define CACHING_POLICY_COUNT 2
extern const larder_policy_t caching_policies[CACHING_POLICY_COUNT];

larder_stats_t stats_of(const larder_t *larder);

/* -- Errors ------------------------------------------------------------------------------------ */

/* What the recorded handler was told last; `count` of them since errors_reset(). */
struct error_log {
    unsigned count;
    larder_error_kind_t kind;
    size_t struct_size;
    const void *ptr;
    size_t size;
    char call[64];
    char state[64];
    char instance[64];
    char message[512];
};

void record_error(void *context, const larder_error_t *error);
struct error_log errors_recorded(void);
void errors_reset(void);

/* -- A backend that counts, checks and fails on command
 * ----------------------------------------- */

/*
 * malloc with a header in front of each block. A free with another size than the allocation's, of a
 * block twice, or of a block whose header was overwritten counts as a violation. Fresh memory is
 * filled with 0xA5. Limits may be changed at any time; 0 means none.
 */
struct counted {
    larder_backend_t backend;
    _Atomic uint64_t calls, frees, discards, refused, violations;
    _Atomic uint64_t outstanding_blocks, outstanding_bytes;
    _Atomic uint64_t fail_at;      /* the allocation with this number (from 1) fails */
    _Atomic uint64_t fail_from;    /* so does each from this number on */
    _Atomic uint64_t budget_bytes; /* so does one beyond this many outstanding bytes */
    _Atomic uint64_t largest_size; /* so does one larger than this */
};

/* `flags` are LARDER_BACKEND_*; it offers no discard unless counted_add_discard() is called. */
void counted_init(struct counted *counted, unsigned flags);
void counted_add_discard(struct counted *counted);

/* One of its counters, as a plain value. */
uint64_t count_of(const _Atomic uint64_t *counter);

/* Asserts that everything came back, rightly. */
void assert_all_returned(struct counted *counted);

/* -- Threads ----------------------------------------------------------------------------------- */

/* `count` threads wait for each other, as often as they like. */
struct meeting {
    pthread_mutex_t mutex;
    pthread_cond_t everyone_here;
    unsigned count, waiting, round;
};

void meeting_init(struct meeting *meeting, unsigned count);
void meeting_wait(struct meeting *meeting);

typedef void thread_body(void *context, unsigned index);

/* Runs `count` threads that start together, joins them, and fails the test where an expect()
 * failed. */
void run_threads(unsigned count, thread_body *body, void *context);

/* What ck_assert is, in a thread or a forked child: the test fails at assert_expectations(). */
#define expect(condition)                                                                          \
    ((condition) ? (void)0 : expectation_failed(__FILE__, __LINE__, #condition))
void expectation_failed(const char *file, int line, const char *condition);
void assert_expectations(void);

/* -- Child processes --------------------------------------------------------------------------- */

struct child_end {
    int signal;        /* that ended it, or 0 */
    int status;        /* its exit status: 0 where each expect() held */
    char output[2048]; /* what it wrote to stderr */
};

/* Runs `body` in a forked child and waits for its end; one that hangs is ended after a minute. */
struct child_end run_in_child(void (*body)(void *context), void *context);

/* What a forked child ends with: as _exit(), but counts what it has reached where that is counted. */
_Noreturn void end_child(int status);

/* -- Contents and random numbers
 * ---------------------------------------------------------------- */

/* Fills a block so that pattern_holds() can tell that nobody else wrote to it. Large blocks are
 * written at both ends and once a page. */
void pattern_fill(void *ptr, size_t size, uint64_t seed);
bool pattern_holds(const void *ptr, size_t size, uint64_t seed);

bool all_bytes_are(const void *ptr, size_t size, int byte);
/* A byte in or beside a block, by an address of which the compiler knows nothing. */
unsigned char *byte_at(void *ptr, ptrdiff_t offset);
bool is_aligned(const void *ptr, size_t alignment);

struct random {
    uint64_t state;
};

/* Prints the seed; `stream` makes the threads of one test differ. */
void random_init(struct random *random, uint64_t stream);
uint64_t random_next(struct random *random);
size_t random_between(struct random *random, size_t lowest, size_t highest);
/* A tensor-like size: each power of two from 1 byte to `highest` as likely as the next. */
size_t random_size(struct random *random, size_t highest);

#endif
