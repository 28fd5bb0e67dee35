# SPDX-License-Identifier: MIT
"""The allocators that engines run under: how each gets into a process, and its version.

All but the system's are preloaded, larder too. One that is not on this machine is left out, with a line that
says what to install.
"""

import dataclasses
import glob
import os
import pathlib
import platform
import re
import shutil
import subprocess

ANDROID_CACHE = "-201=2097152,-200=32,-100=1"  # largest block, entries, decay as Android sets them


@dataclasses.dataclass
class Peer:
    """name and version as printed; engines: those it is for; is_reference: no allocator that could be chosen."""

    name: str
    version: str = ""
    preload: tuple = ()
    mallopt: str = ""
    arguments: tuple = ()
    engines: tuple = ("ort", "torch")
    is_larder: bool = False
    is_reference: bool = False

    def environment(self):
        environment = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
        if self.preload:
            environment["LD_PRELOAD"] = ":".join(self.preload)
        return environment


# Name, package of Debian, names for the linker or patterns for glob, best first.
LIBRARIES = (
    ("mimalloc", "libmimalloc2.0", ("libmimalloc.so.3", "libmimalloc.so.2", "libmimalloc.so")),
    ("jemalloc", "libjemalloc2", ("libjemalloc.so.2",)),
    ("tcmalloc", "libtcmalloc-minimal4", ("libtcmalloc.so.4", "libtcmalloc_minimal.so.4")),
    ("tbbmalloc", "libtbbmalloc2", ("libtbbmalloc_proxy.so.2",)),
    ("scudo", "libclang-rt-14-dev", (
        f"/usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.scudo_standalone-{platform.machine()}.so",
        f"/usr/lib/clang/*/lib/*/libclang_rt.scudo_standalone*{platform.machine()}*.so")),
)


def linker_cache():
    """Library name to path, of this machine's word size, as the dynamic linker finds them."""
    ldconfig = shutil.which("ldconfig", path=f"{os.environ.get('PATH', '')}:/sbin:/usr/sbin")
    if not ldconfig:
        return {}
    listed = subprocess.run([ldconfig, "-p"], capture_output=True, text=True, check=False).stdout
    machine = platform.machine().replace("_", "-").replace("aarch64", "AArch64")
    found = {}
    for name, kind, path in re.findall(r"^\t(\S+) \(([^)]*)\) => (\S+)", listed, re.MULTILINE):
        if machine in kind:
            found.setdefault(name, path)
    return found


def version_key(path):
    return [int(number) for number in re.findall(r"\d+", path)]


def find_library(names, cache):
    for name in names:
        if "*" in name:
            files = sorted(glob.glob(name), key=version_key)
            if files:
                return files[-1]
        elif name in cache:
            return cache[name]
    return None


def package_version(path):
    """The upstream version of the Debian package that a file belongs to; else what its name says."""
    clang = re.search(r"/clang/([^/]+)/", path)
    if clang:
        return f"llvm {clang[1]}"
    query = shutil.which("dpkg-query")
    for spelling in (path, os.path.realpath(path), path.replace("/lib/", "/usr/lib/", 1)):
        if not query:
            break
        owner = subprocess.run([query, "-S", spelling], capture_output=True, text=True, check=False)
        if owner.returncode == 0:
            package = owner.stdout.partition(": ")[0].partition(",")[0]
            shown = subprocess.run([query, "-W", "-f", "${Version}", package],
                                   capture_output=True, text=True, check=False).stdout
            return re.sub(r"^\d+:|[+-](dfsg|ds|deb|\d)[^ ]*$", "", shown)
    return pathlib.Path(os.path.realpath(path)).name


def libc_version():
    name, version = platform.libc_ver()
    return f"{name} {version}".strip()


def larder_version(build):
    tool = pathlib.Path(build, "tools", "larder")
    if not tool.exists():
        return ""
    shown = subprocess.run([tool, "--version"], capture_output=True, text=True, check=False).stdout
    return shown.split()[-1] if shown.split() else ""


def larder_peers(build, scudo, note):
    version = larder_version(build)
    library = pathlib.Path(build, "lib", "preload", "liblarder-preload.so").resolve()
    if library.exists():
        yield Peer("larder", version, (str(library),), is_larder=True)
        if scudo:
            yield Peer("larder over scudo", version, (str(library), scudo), is_larder=True)
    else:
        note(f"larder left out: {library} is not built")
    adapter = pathlib.Path(build, "lib", "adapters", "liblarder-torch.so").resolve()
    if adapter.exists():
        yield Peer("larder as c10::Allocator", version, arguments=("--library", str(adapter)),
                   engines=("torch",), is_larder=True)
    else:
        note("larder as c10::Allocator left out: its adapter is not built (Debian: libtorch-dev)")


def find_peers(build, note, extra=()):
    """All allocators of this machine, the system's first. extra are NAME=PATH, libraries to preload."""
    cache = linker_cache()
    peers = [
        Peer("system", libc_version()),
        Peer("the engine's own arena", "over the system's", arguments=("--arena", "--pattern"), engines=("ort",),
             is_reference=True),
    ]
    scudo = None
    for name, package, names in LIBRARIES:
        library = find_library(names, cache)
        if library is None:
            note(f"{name} left out: not on this machine (Debian: {package})")
            continue
        peers.append(Peer(name, package_version(library), (library,)))
        if name == "scudo":
            scudo = library
            peers.append(Peer("scudo, Android's cache", package_version(library), (library,), ANDROID_CACHE))
    for name, _, path in (text.partition("=") for text in extra):
        peers.append(Peer(name, package_version(path), (path,)))
    return [*larder_peers(build, scudo, note), *peers]
