# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2154  # $root, $log and the functions are tools/dev's
#
# Part of tools/dev: `coverage`. A build of its own that counts, the tests, and a table: lines and branches of the library,
# by file, and which lines no test has come to. Built with all checks, or the assertions' failing sides would count for
# nothing and against it; without sanitizers, and without what starts other builds.

command_coverage() {
    local broken=() build=$root/build-coverage
    prepare all
    command -v gcovr >/dev/null || die "gcovr is missing (Debian: gcovr)"
    configure build-coverage -Dtests=enabled -Dbench=disabled -Dtools=disabled --wrap-mode=nodownload \
        -Dbuildtype=debug -Db_coverage=true || die "configuring failed"
    compile build-coverage "$(nproc)" || die "building failed"
    find "$build" -name '*.gcda' -delete
    run_tests build-coverage 4 meson test --no-suite consumer --no-suite model --no-suite once --no-suite engines ||
        broken+=(build-coverage)
    # Two libraries are built of the same sources; a line counts where either has come to it.
    (cd "$build" && logged coverage gcovr --root "$root" --filter "$root/lib/[^/]*\\.[ch]\$" --filter "$root/lib/os/" \
        --exclude-throw-branches --exclude-lines-by-pattern '.*assert\(.*' --gcov-ignore-parse-errors \
        --txt "$log/coverage-lines.txt" --json-summary "$log/coverage.json" --print-summary .) ||
        die "gcovr failed"
    (cd "$build" && logged coverage-branches gcovr --root "$root" --filter "$root/lib/[^/]*\\.[ch]\$" --filter "$root/lib/os/" \
        --exclude-throw-branches --exclude-lines-by-pattern '.*assert\(.*' --gcov-ignore-parse-errors \
        --branches --txt "$log/coverage-branches.txt" .) || die "gcovr failed"
    cat "$log/coverage-lines.txt"
    sed -nE 's/^(lines|branches): /\1: /p' "$log/coverage.log"
    say "branches by file: build-log/coverage-branches.txt; for programs: build-log/coverage.json"
    report build-coverage
}
