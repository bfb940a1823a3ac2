"""The command line: build the models, measure part by part, print a table and one line of JSON."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import diffusers
import torch

from bench.gpu.models import Models, build_models
from bench.gpu.parts import Effort, Line, forwards, images, packing, parity, placement
from bench.gpu.speeds import decoding, speeds

# Dense half precision that the best public matrix products reach on an H100 or H200.
PEAK_TFLOPS = 790.0

# Compiling changes the UNet for good, so G2 comes last.
PARTS: dict[str, Callable[[Models, Effort], list[Line]]] = {
    "G1": forwards,
    "G4": packing,
    "G5": placement,
    "G7": decoding,
    "G8": speeds,
    "G6": parity,
    "G2": images,
}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer steps, batches and repeats: a few minutes")
    parser.add_argument("--tiny", action="store_true", help="a tiny model, to try the script without a GPU")
    parser.add_argument("--parts", nargs="+", choices=sorted(PARTS), default=list(PARTS), help="default: all")
    parser.add_argument("--steps", type=int, help="of an image; default: 50, or 20 when quick")
    parser.add_argument("--batches", type=int, nargs="+", help="images at a time; default: 1 4 8 16, or 1 8 when quick")
    parser.add_argument("--dtype", choices=["float16", "bfloat16", "float32"], default=None)
    parser.add_argument("--peak-tflops", type=float, default=PEAK_TFLOPS, help="what an MFU of 1 would be")
    return parser.parse_args(arguments)


def effort_of(words: argparse.Namespace) -> Effort:
    """Choose how much is measured."""
    peak = words.peak_tflops * 1e12
    if words.tiny:
        effort = Effort(steps=2, repeats=1, batches=(1, 2), rows=(2, 3), peak_flops=peak)
    elif words.quick:
        effort = Effort(steps=20, repeats=3, batches=(1, 8), rows=(2, 8, 16, 32), peak_flops=peak)
    else:
        effort = Effort(steps=50, repeats=9, batches=(1, 4, 8, 16), peak_flops=peak)
    return replace(effort, steps=words.steps or effort.steps, batches=tuple(words.batches or effort.batches))


def render(lines: Sequence[Line]) -> str:
    """Set the figures in lines, each under its part and case."""
    width = max(len(line.case) for line in lines)
    return "\n".join(
        f"{line.part:12} {line.case:{width}} "
        + "  ".join(f"{name} {'-' if value is None else f'{value:.4g}'}" for name, value in line.figures.items())
        for line in lines
    )


def as_json(lines: Sequence[Line], models: Models) -> str:
    """Put everything into one line."""
    is_cuda = models.device.type == "cuda"
    content: dict[str, Any] = {
        "device": torch.cuda.get_device_name(models.device) if is_cuda else "cpu",
        "dtype": str(models.dtype).removeprefix("torch."),
        "torch": str(torch.__version__),
        "diffusers": diffusers.__version__,
        "lines": [{"part": line.part, "case": line.case, **line.figures} for line in lines],
    }
    return json.dumps(content)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what was asked for."""
    words = parse(arguments)
    is_cuda = torch.cuda.is_available()
    if not is_cuda and not words.tiny:
        print("There is no GPU here; --tiny tries the script on a CPU.", file=sys.stderr)
        return 2
    device = torch.device("cuda" if is_cuda else "cpu")
    dtype = getattr(torch, words.dtype or ("float16" if is_cuda else "float32"))
    models = build_models(device, dtype, is_tiny=words.tiny)
    lines: list[Line] = []
    for name, measure in PARTS.items():
        if name in words.parts:
            print(f"{name} ...", file=sys.stderr)
            part = measure(models, effort_of(words))
            print(render(part), flush=True)
            lines += part
    print(as_json(lines, models))
    return 0


if __name__ == "__main__":
    sys.exit(main())
