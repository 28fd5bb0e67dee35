#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Writes workloads of models.py for ONNX Runtime: NAME.onnx, and NAME.json with its inputs.

Run it by the python3 that Debian's python3-torch belongs to (/usr/bin/python3).
"""

import argparse
import json
import os
import pathlib
import sys
import tempfile

import torch

import models


def replace(path, write):
    """Calls write(name) with a name beside path, then gives it that name."""
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    os.close(handle)
    try:
        write(aside)
        os.replace(aside, path)
    except BaseException:
        os.unlink(aside)
        raise


def export(name, directory):
    workload = models.WORKLOADS[name]
    torch.manual_seed(1)
    network = workload.build().eval()
    replace(
        directory / f"{name}.onnx",
        lambda aside: torch.onnx.export(
            network, workload.inputs()[0], aside, input_names=list(workload.names),
            output_names=list(workload.outputs), opset_version=13,
            dynamic_axes={axis: dict(names) for axis, names in workload.axes.items()}))
    description = {
        "model": f"{name}.onnx",
        "exported_by": f"PyTorch {torch.__version__}",
        "cycle": [dict(zip(workload.names, shapes)) for shapes in workload.shapes],
        "carry": dict(workload.carry),
    }
    replace(
        directory / f"{name}.json",
        lambda aside: pathlib.Path(aside).write_text(json.dumps(description) + "\n", "utf-8"))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=pathlib.Path, help="where the files go")
    parser.add_argument("names", metavar="NAME", nargs="+", choices=sorted(models.WORKLOADS),
                        help=f"one of: {', '.join(sorted(models.WORKLOADS))}")
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    for name in arguments.names:
        if not (arguments.directory / f"{name}.json").exists():
            export(name, arguments.directory)
            print(f"exported {name}", file=sys.stderr)


if __name__ == "__main__":
    main()
