"""A classifier as an ONNX graph: traced by torch, cleaned, described, and compared by onnxruntime.

Imports onnx, onnxruntime and torch's exporter, so that only the child process of an export imports this module: tracing
holds the interpreter for seconds.

Source: `torch.onnx.export(dynamo=True)`. Known faults: a batch of one in the example stays fixed (pytorch #157621), the
weights go into a second file unless that is switched off, and some convolutions got a wrong bias (#166797, #169178).
"""

from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
import torch

from app.exporting.classifier import ModelFacts
from app.exporting.networks import BUILD_ERRORS, Probabilities
from app.exporting.parity import Pixels
from app.exporting.parity import Probabilities as Rows
from app.exporting.tensors import describe, dump_json

OPSET: Final = 20
INPUT, OUTPUT, BATCH = "pixels", "probabilities", "N"
_ROWS = 8


def trace(module: Probabilities, side: int) -> onnx.ModelProto:
    """Trace a classifier with a batch of any size.

    Args:
        module: In eval mode, on the CPU.
        side: Pixels of the square input.

    Returns:
        A graph without traces of this machine: torch writes stack traces with paths into each node.
    """
    example = torch.zeros(2, 3, side, side)
    program: Any = torch.onnx.export(
        module.eval(),
        (example,),
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=({0: torch.export.Dim(BATCH)},),
        opset_version=OPSET,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    return _cleaned(program.model_proto)


def write_described(graph: onnx.ModelProto, facts: ModelFacts, target: Path) -> None:
    """Add the facts as JSON texts (`metadata_props`), check the graph, and write it.

    Keys: `name`, `labels`, `preprocessing`, `architecture`, `normalise`, `num_features`, `licence`, `lineage`.
    """
    for key, value in sorted(describe(facts).items()):
        graph.metadata_props.add(key=key, value=dump_json(value))
    onnx.checker.check_model(graph, full_check=True)
    target.write_bytes(graph.SerializeToString(deterministic=True))


def run_onnx(path: Path, pixels: Pixels, threads: int = 1) -> Rows:
    """Run the written file, in batches of which the last one has another size.

    Shapes:
        pixels: (N, 3, H, W), float32.
        returns: (N, K), float32.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run([OUTPUT], {INPUT: batch})[0] for batch in _batches(pixels)])


@torch.inference_mode()
def run_torch(module: Probabilities, pixels: Pixels) -> Rows:
    """Run the module; shapes as in `run_onnx`."""
    return np.concatenate([module(torch.from_numpy(batch)).numpy() for batch in _batches(pixels)])


def _batches(pixels: Pixels) -> list[Pixels]:
    ends = [1, *range(1 + _ROWS, len(pixels), _ROWS)]  # a batch of one first: a fixed batch fails here
    return [batch for batch in np.split(pixels, ends) if len(batch)]


def _cleaned(graph: onnx.ModelProto) -> onnx.ModelProto:
    for part in (graph, graph.graph, *graph.graph.node, *graph.graph.input, *graph.graph.output):
        part.ClearField("metadata_props")
    for part in (*graph.graph.value_info, *graph.graph.initializer):
        part.ClearField("metadata_props")
    for node in graph.graph.node:
        node.ClearField("doc_string")
    return graph


TRACE_ERRORS = (*BUILD_ERRORS, torch.onnx.errors.OnnxExporterError, onnx.checker.ValidationError)
