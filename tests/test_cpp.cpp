/* SPDX-License-Identifier: MIT */
/*
 * larder.hpp: what a C++ program sees. Containers, smart pointers and scopes put their memory where they say, and give
 * it back; failures are exceptions and leave nothing behind. What must not compile is in cpp_misuse/.
 */
#include <larder/larder.hpp>

#include <check.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <list>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <unordered_map>
#include <vector>

namespace
{

constexpr std::size_t many = 1000;

bool is_multiple(const void *ptr, std::size_t alignment)
{
    return reinterpret_cast<std::uintptr_t>(ptr) % alignment == 0;
}

/* Counts what lives, and fails on command: what a tensor's element may be. */
struct counted {
    static inline int live = 0;
    static inline int fail_at = 0; /* the object that makes this number live throws */
    int value = 7;

    counted()
    {
        if (live + 1 == fail_at) {
            throw std::runtime_error("as asked");
        }
        live++;
    }
    counted(const counted &) = delete;
    counted &operator=(const counted &) = delete;
    ~counted()
    {
        live--;
    }
};

struct alignas(256) wide {
    char bytes[256];
};

struct shape {
    virtual ~shape() = default;
    int sides = 0;
};

struct named {
    virtual ~named() = default;
    int letters = 0;
};

struct square : named, shape {
    static inline int ended = 0;
    ~square() override
    {
        ended++;
    }
};

void fill(larder::instance &engine, std::pmr::memory_resource *resource)
{
    std::pmr::vector<std::pmr::string> words(resource);
    std::pmr::map<int, std::pmr::vector<float>> tensors(resource);
    std::pmr::list<int> order(resource);
    for (int i = 0; i < 200; i++) {
        words.emplace_back("a word that is longer than what a string keeps in itself");
        tensors[i].resize(many, static_cast<float>(i));
        order.push_back(i);
    }
    ck_assert_ptr_eq(larder_owner(words.data()), engine.get());
    ck_assert_ptr_eq(larder_owner(words[100].data()), engine.get());
    ck_assert_ptr_eq(larder_owner(tensors[7].data()), engine.get());
    ck_assert_uint_ge(engine.stats().live_blocks, 800);
    for (int i = 0; i < 200; i++) {
        ck_assert(tensors[i][many - 1] == static_cast<float>(i));
    }
}

} // namespace

START_TEST(an_instance_has_its_name_and_settings_and_ends_with_its_braces)
{
    larder::instance engine("engine", larder::config().set("policy", "exact").set("fill", "7"));
    ck_assert_str_eq(larder_name(engine), "engine");
    auto *bytes = static_cast<unsigned char *>(larder_alloc(engine, 64));
    ck_assert_uint_eq(bytes[63], 7);
    larder_free(engine, bytes);
    ck_assert_uint_eq(engine.stats().allocations, 1);
}
END_TEST

START_TEST(bad_settings_are_exceptions)
{
    int caught = 0;
    try {
        larder::config().set("policy", "best");
    } catch (const std::invalid_argument &error) {
        ck_assert_ptr_nonnull(std::strstr(error.what(), "policy=best"));
        caught++;
    }
    larder::config settings;
    settings.alignment = 3;
    try {
        larder::instance engine("engine", settings);
    } catch (const std::invalid_argument &) {
        caught++;
    }
    ck_assert_int_eq(caught, 2);
}
END_TEST

START_TEST(an_instance_moves)
{
    larder::instance first("first"), second("second");
    larder_t *was_first = first.get();
    second = std::move(first);
    ck_assert_ptr_eq(second.get(), was_first);
    ck_assert_ptr_null(first.get());
    larder::instance third(std::move(second));
    ck_assert_str_eq(larder_name(third), "first");
}
END_TEST

