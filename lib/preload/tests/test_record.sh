#!/bin/sh
# SPDX-License-Identifier: MIT
# Records the scenes of record_calls and compares the traces with what those scenes do.
set -eu

[ $# -eq 3 ] || { echo "usage: test_record.sh RECORDER MERGE RECORD_CALLS" >&2; exit 2; }
recorder=$(realpath "$1") merge=$(realpath "$2") program=$(realpath "$3")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

fail() {
    echo "FAILED: $claim: $*"
    failed=$((failed + 1))
}

# record SCENE [VARIABLE=VALUE...]: leaves scene.txt, scene.marks and merge's report in scene.report.
record() {
    scene=$1
    shift
    trace=$work/$scene.txt
    status=0
    env LD_PRELOAD="$recorder" LARDER_RECORD_OUTPUT="$work/$scene" LARDER_RECORD_WAIT=1 "$@" \
        "$program" "$scene" 2>"$work/$scene.stderr" || status=$?
    set -- "$work/$scene".*.raw
    if [ $# -ne 1 ] || [ ! -e "$1" ]; then
        fail "expected one raw file, found: $*"
        : >"$trace"
        return
    fi
    "$merge" --marks "$work/$scene.marks" "$1" "$trace" 2>"$work/$scene.report" ||
        fail "merge: $(cat "$work/$scene.report")"
    rm "$1"
}

# Names for what differs between runs: threads T1.. in the order of appearance, every address A.
named() {
    awk '{
        if (!($1 in thread)) thread[$1] = "T" ++threads ":"
        $1 = thread[$1]
        gsub(/0x[0-9a-f]+/, "A")
        print
    }' "$1"
}

# The trace reads: no block handed out while live, every free of a live one. Prints live bytes.
consistent() {
    awk '
        function acquire(p, s) { if (p in live) bad("handed out while live"); live[p] = s; sum += s }
        function release(p) { if (!(p in live)) bad("freed while free"); sum -= live[p]; delete live[p] }
        function bad(what) { print "line " NR ": " what ": " $0; broken = 1; exit 1 }
        $2 == "malloc" { acquire($3, $4); next }
        $2 == "calloc" { acquire($3, $4 * $5); next }
        $2 == "memalign" { acquire($3, $5); next }
        $2 == "realloc" { release($4); acquire($3, $5); next }
        $2 == "free" { release($3); next }
        $2 == "thread_done" { if ($1 in ended) bad("ended twice"); ended[$1] = 1; next }
        { bad("not a call") }
        END { if (!broken) print "live " sum + 0 }' "$1"
}

expect_line() { # FILE REGEX
    grep -qE "$2" "$1" || fail "no line '$2' in: $(cat "$1")"
}

expect_none() { # FILE REGEX
    ! grep -E "$2" "$1" || fail "a line '$2'"
}

expect_count() { # FILE REGEX COUNT
    count=$(grep -cE "$2" "$1" || true)
    [ "$count" -eq "$3" ] || fail "$count lines '$2', expected $3"
}

claim="every call of the family is recorded with its thread, in order"
record calls
page=$(getconf PAGESIZE)
padded=$(((5000 + page - 1) / page * page))
named "$trace" >"$work/calls.got"
cat >"$work/calls.expected" <<END
T1: malloc A 1000
T1: calloc A 10 20
T1: memalign A 64 3000
T1: memalign A 128 2560
T1: memalign A 256 777
T1: memalign A $page 100
T1: memalign A $page $padded
T1: realloc A A 500000
T1: realloc A A 2000
T2: free A
T2: malloc A 70000
T1: free A
T1: malloc A 11
T1: free A
T1: free A
T1: free A
T1: free A
T1: free A
T1: free A
T1: malloc A 4321
T1: free A
END
diff -u "$work/calls.expected" "$work/calls.got" || fail "the calls differ"
[ "$(consistent "$trace")" = "live $padded" ] || fail "$(consistent "$trace")"

claim="a free in another thread names the block that was allocated"
third=$(awk '$2 == "memalign" && $4 == 64 { print $3 }' "$trace")
[ "$(awk '$2 == "free" { print $3; exit }' "$trace")" = "$third" ] || fail "another address"

claim="a mark is noted with the lines before it, inside the window only"
[ "$(cat "$work/calls.marks")" = "9 half-way" ] || fail "$(cat "$work/calls.marks")"

claim="a least size leaves smaller requests out, and their frees"
record calls LARDER_RECORD_MIN_SIZE=2000
expect_none "$trace" '(malloc|calloc|memalign) .* ([0-9]{1,2}|1?[0-9]{3})$'
expect_line "$trace" 'malloc 0x[0-9a-f]+ 500000$' # was 1000, unknown
expect_line "$trace" 'malloc 0x[0-9a-f]+ 2000$'
[ "$(consistent "$trace")" = "live $padded" ] || fail "$(consistent "$trace")"

claim="a least size that is no number is reported and ignored"
record calls LARDER_RECORD_MIN_SIZE=1x
expect_line "$work/calls.stderr" "MIN_SIZE='1x': expected a number"
expect_line "$trace" 'malloc 0x[0-9a-f]+ 11$'

claim="a block freed between two windows is freed before its address is used again"
record windows
[ "$status" -eq 77 ] || {
    expect_line "$work/windows.report" '1 frees that were not seen'
    [ "$(consistent "$trace")" = "live 300000" ] || fail "$(consistent "$trace")"
}

claim="four threads that exchange blocks leave a trace without a repair"
record stress LARDER_RECORD_WAIT=0
expect_none "$work/stress.report" 'not seen|lost|unfinished'
case $(consistent "$trace") in live*) ;; *) fail "$(consistent "$trace")" ;; esac
operations=$(wc -l <"$trace")
[ "$operations" -gt 400000 ] || fail "only $operations operations"

