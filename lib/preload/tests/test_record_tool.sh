#!/bin/sh
# SPDX-License-Identifier: MIT
#
# `larder record` around the scenes of record_calls.c: however they end, there is a whole trace of
# what they did, and nothing else is left.
set -u

[ $# -eq 2 ] || { echo "usage: test_record_tool.sh LARDER RECORD_CALLS" >&2; exit 2; }
larder=$(realpath "$1") program=$(realpath "$2")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/here" && cd "$work/here" || exit 1
unset $(env | sed -n 's/^\(LARDER_[A-Z_]*\)=.*/\1/p')
failed=0

fail() {
    echo "FAILED: $claim: $*"
    failed=$((failed + 1))
}

expect_line() { # FILE REGEX
    grep -qE "$2" "$1" || fail "no line '$2' in $1: $(head -c 2000 "$1")"
}

# Files that there are now; they go.
left() {
    find . -type f | sort | tr '\n' ' '
    find . -mindepth 1 -delete
}

claim="a program's trace has what it did, its marks are beside it, and its status is passed on"
"$larder" record --wait -o it.txt -- "$program" calls 2>"$work/report" || fail "status $?"
expect_line it.txt '^[0-9]+: memalign 0x[0-9a-f]+ 64 3000$'
expect_line it.marks '^9 half-way$'
expect_line "$work/report" '^it.txt: [0-9]+ operations, 1 blocks live at the end$'
"$larder" replay --backend none it.txt >"$work/replayed" 2>&1 || fail "$(cat "$work/replayed")"
[ "$(left)" = "./it.marks ./it.txt " ] || fail "other files"

claim="the output's ending tells the format: the native one, with the marks in it, or packed text"
"$larder" record --wait -o it.ltr -- "$program" calls 2>"$work/report" || fail "status $?"
"$larder" convert it.ltr -o back.txt >/dev/null 2>"$work/converted" || fail "$(cat "$work/converted")"
expect_line back.txt '^[0-9]+: memalign 0x[0-9a-f]+ 64 3000$'
expect_line back.marks '^9 half-way$'
"$larder" record --wait -o it.txt.gz -- "$program" calls 2>"$work/report" || fail "status $?"
gzip -dc it.txt.gz | grep -qE '^[0-9]+: memalign 0x[0-9a-f]+ 64 3000$' || fail "no packed text"
left >/dev/null

"$larder" record -o it.txt -- "$program" no-such-scene 2>"$work/report"
[ $? -eq 2 ] || fail "another status"
left >/dev/null

claim="without a name the trace is called after the command"
"$larder" record --wait -- "$program" calls 2>"$work/report"
[ "$(left)" = "./$(basename "$program").trace.marks ./$(basename "$program").trace.txt " ] || fail "another name"

claim="a least size leaves smaller requests out"
"$larder" record --wait --min-size 2k -o it.txt -- "$program" calls 2>"$work/report"
expect_line it.txt 'malloc 0x[0-9a-f]+ 70000$'
! grep -E '(malloc|calloc|memalign) .* ([0-9]{1,3}|1[0-9]{3})$' it.txt || fail "a smaller one"
left >/dev/null

claim="times are noted if asked for, and ascend within a thread"
"$larder" record --wait --timestamps -o it.txt -- "$program" calls 2>"$work/report"
awk '{ time = $NF + 0; if (time < 1e6 || time < last[$1]) bad = 1; last[$1] = time } END { exit bad || NR < 10 }' it.txt ||
    fail "$(cat it.txt)"
left >/dev/null

claim="a process that is killed loses nothing that any of its threads had noted"
"$larder" record --wait -o it.txt -- "$program" killed 2>"$work/report"
[ $? -eq 137 ] || fail "another status"
expect_line it.txt 'malloc 0x[0-9a-f]+ 1111$'
expect_line it.txt 'malloc 0x[0-9a-f]+ 5555$'
! grep -q lost "$work/report" || fail "$(cat "$work/report")"
[ "$(left)" = "./it.txt " ] || fail "other files"

claim="what exec ends is kept, and what it begins is recorded apart"
"$larder" record -o it.x.txt -- sh -c "exec '$program' short" 2>"$work/report" || fail "status $?"
expect_line it.x.txt 'malloc 0x[0-9a-f]+ 200$'
expect_line it.x.txt '^[0-9]+: thread_done 0x0$'
case "$(left)" in "./it."[0-9]*".x.txt ./it.x.txt ") ;; *) fail "other files" ;; esac

claim="children are recorded, each in a file of its own, if that is asked for"
"$larder" record --wait -o it.txt -- "$program" fork 2>"$work/report" || fail "status $?"
expect_line it.txt 'malloc 0x[0-9a-f]+ 4444$'
! grep -q 'malloc 0x[0-9a-f]* 3333$' it.txt || fail "the child's calls in the parent's trace"
[ "$(left)" = "./it.txt " ] || fail "other files"
"$larder" record --wait --follow-forks -o it.txt -- "$program" fork 2>"$work/report" || fail "status $?"
cat it*.txt >all
expect_line all 'malloc 0x[0-9a-f]+ 4444$'
[ "$(grep -c 'malloc 0x[0-9a-f]* 3333$' all)" -eq 2 ] || fail "$(cat all)"
[ "$(grep -l '3333$' it*.txt)" != "$(grep -l '4444$' it*.txt)" ] || fail "in one file"
left >/dev/null

claim="a signal is passed on to the program, and the trace is made all the same"
mkfifo ready
"$larder" record --wait -o it.txt -- "$program" waits >ready 2>"$work/report" &
recorder=$!
read -r _ <ready
kill -TERM $recorder
wait $recorder
[ $? -eq 143 ] || fail "another status"
expect_line it.txt 'malloc 0x[0-9a-f]+ 6666$'
[ "$(left)" = "./it.txt " ] || fail "other files"

claim="wrong usage and commands that are missing leave nothing"
for arguments in "" "--nonsense ls" "--min-size x ls" "-o"; do
    # shellcheck disable=SC2086 # arguments are words
    "$larder" record $arguments >"$work/out" 2>"$work/report"
    [ $? -eq 2 ] || fail "'$arguments': another status"
    [ "$(wc -l <"$work/report")" -eq 1 ] || fail "'$arguments': $(cat "$work/report")"
done
"$larder" record -o it.txt -- ./no-such-command 2>"$work/report"
[ $? -eq 127 ] || fail "another status"
"$larder" record -o none/it.txt -- true 2>"$work/report"
[ $? -eq 1 ] && grep -q 'none/it.txt: cannot be written' "$work/report" || fail "$(cat "$work/report")"
LARDER_RECORD_LIB=./none "$larder" record -o it.txt -- true 2>"$work/report"
[ $? -eq 1 ] || fail "another status"
[ -z "$(left)" ] || fail "files"

[ "$failed" -eq 0 ] || { echo "$failed failed"; exit 1; }
echo "all claims hold"