START_TEST(a_scope_ends_with_its_braces_also_when_an_exception_does)
{
    larder::instance engine("engine");
    try {
        larder::scope here{engine};
        ck_assert_ptr_eq(larder_current(), engine.get());
        {
            larder::scope nobody{nullptr};
            ck_assert_ptr_null(larder_current());
        }
        ck_assert_ptr_eq(larder_current(), engine.get());
        throw std::runtime_error("out");
    } catch (const std::runtime_error &) {
    }
    ck_assert_ptr_null(larder_current());
}
END_TEST

START_TEST(a_scope_cannot_be_copied_moved_or_put_on_the_heap)
{
    static_assert(!std::is_copy_constructible_v<larder::scope>);
    static_assert(!std::is_move_constructible_v<larder::scope>);
    static_assert(!std::is_copy_assignable_v<larder::scope>);
    static_assert(!std::is_move_assignable_v<larder::scope>);
    static_assert(!std::is_default_constructible_v<larder::scope>);
    static_assert(!std::is_convertible_v<larder_t *, larder::scope>);
    static_assert(!std::is_copy_constructible_v<larder::instance>);
}
END_TEST

START_TEST(bound_work_runs_in_the_scope_in_which_it_was_bound)
{
    larder::instance engine("engine");
    larder_t *seen = nullptr, *after = engine.get();
    {
        larder::scope here{engine};
        auto work = larder::bind_current([&seen](int &sum, int more) -> int & {
            seen = larder_current();
            sum += more;
            return sum;
        });
        std::thread worker([&] {
            int sum = 1;
            work(sum, 2) *= 10;
            ck_assert_int_eq(sum, 30);
            after = larder_current();
        });
        worker.join();
    }
    ck_assert_ptr_eq(seen, engine.get());
    ck_assert_ptr_null(after);
}
END_TEST

START_TEST(pmr_containers_live_in_their_instance_and_leave_it_empty)
{
    larder::instance engine("engine");
    larder::memory_resource resource(engine);
    fill(engine, &resource);
    ck_assert_uint_eq(engine.stats().live_blocks, 0);
    uint64_t backend_calls = engine.stats().backend_allocations;
    fill(engine, &resource);
    ck_assert_uint_eq(engine.stats().backend_allocations, backend_calls);
}
END_TEST

START_TEST(resources_of_one_instance_are_equal_and_others_are_not)
{
    larder::instance one("one"), other("other");
    larder::memory_resource first(one), second(one), third(other);
    ck_assert(first == second);
    ck_assert(first != third);
    ck_assert(first != *std::pmr::new_delete_resource());
    ck_assert_ptr_eq(larder::memory_resource().get(), larder_default());
}
END_TEST

START_TEST(a_moved_pmr_vector_takes_its_block_along_within_an_instance_only)
{
    larder::instance one("one"), other("other");
    larder::memory_resource first(one), second(one), third(other);
    std::pmr::vector<int> source(many, 5, &first), same(&second), elsewhere(&third);
    const int *block = source.data();
    same = std::move(source);
    ck_assert_ptr_eq(same.data(), block);
    elsewhere = std::move(same);
    ck_assert_ptr_eq(larder_owner(elsewhere.data()), other.get());
    ck_assert_int_eq(elsewhere[many - 1], 5);
}
END_TEST

START_TEST(resources_keep_an_alignment_above_the_instances)
{
    larder::instance engine("engine");
    larder::memory_resource resource(engine);
    for (std::size_t alignment = 1; alignment <= 65536; alignment *= 2) {
        void *ptr = resource.allocate(100, alignment);
        ck_assert(is_multiple(ptr, alignment));
        resource.deallocate(ptr, 100, alignment);
    }
    ck_assert_uint_eq(engine.stats().live_blocks, 0);
}
END_TEST

