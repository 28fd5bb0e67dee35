# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2154  # $log is tools/dev's
#
# Part of tools/dev: every package it may install, and the installing. apt-get runs only when one is
# missing. What is there already counts, wherever it came from.
#
# `must` ends the command where it cannot be had; without what is `want`ed it goes on, and the
# configuration leaves out what needs it.
#
# `always` is for every command, `all` for `test --all`. What is `extra` is large and never installed from here: where it
# is there it is used, and where not, `test` says what it left out.

# when    how   package (a|b: the first that the machine's sources know)  how it is recognised without dpkg
#                                                                         what for
package_table() {
    cat <<'END'
always  must  meson                               cmd:meson            the build system
always  must  ninja-build                         cmd:ninja            runs the build
always  must  gcc                                 cmd:gcc              C compiler
always  must  libc6-dev                           file:/usr/include/stdlib.h  headers of the C library
always  must  pkgconf|pkg-config                  cmd:pkg-config       finds the libraries below
always  want  check                               pc:check             Check: the tests
always  want  g++                                 cmd:g++              C++ compiler: the bench, the C++ header's test
always  want  libbenchmark-dev                    pc:benchmark         google-benchmark: the bench
always  want  zlib1g-dev                          pc:zlib              reads .gz traces
always  want  libyajl-dev                         pc:yajl              reads PyTorch's profiler traces (JSON)
always  want  libzstd-dev                         pc:libzstd           reads .zst traces
always  want  libmimalloc2.0|libmimalloc3         so:libmimalloc.so    compared by `pick`; the mimalloc backend (never linked)
always  want  libjemalloc2                        so:libjemalloc.so    compared by `pick`
always  want  libtcmalloc-minimal4|libtcmalloc-minimal4t64  so:libtcmalloc_minimal.so  compared by `pick`
always  want  libtbbmalloc2                       so:libtbbmalloc_proxy.so  compared by `pick`
always  want  libclang-rt-dev|libclang-rt-14-dev  file:/usr/lib/llvm-14/lib/clang/14.0.6/lib/linux/libclang_rt.scudo_standalone-x86_64.so  scudo, what Android ships: compared by `pick`
always  want  gnuplot-nox                         cmd:gnuplot          draws the charts of reports
all     must  libclang-rt-dev|libclang-rt-14-dev  file:/usr/lib/llvm-14/lib/clang/14.0.6/lib/linux/libclang_rt.fuzzer-x86_64.a  libFuzzer: the fuzzers
all     must  clang                               cmd:clang            second compiler
all     want  spin                                cmd:spin             checks the models in tests/model
all     must  qemu-user                           cmd:qemu-aarch64     runs the tests built for other machines
all     must  gcc-aarch64-linux-gnu               cmd:aarch64-linux-gnu-gcc    compiler for 64-bit ARM
all     must  libc6-dev-arm64-cross               file:/usr/aarch64-linux-gnu/include/stdlib.h    its C library
all     must  gcc-arm-linux-gnueabihf             cmd:arm-linux-gnueabihf-gcc  compiler for 32-bit ARM
all     must  libc6-dev-armhf-cross               file:/usr/arm-linux-gnueabihf/include/stdlib.h  its C library
all     must  musl-tools                          cmd:musl-gcc         compiler for another C library
all     want  gcovr                               cmd:gcovr            counts what the tests reach, for tools/dev coverage
all     want  chromium                            cmd:chromium         the reports, looked at in a browser
all     want  valgrind                            cmd:valgrind         counts instructions, for bench/guard
all     want  cmake                               cmd:cmake            the consumer that finds larder by CMake
all     want  mandoc                              cmd:mandoc           checks the man pages
all     want  doxygen                             cmd:doxygen          the API's reference, without warnings
all     want  libxnnpack-dev                      file:/usr/include/xnnpack.h      XNNPACK: its adapter's example
all     want  libpthreadpool-dev                  file:/usr/include/pthreadpool.h  a header that XNNPACK's includes
extra   want  libtorch-dev                        file:/usr/include/c10/core/Allocator.h  PyTorch: its adapter
extra   want  python3-torch                       file:/usr/lib/python3/dist-packages/torch/__init__.py  PyTorch for Python: its adapter's example
engines want  nodejs                              cmd:node             runs ONNX Runtime
engines want  npm                                 cmd:npm              installs ONNX Runtime, into build/engines/
engines want  python3-torchvision                 file:/usr/lib/python3/dist-packages/torchvision/__init__.py  the networks that engines run
engines want  zstd                                cmd:zstd             compresses traces that are recorded anew
END
}

