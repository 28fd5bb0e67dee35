#!/bin/sh
# SPDX-License-Identifier: MIT
#
# larder under programs that do not know of it: run_calls.c on several configurations, and programs
# of the machine, whose results must be the same with and without. What is not installed is left
# out, with a line that says so.
set -u

[ $# -eq 2 ] || { echo "usage: test_run.sh LARDER RUN_CALLS" >&2; exit 2; }
larder=$(realpath "$1") program=$(realpath "$2")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failed=0
# Meson has glibc fill what malloc gives; larder has nothing of the kind to be compared.
unset MALLOC_PERTURB_ MALLOC_CHECK_
unset $(env | sed -n 's/^\(LARDER_[A-Z_]*\)=.*/\1/p')

fail() {
    echo "FAILED: $claim: $*"
    failed=$((failed + 1))
}

# Pages that nobody touches, and usable sizes, are those of blocks alone: a larder with all checks surrounds and fills them unasked.
bare="env LARDER_REDZONE=0 LARDER_FILL=none"

scenes="calls realloc usable errno fresh threads keys fork early dlopen"

for options in "" "--min-size 1" "--min-size 1 --config checks=strict,redzone=16" \
    "--config policy=exact" "--min-size 1 --config policy=passthrough" "--config backend=system" \
    "--config max_cached_bytes=1m,decay_ms=0,alignment=8"; do
    for scene in $scenes; do
        # Only larder's own pages are known to be fresh.
        with=; [ $scene != fresh ] || with=$bare
        case "$scene $options" in fresh\ *policy* | fresh\ *backend* | fresh\ *strict* | fresh\ *cached*) continue ;; esac
        claim="scene $scene holds with '$options'"
        # shellcheck disable=SC2086 # options are words
        $with "$larder" run $options -- "$program" "$scene" >out 2>&1 || fail "$(cat out)"
    done
done

claim="another preloaded malloc serves the small ones"
next=$(/sbin/ldconfig -p 2>/dev/null | awk '/libjemalloc\.so\.2/ { print $NF; exit }')
if [ -n "$next" ]; then
    for scene in $scenes; do
        with=; [ $scene != fresh ] || with=$bare
        LD_PRELOAD=$next $with "$larder" run -- "$program" "$scene" >out 2>&1 || fail "$scene: $(cat out)"
    done
else
    echo "left out: $claim (no libjemalloc.so.2)"
fi

claim="requests from the least size on are larder's, and only those"
$bare "$larder" run --min-size 16k -- "$program" served >served || fail "it failed"
awk '($1 >= 16384) != ($2 == "larder") { print "who serves " $0; bad = 1 } END { exit bad }' served |
    grep . && fail "see above"

claim="a least size that is no number is reported, and the default taken"
LARDER_MIN_SIZE=lots $bare "$larder" run -- "$program" served >served2 2>err || fail "it failed"
grep -q "LARDER_MIN_SIZE='lots': expected a number" err || fail "$(cat err)"
cmp -s served served2 || fail "another least size: $(cat served2)"

claim="statistics are printed at exit, by each process, though stderr was closed"
"$larder" run --stats -- sh -c "'$program' closed; '$program' closed" 2>err
[ "$(grep -c '(run-calls): larder ' err)" -eq 2 ] || fail "$(cat err)"
grep -qE '^  allocations +[1-9]' err || fail "nothing was counted: $(cat err)"

claim="wrong usage is told, with exit status 2, and a command that is missing with 127"
for arguments in "" "--nonsense ls" "--min-size x ls" "--config policy=x ls" "--config x=1 ls" \
    "--config policy ls"; do
    # shellcheck disable=SC2086 # arguments are words
    "$larder" run $arguments >out 2>err
    [ $? -eq 2 ] || fail "'$arguments': another status"
    [ "$(wc -l <err)" -eq 1 ] || fail "'$arguments': $(cat err)"
done
"$larder" run -- ./no-such-command 2>err
[ $? -eq 127 ] || fail "another status: $(cat err)"
LARDER_PRELOAD_LIB=./none "$larder" run -- true 2>err
[ $? -eq 1 ] && grep -q 'LARDER_PRELOAD_LIB=./none: No such file' err || fail "$(cat err)"
"$larder" run -- sh -c 'exit 42'
[ $? -eq 42 ] || fail "the command's status is lost"

