# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2154  # $root and $log are tools/dev's
#
# Part of tools/dev: `engines`. Real inference under each allocator: PyTorch is Debian's, ONNX Runtime
# comes from npm in the version of bench/engines/package-lock.json, with checksums, into
# build/engines/. The rest is bench/engines/compare's.

# Without scripts: the package's own would download libraries for graphics processors.
install_onnx_runtime() {
    local dir=$root/build/engines
    mkdir -p "$dir"
    if [ -d "$dir/node_modules/onnxruntime-node" ] &&
        cmp -s "$root/bench/engines/package-lock.json" "$dir/package-lock.json"; then
        return 0
    fi
    say "npm ci: ONNX Runtime into build/engines/ (300 MB)"
    rm -rf "$dir/node_modules"
    cp "$root"/bench/engines/package.json "$root"/bench/engines/package-lock.json "$dir"
    if ! (cd "$dir" && logged npm npm ci --ignore-scripts --no-audit --no-fund); then
        rm -f "$dir/package-lock.json"
        say "npm could not install ONNX Runtime (offline?); going on without it"
    fi
}

export_models() {
    local python=${PYTHON:-/usr/bin/python3}
    "$python" -c 'import torch, torchvision' 2>/dev/null || return 0
    logged export "$python" -W ignore "$root/bench/engines/export_onnx.py" "$root/build/engines/models" \
        mobilenet_v2 mobilenet_v2_varying googlenet lraspp_512 speech_stream ||
        die "the networks could not be exported for ONNX Runtime"
}

command_engines() {
    case ${1-} in
    -h | --help)
        "$root/bench/engines/compare" --help
        return
        ;;
    esac
    prepare engines
    build
    install_onnx_runtime
    export_models
    [ "${1-}" = --install-only ] || "$root/bench/engines/compare" "$@"
}
