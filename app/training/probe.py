"""A linear classifier head: its weights, its probabilities, and its file.

Works on arrays; imports no solver, no models and no storage. Runs in the API process (`/classify`) and in the worker,
on the thread of its caller.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy
import torch
from torch.nn import functional

Features = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float32]

_NAMES = {"fc.weight", "fc.bias"}
_BACKBONE = "backbone."  # of the names in the file of a fine-tuned model
_METADATA = "foxhound"


@dataclass(frozen=True, slots=True)
class LinearProbe:
    """A trained classifier head; every solver ends as one, with its scaling of the features folded in.

    Attributes:
        weight: (K, D), float32.
        bias: (K,), float32.
        normalise: Whether a row of features is divided by its L2 norm first; False for the backbone's raw features.
    """

    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    normalise: bool = False


def normalised(features: Features) -> Features:
    """Divide each row by its L2 norm; a row of zeros stays as it is.

    Shapes:
        features: (N, D), float32.
        returns: (N, D), float32.
    """
    rows: Features = functional.normalize(torch.from_numpy(np.array(features, np.float32)), dim=1).numpy()
    return rows


def logits(probe: LinearProbe, features: Features) -> npt.NDArray[np.float32]:
    """Return the scores whose softmax gives the class probabilities.

    Shapes:
        features: (N, D), float32.
        returns: (N, K), float32.
    """
    rows = normalised(features) if probe.normalise else np.array(features, np.float32)
    with torch.inference_mode():
        scores: npt.NDArray[np.float32] = functional.linear(
            torch.from_numpy(rows), torch.from_numpy(np.array(probe.weight)), torch.from_numpy(np.array(probe.bias))
        ).numpy()
    return scores


def predict(probe: LinearProbe, features: Features) -> Probabilities:
    """Return each row's class probabilities.

    Shapes:
        features: (N, D), float32.
        returns: (N, K), float32; rows sum to 1.
    """
    probabilities: Probabilities = torch.from_numpy(logits(probe, features)).softmax(dim=1).numpy()
    return probabilities


def save_probe(probe: LinearProbe, *, classes: Sequence[str], backbone: str) -> bytes:
    """Serialize a probe as safetensors: `fc.weight` and `fc.bias`, the names in the backbone's state dict.

    The metadata is one JSON text under `foxhound`, because safetensors writes several keys in random order. It has
    `normalise` only where that is true, so that the file of a head on raw features has the bytes of earlier releases.
    """
    facts = {"backbone": backbone, "classes": list(classes)} | ({"normalise": True} if probe.normalise else {})
    data: bytes = safetensors.numpy.save(
        {"fc.weight": np.ascontiguousarray(probe.weight), "fc.bias": np.ascontiguousarray(probe.bias)},
        metadata={_METADATA: json.dumps(facts, sort_keys=True)},
    )
    return data


def load_probe(data: bytes) -> LinearProbe:
    """Read the bytes that `save_probe` wrote, or the head of a fine-tuned model, whose backbone is skipped.

    A file without `normalise` has a head on raw features.

    Raises:
        ValueError: The bytes are no probe: not safetensors, other names, shapes or types, or not finite.
    """
    try:
        tensors = safetensors.numpy.load(data)
    except safetensors.SafetensorError as error:
        raise ValueError("The bytes are not a safetensors file.") from error
    if {name for name in tensors if not name.startswith(_BACKBONE)} != _NAMES:
        raise ValueError("The tensors of a probe are fc.weight and fc.bias.")
    weight, bias = tensors["fc.weight"], tensors["fc.bias"]
    if weight.ndim != 2 or bias.shape != weight.shape[:1] or {weight.dtype, bias.dtype} != {np.dtype(np.float32)}:
        raise ValueError("The shape of fc.weight must be (K, D) and that of fc.bias (K,), both float32.")
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise ValueError("A value of the probe is not finite.")
    return LinearProbe(weight, bias, normalise=_reads_normalised(data))


def _reads_normalised(data: bytes) -> bool:
    """Return the member `normalise` of a valid file's metadata; safetensors reads metadata from files on disk only.

    Source: the safetensors format: 8 bytes of length, little-endian, then the header as JSON.
    """
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    try:
        return bool(json.loads(header["__metadata__"][_METADATA]).get("normalise", False))
    except (KeyError, ValueError, AttributeError):
        return False  # written by another program: its head is on raw features
