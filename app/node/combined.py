"""Several backbones as one: their features, each of norm 1, side by side. Its name is theirs, joined by `+`.

Imports no models. Pure functions; any thread may call them.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from app.node.protocol import BackboneFacts

SEPARATOR = "+"
MAX_PARTS = 4


def is_combined(name: str) -> bool:
    """Return whether a name stands for several backbones."""
    return SEPARATOR in name


def part_names(name: str) -> list[str]:
    """Return the names of the parts, in the order of the features."""
    return name.split(SEPARATOR)


def combined_facts(name: str, parts: Sequence[BackboneFacts]) -> BackboneFacts:
    """Return what the features of several backbones depend on.

    Args:
        name: The joined name.
        parts: The facts of each, in the order of the features; `preprocessing` keeps them.
    """
    digest = hashlib.sha256("".join(part.weights_sha256 for part in parts).encode()).hexdigest()
    first = parts[0]
    return BackboneFacts(
        architecture=SEPARATOR.join(part.architecture for part in parts),
        weights_sha256=digest,
        preprocessing={"parts": [part.to_json() for part in parts]},
        name=name,
        device=first.device,
        dtype=first.dtype,
        torch=first.torch,
    )


def parts_to_run(preprocessing: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the arguments of `Features.of_image` for each part of a combined backbone's `preprocessing`."""
    return [
        {
            "backbone": part["name"],
            "weights_sha256": part["weights_sha256"],
            "preprocessing": part["preprocessing"],
        }
        for part in preprocessing["parts"]
    ]


def combine_rows(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Return the features of the parts, each divided by its L2 norm, side by side.

    Shapes:
        rows: each (..., D_b), float32; returns: (..., sum of D_b), float32.

    Source:
        `app.training.from_prompts.combine`, which the heads are trained on; this module must not import torch.
    """
    unit = [row / np.maximum(np.linalg.norm(row, axis=-1, keepdims=True), 1e-12) for row in rows]
    return np.concatenate(unit, axis=-1).astype(np.float32)
