/* SPDX-License-Identifier: MIT */
/* An allocator as programs may be linked with: its operators do not call malloc. They must never be called. */
#include <cstddef>
#include <cstdlib>
#include <new>

extern "C" __attribute__((visibility("default"))) unsigned below_calls;
unsigned below_calls;

/* A block of nobody else's. With no memory it throws, as an operator has to. */
static void *take(std::size_t size)
{
    alignas(64) static char memory[1 << 20];
    static std::size_t used;
    below_calls++;
    if (size > sizeof memory - used) {
        throw std::bad_alloc();
    }
    used += (size + 63) / 64 * 64;
    return memory + used - (size + 63) / 64 * 64;
}

void *operator new(std::size_t size)
{
    return take(size);
}

void *operator new[](std::size_t size)
{
    return take(size);
}

void *operator new(std::size_t size, std::align_val_t)
{
    return take(size);
}

void *operator new[](std::size_t size, std::align_val_t)
{
    return take(size);
}

void operator delete(void *) noexcept
{
    below_calls++;
}

void operator delete[](void *) noexcept
{
    below_calls++;
}

void operator delete(void *, std::size_t) noexcept
{
    below_calls++;
}

void operator delete[](void *, std::size_t) noexcept
{
    below_calls++;
}

void operator delete(void *, std::align_val_t) noexcept
{
    below_calls++;
}

void operator delete[](void *, std::align_val_t) noexcept
{
    below_calls++;
}

void operator delete(void *, std::size_t, std::align_val_t) noexcept
{
    below_calls++;
}

void operator delete[](void *, std::size_t, std::align_val_t) noexcept
{
    below_calls++;
}
