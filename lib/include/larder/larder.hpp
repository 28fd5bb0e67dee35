/* SPDX-License-Identifier: MIT */
/*
 * larder for C++17: header only, over larder.h.
 *
 *   larder::config           settings, with defaults
 *   larder::instance         an instance that ends with its braces
 *   larder::scope            makes an instance the thread's current one until the closing brace
 *   larder::bind_current     hands the current scope to another thread's work
 *   larder::memory_resource  an instance for std::pmr containers
 *   larder::allocator<T>     an instance for other containers
 *   larder::make_unique      objects and arrays in an instance, owned by a std::unique_ptr
 *
 * A scope that nobody names ends before the next statement and does nothing. So `larder::scope{engine};` is a warning, by
 * [[nodiscard]], which gcc and clang report without any flag, and `larder::scope(engine);`, which to C++ declares a
 * variable called engine, is an error, since there is no default constructor. A scope can be neither copied nor moved: a
 * copy would restore twice, in an order that nobody sees.
 *
 * A block finds its owner by its address. So deleters carry no instance, a resource may be destroyed before what was
 * allocated from it, and it does not matter on which thread, or in which scope, a container ends.
 *
 * Errors are exceptions: std::bad_alloc, std::bad_array_new_length, and std::invalid_argument for a bad setting. Built
 * without exceptions, each of them is an abort().
 */
#ifndef LARDER_LARDER_HPP
#define LARDER_LARDER_HPP

#include <larder/larder.h>

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <functional>
#include <limits>
#include <memory>
#include <memory_resource>
#include <new>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

namespace larder
{

namespace detail
{

[[noreturn]] inline void fail_allocation()
{
#if defined(__cpp_exceptions)
    throw std::bad_alloc();
#else
    std::abort();
#endif
}

[[noreturn]] inline void fail_length()
{
#if defined(__cpp_exceptions)
    throw std::bad_array_new_length();
#else
    std::abort();
#endif
}

[[noreturn]] inline void fail_argument([[maybe_unused]] const std::string &message)
{
#if defined(__cpp_exceptions)
    throw std::invalid_argument(message);
#else
    std::abort();
#endif
}

inline void *allocate(larder_t *from, std::size_t bytes, std::size_t alignment)
{
    void *ptr = larder_alloc_aligned(from, alignment, bytes);
    if (ptr == nullptr) {
        fail_allocation();
    }
    return ptr;
}

/* Room for `count` objects; too many of them are an error before any arithmetic goes wrong. */
template <typename T> T *allocate_array(larder_t *from, std::size_t count)
{
    if (count > std::numeric_limits<std::size_t>::max() / 2 / sizeof(T)) {
        fail_length();
    }
    return static_cast<T *>(allocate(from, count * sizeof(T), alignof(T)));
}

/* Frees a block in which an object could not be constructed. */
struct release {
    void operator()(void *ptr) const noexcept
    {
        larder_free(nullptr, ptr);
    }
};

} // namespace detail

/* Settings: larder_config_t, already filled with the defaults. */
struct config : larder_config_t {
    config() noexcept
    {
        larder_config_init(this);
    }

    /* As larder_config_set(): `set("policy", "exact").set("max_cached_bytes", "64m")`. */
    config &set(const char *key, const char *value)
    {
        if (larder_config_set(this, key, value) != 0) {
            detail::fail_argument(std::string("larder: bad setting ") + key + "=" + value);
        }
        return *this;
    }

    /* As larder_config_from_environment(), which reports what it does not know on stderr. */
    config &from_environment() noexcept
    {
        (void)larder_config_from_environment(this);
        return *this;
    }
};

/* An instance that is destroyed with this object. Blocks that are still live stay valid, as orphans. */
class instance
{
public:
    /* Throws std::invalid_argument for a setting that larder_create() refuses, else std::bad_alloc. */
    explicit instance(const char *name = nullptr, const larder_config_t &settings = config())
        : larder_(larder_create(name, &settings))
    {
        if (larder_ == nullptr && errno == EINVAL) {
            detail::fail_argument("larder: a setting is out of its range");
        }
        if (larder_ == nullptr) {
            detail::fail_allocation();
        }
    }

