/* SPDX-License-Identifier: MIT */
/*
 * The backends that come with the library, called directly: what they promise in larder.h, and that
 * none of them replaces the process's malloc.
 */
#include "support.h"

#include <dlfcn.h>
#include <unistd.h>

static const char *const names[] = {"system", "mmap", "mimalloc"};
#define BACKEND_COUNT 3

START_TEST(backends_are_found_by_name)
{
    ck_assert_ptr_eq(larder_backend_by_name("system"), larder_backend_system());
    ck_assert_ptr_eq(larder_backend_by_name("mmap"), larder_backend_mmap());
    ck_assert_ptr_eq(larder_backend_by_name("mimalloc"), larder_backend_mimalloc());
    errno = 0;
    ck_assert_ptr_null(larder_backend_by_name("disk"));
    ck_assert_int_eq(errno, EINVAL);
}
END_TEST

START_TEST(backends_describe_themselves)
{
    const larder_backend_t *backend = backend_or_note(names[_i]);

    if (!backend)
        return;
    ck_assert_uint_eq(backend->struct_size, sizeof *backend);
    ck_assert_str_eq(backend->name, names[_i]);
    ck_assert(backend->allocate && backend->free);
    /* only the process's own heap may be handed pointers of which nobody knows the origin */
    ck_assert_int_eq((backend->flags & LARDER_BACKEND_FREES_FOREIGN) != 0,
                     backend == larder_backend_system());
    if (backend == larder_backend_mmap()) {
        ck_assert(backend->flags & LARDER_BACKEND_ZEROED);
        ck_assert(backend->discard != NULL);
    }
}
END_TEST

static void assert_two_blocks_served(const larder_backend_t *backend, size_t size, size_t alignment)
{
    void *one = backend->allocate(backend->context, size, alignment);
    void *two = backend->allocate(backend->context, size, alignment);

    ck_assert(one && two && one != two);
    ck_assert_msg(is_aligned(one, alignment) && is_aligned(two, alignment),
                  "size %zu, alignment %zu: %p, %p", size, alignment, one, two);
    if (backend->flags & LARDER_BACKEND_ZEROED)
        ck_assert(all_bytes_are(one, size, 0));
    pattern_fill(one, size, 1);
    pattern_fill(two, size, 2);
    ck_assert(pattern_holds(one, size, 1) && pattern_holds(two, size, 2));
    backend->free(backend->context, one, size);
    ck_assert(pattern_holds(two, size, 2));
    backend->free(backend->context, two, size);
}

/* Sizes that are multiples of the alignment matter: mimalloc 2.0.9 itself fails at some of them. */
START_TEST(backends_serve_any_size_and_alignment)
{
    const larder_backend_t *backend = backend_or_note(names[_i]);

    if (!backend)
        return;
    for (size_t alignment = 8; alignment <= MIB; alignment *= 2) {
        for (size_t size = 1; size <= 2 * MIB; size *= 2) {
            assert_two_blocks_served(backend, size, alignment);
            assert_two_blocks_served(backend, size + size / 2, alignment);
        }
    }
}
END_TEST

START_TEST(backends_refuse_absurd_sizes)
{
    const larder_backend_t *backend = backend_or_note(names[_i]);

    if (!backend)
        return;
    for (size_t less = 0; less <= 8192; less += 512)
        ck_assert_ptr_null(backend->allocate(backend->context, SIZE_MAX - less, 64));
    ck_assert_ptr_null(backend->allocate(backend->context, SIZE_MAX / 2 + 1, 4096));
}
END_TEST

START_TEST(discarded_pages_stay_usable)
{
    const larder_backend_t *backend = backend_or_note(names[_i]);
    size_t page = (size_t)sysconf(_SC_PAGESIZE), size = 64 * page;
    unsigned char *block;

    if (!backend || !backend->discard)
        return;
    block = backend->allocate(backend->context, size, page);
    ck_assert_ptr_nonnull(block);
    for (unsigned round = 0; round < 3; round++) {
        pattern_fill(block, page, 1);
        pattern_fill(block + 63 * page, page, 2);
        memset(block + page, 0x11, 62 * page);
        ck_assert_int_eq(backend->discard(backend->context, block + page, 62 * page), 0);
        ck_assert(pattern_holds(block, page, 1));
        ck_assert(pattern_holds(block + 63 * page, page, 2));
    }
    backend->free(backend->context, block, size);
}
END_TEST

static void use_backend(void *context, unsigned index)
{
    const larder_backend_t *backend = context;

    for (size_t size = 1; size <= MIB; size = 2 * size + index) {
        void *block = backend->allocate(backend->context, size, 64);

        expect(block != NULL);
        pattern_fill(block, size, index);
        expect(pattern_holds(block, size, index));
        backend->free(backend->context, block, size);
    }
}

/* -- The process's own malloc -- */

static void assert_served_by(const char *function, void *before)
{
    void *now = dlsym(RTLD_DEFAULT, function);
    Dl_info info;

    ck_assert_ptr_eq(now, before);
    if (now && dladdr(now, &info) && info.dli_fname) {
        ck_assert_msg(!strstr(info.dli_fname, "mimalloc"), "%s is in %s", function, info.dli_fname);
        ck_assert_msg(!strstr(info.dli_fname, "liblarder"), "%s is in %s", function,
                      info.dli_fname);
    }
}

START_TEST(the_processs_malloc_stays_that_of_its_c_library)
{
    static const char *const functions[] = {"malloc", "free", "calloc", "realloc",
                                            "posix_memalign"};
    void *before[5];

    for (unsigned i = 0; i < 5; i++)
        before[i] = dlsym(RTLD_DEFAULT, functions[i]);
    for (int i = 0; i < BACKEND_COUNT; i++) {
        const larder_backend_t *backend = backend_or_note(names[i]);

        if (backend) {
            larder_t *larder = make_instance(LARDER_POLICY_EXACT, backend);

            larder_free(larder, larder_alloc(larder, 1000));
            must_destroy(larder);
        }
    }
    for (unsigned i = 0; i < 5; i++)
        assert_served_by(functions[i], before[i]);
    free(malloc(100));
}
END_TEST

START_TEST(backends_serve_several_threads)
{
    const larder_backend_t *backend = backend_or_note(names[_i]);

    if (backend)
        run_threads(8, use_backend, (void *)(uintptr_t)backend);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("backends");
    TCase *claims = add_claims(suite, "backends");

    tcase_add_test(claims, the_processs_malloc_stays_that_of_its_c_library);
    tcase_add_test(claims, backends_are_found_by_name);
    tcase_add_loop_test(claims, backends_describe_themselves, 0, BACKEND_COUNT);
    tcase_add_loop_test(claims, backends_serve_any_size_and_alignment, 0, BACKEND_COUNT);
    tcase_add_loop_test(claims, backends_refuse_absurd_sizes, 0, BACKEND_COUNT);
    tcase_add_loop_test(claims, backends_serve_several_threads, 0, BACKEND_COUNT);
    tcase_add_loop_test(claims, discarded_pages_stay_usable, 0, BACKEND_COUNT);
    return run_suite(suite);
}
