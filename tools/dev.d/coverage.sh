# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2154  # $root, $log and the functions are tools/dev's
#
# Part of tools/dev: `coverage`, and the stage of that name of `test --all`. A build of its own that counts: with the
# assertions on, without sanitizers, and with the library linked in, so that children of tests can tell what they have
# reached before they end at once.
#
#   coverage       every test but what starts other builds, and a table of all files of the library
#   the stage      the suites below, about a minute; a line for each core module with what they have not come to. It fails
#                  where a module falls below the bounds.
#
# A line is in the table only where it can be reached: assertions and what ends the process count for nothing.

# Suites that between them reach what there is to reach of the core modules.
coverage_suites='allocation_map blocks commit decay exact faults fork granules heap_lock heaps heaps_seen large_blocks limits misuse oom
    ownership pool process realloc scopes span_heap span_heap_threads span_remote stats threads'

configure_coverage() {
    configure build-coverage -Dtests=enabled -Dbench=disabled -Dtools=disabled --wrap-mode=nodownload \
        -Dbuildtype=debug -Doptimization=g -Ddefault_library=static -Db_coverage=true
}

# Runs gcovr on build-coverage/, its log in build-log/$1.log, with the rest of the arguments.
count_coverage() {
    local name=$1
    shift
    (cd "$root/build-coverage" && logged "$name" gcovr --root "$root" --filter "$root/lib/[^/]*\\.[ch]\$" \
        --filter "$root/lib/os/" --exclude-throw-branches --exclude-lines-by-pattern '.*assert\(.*' \
        --gcov-ignore-parse-errors "$@" .)
}

command_coverage() {
    local broken=()
    prepare all
    command -v gcovr >/dev/null || die "gcovr is missing (Debian: gcovr)"
    configure_coverage || die "configuring failed"
    compile build-coverage "$(nproc)" || die "building failed"
    find "$root/build-coverage" -name '*.gcda' -delete
    run_tests build-coverage 4 meson test --no-suite consumer --no-suite model --no-suite once --no-suite engines ||
        broken+=(build-coverage)
    count_coverage coverage --txt "$log/coverage-lines.txt" --json "$log/coverage.json" --print-summary ||
        die "gcovr failed"
    count_coverage coverage-branches --branches --txt "$log/coverage-branches.txt" || die "gcovr failed"
    cat "$log/coverage-lines.txt"
    sed -nE 's/^(lines|branches): /\1: /p' "$log/coverage.log"
    python3 "$root/tools/dev.d/core_coverage.py" "$log/coverage.json" || broken+=("coverage of the core modules")
    say "branches by file: build-log/coverage-branches.txt; for programs: build-log/coverage.json"
    report build-coverage
}

# The stage of `test --all`; adds to `ran`, and to `broken` if a bound is missed. Its tests have been counted elsewhere.
cover_core() {
    local suites suite targets=() good=1
    command -v gcovr >/dev/null || {
        say "gcovr is missing (Debian: gcovr): no coverage"
        return 0
    }
    ran+=(build-coverage)
    say "[${#ran[@]}] coverage: what the core suites reach of the core modules"
    read -ra suites <<<"$(tr '\n' ' ' <<<"$coverage_suites")"
    for suite in "${suites[@]}"; do
        targets+=("tests/test_$suite")
    done
    if configure_coverage && compile build-coverage "$(nproc)" "${targets[@]}"; then
        find "$root/build-coverage" -name '*.gcda' -delete
        if logged coverage-tests meson test -C "$root/build-coverage" --no-rebuild --timeout-multiplier 4 \
            --num-processes "$(nproc)" --print-errorlogs "${suites[@]}" &&
            count_coverage coverage --json "$log/coverage.json"; then
            python3 "$root/tools/dev.d/core_coverage.py" "$log/coverage.json" && good=0
        fi
    fi
    echo "$((1 - good)) $good 0" >"$log/build-coverage.count"
    [ $good = 0 ] || broken+=("coverage")
}