    instance(const instance &) = delete;
    instance &operator=(const instance &) = delete;

    instance(instance &&other) noexcept : larder_(std::exchange(other.larder_, nullptr))
    {
    }

    instance &operator=(instance &&other) noexcept
    {
        if (this != &other) {
            larder_destroy(std::exchange(larder_, std::exchange(other.larder_, nullptr)));
        }
        return *this;
    }

    ~instance()
    {
        larder_destroy(larder_);
    }

    /* For the calls of larder.h. Null only in an object that was moved from. */
    [[nodiscard]] larder_t *get() const noexcept
    {
        return larder_;
    }

    operator larder_t *() const noexcept
    {
        return larder_;
    }

    [[nodiscard]] larder_stats_t stats() const noexcept
    {
        larder_stats_t stats = {};
        stats.struct_size = sizeof stats;
        (void)larder_stats_get(larder_, &stats);
        return stats;
    }

private:
    larder_t *larder_;
};

/*
 * Makes an instance (nullptr: none) the thread's current one as long as this object lives:
 *
 *     larder::scope here{engine};
 *
 * Give it a name; an object without one ends before the next statement.
 */
class [[nodiscard]] scope
{
public:
    [[nodiscard]] explicit scope(larder_t *larder) noexcept : previous_(larder_scope_enter(larder))
    {
    }

    scope(const scope &) = delete;
    scope &operator=(const scope &) = delete;
    /* A scope belongs to a block of statements, never to the heap. */
    static void *operator new(std::size_t) = delete;
    static void *operator new[](std::size_t) = delete;

    ~scope()
    {
        larder_scope_leave(previous_);
    }

private:
    larder_t *previous_;
};

/*
 * Wraps a callable so that it runs in the scope that is current now, whichever thread calls it:
 *
 *     pool.submit(larder::bind_current([&] { infer(batch); }));
 *
 * The instance must outlive the call.
 */
template <typename Function> [[nodiscard]] auto bind_current(Function &&function)
{
    return [larder = larder_current(), function = std::forward<Function>(function)](
               auto &&...arguments) mutable -> decltype(auto) {
        scope here{larder};
        return std::invoke(function, std::forward<decltype(arguments)>(arguments)...);
    };
}

/* An instance as a std::pmr::memory_resource. The instance must outlive what allocates from it. */
class memory_resource : public std::pmr::memory_resource
{
public:
    explicit memory_resource(larder_t *larder = larder_default()) noexcept : larder_(larder)
    {
    }

    [[nodiscard]] larder_t *get() const noexcept
    {
        return larder_;
    }

private:
    void *do_allocate(std::size_t bytes, std::size_t alignment) override
    {
        return detail::allocate(larder_, bytes, alignment);
    }

    void do_deallocate(void *ptr, std::size_t, std::size_t) override
    {
        larder_free(larder_, ptr);
    }

    /*
     * Any instance could free the blocks of any other. Still only resources over one instance are equal: otherwise containers
     * would hand blocks from one to the other, and its limits would no longer be what is in it.
     */
    [[nodiscard]] bool do_is_equal(const std::pmr::memory_resource &other) const noexcept override
    {
#if defined(__cpp_rtti)
        const auto *same_kind = dynamic_cast<const memory_resource *>(&other);
        return same_kind != nullptr && same_kind->larder_ == larder_;
#else
        return this == &other;
#endif
    }

