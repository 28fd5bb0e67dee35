#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Runs one PyTorch model's inferences, marking them for liblarder-record.so if that is loaded.

Random weights: what is allocated depends on shapes alone. The model and two warm-up rounds over
all shapes come before the recorded window; each inference copies its input into a fresh tensor, as
an application does, runs the model, and drops the result before the next one begins.
"""

import argparse
import ctypes
import gc
import queue
import sys
import threading

import torch
import torchvision


def image(batch, side):
    return torch.rand(batch, 3, side, side)


def mobilenet_v2():
    return torchvision.models.mobilenet_v2(), [image(1, 224)] * 10


def mnasnet():
    return torchvision.models.mnasnet1_0(), [image(1, 224)] * 6


def shufflenet_v2_varying():
    sides = [224, 160, 288, 192, 256]
    return torchvision.models.shufflenet_v2_x1_0(), [image(1, side) for side in sides] * 2


def encoder_varying():
    lengths = [64, 128, 37, 96, 200, 48, 160, 80, 112, 23,
               144, 64, 256, 55, 128, 176, 31, 96, 224, 72]
    layer = torch.nn.TransformerEncoderLayer(
        d_model=384, nhead=6, dim_feedforward=1536, batch_first=True)
    return (torch.nn.TransformerEncoder(layer, num_layers=6),
            [torch.rand(1, length, 384) for length in lengths])


MODELS = {
    "mobilenet_v2": mobilenet_v2,
    "shufflenet_v2_varying": shufflenet_v2_varying,
    "encoder_varying": encoder_varying,
    "mnasnet_2threads": mnasnet,
    "mobilenet_v2_pipeline": mobilenet_v2,
}


class Recorder:
    """The recorder's functions, or nothing where it is not loaded."""

    def __init__(self):
        self.library = ctypes.CDLL(None)
        self.loaded = hasattr(self.library, "larder_record_start")

    def start(self):
        if self.loaded:
            self.library.larder_record_start()

    def stop(self):
        if self.loaded:
            self.library.larder_record_stop()

    def mark(self, name):
        if self.loaded:
            self.library.larder_mark(name)


def run(model, sources, mark):
    """One inference after the other."""
    with torch.no_grad():
        for number, source in enumerate(sources):
            mark(b"inference %d" % number)
            model(source.clone())


def run_pipeline(model, sources, mark):
    """Two threads, each with half of the network: the second frees what the first allocated."""
    head, tail = model.features[:7], model.features[7:]
    handed_over = queue.Queue(maxsize=1)

    def finish():
        with torch.no_grad():
            while (half_done := handed_over.get()) is not None:
                model.classifier(tail(half_done).mean([2, 3]))
                del half_done

    second = threading.Thread(target=finish)
    second.start()
    with torch.no_grad():
        for number, source in enumerate(sources):
            mark(b"inference %d" % number)
            handed_over.put(head(source.clone()))
    handed_over.put(None)
    second.join()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=sorted(MODELS))
    parser.add_argument("--threads", type=int, default=1, help="intra-op threads (default 1)")
    arguments = parser.parse_args()

    torch.manual_seed(1)
    torch.set_num_threads(arguments.threads)
    recorder = Recorder()
    model, sources = MODELS[arguments.model]()
    model.eval()
    runner = run_pipeline if arguments.model.endswith("_pipeline") else run

    for _ in range(2):
        runner(model, sources, recorder.mark)  # marks outside the window go nowhere
    gc.collect()
    gc.disable()
    recorder.start()
    runner(model, sources, recorder.mark)
    recorder.mark(b"end")
    recorder.stop()
    if not recorder.loaded:
        print(f"{arguments.model}: liblarder-record.so is not loaded, nothing recorded",
              file=sys.stderr)


if __name__ == "__main__":
    main()
