"""A classifier as an ONNX graph: traced by torch, cleaned, described, and compared by onnxruntime.

Imports onnx, onnxruntime and torch's exporter, so that only the child process of an export imports this module: tracing
holds the interpreter for seconds.

Source: `torch.onnx.export(dynamo=True)`. Known faults: a batch of one in the example stays fixed (pytorch #157621), the
weights go into a second file unless that is switched off, and some convolutions got a wrong bias (#166797, #169178).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
import torch

from app.exporting.classifier import ModelFacts, Part
from app.exporting.networks import BUILD_ERRORS, Probabilities
from app.exporting.parity import Pixels
from app.exporting.parity import Probabilities as Rows
from app.exporting.tensors import describe, dump_json

OPSET: Final = 20
OUTPUT, BATCH = "probabilities", "N"
_ROWS = 8


def trace(module: Probabilities, backbones: Sequence[Part]) -> onnx.ModelProto:
    """Trace a classifier with a batch of any size; it has an input for each backbone.

    Args:
        module: In eval mode, on the CPU.
        backbones: Name the inputs and their sides.

    Returns:
        A graph without traces of this machine: torch writes stack traces with paths into each node.
    """
    batch = torch.export.Dim(BATCH)
    program: Any = torch.onnx.export(
        module.eval(),
        tuple(torch.zeros(2, 3, part.side, part.side) for part in backbones),
        input_names=[part.input for part in backbones],
        output_names=[OUTPUT],
        dynamic_shapes=(tuple({0: batch} for _ in backbones),),
        opset_version=OPSET,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    return _cleaned(program.model_proto)


def write_described(graph: onnx.ModelProto, facts: ModelFacts, target: Path) -> None:
    """Add the facts as JSON texts (`metadata_props`), check the graph, and write it.

    Keys: `name`, `labels`, `preprocessing`, `architecture`, `normalise`, `num_features`, `licence`, `lineage`;
    with several backbones also `backbones`.
    """
    for key, value in sorted(describe(facts).items()):
        graph.metadata_props.add(key=key, value=dump_json(value))
    onnx.checker.check_model(graph, full_check=True)
    target.write_bytes(graph.SerializeToString(deterministic=True))


def run_onnx(path: Path, pixels: Sequence[Pixels], threads: int = 1) -> Rows:
    """Run the written file, in batches of which the last one has another size.

    Shapes:
        pixels: for each input (N, 3, H, W), float32.
        returns: (N, K), float32.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    batches = (dict(zip(names, batch, strict=True)) for batch in _batches(pixels))
    return np.concatenate([session.run([OUTPUT], batch)[0] for batch in batches])


@torch.inference_mode()
def run_torch(module: Probabilities, pixels: Sequence[Pixels]) -> Rows:
    """Run the module; shapes as in `run_onnx`."""
    return np.concatenate([module(*map(torch.from_numpy, batch)).numpy() for batch in _batches(pixels)])


def _batches(pixels: Sequence[Pixels]) -> Iterator[tuple[Pixels, ...]]:
    ends = [1, *range(1 + _ROWS, len(pixels[0]), _ROWS)]  # a batch of one first: a fixed batch fails here
    return (batch for batch in zip(*(np.split(one, ends) for one in pixels), strict=True) if len(batch[0]))


def _cleaned(graph: onnx.ModelProto) -> onnx.ModelProto:
    for part in (graph, graph.graph, *graph.graph.node, *graph.graph.input, *graph.graph.output):
        part.ClearField("metadata_props")
    for part in (*graph.graph.value_info, *graph.graph.initializer):
        part.ClearField("metadata_props")
    for node in graph.graph.node:
        node.ClearField("doc_string")
    return graph


TRACE_ERRORS = (*BUILD_ERRORS, torch.onnx.errors.OnnxExporterError, onnx.checker.ValidationError)
