/* SPDX-License-Identifier: MIT */
/*
 * C++'s operators new and delete, onto the malloc family of this library.
 *
 * The C++ library's operators call malloc and would need nothing. But other allocators define them
 * too, and theirs do not call malloc: a program linked with one, or run over one, would take all of
 * C++'s memory past an interposer. ONNX Runtime is such a program: each of its tensors is an aligned
 * operator new. So they are here, before any other, and memory of every form of new may be freed by
 * every form of delete, or by free.
 *
 * What remains of the standard's rules (the new-handler, std::bad_alloc) is left to the operators of
 * the next library: they are called where there is no memory, fail as well, and throw. A program that replaces
 * the operators itself keeps its own, since it comes before anything that is preloaded.
 *
 * They have no names in C; the assembler's are those of the C++ ABI, in which size_t has one letter.
 */
#include <dlfcn.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if __SIZEOF_SIZE_T__ == 8
#define SIZE_LETTER "m"
#else
#define SIZE_LETTER "j"
#endif

#define ALIGNED "St11align_val_t"
#define NOTHROW "RKSt9nothrow_t"
#define NEW(form) "_Znw" SIZE_LETTER form
#define NEW_ARRAY(form) "_Zna" SIZE_LETTER form
#define EXPORT_AS(name) __asm__(name) __attribute__((visibility("default")))
/* An array's operator does what the one for single objects does. */
#define SAME_AS(name) __attribute__((alias(name)))

typedef void *new_function(size_t size);
typedef void *new_aligned_function(size_t size, size_t alignment);

new_function operator_new EXPORT_AS(NEW(""));
new_function operator_new_array EXPORT_AS(NEW_ARRAY("")) SAME_AS(NEW(""));
void *operator_new_nothrow(size_t size, const void *tag) EXPORT_AS(NEW(NOTHROW));
void *operator_new_array_nothrow(size_t size, const void *tag) EXPORT_AS(NEW_ARRAY(NOTHROW))
    SAME_AS(NEW(NOTHROW));
new_aligned_function operator_new_aligned EXPORT_AS(NEW(ALIGNED));
new_aligned_function operator_new_array_aligned EXPORT_AS(NEW_ARRAY(ALIGNED)) SAME_AS(NEW(ALIGNED));
void *operator_new_aligned_nothrow(size_t size, size_t alignment, const void *tag)
    EXPORT_AS(NEW(ALIGNED NOTHROW));
void *operator_new_array_aligned_nothrow(size_t size, size_t alignment, const void *tag)
    EXPORT_AS(NEW_ARRAY(ALIGNED NOTHROW)) SAME_AS(NEW(ALIGNED NOTHROW));

/* Every delete takes the block first, and nobody needs the rest. */
#define DELETE "_ZdlPv"
typedef void delete_function(void *block);
delete_function operator_delete EXPORT_AS(DELETE);
delete_function operator_delete_array EXPORT_AS("_ZdaPv") SAME_AS(DELETE);
delete_function delete_sized EXPORT_AS("_ZdlPv" SIZE_LETTER) SAME_AS(DELETE);
delete_function delete_array_sized EXPORT_AS("_ZdaPv" SIZE_LETTER) SAME_AS(DELETE);
delete_function delete_nothrow EXPORT_AS("_ZdlPv" NOTHROW) SAME_AS(DELETE);
delete_function delete_array_nothrow EXPORT_AS("_ZdaPv" NOTHROW) SAME_AS(DELETE);
delete_function delete_aligned EXPORT_AS("_ZdlPv" ALIGNED) SAME_AS(DELETE);
delete_function delete_array_aligned EXPORT_AS("_ZdaPv" ALIGNED) SAME_AS(DELETE);
delete_function delete_aligned_sized EXPORT_AS("_ZdlPv" SIZE_LETTER ALIGNED) SAME_AS(DELETE);
delete_function delete_array_aligned_sized EXPORT_AS("_ZdaPv" SIZE_LETTER ALIGNED) SAME_AS(DELETE);
delete_function delete_aligned_nothrow EXPORT_AS("_ZdlPv" ALIGNED NOTHROW) SAME_AS(DELETE);
delete_function delete_array_aligned_nothrow EXPORT_AS("_ZdaPv" ALIGNED NOTHROW) SAME_AS(DELETE);

/*
 * The operator of the next library. One that a plugin brought along is not in the search order, but
 * open under its name.
 */
static void *next_operator(const char *name)
{
    static const char *const libraries[] = {"libstdc++.so.6", "libc++.so.1", "libc++_shared.so"};
    void *found = dlsym(RTLD_NEXT, name);
    for (size_t i = 0; i < sizeof libraries / sizeof libraries[0] && found == NULL; i++) {
        void *library = dlopen(libraries[i], RTLD_LAZY | RTLD_NOLOAD);
        if (library != NULL) {
            found = dlsym(library, name);
        }
    }
    if (found == NULL) {
        static const char message[] = "larder: no memory for operator new, and nobody to throw\n";
        (void)!write(STDERR_FILENO, message, sizeof message - 1);
        abort();
    }
    return found;
}

static __attribute__((noinline)) void *new_slow(size_t size)
{
    new_function *next;
    void *found = next_operator(NEW(""));
    memcpy(&next, &found, sizeof next);
    return next(size);
}

static __attribute__((noinline)) void *new_aligned_slow(size_t size, size_t alignment)
{
    new_aligned_function *next;
    void *found = next_operator(NEW(ALIGNED));
    memcpy(&next, &found, sizeof next);
    return next(size, alignment);
}

void *operator_new(size_t size)
{
    void *block = malloc(size);
    return __builtin_expect(block != NULL, 1) ? block : new_slow(size);
}

void *operator_new_nothrow(size_t size, const void *tag)
{
    (void)tag;
    return malloc(size);
}

void *operator_new_aligned(size_t size, size_t alignment)
{
    void *block = memalign(alignment, size);
    return __builtin_expect(block != NULL, 1) ? block : new_aligned_slow(size, alignment);
}

void *operator_new_aligned_nothrow(size_t size, size_t alignment, const void *tag)
{
    (void)tag;
    return memalign(alignment, size);
}

void operator_delete(void *block)
{
    free(block);
}
