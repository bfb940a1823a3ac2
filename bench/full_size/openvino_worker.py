"""OpenVINO's process: converts the same UNet, then runs a forward for every line that it reads.

Runs on the interpreter of OpenVINO's environment, which sees the packages of ours. Writes one line of JSON when the
model is ready and one after each forward.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import sys
from typing import Any

import numpy as np
import torch

from bench.full_size.ways import inputs_of
from bench.gpu.models import Models, build_models


class _Plain(torch.nn.Module):
    """The UNet with positional arguments and one result."""

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, samples: torch.Tensor, timesteps: torch.Tensor, embeds: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.unet(samples, timesteps, encoder_hidden_states=embeds, return_dict=False)[0]
        return outputs


def compile_model(models: Models, dtype: str, threads: int) -> Any:
    """Convert the UNet to OpenVINO with fixed shapes, and compile it for the CPU."""
    openvino = importlib.import_module("openvino")
    example = inputs_of(models)
    with torch.inference_mode():
        converted = openvino.convert_model(
            _Plain(models.unet), example_input=example, input=[list(tensor.shape) for tensor in example]
        )
    precision = {"float32": openvino.Type.f32, "bfloat16": openvino.Type.bf16}[dtype]
    config = {
        openvino.properties.hint.inference_precision: precision,
        openvino.properties.inference_num_threads: threads,
        openvino.properties.hint.performance_mode: openvino.properties.hint.PerformanceMode.LATENCY,
    }
    return openvino.compile_model(converted, "CPU", config)


def main() -> None:
    """Serve forwards until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("dtype", choices=["float32", "bfloat16"])
    parser.add_argument("threads", type=int)
    parser.add_argument("--tiny", action="store_true")
    words = parser.parse_args()
    # Traced in float32, whose inputs numpy has; OpenVINO computes in the precision that it is given.
    models = build_models(torch.device("cpu"), torch.float32, is_tiny=words.tiny, channels_last=False)
    inputs = [np.ascontiguousarray(tensor.numpy()) for tensor in inputs_of(models)]
    model = compile_model(models, words.dtype, words.threads)
    del models
    gc.collect()
    openvino = importlib.import_module("openvino")
    print(json.dumps({"version": openvino.__version__}), flush=True)
    for _ in sys.stdin:
        outputs = model(inputs)[0]
        print(json.dumps({"mean": float(np.abs(outputs).mean())}), flush=True)


if __name__ == "__main__":
    main()
