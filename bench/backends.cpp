/* SPDX-License-Identifier: MIT */
/*
 * See backends.h. That a process was started again is told by a variable in its environment, which
 * it removes: options are the user's.
 */
#include "backends.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sstream>

#include "context.h"
#include "peer.h"
#include "peer_malloc.h"

namespace
{

constexpr char preloaded_variable[] = "LARDER_BENCH_PRELOADED";

std::vector<std::string> chosen; /* empty: all of this process */
bool preloaded;

bool is_known(const std::string &name)
{
    return allocator_summary(name.c_str()) != nullptr || peer_is_one(name.c_str());
}

} // namespace

bool backends_choose(const std::string &list, std::string &why)
{
    const char *started_for = std::getenv(preloaded_variable);
    preloaded = started_for != nullptr && list == started_for;
    unsetenv(preloaded_variable);
    std::istringstream names(list);
    for (std::string name; std::getline(names, name, ',');) {
        if (!is_known(name)) {
            why = "no allocator is called '" + name + "'";
            return false;
        }
        if (std::find(chosen.begin(), chosen.end(), name) == chosen.end()) {
            chosen.push_back(name);
        }
    }
    for (const std::string &name : chosen) {
        if (peer_is_one(name.c_str()) && chosen.size() > 1) {
            why = name + " has to replace malloc: name it alone";
            return false;
        }
    }
    return true;
}

bool backends_need_preload()
{
    return chosen.size() == 1 && peer_is_one(chosen[0].c_str()) && !preloaded;
}

void backends_restart_preloaded(char **argv, std::string &why)
{
    char library[4096], reason[512];
    if (peer_library(chosen[0].c_str(), library, sizeof library, reason, sizeof reason) != 0) {
        why = chosen[0] + ": " + reason;
        return;
    }
    if (setenv("LD_PRELOAD", library, 1) == 0 &&
        setenv(preloaded_variable, chosen[0].c_str(), 1) == 0) {
        execv("/proc/self/exe", argv);
    }
    why = chosen[0] + ": this program could not be started again: " + std::strerror(errno);
}

std::vector<const char *> backends_find()
{
    std::vector<const char *> wanted, found;
    if (chosen.empty()) {
        for (const char *const *name = allocator_names(); *name != nullptr; name++) {
            wanted.push_back(*name);
        }
    }
    for (const std::string &name : chosen) {
        wanted.push_back(name.c_str());
    }
    for (const char *name : wanted) {
        allocator opened;
        char why[512];
        if (backends_open(name, &opened, why, sizeof why) != 0) {
            std::fprintf(stderr, "larder-bench: %s left out: %s\n", name, why);
            continue;
        }
        add_backend_context(opened);
        allocator_close(&opened);
        found.push_back(name);
    }
    return found;
}

int backends_open(const char *name, allocator *out, char *why, std::size_t why_size)
{
    return preloaded ? peer_malloc_open(name, out, why, why_size)
                     : allocator_open(name, out, why, why_size);
}
