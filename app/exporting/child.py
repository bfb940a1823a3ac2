"""ONNX export in a child process: tracing takes seconds of a core and holds the interpreter.

The two processes exchange files in a temporary folder beside the target. `export_onnx` is called on a pool thread of
the API process and waits there; `main` is what the child runs, at a lower priority. The child ends with its parent,
whose end of a pipe closes then, even by SIGKILL. The child's modules are imported in it alone.
"""

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from app.exporting.classifier import Classifier, ModelFacts
from app.exporting.errors import ExportError, ExportStopped, ExportTimedOut, NotExportable, ParityFailed
from app.exporting.networks import Probabilities, rebuild, side_by_side
from app.exporting.parity import (
    MAX_LOG_DIFFERENCE,
    MAX_LOG_DIFFERENCE_OF_DEVICES,
    MIN_PICTURES,
    Parity,
    Pixels,
    compare,
    draw_pictures,
)
from app.exporting.tensors import dump_json, read_split, write_safetensors
from app.logs.errors import without_texts

logger = logging.getLogger(__name__)

COMMAND: Final = (sys.executable, "-m", "app.exporting")
# Lite0 takes 25 s on two busy cores; a ViT-L several times as long.
TIMEOUT_S: Final = 300.0
# A protobuf message has at most 2 GiB.
MAX_BYTES: Final = 1_900_000_000

_ROWS = 8
_FACTS, _WEIGHTS, _PIXELS, _EXPECTED = "facts.json", "model.safetensors", "pixels.npz", "expected.npy"
_GRAPH, _OUTCOME = "model.onnx", "outcome.json"
_NICE = 10
# How soon a child is ended after its caller was asked to stop.
_LOOK_S = 0.25


def export_onnx(
    classifier: Classifier,
    target: Path,
    *,
    pixels: Sequence[Pixels] | None = None,
    timeout_s: float = TIMEOUT_S,
    command: Sequence[str] = COMMAND,
    stopping: threading.Event | None = None,
) -> Parity:
    """Write a classifier as one ONNX file, after onnxruntime gave the probabilities of this module.

    Input `pixels` (N, 3, H, W) float32, any N; output `probabilities` (N, K). With several backbones each has an input
    `pixels.NAME`, for the same N pictures by its own preprocessing. The file's `metadata_props` has preprocessing,
    labels, name and lineage as JSON texts. Equal classifiers give equal bytes with the same versions of the libraries.

    Args:
        classifier: May be on any device.
        target: The file to write; its folder exists. Not written if an error is raised.
        pixels: Pictures to compare on, at least 32; drawn ones if None.
        timeout_s: Seconds for the child process, > 0.
        command: The child's command without its last argument, a folder.
        stopping: Once it is set, the child is ended; None: never.

    Shapes:
        pixels: for each backbone (N, 3, H, W), float32, normalised.

    Returns:
        The differences between the file in onnxruntime and this module.

    Raises:
        NotExportable: The architecture cannot be built again or traced, or the file would be above 1.9 GB.
        ParityFailed: The file computes something else.
        ExportTimedOut: The child took too long.
        ExportStopped: `stopping` was set.
        ExportError: The child ended otherwise; the log has its last lines.
        ValueError: There are fewer than 32 pictures.
        OSError: The disk is full, or the temporary folder cannot be written.
    """
    if pixels is None:
        pixels = [draw_pictures(MIN_PICTURES, part.preprocessing) for part in classifier.facts.backbones]
    if min(map(len, pixels)) < MIN_PICTURES:
        raise ValueError(f"An export is compared on at least {MIN_PICTURES} pictures.")
    if sum(tensor.nbytes for tensor in classifier.backbone.state_dict().values()) > MAX_BYTES:
        raise NotExportable("An ONNX file has at most 2 GB, and the weights are larger. Export safetensors instead.")
    expected = _run(classifier, pixels)
    with tempfile.TemporaryDirectory(prefix="foxhound-export-", dir=target.parent) as name:
        folder = Path(name)
        write_safetensors(classifier, folder / _WEIGHTS)
        facts = classifier.facts.to_json() | {"device": _device_of(classifier).type}
        (folder / _FACTS).write_text(dump_json(facts), encoding="utf-8")
        np.savez(folder / _PIXELS, *pixels)
        np.save(folder / _EXPECTED, expected)
        _run_child([*command, name], timeout_s, stopping or threading.Event())
        parity = _read_outcome(folder / _OUTCOME)
        shutil.move(folder / _GRAPH, target)
    return parity


def end_with_parent() -> None:
    """Have this process end once its parent has, whose end of the standard input closes then."""

    def wait() -> None:
        # Not by `sys.stdin`, whose lock the interpreter needs when it ends: it would abort.
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=wait, name="parent-watch", daemon=True).start()


