# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2154  # $root, $log and the functions are tools/dev's
#
# Part of tools/dev: `soak [MINUTES]`. What `test` does for seconds goes on for minutes here: stress and fork under the
# thread and address sanitizers and in a release build, and the fuzzers where there are any. The time is shared out evenly; a
# finding ends its own part only.

# Name, and how many times over it lasts as long as it is told.
soak_tests='stress_churn:1 stress:20 fork:6'

# One test program of build-$1 for $3 seconds.
soak_one() {
    local build=build-$1 test=$2 seconds=$3 through=(env) output=$log/soak-$1-$2.log
    if [ "$1" = tsan ] && setarch -R true 2>/dev/null; then
        through=(setarch -R)
    fi
    say "$1: $test"
    if LARDER_TEST_SECONDS=$seconds LARDER_TEST_SEED=${LARDER_TEST_SEED:-$RANDOM} CK_TIMEOUT_MULTIPLIER=20 \
        "${through[@]}" meson test -C "$root/$build" --no-rebuild --timeout-multiplier 0 "$test" \
        >"$output" 2>&1 </dev/null; then
        sed -nE 's/^note: (.* came and went)$/    \1/p' "$root/$build/meson-logs/testlog.txt"
    else
        tail -n 30 "$root/$build/meson-logs/testlog.txt"
        broken+=("$1 $test, see build-log/soak-$1-$2.log")
    fi
}

command_soak() {
    local minutes=${1:-10} broken=() stages='soak asan tsan' stage test seconds
    case $minutes in
    '' | *[!0-9]* | 0) usage_error "soak takes a number of minutes, not '$minutes'" ;;
    esac
    prepare all
    configure build-soak -Dtests=enabled -Dbench=disabled --wrap-mode=nodownload || die "configuring failed"
    configure build-asan -Dtests=enabled --wrap-mode=nodownload -Db_sanitize=address,undefined -Db_lundef=false \
        -Dbuildtype=debugoptimized -Dbench=disabled || die "configuring failed"
    configure build-tsan -Dtests=enabled --wrap-mode=nodownload -Db_sanitize=thread -Db_lundef=false \
        -Dbuildtype=debugoptimized -Dbench=disabled || die "configuring failed"
    seconds=$((minutes * 60 / 10))
    for stage in $stages; do
        compile "build-$stage" "$(nproc)" || die "building failed"
        for test in $soak_tests; do
            soak_one "$stage" "${test%:*}" $((seconds / ${test#*:} + 1))
        done
    done
    if declare -F fuzz_all >/dev/null; then
        say "fuzzers: about $seconds s"
        fuzz_all "$seconds" || broken+=("a fuzzer")
    fi
    for stage in "${broken[@]}"; do
        echo "FAILED: $stage"
    done
    [ ${#broken[@]} = 0 ] && say "nothing was found"
}
