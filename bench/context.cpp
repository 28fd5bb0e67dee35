/* SPDX-License-Identifier: MIT */
/*
 * See context.h. Versions are there since they decide results: old and new mimalloc behave
 * oppositely. So is the huge-page mode: with `always`, fewer faults may hide more zeroing.
 */
#include "context.h"

#include <benchmark/benchmark.h>

#include <sys/utsname.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <string>

namespace
{

std::string kernel()
{
    struct utsname name;
    if (uname(&name) != 0) {
        return "unknown";
    }
    return std::string(name.sysname) + " " + name.release + " " + name.machine;
}

/* The word in brackets of "always [madvise] never". */
std::string huge_pages()
{
    std::ifstream file("/sys/kernel/mm/transparent_hugepage/enabled");
    std::string line;
    std::getline(file, line);
    std::size_t open = line.find('[');
    std::size_t close = line.find(']');
    if (open == std::string::npos || close == std::string::npos) {
        return "unknown";
    }
    return line.substr(open + 1, close - open - 1);
}

/* "LARDER_DECAY_MS=0 LARDER_BUDGET=64m": settings in the environment hold for larder's backends. */
std::string settings()
{
    std::string set;
    for (char **entry = environ; *entry != nullptr; entry++) {
        if (std::strncmp(*entry, "LARDER_", std::strlen("LARDER_")) == 0) {
            set += (set.empty() ? "" : " ") + std::string(*entry);
        }
    }
    return set.empty() ? "none" : set;
}

/* google-benchmark writes its context into JSON as it is. */
std::string printable(std::string text)
{
    for (char &c : text) {
        if (c == '"' || c == '\\' || static_cast<unsigned char>(c) < ' ') {
            c = '?';
        }
    }
    return text;
}

} // namespace

void add_machine_context()
{
    benchmark::AddCustomContext("kernel", printable(kernel()));
    benchmark::AddCustomContext("huge_pages", printable(huge_pages()));
    benchmark::AddCustomContext("compiler", printable(__VERSION__));
    benchmark::AddCustomContext("environment", printable(settings()));
}

void add_backend_context(const allocator &backend)
{
    std::string value = backend.version;
    if (std::strcmp(backend.policy, "-") != 0) {
        value += std::string(", policy ") + backend.policy;
    }
    benchmark::AddCustomContext(std::string("backend ") + backend.name, printable(value));
}
