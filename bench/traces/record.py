#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Runs one recording's inferences under PyTorch, marking them for liblarder-record.so if that is loaded.

The networks are those of ../engines/models.py. The model and two warm-up rounds over all shapes come
before the recorded window; each inference copies its input into a fresh tensor, as an application does,
runs the model, and drops the result before the next one begins.
"""

import argparse
import concurrent.futures
import ctypes
import gc
import pathlib
import queue
import sys
import tempfile
import threading

import torch
from torch.jit.mobile import _load_for_lite_interpreter
from torch.utils.mobile_optimizer import optimize_for_mobile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "engines"))
import models  # noqa: E402 (found only from here on)

PROMPT, SYMBOLS, SYMBOLS_A_PHASE = 24, 160, 10
PROGRAM_THREADS = 4


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


def workload(name):
    """The network of a workload, and one cycle of its inputs."""
    chosen = models.WORKLOADS[name]
    return chosen.build().eval(), [inputs[0] for inputs in chosen.inputs()]


def one_after_the_other(model, sources):
    def run(mark):
        for number, source in enumerate(sources):
            mark(b"inference %d" % number)
            model(source.clone())

    return run


def eager(name, cycles):
    model, sources = workload(name)
    return one_after_the_other(model, sources * cycles)


def lite(name, cycles):
    """The mobile interpreter, with the network as optimised for it (fused, weights packed for XNNPACK)."""
    model, sources = workload(name)
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/{name}.ptl"
        optimize_for_mobile(torch.jit.trace(model, sources[0]))._save_for_lite_interpreter(path)
        return one_after_the_other(_load_for_lite_interpreter(path), sources * cycles)


def pipeline(name, cycles):
    """Two threads, each with half of the network: the second frees what the first allocated."""
    model, sources = workload(name)
    head, tail = model.features[:7], model.features[7:]

    def finish(handed_over):
        with torch.no_grad():
            while (half_done := handed_over.get()) is not None:
                model.classifier(tail(half_done).mean([2, 3]))
                del half_done

    def run(mark):
        handed_over = queue.Queue(maxsize=1)
        second = threading.Thread(target=finish, args=(handed_over,))
        second.start()
        for number, source in enumerate(sources * cycles):
            mark(b"inference %d" % number)
            handed_over.put(head(source.clone()))
        handed_over.put(None)
        second.join()

    return run


def at_once(name, rounds):
    """A server: PROGRAM_THREADS threads infer at once, each for itself, on one copy of the weights.

    The network is traced, since eager operators mostly wait for each other's turn in the interpreter.
    """
    model, sources = workload(name)
    traced = torch.jit.freeze(torch.jit.trace(model, sources[0]))
    pool = concurrent.futures.ThreadPoolExecutor(PROGRAM_THREADS)
    meet = threading.Barrier(PROGRAM_THREADS)

    def serve(source):
        meet.wait()  # one each
        with torch.no_grad():
            traced(source.clone())

    def run(mark):
        for number in range(rounds):
            mark(b"round %d" % number)
            list(pool.map(serve, sources * PROGRAM_THREADS))

    return run


def generation():
    """One text of SYMBOLS symbols by a decoder whose keys and values grow with each."""
    decoder = models.Decoder().eval()
    prompt = torch.randint(0, 4096, (1, PROMPT))

    def run(mark):
        def before_step(number):
            if number % SYMBOLS_A_PHASE == 0:
                mark(b"symbols %d" % number)

        models.generate(decoder, prompt.clone(), SYMBOLS, before_step)

    return run


RECORDINGS = {
    "mobilenet_v2": lambda: eager("mobilenet_v2", 10),
    "shufflenet_v2_varying": lambda: eager("shufflenet_v2_varying", 2),
    "encoder_varying": lambda: eager("encoder_varying", 1),
    "mnasnet_2threads": lambda: eager("mnasnet", 6),
    "mobilenet_v2_pipeline": lambda: pipeline("mobilenet_v2", 10),
    "mobilenet_v2_lite": lambda: lite("mobilenet_v2", 10),
    "mobilenet_v2_4threads": lambda: at_once("mobilenet_v2", 6),
    "decoder_kv_cache": generation,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recording", choices=sorted(RECORDINGS))
    parser.add_argument("--threads", type=int, default=1, help="intra-op threads (default 1)")
    arguments = parser.parse_args()

    torch.manual_seed(1)
    torch.set_num_threads(arguments.threads)
    recorder = Recorder()
    run = RECORDINGS[arguments.recording]()
    with torch.no_grad():
        for _ in range(2):
            run(recorder.mark)  # marks outside the window go nowhere
        gc.collect()
        gc.disable()
        recorder.start()
        run(recorder.mark)
        recorder.mark(b"end")
        recorder.stop()
    if not recorder.loaded:
        print(f"{arguments.recording}: liblarder-record.so is not loaded, nothing recorded",
              file=sys.stderr)


if __name__ == "__main__":
    main()
