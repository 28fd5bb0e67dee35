# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2154  # $root and $log are tools/dev's
#
# Part of tools/dev: `test --all`. Every stage is a configuration of its own in build-STAGE/. All are
# built first, as many at once as there are processors, and then tested one after the other, so that
# tests with threads have the machine to themselves.

# Name, what it shows, factor on the tests' time limits, arguments of `meson setup`.
stage_table() {
    cat <<'END'
gcc     | gcc, warnings are errors, all internal checks on | 4  | --werror -Dbuildtype=debugoptimized -Db_ndebug=false -Dchecks=full
clang   | clang, warnings are errors, release              | 4  | --werror
asan    | address and undefined-behaviour sanitizers       | 6  | -Db_sanitize=address,undefined -Db_lundef=false -Dbuildtype=debugoptimized -Dbench=disabled
tsan    | thread sanitizer                                 | 20 | -Db_sanitize=thread -Db_lundef=false -Dbuildtype=debugoptimized -Dbench=disabled
aarch64 | 64-bit ARM under qemu, warnings are errors       | 20 | --werror --cross-file tools/cross/aarch64-linux-gnu.ini --cross-file build-sysroot/aarch64-linux-gnu.ini -Dbench=disabled
musl    | musl as the C library, C only                    | 4  | --werror --cross-file tools/cross/x86_64-linux-musl.ini --cross-file build-sysroot/x86_64-linux-musl.ini -Dtools=disabled -Dbench=disabled
arm     | 32-bit ARM under qemu, warnings are errors       | 20 | --werror --cross-file tools/cross/arm-linux-gnueabihf.ini --cross-file build-sysroot/arm-linux-gnueabihf.ini -Dbench=disabled
END
}

# Calls "$@" NAME TITLE FACTOR ARGUMENTS for each stage, without the blanks around them.
each_stage() {
    local line fields
    while read -r line; do
        IFS='|' read -ra fields < <(sed -E 's/ *\| */|/g' <<<"$line")
        "$@" "${fields[@]}"
    done < <(stage_table)
}

# Unpacks Check for Debian architecture $1 into build-sysroot/$2, and writes the Meson cross file that
# says so. The package lists are its own: the machine's package state is not touched, and no root
# is needed.
unpack_check() {
    local architecture=$1 triplet=$2
    local sysroot=$root/build-sysroot/$triplet work=$root/build-sysroot/$triplet.part options package
    [ -e "$sysroot.ini" ] && return 0
    command -v apt-get >/dev/null || return 1
    rm -rf "$sysroot" "$work"
    mkdir -p "$work/root" "$work/lists/partial" "$work/archives/partial"
    : >"$work/status"
    options=(-o "APT::Architecture=$architecture" -o "APT::Architectures=$architecture"
        -o "Dir::State::Lists=$work/lists" -o "Dir::State::status=$work/status"
        -o "Dir::Cache::Archives=$work/archives" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
        -o Acquire::Languages=none -o "APT::Sandbox::User=")
    # One list of several may be out of step on a mirror; the download decides.
    apt-get "${options[@]}" update || true
    (cd "$work" && apt-get "${options[@]}" download check libsubunit-dev) || return 1
    for package in "$work"/*.deb; do
        dpkg-deb -x "$package" "$work/root" || return 1
    done
    # Static libraries only: nothing but the C library has to be found at run time.
    find "$work/root" -name '*.so*' -delete
    mv "$work/root" "$sysroot"
    rm -rf "$work"
    cat >"$sysroot.ini" <<END
[properties]
sys_root = '$sysroot'
pkg_config_libdir = '$sysroot/usr/lib/$triplet/pkgconfig'
END
}

# Configures and builds one stage; its exit status goes to build-log/build-STAGE.built.
build_stage() {
    local jobs=$1 name=$2 arguments=$5 status=0
    case $name in
    aarch64) logged "build-$name-check" unpack_check arm64 aarch64-linux-gnu || status=1 ;;
    arm) logged "build-$name-check" unpack_check armhf arm-linux-gnueabihf || status=1 ;;
    musl) logged "build-$name-check" lay_out_musl || status=1 ;;
    clang) export CC=clang CXX=clang++ ;;
    esac
    # shellcheck disable=SC2086 # the arguments are words
    if [ $status = 0 ]; then
        configure "build-$name" -Dtests=enabled --wrap-mode=nodownload $arguments &&
            compile "build-$name" "$jobs" || status=1
    fi
    say "$name: $([ $status = 0 ] && echo built || echo "building FAILED")"
    echo $status >"$log/build-$name.built"
}

build_stage_aside() {
    local lanes=$1
    while [ "$(jobs -pr | wc -l)" -ge "$lanes" ]; do
        wait -n || true
    done
    build_stage "${@:2}" &
}

build_stages() {
    local lanes
    lanes=$(nproc)
    rm -f "$log"/*.built
    each_stage build_stage_aside "$lanes" $(((lanes + 5) / 6))
    wait
}

# Tests one stage; adds its name to `ran`, and to `broken` if it failed.
test_stage() {
    local name=$1 title=$2 factor=$3 through=(env)
    ran+=("build-$name")
    say "[${#ran[@]}] $name: $title"
    if [ "$(cat "$log/build-$name.built" 2>/dev/null)" != 0 ]; then
        echo "not built, see build-log/build-$name-*.log"
        echo "0 1 0" >"$log/build-$name.count"
        broken+=("$name (not built)")
        return 0
    fi
    # The thread sanitizer's fixed address layout does not fit kernels that randomise more bits.
    if [ "$name" = tsan ] && setarch -R true 2>/dev/null; then
        through=(setarch -R)
    fi
    # A consumer builds with the machine's own compiler, a model knows no compiler, documents and scripts are the same in
    # every build: build/ has tested them all.
    run_tests "build-$name" "$factor" "${through[@]}" \
        meson test --no-suite consumer --no-suite model --no-suite once --no-suite engines || broken+=("$name")
}

# A note, not a failure: versions of clang-format differ in details.
note_layout() {
    local differ
    command -v clang-format >/dev/null || return 0
    differ=$(sources | xargs -0 clang-format --dry-run 2>&1 | sed -nE 's/^([^:]+):.*\[-Wclang-format.*/\1/p' |
        sort -u | wc -l)
    [ "$differ" = 0 ] || say "note: $differ files are not laid out as .clang-format says (tools/dev format)"
}

# What larder's ways cost, counted, against bench/guard.json; one test in the sum.
guard_costs() {
    local good=0
    ran+=("build-guard")
    say "[${#ran[@]}] guard: what fixed workloads cost, counted"
    "$root/bench/guard" || good=1
    echo "$((1 - good)) $good 0" >"$log/build-guard.count"
    [ $good = 0 ] || broken+=("guard")
}

# With $1 = --no-native, without what `test` alone has just run.
test_everything() {
    local broken=() ran=()
    if [ "${1-}" != --no-native ]; then
        ran+=(build)
        say "[1] build: gcc, release"
        run_tests build 3 meson test || broken+=(build)
    fi
    say "building $(stage_table | wc -l) further configurations"
    build_stages
    each_stage test_stage
    if [ -x "$root/build/bench/guard_workloads" ]; then
        guard_costs
    fi
    cover_core
    test_fuzz
    note_layout
    report "${ran[@]}"
}