# Packages that dpkg has installed for this machine, one a line; nothing where there is no dpkg.
dpkg_installed() {
    command -v dpkg-query >/dev/null || return 0
    local native
    native=$(dpkg --print-architecture)
    dpkg-query -W -f '${db:Status-Status} ${Architecture} ${Package}\n' |
        awk -v native="$native" '$1 == "installed" && ($2 == native || $2 == "all") { print $3 }'
}

recognised() {
    local what=${1#*:}
    case $1 in
    cmd:*) command -v "$what" >/dev/null ;;
    pc:*) pkg-config --exists "$what" 2>/dev/null ;;
    so:*) /sbin/ldconfig -p 2>/dev/null | grep -qF "$what" ;;
    file:*) [ -e "$what" ] ;;
    esac
}

# Prints the rows of the table that are missing for `always`; for `all`, which has those of `always`; for `engines`, which
# has those of `extra`, too; or as `extra`.
missing_packages() {
    local installed when how names probe reason
    installed=$(dpkg_installed)
    while read -r when how names probe reason; do
        case "$when $1" in
        "$1 $1" | 'always all' | 'always engines' | 'extra engines') ;;
        *) continue ;;
        esac
        grep -qxE "${names//./\\.}" <<<"$installed" || recognised "$probe" ||
            printf '%s %s %s\n' "$how" "$names" "$reason"
    done < <(package_table)
}

# Says what was not tested for want of a package that is not installed from here.
note_extras() {
    local names reason
    while read -r _ names reason; do
        say "not tested here, for want of ${names%%|*}: $reason"
    done < <(missing_packages extra)
}

# The first of a|b|c that apt knows; the first of all where it knows none.
known_package() {
    local name
    for name in ${1//|/ }; do
        if apt-cache policy "$name" 2>/dev/null | grep -q 'Candidate: [^(]'; then
            echo "$name"
            return 0
        fi
    done
    echo "${1%%|*}"
    return 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

# Sets $names to the packages to install by the rows in $1; false where apt does not know them all.
resolve_names() {
    local how alternatives reason known=0
    names=()
    while read -r how alternatives reason; do
        names+=("$(known_package "$alternatives")") || known=1
    done <<<"$1"
    return $known
}

apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 \
        install -y --no-install-recommends "$@" >"$log/apt.log" 2>&1 </dev/null
}

apt_update() {
    say "apt-get update"
    as_root apt-get -o DPkg::Lock::Timeout=300 update >"$log/apt.log" 2>&1 </dev/null || true
}

# Goes on where only what is `want`ed is missing, else ends with the words in $2.
give_up_installing() {
    local rows=$1 why=$2 how alternatives reason must=
    {
        echo "tools/dev: $why. To install by hand (as root):"
        echo "  apt-get install -y --no-install-recommends ${names[*]}"
        echo "On other distributions, their packages for:"
        while read -r how alternatives reason; do
            printf '  %-28s %s\n' "${alternatives%%|*}" "$reason"
            [ "$how" = must ] && must=1
        done <<<"$rows"
    } >&2
    [ -z "$must" ] || exit 1
    say "going on without them"
}

install_missing() {
    local rows names=() updated=
    rows=$(missing_packages "$1")
    [ -n "$rows" ] || return 0
    if ! command -v apt-get >/dev/null; then
        resolve_names "$rows" || true
        give_up_installing "$rows" "packages are missing, and there is no apt-get here"
        return
    fi
    if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
        resolve_names "$rows" || true
        give_up_installing "$rows" "packages are missing, and installing needs root or sudo"
        return
    fi
    say "missing, to be installed with apt-get:"
    sed -E 's/^[a-z]+ ([^ |]+)[^ ]* (.*)/    \1: \2/' <<<"$rows"
    if ! resolve_names "$rows"; then
        apt_update && updated=1
        resolve_names "$rows" || true
    fi
    say "apt-get install ${names[*]}"
    if ! apt_install "${names[@]}"; then
        [ -n "$updated" ] || apt_update
        if [ -n "$updated" ] || ! apt_install "${names[@]}"; then
            tail -n 8 "$log/apt.log" >&2
            give_up_installing "$rows" "apt-get could not install packages (offline?)"
        fi
    fi
}
