# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2154  # $root is tools/dev's
#
# Part of tools/dev: what the stage `musl` of `test --all` needs to run Check's tests.

# Puts Check for musl into build-sysroot/x86_64-linux-musl, out of this machine's own packages: its static libraries, with what they
# miss on musl (tools/cross/check_on_musl.c), and its headers and the kernel's, which musl-gcc does not look for. Writes the
# Meson cross file that says so.
lay_out_musl() {
    local sysroot=$root/build-sysroot/x86_64-linux-musl triplet=x86_64-linux-gnu name
    [ -e "$sysroot.ini" ] && return 0
    command -v musl-gcc >/dev/null || {
        echo "musl-gcc is missing (Debian: musl-tools)"
        return 1
    }
    mkdir -p "$sysroot/include" "$sysroot/lib/pkgconfig"
    for name in check.h check_stdint.h linux asm-generic; do
        ln -sfn "/usr/include/$name" "$sysroot/include/$name"
    done
    ln -sfn "/usr/include/$triplet/asm" "$sysroot/include/asm"
    for name in libcheck.a libsubunit.a; do
        ln -sfn "/usr/lib/$triplet/$name" "$sysroot/lib/$name"
    done
    musl-gcc -O2 -c "$root/tools/cross/check_on_musl.c" -o "$sysroot/lib/check_on_musl.o" &&
        gcc-ar rcs "$sysroot/lib/libcheck_on_musl.a" "$sysroot/lib/check_on_musl.o" || return 1
    cat >"$sysroot/lib/pkgconfig/check.pc" <<END
Name: Check
Description: unit tests, Debian's for glibc, on musl
Version: $(pkg-config --modversion check)
Libs: -L$sysroot/lib -lcheck -lsubunit -lcheck_on_musl -lm
Cflags: -isystem $sysroot/include
END
    cat >"$sysroot.ini" <<END
[properties]
pkg_config_libdir = '$sysroot/lib/pkgconfig'

[built-in options]
c_args = ['-isystem', '$sysroot/include']
END
}