    larder_t *larder_;
};

/* An instance as a standard allocator: std::vector<float, larder::allocator<float>>. */
template <typename T> class allocator
{
public:
    using value_type = T;
    using propagate_on_container_move_assignment = std::true_type;
    using propagate_on_container_swap = std::true_type;
    using is_always_equal = std::false_type;

    /* Of the process's default instance. */
    allocator() noexcept : larder_(larder_default())
    {
    }

    allocator(larder_t *larder) noexcept : larder_(larder)
    {
    }

    allocator(const instance &owner) noexcept : larder_(owner.get())
    {
    }

    template <typename U> allocator(const allocator<U> &other) noexcept : larder_(other.get())
    {
    }

    [[nodiscard]] T *allocate(std::size_t count)
    {
        return detail::allocate_array<T>(larder_, count);
    }

    void deallocate(T *ptr, std::size_t) noexcept
    {
        larder_free(larder_, ptr);
    }

    [[nodiscard]] larder_t *get() const noexcept
    {
        return larder_;
    }

    template <typename U> bool operator==(const allocator<U> &other) const noexcept
    {
        return larder_ == other.get();
    }

    template <typename U> bool operator!=(const allocator<U> &other) const noexcept
    {
        return larder_ != other.get();
    }

private:
    larder_t *larder_;
};

/* Destroys an object and frees its block to the owner: no larger than no deleter. */
template <typename T> struct deleter {
    deleter() = default;
    /* As std::default_delete: a pointer to a derived class may become one to its base. */
    template <typename U, typename = std::enable_if_t<std::is_convertible_v<U *, T *>>>
    deleter(const deleter<U> &) noexcept
    {
        static_assert(std::is_same_v<U, T> || std::has_virtual_destructor_v<T>,
                      "a base class without a virtual destructor would not end the object");
    }

    void operator()(T *ptr) const noexcept
    {
        /* the block's address is the object's, which the address of a base need not be */
        const volatile void *block = ptr;
        if constexpr (std::is_polymorphic_v<T>) {
            block = dynamic_cast<const volatile void *>(ptr);
        }
        ptr->~T();
        larder_free(nullptr, const_cast<void *>(block));
    }
};

/* Of an array: it knows how many objects there are to destroy. */
template <typename T> struct deleter<T[]> {
    std::size_t count = 0;

    void operator()(T *ptr) const noexcept
    {
        std::destroy_n(ptr, count);
        larder_free(nullptr, ptr);
    }
};

template <typename T> using unique_ptr = std::unique_ptr<T, deleter<T>>;

/* An object in a block of `larder`. */
template <typename T, typename... Arguments>
[[nodiscard]] std::enable_if_t<!std::is_array_v<T>, unique_ptr<T>>
make_unique(larder_t *larder, Arguments &&...arguments)
{
    std::unique_ptr<void, detail::release> block(detail::allocate(larder, sizeof(T), alignof(T)));
    T *object = ::new (block.get()) T(std::forward<Arguments>(arguments)...);
    (void)block.release();
    return unique_ptr<T>(object);
}

/* An array: make_unique<float[]>(engine, 1000) is 1000 zeros. */
template <typename T>
[[nodiscard]] std::enable_if_t<std::is_array_v<T> && std::extent_v<T> == 0, unique_ptr<T>>
make_unique(larder_t *larder, std::size_t count)
{
    using element = std::remove_extent_t<T>;
    element *array = detail::allocate_array<element>(larder, count);
    std::unique_ptr<void, detail::release> block(array);
    std::uninitialized_value_construct_n(array, count);
    (void)block.release();
    return unique_ptr<T>(array, deleter<T>{count});
}

/* The same with contents undefined, as a tensor that is written next wants it. */
template <typename T>
[[nodiscard]] std::enable_if_t<std::is_array_v<T> && std::extent_v<T> == 0, unique_ptr<T>>
make_unique_for_overwrite(larder_t *larder, std::size_t count)
{
    using element = std::remove_extent_t<T>;
    element *array = detail::allocate_array<element>(larder, count);
    std::unique_ptr<void, detail::release> block(array);
    std::uninitialized_default_construct_n(array, count);
    (void)block.release();
    return unique_ptr<T>(array, deleter<T>{count});
}

} // namespace larder

#endif // LARDER_LARDER_HPP
