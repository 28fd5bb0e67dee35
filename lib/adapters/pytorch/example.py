#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The same inferences with PyTorch's own allocator and with larder.

usage: example.py LIBLARDER_TORCH

A small convolutional network on images of changing size. Prints the page faults of an inference
before and after torch.ops.load_library(), and fails unless all results are the same to the bit.
"""

import ctypes
import resource
import sys

import torch
from torch import nn

INFERENCES = 12
SIZES = (224, 192, 256)


def network():
    torch.manual_seed(1)
    layers = [nn.Conv2d(3, 32, 3, stride=2, padding=1), nn.ReLU()]
    for _ in range(3):
        layers += [nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)).eval()


def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def infer(model, images):
    """The results, and the faults of an inference after a third of them as warm-up."""
    warm = INFERENCES // 3
    results = []
    with torch.no_grad():
        for i in range(INFERENCES):
            if i == warm:
                before = faults()
            results.append(model(images[i % len(images)]))
    return results, (faults() - before) / (INFERENCES - warm)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    model = network()
    images = [torch.rand(1, 3, size, size) for size in SIZES]
    without, faults_without = infer(model, images)

    torch.ops.load_library(sys.argv[1])
    larder = ctypes.CDLL(sys.argv[1])
    larder.larder_torch_instance.restype = ctypes.c_void_p
    larder.larder_owner.restype = ctypes.c_void_p
    larder.larder_owner.argtypes = [ctypes.c_void_p]
    larder.larder_free_cached.argtypes = [ctypes.c_void_p]

    with_larder, faults_with = infer(model, images)
    instance = larder.larder_torch_instance()
    for mine, theirs in zip(with_larder, without):
        if larder.larder_owner(mine.data_ptr()) != instance:
            sys.exit("a tensor did not come from larder")
        if larder.larder_owner(theirs.data_ptr()) is not None:
            sys.exit("a tensor from before came from larder")
        if not torch.equal(mine, theirs):
            sys.exit("the results differ")
    larder.larder_free_cached(instance)  # a pause: the memory is not needed for now
    print(f"torch {torch.__version__}: {INFERENCES} inferences, results equal")
    print(f"faults per inference: {faults_without:.0f} without larder, {faults_with:.0f} with it")


main()
