#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Runs one workload's inferences under PyTorch and prints what they cost, as a line of JSON: ms of each
cycle of inputs, minor page faults and memory while they ran, and a checksum of the outputs.

Input tensors are made once and used again; each result is dropped before the next inference begins.
"""

import argparse
import ctypes
import gc
import hashlib
import json
import pathlib
import resource
import sys
import tempfile
import time

import torch

import models


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("workload", choices=sorted(models.WORKLOADS))
    add("--cycles", type=int, default=10, metavar="N", help="measured cycles of inputs (default 10)")
    add("--warmup", type=int, default=3, metavar="N", help="cycles before them (default 3)")
    add("--threads", type=int, default=1, metavar="N", help="threads within an operator (default 1)")
    add("--lite", action="store_true", help="the mobile interpreter, with the network optimised for it")
    add("--library", metavar="FILE", help="load FILE into PyTorch first: an allocator for its tensors")
    add("--mallopt", default="", metavar="P=V,...", help="settings for the allocator")
    return parser.parse_args()


def apply_mallopt(settings):
    library = ctypes.CDLL(None)
    for setting in filter(None, settings.split(",")):
        library.mallopt(*map(int, setting.split("=")))


def memory_figure(name):
    """VmHWM and the like of this process, in KiB."""
    for line in pathlib.Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    return None


def forget_peak():
    """From here on VmHWM counts from what is resident now; where this is not allowed it stays as it is."""
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5", "ascii")
    except OSError:
        pass


def make_lite(model, inputs):
    # Here, since a PyTorch without the mobile interpreter runs everything else.
    from torch.jit.mobile import _load_for_lite_interpreter
    from torch.utils.mobile_optimizer import optimize_for_mobile

    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/model.ptl"
        optimize_for_mobile(torch.jit.trace(model, inputs))._save_for_lite_interpreter(path)
        return _load_for_lite_interpreter(path)


def checksum(model, cycle):
    digest = hashlib.sha256()
    for inputs in cycle:
        result = model(*inputs)
        for tensor in result if isinstance(result, tuple) else (result,):
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def measure(model, cycle, cycles):
    times = [0.0] * cycles
    forget_peak()
    before = faults()
    for number in range(cycles):
        begin = time.perf_counter()
        for inputs in cycle:
            model(*inputs)
        times[number] = (time.perf_counter() - begin) * 1000 / len(cycle)
    after = faults()
    return {
        "ms": [round(value, 4) for value in times],
        "faults_per_inference": (after - before) / (cycles * len(cycle)),
        "peak_rss_kib": memory_figure("VmHWM"),
        "rss_kib": memory_figure("VmRSS"),
        "process_peak_rss_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }


def main():
    arguments = parse_arguments()
    if arguments.library:
        torch.ops.load_library(arguments.library)
    apply_mallopt(arguments.mallopt)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    workload = models.WORKLOADS[arguments.workload]
    model = workload.build().eval()
    cycle = workload.inputs()
    with torch.no_grad():
        if arguments.lite:
            model = make_lite(model, cycle[0])
        first = checksum(model, cycle)
        for _ in range(arguments.warmup):
            for inputs in cycle:
                model(*inputs)
        gc.collect()
        gc.disable()
        figures = measure(model, cycle, arguments.cycles)
        result = {
            "engine": f"PyTorch {torch.__version__}",
            "checksum": f"{first} {checksum(model, cycle)}",
            **figures,
        }
    json.dump(result, sys.stdout)
    print()


if __name__ == "__main__":
    main()
