/* SPDX-License-Identifier: MIT */
/*
 * Recorded traces through lib/trace's replay engine: serial, in recorded order, tensors only
 * (blocks of 1 KiB and up). replay writes nothing to the blocks and shows the allocator's own time;
 * replay_touched writes one byte to each page, which adds the page faults that its choices cost.
 *
 * An iteration is a pass. The engine times its passes itself and drops the first third as warm-up,
 * so a run is one call of the engine with enough passes that as many as google-benchmark asked for
 * are counted, and each of them is reported with the median pass as its time.
 *
 * replay_streams has one and then two copies of a trace at once, each in a thread of its own, through the
 * same allocator, nothing written: operations_per_second are those of all copies while they run. What threads wait
 * until all begin a pass together is in no figure: with "none" that would be most of a pass.
 *
 * No figure for memory here: malloc and mimalloc have grown by what ran before in this process.
 * `larder replay` measures that, in a process for each allocator.
 */
#include "families.h"

#include <benchmark/benchmark.h>

#include <map>

#include "session.h"

extern "C" {
#include "program.h"
#include "replay.h"
#include "trace.h"
}

namespace
{

constexpr std::uint64_t min_size = 1024;

struct case_of {
    const char *backend;
    const std::string *path; /* a key of `programs`, which never moves */
    replay_touch touch;
    unsigned streams; /* 0: one, as in replay */
};

/* Prepared on first use, which the filter may never ask for. Without operations: not yet. */
struct replayed_trace {
    program steps;
    std::uint64_t peak_live_bytes;
};
std::map<std::string, replayed_trace> programs;

bool prepare(const std::string &path, replayed_trace *out, char *why, std::size_t why_size)
{
    const trace_options options = {};
    trace loaded;
    if (trace_load(path.c_str(), &options, &loaded, why, why_size) != 0) {
        return false;
    }
    trace_facts facts = {};
    bool fine = trace_filter_min_size(&loaded, min_size) == 0 &&
                trace_get_facts(&loaded, &facts) == 0 && program_build(&loaded, &out->steps) == 0;
    out->peak_live_bytes = facts.peak_live_bytes;
    trace_unload(&loaded);
    if (!fine) {
        snprintf(why, why_size, "%s: no memory to prepare it", path.c_str());
    } else if (out->steps.op_count == 0) {
        snprintf(why, why_size, "%s: no block has 1024 bytes or more", path.c_str());
    }
    return fine && out->steps.op_count > 0;
}

/* Within the loop's single round: the engine's passes stand for all of the iterations. */
void replay_iterations(benchmark::State &state, const allocator &a, const case_of &c)
{
    const replayed_trace &prepared = programs.at(*c.path);
    const benchmark::IterationCount wanted = state.max_iterations;
    const benchmark::IterationCount with_warm_up = wanted + (wanted + 1) / 2;
    replay_settings settings = {};
    settings.touch = c.touch;
    settings.streams = c.streams;
    settings.passes =
        with_warm_up < REPLAY_PASSES_MIN ? REPLAY_PASSES_MIN : static_cast<unsigned>(with_warm_up);
    replay_result result = {};
    char why[512];
    if (replay_run(&prepared.steps, &a, &settings, &result, why, sizeof why) != 0) {
        session_fail(state, why);
        return;
    }
    double pass_ns = result.ns_per_op * static_cast<double>(result.ops_per_pass);
    state.SetIterationTime(pass_ns * 1e-9 * static_cast<double>(wanted));
    state.counters["ns_per_op"] = result.ns_per_op;
    if (c.streams > 0) {
        state.counters["operations_per_second"] = c.streams * 1e9 / result.ns_per_op;
    }
    state.counters["faults_per_pass"] = result.faults_per_pass;
    allocator_report report;
    allocator_get_report(&a, &report);
    if (report.metadata_bytes != UINT64_MAX) {
        state.counters["metadata_bytes"] = static_cast<double>(report.metadata_bytes);
    }
    state.counters["peak_live_bytes"] = static_cast<double>(prepared.peak_live_bytes);
    if (report.peak_held_bytes != UINT64_MAX) {
        state.counters["held_bytes"] = static_cast<double>(report.peak_held_bytes);
    }
}

void run(benchmark::State &state, case_of c)
{
    char why[512];
    replayed_trace &prepared = programs.at(*c.path);
    if (prepared.steps.op_count == 0 && !prepare(*c.path, &prepared, why, sizeof why)) {
        session_fail(state, why);
        return;
    }
    const allocator *a = session_enter(state, c.backend);
    if (a == nullptr) {
        return;
    }
    while (state.KeepRunningBatch(state.max_iterations)) {
        replay_iterations(state, *a, c);
    }
    state.SetItemsProcessed(state.iterations() *
                            static_cast<benchmark::IterationCount>(prepared.steps.op_count));
}

/* "traces/mobilenet_v2.txt.gz" is mobilenet_v2. */
std::string name_of(const std::string &path)
{
    std::string file = path.substr(path.find_last_of('/') + 1);
    return file.substr(0, file.find(".txt"));
}

void add(const char *family, const char *backend, const std::string &path, replay_touch touch,
         unsigned streams = 0)
{
    std::string name = std::string(family) + "/" + backend + "/" + name_of(path);
    if (streams > 0) {
        name += "/streams:" + std::to_string(streams);
    }
    const std::string *key = &programs.emplace(path, replayed_trace{}).first->first;
    benchmark::RegisterBenchmark(name.c_str(), run, case_of{backend, key, touch, streams})
        ->Unit(benchmark::kMicrosecond)
        ->UseManualTime()
        ->Teardown(session_leave);
}

} // namespace

void register_replays(const std::vector<const char *> &backends,
                      const std::vector<std::string> &traces)
{
    for (const std::string &path : traces) {
        for (const char *backend : backends) {
            add("replay", backend, path, REPLAY_TOUCH_NONE);
        }
    }
    for (const std::string &path : traces) {
        for (const char *backend : backends) {
            add("replay_touched", backend, path, REPLAY_TOUCH_PAGE);
        }
    }
    for (const std::string &path : traces) {
        for (unsigned streams : {1u, 2u}) {
            for (const char *backend : backends) {
                add("replay_streams", backend, path, REPLAY_TOUCH_NONE, streams);
            }
        }
    }
}