claim="short-lived threads lose nothing, what their destructors free included"
record short
expect_count "$trace" 'malloc 0x[0-9a-f]+ 100$' 300
expect_count "$trace" 'malloc 0x[0-9a-f]+ 200$' 300
expect_none "$work/short.report" 'not seen|lost'
awk '($2 == "malloc" && ($4 == 100 || $4 == 200)) { mine[$3] = 1; live++ }
     $2 == "free" && $3 in mine { delete mine[$3]; live-- }
     END { exit live != 0 }' "$trace" || fail "blocks of ended threads stay live"

claim="frees after the recorder's own teardown of a thread are recorded"
record late
expect_count "$trace" 'malloc 0x[0-9a-f]+ 300$' 5
expect_none "$work/late.report" 'not seen|lost'

for scene in running exit-now quick-exit; do
    claim="$scene: the buffer of a thread that still runs is written"
    record $scene
    expect_line "$trace" 'malloc 0x[0-9a-f]+ 1111$'
done

claim="a forked child records nothing and the parent goes on"
record fork
expect_line "$trace" 'malloc 0x[0-9a-f]+ 2222$'
expect_none "$trace" 'malloc 0x[0-9a-f]+ 3333$'
expect_count "$trace" 'malloc 0x[0-9a-f]+ 4444$' 1

claim="a program that closes every descriptor and changes directory is recorded on"
record closed
expect_count "$trace" 'malloc 0x[0-9a-f]+ 100$' 10000

claim="what cannot be written is counted and reported"
claim_dir=$work/none/such
env LD_PRELOAD="$recorder" LARDER_RECORD_OUTPUT="$claim_dir/x" "$program" short 2>"$work/stderr" ||
    fail "the program failed"
expect_line "$work/stderr" 'none/such/x.*No such file.* [0-9]+ entries lost'

claim="without an output nothing is recorded and the program runs"
(cd "$work" && mkdir empty && cd empty && LD_PRELOAD="$recorder" "$program" short)
[ -z "$(ls -A "$work/empty")" ] || fail "files appeared"

claim="merge refuses what is no recording, and leaves no file"
echo "not a recording, though it is long enough to be one" >"$work/garbage"
if "$merge" "$work/garbage" "$work/garbage.txt" 2>"$work/stderr"; then fail "it was accepted"; fi
expect_line "$work/stderr" 'garbage: byte 0: '
[ ! -e "$work/garbage.txt" ] && [ ! -e "$work/garbage.txt.partial" ] || fail "a file was left"

[ "$failed" -eq 0 ] || { echo "$failed failed"; exit 1; }
echo "all claims hold"