# same NAME COMMAND...: runs it in NAME.without and in NAME.with, and compares all that it leaves.
same() {
    name=$1
    claim="$name gives the same with larder"
    shift
    for how in without with; do
        mkdir "$name.$how"
        (
            cd "$name.$how" || exit 1
            if [ $how = with ]; then
                "$larder" run --config decay_ms=10 -- "$@"
            else
                "$@"
            fi >stdout 2>stderr
            echo $? >status
        )
    done
    diff -r "$name.without" "$name.with" >difference || fail "$(head -5 difference)"
    [ "$(cat "$name.without/status")" -eq 0 ] || fail "it fails: $(cat "$name.without/stderr")"
}

has() {
    command -v "$1" >/dev/null && return 0
    echo "left out: $1 (not installed)"
    return 1
}

# Something to work on, not all alike.
awk 'BEGIN { srand(7); for (i = 0; i < 150000; i++) print i, int(rand() * 1e9), "line" i % 977 }' >"$work/data"

has cc && cat >"$work/small.c" <<'END' &&
#include <stdio.h>
#include <stdlib.h>
int main(int argc, char **argv) { for (int i = 0; i < argc; i++) puts(argv[i]); return EXIT_SUCCESS; }
END
    same compiler cc -O2 -o small "$work/small.c"
has xz && same xz sh -c "xz -1 -T2 --block-size=500000 <'$work/data' >x && xz -dc -T2 x | cksum"
has zstd && same zstd sh -c "zstd -q -T2 <'$work/data' >x && zstd -qdc x | cksum"
has pigz && same pigz sh -c "pigz -n -p2 <'$work/data' >x && pigz -dc x | cksum"
has sqlite3 && same sqlite3 sqlite3 base.db "
    create table t(a integer primary key, b integer, c text);
    with recursive n(i) as (select 1 union all select i + 1 from n where i < 50000)
        insert into t select i, i * 7919 % 50021, printf('%040d', i) from n;
    create index by_b on t(b);
    select count(*), sum(a * b), group_concat(substr(c, -3)) from (select * from t order by b desc, c limit 20000);"
has git && same git sh -c '
    export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_DATE=1700000000+0000 GIT_COMMITTER_DATE=1700000000+0000
    export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
    git init -q -b main . && git config pack.threads 2 && split -l 5000 "$0" part. && git add part.* &&
        git commit -qm one && git mv part.aa part.zz && git commit -qm two && git repack -adq &&
        git fsck --no-progress && git log --stat -M && rm -rf .git/index' "$work/data"
has python3 && same python3 python3 -c '
import hashlib, json, re, threading, zlib
text = open("'"$work"'/data").read()
results = {}
def work(name, function):
    results[name] = hashlib.sha1(repr(function()).encode()).hexdigest()
jobs = {"zlib": lambda: zlib.compress(text.encode()), "sort": lambda: sorted(text.split()),
        "re": lambda: re.findall(r"9+1", text), "json": lambda: json.dumps(text.split("\n"))}
threads = [threading.Thread(target=work, args=job) for job in jobs.items()]
[thread.start() for thread in threads]; [thread.join() for thread in threads]
print(sorted(results.items()))'
has node && same node node -e '
const { gzipSync } = require("zlib"), { createHash } = require("crypto"), { Worker } = require("worker_threads");
const data = require("fs").readFileSync("'"$work"'/data");
const hash = (bytes) => createHash("sha1").update(bytes).digest("hex");
console.log(hash(gzipSync(data)), hash(Buffer.concat(Array(50).fill(data))));
new Worker("const big = Array.from({ length: 200 }, (_, i) => Buffer.alloc(50000, i)); require(\"worker_threads\").parentPort.postMessage(big.length)", { eval: true })
    .on("message", (length) => console.log(length));'

# Debian's PyTorch belongs to Debian's Python.
torch_python=
for python in /usr/bin/python3 python3; do
    "$python" -c 'import torch' 2>/dev/null && torch_python=$python && break
done
if [ -n "$torch_python" ]; then
    same torch "$torch_python" -c '
import torch
torch.manual_seed(1)
torch.set_num_threads(2)
layer = torch.nn.Sequential(torch.nn.Conv2d(3, 32, 3, 2), torch.nn.ReLU6(), torch.nn.Conv2d(32, 64, 3, 2), torch.nn.BatchNorm2d(64)).eval()
encoder = torch.nn.TransformerEncoderLayer(128, 4, 256, batch_first=True).eval()
with torch.no_grad():
    for side in (64, 96, 64):
        print(layer(torch.rand(1, 3, side, side)).double().sum().item(), encoder(torch.rand(1, side, 128)).double().sum().item())'
else
    echo "left out: torch (not installed)"
fi

[ "$failed" -eq 0 ] || { echo "$failed failed"; exit 1; }
echo "all claims hold"