START_TEST(standard_containers_take_the_allocator)
{
    larder::instance engine("engine");
    {
        using pair = std::pair<const int, float>;
        std::vector<float, larder::allocator<float>> tensor(engine);
        std::unordered_map<int, float, std::hash<int>, std::equal_to<int>, larder::allocator<pair>>
            table(8, std::hash<int>(), std::equal_to<int>(), engine);
        std::list<wide, larder::allocator<wide>> widely(engine);
        for (int i = 0; i < 1000; i++) {
            tensor.push_back(static_cast<float>(i));
            table[i] = tensor.back();
        }
        widely.emplace_back();
        ck_assert(tensor[999] == 999.0F && table[999] == 999.0F);
        ck_assert(is_multiple(&widely.front(), 256));
        ck_assert_ptr_eq(larder_owner(tensor.data()), engine.get());
        ck_assert_uint_ge(engine.stats().live_blocks, 1000);
    }
    ck_assert_uint_eq(engine.stats().live_blocks, 0);
    std::vector<int, larder::allocator<int>> in_default(10);
    ck_assert_ptr_eq(larder_owner(in_default.data()), larder_default());
}
END_TEST

START_TEST(allocators_travel_with_moves_and_swaps_but_not_with_copies)
{
    using vector = std::vector<int, larder::allocator<int>>;
    larder::instance one("one"), other("other");
    vector first(many, 1, one), second(many, 2, other);
    vector copy = first;
    ck_assert_ptr_eq(larder_owner(copy.data()), one.get());
    second = first;
    ck_assert_ptr_eq(larder_owner(second.data()), other.get());
    const int *block = first.data();
    second = std::move(first);
    ck_assert_ptr_eq(second.data(), block);
    vector third(many, 3, other);
    swap(second, third);
    ck_assert_ptr_eq(third.data(), block);
    ck_assert_int_eq(second[0], 3);
    ck_assert(larder::allocator<int>(one) == larder::allocator<char>(one));
    ck_assert(larder::allocator<int>(one) != larder::allocator<int>(other));
}
END_TEST

START_TEST(too_much_is_an_exception_and_leaves_the_container_as_it_was)
{
    larder::instance engine("engine");
    larder::allocator<double> doubles(engine);
    larder::memory_resource resource(engine);
    volatile std::size_t most = SIZE_MAX; /* or compilers see the mistake */
    int caught = 0;
    try {
        (void)doubles.allocate(most / 8 + 2); /* times 8 would be 8 */
    } catch (const std::bad_array_new_length &) {
        caught++;
    }
    try {
        (void)resource.allocate(most / 2 + 1);
    } catch (const std::bad_alloc &) {
        caught++;
    }
    std::vector<char, larder::allocator<char>> bytes(3, 'x', engine);
    try {
        bytes.resize(bytes.max_size() / 2 + 1);
    } catch (const std::bad_alloc &) {
        caught++;
    }
    ck_assert_int_eq(caught, 3);
    ck_assert_uint_eq(bytes.size(), 3);
    ck_assert_uint_eq(engine.stats().live_blocks, 1);
}
END_TEST

START_TEST(unique_pointers_end_their_object_and_free_its_block)
{
    larder::instance engine("engine");
    {
        auto one = larder::make_unique<counted>(engine);
        auto word = larder::make_unique<std::string>(engine, std::size_t{3}, 'x');
        auto array = larder::make_unique<counted[]>(engine, 10);
        static_assert(sizeof one == sizeof(counted *));
        ck_assert_int_eq(counted::live, 11);
        ck_assert_int_eq(array[9].value, 7);
        ck_assert_str_eq(word->c_str(), "xxx");
        ck_assert_ptr_eq(larder_owner(one.get()), engine.get());
        ck_assert_ptr_eq(larder_owner(array.get()), engine.get());
        ck_assert(is_multiple(larder::make_unique<wide>(engine).get(), 256));
    }
    ck_assert_int_eq(counted::live, 0);
    ck_assert_uint_eq(engine.stats().live_blocks, 0);
}
END_TEST

