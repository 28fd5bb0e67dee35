/* SPDX-License-Identifier: MIT */
/*
 * Every form of new, freed by every form of delete and by free, in the sizes of both families. Run under an
 * interposer, over below.cpp: none may get there but those that fail.
 */
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <malloc.h>
#include <new>

static const std::align_val_t line{64};
static const std::size_t sizes[] = {1, 100, 4096, 100000, 8 << 20};
static const std::size_t absurd = SIZE_MAX / 4;

static int failures;

static void expect(bool holds, const char *what)
{
    if (!holds) {
        std::fprintf(stderr, "operators: %s\n", what);
        failures++;
    }
}

static void *allocate(unsigned form, std::size_t size)
{
    switch (form % 8) {
    case 0:
        return operator new(size);
    case 1:
        return operator new[](size);
    case 2:
        return operator new(size, std::nothrow);
    case 3:
        return operator new[](size, std::nothrow);
    case 4:
        return operator new(size, line);
    case 5:
        return operator new[](size, line);
    case 6:
        return operator new(size, line, std::nothrow);
    default:
        return operator new[](size, line, std::nothrow);
    }
}

static void release(unsigned form, void *block, std::size_t size)
{
    switch (form % 13) {
    case 0:
        return operator delete(block);
    case 1:
        return operator delete[](block);
    case 2:
        return operator delete(block, size);
    case 3:
        return operator delete[](block, size);
    case 4:
        return operator delete(block, std::nothrow);
    case 5:
        return operator delete[](block, std::nothrow);
    case 6:
        return operator delete(block, line);
    case 7:
        return operator delete[](block, line);
    case 8:
        return operator delete(block, size, line);
    case 9:
        return operator delete[](block, size, line);
    case 10:
        return operator delete(block, line, std::nothrow);
    case 11:
        return operator delete[](block, line, std::nothrow);
    default:
        return std::free(block);
    }
}

static void use_all_forms(std::size_t size)
{
    for (unsigned form = 0; form < 8 * 13; form++) {
        void *block = allocate(form, size);
        expect(block != nullptr, "no block");
        expect(form % 8 < 4 || reinterpret_cast<std::uintptr_t>(block) % 64 == 0, "not aligned");
        expect(malloc_usable_size(block) >= size, "a block of nobody's, or too small");
        std::memset(block, 1, size);
        release(form, block, size);
    }
}

static void fail_as_operators_do()
{
    for (unsigned form = 0; form < 8; form++) {
        bool thrown = false;
        void *block = nullptr;
        try {
            block = allocate(form, absurd);
        } catch (const std::bad_alloc &) {
            thrown = true;
        }
        expect(block == nullptr, "a block of an absurd size");
        expect(thrown == (form % 4 < 2), "std::bad_alloc is thrown by the wrong form");
    }
}

int main()
{
    auto *calls = static_cast<unsigned *>(dlsym(RTLD_DEFAULT, "below_calls"));
    unsigned before = calls != nullptr ? *calls : 0;
    for (std::size_t size : sizes) {
        use_all_forms(size);
    }
    expect(calls != nullptr && *calls == before, "calls went to the library below");
    fail_as_operators_do();
    return failures != 0;
}