def main(folder: Path) -> int:
    """Export what `export_onnx` wrote into a folder; the entry of the child process."""
    os.nice(_NICE)
    facts_json = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    device = facts_json.pop("device")
    facts = ModelFacts.from_json(facts_json)
    with np.load(folder / _PIXELS) as arrays:
        pixels = [arrays[f"arr_{number}"] for number in range(len(arrays))]
    expected = np.load(folder / _EXPECTED)
    limit = MAX_LOG_DIFFERENCE if device == "cpu" else MAX_LOG_DIFFERENCE_OF_DEVICES
    try:
        outcome: dict[str, Any] = asdict(_export(folder, facts, pixels, expected, limit))
    except ParityFailed as error:
        arguments = (error.max_difference, error.max_log_difference, error.num_other_classes, error.num_pictures)
        outcome = {"parity_failed": [min(float(value), 1e9) for value in arguments]}
    except NotExportable as error:
        outcome = {"not_exportable": error.detail}
    (folder / _OUTCOME).write_text(json.dumps(outcome), encoding="utf-8")
    return 0


def _export(folder: Path, facts: ModelFacts, pixels: Sequence[Pixels], expected: Any, limit: float) -> Parity:
    """Build, trace and write; compare onnxruntime with torch here, and both with the module of the other process."""
    from app.exporting import onnx_graph

    tensors, head = read_split(folder / _WEIGHTS, facts)
    pairs = zip(facts.backbones, tensors, strict=True)
    module = Probabilities(head, side_by_side([rebuild(part.network, weights) for part, weights in pairs]))
    try:
        graph = onnx_graph.trace(module, facts.backbones)
        onnx_graph.write_described(graph, facts, folder / _GRAPH)
    except onnx_graph.TRACE_ERRORS as error:
        logger.warning("The network could not be traced.", exc_info=error)
        raise NotExportable("torch cannot write this network as ONNX. Export safetensors instead.") from error
    actual = onnx_graph.run_onnx(folder / _GRAPH, pixels)
    compare(actual, onnx_graph.run_torch(module, pixels))
    return compare(actual, expected, limit)


@torch.inference_mode()
def _run(classifier: Classifier, pixels: Sequence[Pixels]) -> Any:
    module, device = Probabilities(classifier).eval(), _device_of(classifier)
    starts = range(0, len(pixels[0]), _ROWS)
    batches = ([torch.from_numpy(one[start : start + _ROWS]).to(device) for one in pixels] for start in starts)
    return np.concatenate([module(*batch).cpu().numpy() for batch in batches])


def _device_of(classifier: Classifier) -> torch.device:
    return next(classifier.backbone.parameters(), torch.zeros(0)).device


def _run_child(command: Sequence[str], timeout_s: float, stopping: threading.Event) -> None:
    ends_at = time.monotonic() + timeout_s
    pipe, ours = os.pipe()  # ours is closed when this process ends, however that happens
    try:
        child = subprocess.Popen(command, stdin=pipe, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(pipe)
    with child:
        try:
            stderr = _wait(child, ends_at, stopping)
        except TimeoutError as error:
            raise ExportTimedOut(f"The export took longer than {timeout_s:.0f} s and was ended.") from error
        finally:
            child.kill()  # no error for one that has ended
            os.close(ours)
    if child.returncode != 0:
        places = without_texts(stderr.decode(errors="replace")[-4000:])
        logger.error("The export ended with status %d: %s", child.returncode, places)
        raise ExportError("The export ended unexpectedly. See the log of the service.")


def _wait(child: subprocess.Popen[bytes], ends_at: float, stopping: threading.Event) -> bytes:
    """Return what the child wrote to stderr, once it has ended.

    Raises:
        ExportStopped: `stopping` was set.
        TimeoutError: It is later than `ends_at`, in seconds of the monotonic clock.
    """
    while True:
        try:
            return child.communicate(timeout=min(_LOOK_S, max(ends_at - time.monotonic(), 0.01)))[1]
        except subprocess.TimeoutExpired:
            if stopping.is_set():
                raise ExportStopped("The service is stopping. Try again.") from None
            if time.monotonic() >= ends_at:
                raise TimeoutError from None


def _read_outcome(path: Path) -> Parity:
    outcome = json.loads(path.read_text(encoding="utf-8"))
    if "parity_failed" in outcome:
        difference, log_difference, num_other_classes, num_pictures = outcome["parity_failed"]
        raise ParityFailed(difference, log_difference, int(num_other_classes), int(num_pictures))
    if "not_exportable" in outcome:
        raise NotExportable(outcome["not_exportable"])
    return Parity(**outcome)
