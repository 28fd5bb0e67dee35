/* SPDX-License-Identifier: MIT */
/* The children that replay: see pick_replay.h. */
#include "pick_replay.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "child.h"
#include "json.h"
#include "tool.h"

#define SUB "pick"

/* The reason in the first line that a child wrote on stderr, without the program's name. */
static const char *first_line(struct child_result *child, const char *subject)
{
    char *text = child->errors;
    char prefix[300];
    snprintf(prefix, sizeof prefix, "larder replay: %s: ", subject);
    char *found = strstr(text, "larder replay: ");
    text = found != NULL ? found : text;
    text[strcspn(text, "\n")] = '\0';
    if (strncmp(text, prefix, strlen(prefix)) == 0) {
        return text + strlen(prefix);
    }
    return found != NULL ? text + strlen("larder replay: ") : text;
}

int pick_probe_backends(struct pick *pick)
{
    struct child_result child;
    size_t kept = 0;
    for (size_t b = 0; b < pick->backend_count; b++) {
        struct pick_backend *backend = &pick->backends[b];
        const char *const argv[] = {"larder",      "replay",  "--backend",
                                    backend->name, "--probe", NULL};
        int result = child_run(argv, &child);
        if (result == -EINTR) {
            return TOOL_FAILED; /* the caller sees to it */
        }
        if (result != 0) {
            tool_error(SUB, "a replay could not be started: %s", strerror(-result));
            return TOOL_FAILED;
        }
        if (child.exit_code != 0) {
            tool_error(SUB, "%s left out: %s", backend->name,
                       child.exit_code < 0 ? strsignal(child.signal)
                                           : first_line(&child, backend->name));
            continue;
        }
        /* "NAME VERSION" */
        child.output[strcspn(child.output, "\n")] = '\0';
        snprintf(backend->version, sizeof backend->version, "%s",
                 child.output + strlen(backend->name) + 1);
        pick->backends[kept++] = *backend;
    }
    pick->backend_count = kept;
    if (kept == 0) {
        tool_error(SUB, "none of the allocators can be had here");
        return TOOL_FAILED;
    }
    return -1;
}

static bool read_sample(const char *text, struct pick_sample *sample)
{
    return json_get_number(text, "ns_per_op", &sample->ns_per_op) &&
           json_get_number(text, "ns_per_op_min", &sample->ns_per_op_min) &&
           json_get_number(text, "ns_per_op_max", &sample->ns_per_op_max) &&
           json_get_number(text, "faults_per_pass", &sample->faults_per_pass) &&
           json_get_count(text, "peak_rss_bytes", &sample->peak_rss_bytes) &&
           json_get_count(text, "held_bytes", &sample->held_bytes) &&
           json_get_count(text, "peak_held_bytes", &sample->peak_held_bytes) &&
           json_get_count(text, "passes", &sample->passes) &&
           json_get_count(text, "threads", &sample->threads) &&
           json_get_count(text, "ops_per_pass", &sample->ops_per_pass);
}

int pick_replay(const struct pick *pick, const struct pick_case *one, size_t backend,
                unsigned passes, uint64_t most_ns, struct pick_replayed *out)
{
    const char *name = pick->backends[backend].name;
    struct replay_options options = pick->options->replay;
    struct child_result child;
    struct replay_arguments arguments;
    const char *argv[5 + REPLAY_ARGUMENTS_MAX + 3] = {"larder", "replay", "--backend", name,
                                                      "--json"};
    size_t argc = 5;
    options.settings.gap_ms = one->gap_ms;
    options.settings.passes = passes;
    replay_options_to_arguments(&options, &arguments);
    memcpy(argv + argc, arguments.words, arguments.count * sizeof arguments.words[0]);
    argc += arguments.count;
    argv[argc++] = "--";
    argv[argc++] = one->path;
    int result =
        most_ns < UINT64_MAX ? child_run_within(argv, most_ns, &child) : child_run(argv, &child);
    if (result == -EINTR || result == -ETIMEDOUT) {
        return result;
    }
    if (result == 0 && child.exit_code == 0 && read_sample(child.output, &out->sample)) {
        json_get_string(child.output, "policy", out->policy, sizeof out->policy);
        return 0;
    }
    snprintf(out->why, sizeof out->why, "%.500s",
             result != 0           ? strerror(-result)
             : child.exit_code < 0 ? strsignal(child.signal)
                                   : first_line(&child, one->path));
    return -EIO;
}
