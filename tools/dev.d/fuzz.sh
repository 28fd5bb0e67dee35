# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2154  # $root, $log and the functions are tools/dev's
#
# Part of tools/dev: the libFuzzer harnesses of tests/fuzz/, run for seconds by `test --all` and for longer by
# `soak`. The corpus of a harness is in build-fuzz/corpus/NAME; it grows, and later runs begin with it. What a harness finds
# is an input in build-fuzz/found/NAME-...; the harness run on that file shows it again.

fuzz_harnesses='android ltr pytorch heaptrack mtrace minimalloc any marks config json'

fuzz_build() {
    (
        export CC=clang CXX=clang++
        # Without a fuzzer's runtime there is nothing to build; packages.sh names what brings it.
        configure build-fuzz -Dfuzz=true -Dtests=enabled -Dbench=disabled --wrap-mode=nodownload \
            -Db_sanitize=address,undefined -Db_lundef=false -Dbuildtype=debugoptimized \
            -Dc_args=-fsanitize=fuzzer-no-link
    ) || return 1
    say "building build-fuzz/"
    logged build-fuzz-compile ninja -C "$root/build-fuzz" -j "$1" fuzz
}

fuzz_corpus() {
    mkdir -p "$root/build-fuzz/corpus" "$root/build-fuzz/found"
    logged build-fuzz-corpus env ASAN_OPTIONS=detect_leaks=0 "$root/tests/fuzz/make_corpus" \
        "$root/build-fuzz/tools/larder" "$root" "$root/build-fuzz/corpus"
}

# One harness for $2 seconds. Memory and time for one input are bounded, so what takes either out of proportion to
# its size is a finding too.
fuzz_one() {
    local name=$1 seconds=$2
    mkdir -p "$root/build-fuzz/corpus/$name"
    ASAN_OPTIONS=allocator_may_return_null=1:quarantine_size_mb=16 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
        "$root/build-fuzz/tests/fuzz/fuzz_$name" -max_total_time="$seconds" -max_len=16384 -timeout=20 \
        -rss_limit_mb=1024 -print_final_stats=1 -verbosity=0 -artifact_prefix="$root/build-fuzz/found/$name-" \
        "$root/build-fuzz/corpus/$name" >"$log/fuzz-$name.log" 2>&1 </dev/null
    echo $? >"$log/fuzz-$name.status"
}

# Runs every harness for $1 seconds, as many at once as there are processors. False where one has found something.
fuzz_run() {
    local name status good=0 passed=0 failed=0 units
    for name in $fuzz_harnesses; do
        while [ "$(jobs -pr | wc -l)" -ge "$(nproc)" ]; do
            wait -n || true
        done
        fuzz_one "$name" "$1" &
    done
    wait
    for name in $fuzz_harnesses; do
        status=$(cat "$log/fuzz-$name.status" 2>/dev/null || echo missing)
        if [ "$status" = 0 ]; then
            passed=$((passed + 1))
            units=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log/fuzz-$name.log")
            printf '    %-11s %9s inputs, nothing found\n' "$name" "${units:-?}"
        else
            failed=$((failed + 1))
            good=1
            tail -n 25 "$log/fuzz-$name.log"
            echo "    $name: see build-log/fuzz-$name.log and build-fuzz/found/"
        fi
    done
    echo "$passed $failed 0" >"$log/build-fuzz.count"
    return $good
}

# A stage of `test --all`: adds itself to `ran`, and to `broken` where something was found.
test_fuzz() {
    ran+=(build-fuzz)
    say "[${#ran[@]}] fuzz: libFuzzer on every parser for 3 seconds"
    echo "0 1 0" >"$log/build-fuzz.count"
    if ! fuzz_build "$(nproc)" || ! fuzz_corpus; then
        broken+=("fuzz (not built)")
    else
        fuzz_run 3 || broken+=(fuzz)
    fi
}

# Builds and runs every harness for $1 seconds.
fuzz_all() {
    fuzz_build "$(nproc)" && fuzz_corpus && fuzz_run "$1"
}
