/* SPDX-License-Identifier: MIT */
/*
 * larder as PyTorch's allocator for the CPU.
 *
 * PyTorch asks one c10::Allocator for each kind of device, which another of at least its priority replaces. This
 * library registers one when it is loaded, from Python
 *
 *     torch.ops.load_library("liblarder-torch.so")
 *
 * or, in C++, by linking it or with dlopen(). From then on each tensor of the CPU comes from larder: of the thread's
 * current instance where it is in a scope, else of one for all of PyTorch, with the settings of the environment
 * (LARDER_...). Tensors made before stay what they were: each brings along the function that frees it.
 *
 * The instance is never destroyed: tensors in static variables are freed after everything else has ended.
 *
 * Releases of PyTorch differ in two points: allocate() lost its const in 2.3, and copy_data() came to be. So here are
 * both forms of the former, of which each release finds its own, and no function has the word override.
 */
#include <larder/larder.h>

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>

#include <cstring>

#if defined(__GNUC__)
#define EXPORT __attribute__((visibility("default")))
#else
#define EXPORT
#endif

namespace
{

constexpr std::uint8_t above_the_default = 1; /* PyTorch's own has 0 */

larder_t *create_instance()
{
    larder_config_t config;
    larder_config_init(&config);
    (void)larder_config_from_environment(&config); /* it has said what it does not know */
    larder_t *larder = larder_create("pytorch", &config);
    TORCH_CHECK(larder != nullptr, "larder: no instance: a setting in LARDER_... is out of range, "
                                   "or there is no memory");
    return larder;
}

larder_t *instance()
{
    static larder_t *const larder = create_instance();
    return larder;
}

void release(void *ptr)
{
    if (ptr != nullptr) {
        c10::profiledCPUMemoryReporter().Delete(ptr);
        larder_free(nullptr, ptr);
    }
}

struct allocator final : c10::Allocator {
    c10::DataPtr allocate(std::size_t size) const
    {
        void *ptr = nullptr;
        if (size > 0) { /* a tensor of no elements has no address */
            larder_t *current = larder_current();
            ptr = larder_alloc(current != nullptr ? current : instance(), size);
            if (ptr == nullptr) {
                c10::profiledCPUMemoryReporter().OutOfMemory(size);
            }
            TORCH_CHECK(ptr != nullptr, "larder: can't allocate memory: you tried to allocate ",
                        size, " bytes");
            c10::profiledCPUMemoryReporter().New(ptr, size);
        }
        return {ptr, ptr, release, c10::Device(c10::DeviceType::CPU)};
    }

    c10::DataPtr allocate(std::size_t size)
    {
        return static_cast<const allocator *>(this)->allocate(size);
    }

    void copy_data(void *to, const void *from, std::size_t size) const
    {
        std::memcpy(to, from, size);
    }

    c10::DeleterFnPtr raw_deleter() const
    {
        return release;
    }
};

/* Never destroyed either: PyTorch keeps the pointer. */
allocator &the_allocator()
{
    static auto *const only = new allocator;
    return *only;
}

const bool registered = [] {
    c10::SetAllocator(c10::DeviceType::CPU, &the_allocator(), above_the_default);
    return true;
}();

} // namespace

/* The instance behind PyTorch's tensors, for statistics and trims. */
extern "C" EXPORT larder_t *larder_torch_instance(void);

larder_t *larder_torch_instance(void)
{
    return registered ? instance() : nullptr;
}
