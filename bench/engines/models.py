# SPDX-License-Identifier: MIT
"""The networks that engines run here, and the inputs of their inferences.

Weights are random: what is allocated depends on shapes alone, and so does time, near enough. Nothing
is downloaded. A workload is a network and one cycle of inputs; a cycle of one input is a fixed shape,
as a camera's. PyTorch runs a workload as it is (run_torch.py), ONNX Runtime what export_onnx.py makes
of it (run_onnx.js), and bench/traces/record.py records both.
"""

import dataclasses
import typing

import torch
import torchvision

SIDES = (224, 160, 288, 192, 256)
LENGTHS = (64, 128, 37, 96, 200, 48, 160, 80, 112, 23, 144, 64, 256, 55, 128, 176, 31, 96, 224, 72)


@dataclasses.dataclass
class Workload:
    """build() gives the network, shapes one tuple of input shapes for each inference of a cycle.

    names are the inputs' names in ONNX; axes maps an input's varying axes to names; carry maps an output
    that is an input of the next inference to that input.
    """

    build: typing.Callable[[], torch.nn.Module]
    shapes: typing.Sequence[typing.Tuple[typing.Tuple[int, ...], ...]]
    names: typing.Sequence[str] = ("image",)
    outputs: typing.Sequence[str] = ("result",)
    axes: typing.Mapping[str, typing.Mapping[int, str]] = dataclasses.field(default_factory=dict)
    carry: typing.Mapping[str, str] = dataclasses.field(default_factory=dict)

    def inputs(self):
        """The tensors of one cycle, a tuple for each inference."""
        return [tuple(torch.rand(shape) for shape in shapes) for shapes in self.shapes]


def images(*sides):
    return [((1, 3, side, side),) for side in sides]


def encoder():
    layer = torch.nn.TransformerEncoderLayer(
        d_model=384, nhead=6, dim_feedforward=1536, batch_first=True)
    return torch.nn.TransformerEncoder(layer, num_layers=6)


class Segmentation(torch.nn.Module):
    """LR-ASPP, to the class of each pixel, which is what an application keeps."""

    def __init__(self):
        super().__init__()
        self.network = torchvision.models.segmentation.lraspp_mobilenet_v3_large(
            weights=None, weights_backbone=None)

    def forward(self, image):
        return self.network(image)["out"].argmax(1)


class SpeechStep(torch.nn.Module):
    """80 ms of speech: eight frames of 80 features through convolutions and two recurrent layers."""

    def __init__(self, features=80, hidden=256, symbols=64):
        super().__init__()
        self.front = torch.nn.Sequential(
            torch.nn.Conv1d(features, 128, 3, padding=1), torch.nn.ReLU(),
            torch.nn.Conv1d(128, hidden, 3, stride=2, padding=1), torch.nn.ReLU())
        self.recurrent = torch.nn.GRU(hidden, hidden, num_layers=2, batch_first=True)
        self.symbols = torch.nn.Linear(hidden, symbols)

    def forward(self, frames, state):
        steps = self.front(frames).transpose(1, 2)
        steps, state = self.recurrent(steps, state)
        return torch.log_softmax(self.symbols(steps), -1), state


class Decoder(torch.nn.Module):
    """A small language model that keeps keys and values of what it has read.

    Each step appends to the caches by torch.cat: a longer block is allocated and the old one freed, for keys
    and values of every layer.
    """

    def __init__(self, width=256, heads=4, layers=4, symbols=4096):
        super().__init__()
        self.heads = heads
        self.embed = torch.nn.Embedding(symbols, width)
        self.blocks = torch.nn.ModuleList(
            torch.nn.ModuleDict({
                "norm_attention": torch.nn.LayerNorm(width),
                "qkv": torch.nn.Linear(width, 3 * width),
                "project": torch.nn.Linear(width, width),
                "norm_feed": torch.nn.LayerNorm(width),
                "feed": torch.nn.Sequential(
                    torch.nn.Linear(width, 4 * width), torch.nn.GELU(), torch.nn.Linear(4 * width, width)),
            }) for _ in range(layers))
        self.norm = torch.nn.LayerNorm(width)

    def attend(self, block, hidden, cache):
        batch, length, width = hidden.shape
        query, key, value = (
            part.view(batch, length, self.heads, width // self.heads).transpose(1, 2)
            for part in block["qkv"](block["norm_attention"](hidden)).chunk(3, -1))
        if cache is not None:
            key, value = torch.cat((cache[0], key), 2), torch.cat((cache[1], value), 2)
        scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5)
        if length > 1:
            scores = scores + torch.full((length, length), float("-inf")).triu(1)
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).reshape(batch, length, width)
        return block["project"](mixed), (key, value)

    def forward(self, symbols, caches):
        """Logits for what follows the symbols, after those in the caches (None: the first), and new caches."""
        hidden = self.embed(symbols)
        grown = []
        for number, block in enumerate(self.blocks):
            mixed, cache = self.attend(block, hidden, caches[number] if caches else None)
            hidden = hidden + mixed
            hidden = hidden + block["feed"](block["norm_feed"](hidden))
            grown.append(cache)
        return self.norm(hidden[:, -1]) @ self.embed.weight.t(), grown


def generate(decoder, prompt, count, before_step=lambda number: None):
    """Greedy generation of `count` symbols; calls before_step(number) before each pass of the network."""
    symbols, caches, result = prompt, None, []
    for number in range(count):
        before_step(number)
        logits, caches = decoder(symbols, caches)
        symbols = logits.argmax(-1, keepdim=True)
        result.append(int(symbols))
    return result


VARYING_IMAGE = {"image": {2: "height", 3: "width"}}

WORKLOADS = {
    "mobilenet_v2": Workload(torchvision.models.mobilenet_v2, images(224)),
    "mobilenet_v2_varying": Workload(
        torchvision.models.mobilenet_v2, images(*SIDES), axes=VARYING_IMAGE),
    "mnasnet": Workload(torchvision.models.mnasnet1_0, images(224)),
    "shufflenet_v2_varying": Workload(
        torchvision.models.shufflenet_v2_x1_0, images(*SIDES), axes=VARYING_IMAGE),
    "encoder_varying": Workload(encoder, [((1, length, 384),) for length in LENGTHS]),
    "googlenet": Workload(
        lambda: torchvision.models.googlenet(aux_logits=False, init_weights=False), images(224)),
    "lraspp_512": Workload(Segmentation, images(512)),
    "speech_stream": Workload(
        SpeechStep, [((1, 80, 8), (2, 1, 256))], names=("frames", "state"),
        outputs=("symbols", "next_state"), carry={"next_state": "state"}),
}