START_TEST(arrays_are_zeros_unless_they_are_about_to_be_overwritten)
{
    larder::instance engine("engine", larder::config().set("fill", "255"));
    auto zeros = larder::make_unique<float[]>(engine, many);
    auto raw = larder::make_unique_for_overwrite<std::uint32_t[]>(engine, many);
    auto none = larder::make_unique<int[]>(engine, 0);
    for (std::size_t i = 0; i < many; i++) {
        ck_assert(zeros[i] == 0.0F);
        ck_assert_uint_eq(raw[i], UINT32_MAX);
    }
    ck_assert_ptr_nonnull(none.get());
}
END_TEST

START_TEST(a_pointer_to_a_base_frees_the_whole_object)
{
    larder::instance engine("engine");
    {
        larder::unique_ptr<shape> base = larder::make_unique<square>(engine);
        larder::unique_ptr<const named> other = larder::make_unique<square>(engine);
        ck_assert_ptr_ne(static_cast<void *>(base.get()), dynamic_cast<void *>(base.get()));
    }
    ck_assert_int_eq(square::ended, 2);
    ck_assert_uint_eq(engine.stats().live_blocks, 0);
}
END_TEST

START_TEST(a_constructor_that_throws_leaves_no_block_behind)
{
    larder::instance engine("engine");
    int caught = 0;
    counted::fail_at = 1;
    try {
        (void)larder::make_unique<counted>(engine);
    } catch (const std::runtime_error &) {
        caught++;
    }
    counted::fail_at = 5;
    try {
        (void)larder::make_unique<counted[]>(engine, 10);
    } catch (const std::runtime_error &) {
        caught++;
    }
    ck_assert_int_eq(caught, 2);
    ck_assert_int_eq(counted::live, 0);
    ck_assert_uint_eq(engine.stats().live_blocks, 0);
}
END_TEST

START_TEST(a_pointer_may_outlive_its_instance)
{
    larder::unique_ptr<int[]> numbers;
    {
        larder::instance engine("engine");
        numbers = larder::make_unique<int[]>(engine, many);
    }
    numbers[many - 1] = 1;
    ck_assert_ptr_null(larder_owner(numbers.get()));
}
END_TEST

int main()
{
    Suite *suite = suite_create("cpp");
    TCase *cases = tcase_create("larder.hpp");
    tcase_set_timeout(cases, 30);
    tcase_add_test(cases, an_instance_has_its_name_and_settings_and_ends_with_its_braces);
    tcase_add_test(cases, bad_settings_are_exceptions);
    tcase_add_test(cases, an_instance_moves);
    tcase_add_test(cases, a_scope_ends_with_its_braces_also_when_an_exception_does);
    tcase_add_test(cases, a_scope_cannot_be_copied_moved_or_put_on_the_heap);
    tcase_add_test(cases, bound_work_runs_in_the_scope_in_which_it_was_bound);
    tcase_add_test(cases, pmr_containers_live_in_their_instance_and_leave_it_empty);
    tcase_add_test(cases, resources_of_one_instance_are_equal_and_others_are_not);
    tcase_add_test(cases, a_moved_pmr_vector_takes_its_block_along_within_an_instance_only);
    tcase_add_test(cases, resources_keep_an_alignment_above_the_instances);
    tcase_add_test(cases, standard_containers_take_the_allocator);
    tcase_add_test(cases, allocators_travel_with_moves_and_swaps_but_not_with_copies);
    tcase_add_test(cases, too_much_is_an_exception_and_leaves_the_container_as_it_was);
    tcase_add_test(cases, unique_pointers_end_their_object_and_free_its_block);
    tcase_add_test(cases, arrays_are_zeros_unless_they_are_about_to_be_overwritten);
    tcase_add_test(cases, a_pointer_to_a_base_frees_the_whole_object);
    tcase_add_test(cases, a_constructor_that_throws_leaves_no_block_behind);
    tcase_add_test(cases, a_pointer_may_outlive_its_instance);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
