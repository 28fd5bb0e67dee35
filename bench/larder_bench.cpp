/* SPDX-License-Identifier: MIT */
/*
 * larder-bench: larder and its peers under google-benchmark, in one process and through one shape
 * of call (allocators/allocator.h). README.md says what the families measure and how to read them.
 */
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

#include "allocator.h"
#include "backends.h"
#include "context.h"
#include "families.h"
#include "peer.h"
#include "session.h"

extern "C" {
#include "companion.h"
}

namespace
{

constexpr int exit_fine = 0;
constexpr int exit_failed = 1;
constexpr int exit_usage = 2;

/* All of it takes a few minutes; a flag of the user's, which comes later, wins. */
char default_min_time[] = DEFAULT_MIN_TIME_FLAG;

struct arguments {
    std::vector<char *> for_library; /* ended by nullptr */
    std::string backends;            /* empty: all of this process */
    std::string traces;
    bool traces_chosen; /* by the user, who will want to know where they are not there */
};

void print_help()
{
    std::printf(
        "usage: larder-bench [--backends LIST] [--traces DIR] [--benchmark_...]\n"
        "\n"
        "Times larder and other allocators: pairs of allocate and free (pair), batches of 16\n"
        "(batch_lifo, batch_fifo), pairs on several threads (pair_threads), blocks that one "
        "thread\n"
        "allocates and another frees (crossing), first in first out (queue), threads that come "
        "and\n"
        "go (thread_churn), giving back (trim), blocks of malloc's (foreign), and recorded traces\n"
        "(replay, replay_touched). A benchmark is called FAMILY/BACKEND/CASE; backends are:\n");
    for (const char *const *name = allocator_names(); *name != nullptr; name++) {
        std::printf("  %-18s %s\n", *name, allocator_summary(*name));
    }
    std::printf("and, each in a process of its own, alone behind --backends:\n");
    for (const char *const *name = peer_names(); *name != nullptr; name++) {
        std::printf("  %-18s %s\n", *name, peer_summary(*name));
    }
    std::printf(
        "  preload:PATH       any other library that defines malloc\n"
        "One that this machine lacks is left out, with a line on stderr. bench/interleave runs "
        "all\n"
        "of them, a process each, and merges the results.\n"
        "\n"
        "  --backends LIST  names, separated by commas; default: all of the first list\n"
        "  --traces DIR     the traces to replay, *.txt, also .gz and .zst; default:\n"
        "                   LARDER_BENCH_TRACES in the environment, else those in larder's "
        "sources\n"
        "  --help           this text\n"
        "\n"
        "Examples:\n"
        "  larder-bench --benchmark_filter='^pair/.*/4KiB$'\n"
        "  larder-bench --benchmark_filter='^replay/' --benchmark_format=json\n"
        "\n"
        "Exit code: 0 fine, 1 a benchmark failed or the traces are not there, 2 wrong usage or no\n"
        "benchmark of that name. google-benchmark's own flags (the default here is\n"
        "%s):\n",
        DEFAULT_MIN_TIME_FLAG);
    benchmark::PrintDefaultHelp();
}

int usage_error(const char *text)
{
    std::fprintf(stderr, "larder-bench: %s (--help shows the options)\n", text);
    return exit_usage;
}

/*
 * The value of our option `name` at argv[i], as "--name VALUE" or "--name=VALUE"; moves i past it.
 * nullptr: argv[i] is something else. An option without its value: `missing` is set.
 */
const char *value_of(const char *name, int argc, char **argv, int &i, bool &missing)
{
    std::size_t length = std::strlen(name);
    if (std::strncmp(argv[i], name, length) != 0) {
        return nullptr;
    }
    if (argv[i][length] == '=') {
        return argv[i] + length + 1;
    }
    if (argv[i][length] != '\0') {
        return nullptr;
    }
    missing = i + 1 == argc;
    return missing ? nullptr : argv[++i];
}

/* Takes what is ours out of the arguments. Returns an exit code, or -1 to go on. */
int read_arguments(int argc, char **argv, arguments &out)
{
    const char *from_environment = std::getenv("LARDER_BENCH_TRACES");
    out.traces_chosen = from_environment != nullptr && *from_environment != '\0';
    out.traces = out.traces_chosen ? from_environment : DEFAULT_TRACES_DIR;
    out.for_library = {argv[0]};
    if (std::getenv("BENCHMARK_MIN_TIME") == nullptr) {
        out.for_library.push_back(default_min_time);
    }
    for (int i = 1; i < argc; i++) {
        if (std::strcmp(argv[i], "--help") == 0) {
            print_help();
            return exit_fine;
        }
        bool missing = false;
        if (const char *value = value_of("--traces", argc, argv, i, missing)) {
            out.traces = value;
            out.traces_chosen = true;
        } else if (const char *list = value_of("--backends", argc, argv, i, missing)) {
            out.backends = list;
        } else if (missing) {
            return usage_error("--traces and --backends take a value");
        } else {
            out.for_library.push_back(argv[i]);
        }
    }
    out.for_library.push_back(nullptr);
    return -1;
}

bool is_trace(const std::string &path)
{
    for (const char *ending : {".txt", ".txt.gz", ".txt.zst"}) {
        std::size_t length = std::strlen(ending);
        if (path.size() > length && path.compare(path.size() - length, length, ending) == 0) {
            return true;
        }
    }
    return false;
}

std::vector<std::string> find_traces(const std::string &directory)
{
    std::vector<std::string> found;
    std::error_code error;
    for (std::filesystem::directory_iterator at(directory, error), end; !error && at != end;
         at.increment(error)) {
        if (is_trace(at->path().string())) {
            found.push_back(at->path().string());
        }
    }
    std::sort(found.begin(), found.end());
    return found;
}

} // namespace

int main(int argc, char **argv)
{
    arguments args;
    int result = read_arguments(argc, argv, args);
    if (result >= 0) {
        return result;
    }
    std::string why;
    if (!backends_choose(args.backends, why)) {
        return usage_error(why.c_str());
    }
    if (backends_need_preload()) {
        backends_restart_preloaded(argv, why);
        std::fprintf(stderr, "larder-bench: %s\n", why.c_str());
        return exit_failed;
    }
    int count = static_cast<int>(args.for_library.size()) - 1;
    benchmark::Initialize(&count, args.for_library.data());
    if (benchmark::ReportUnrecognizedArguments(count, args.for_library.data())) {
        return usage_error("what it names is no option");
    }
    std::vector<std::string> traces = find_traces(args.traces);
    if (traces.empty()) {
        std::fprintf(stderr,
                     "larder-bench: %s: no traces (*.txt) there: name their directory with "
                     "--traces\n",
                     args.traces.c_str());
        if (args.traces_chosen) {
            return exit_failed;
        }
    }
    /* To the end, so that the cases of one thread, too, run in a process with threads. */
    int error = companion_start();
    if (error != 0) {
        std::fprintf(stderr, "larder-bench: no second thread: %s: raise the limit (ulimit -u)\n",
                     std::strerror(-error));
        return exit_failed;
    }
    add_machine_context();
    std::vector<const char *> backends = backends_find();
    if (backends.empty()) {
        return exit_failed;
    }
    register_pairs(backends);
    register_crossings(backends);
    register_lives(backends);
    register_replays(backends, traces);
    /* It says itself on stderr that nothing matched. */
    bool matched = benchmark::RunSpecifiedBenchmarks() > 0;
    companion_stop();
    if (!matched) {
        return exit_usage;
    }
    benchmark::Shutdown();
    return session_any_failed() ? exit_failed : exit_fine;
}
