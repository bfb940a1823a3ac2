"""What the servers answer, in one form, and whether they say the same. Knows no HTTP."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

# Of a score. Servers differ by rounding alone: the same weights, float32, the same preprocessing.
# Answers about another image, or of other weights, are further away by far.
TOLERANCE = 1e-3

# What is said of each label: its logit, or the logarithm of its probability, which differs as logits do.
Scores = dict[str, float]


def read_ours(answers: list[bytes]) -> Scores:
    """Read `/classify` or `/clip-score` of ours."""
    answer = json.loads(answers[0])
    if "scores" in answer:
        return {score["label"]: score["logit"] for score in answer["scores"]}
    return _predicted(answer)


def read_litserve(answers: list[bytes], labels: list[str]) -> Scores:
    """Read the same of the LitServe peer, which does not repeat the labels."""
    answer = json.loads(answers[0])
    return dict(zip(labels, answer["logits"], strict=True)) if "logits" in answer else _predicted(answer)


def read_infinity(answers: list[bytes], labels: list[str], logit_scale: float) -> Scores:
    """Make scores of infinity's embeddings of an image and of its labels, in this order, as its clients must."""
    image, texts = (_embeddings(answer) for answer in answers)
    return dict(zip(labels, (logit_scale * texts @ image[0]).tolist(), strict=True))


def logit_scale_of(clip: Path) -> float:
    """Return what CLIP multiplies cosines with."""
    with safe_open(clip / "model.safetensors", "pt") as weights:
        return math.exp(weights.get_tensor("logit_scale").item())


def check_same(name: str, theirs: Scores, ours: Scores) -> None:
    """Make sure that a peer answers what we do.

    Raises:
        RuntimeError: Other labels, or a score that is further than `TOLERANCE` away.
    """
    if theirs.keys() != ours.keys():
        raise RuntimeError(f"{name} answers with other labels than ours: {sorted(theirs)}, not {sorted(ours)}")
    furthest = max(abs(theirs[label] - score) for label, score in ours.items())
    if not furthest <= TOLERANCE:
        raise RuntimeError(f"{name} answers other scores than ours: {furthest:.2g} away")


def _predicted(answer: dict[str, Any]) -> Scores:
    return {prediction["label"]: math.log(prediction["probability"]) for prediction in answer["predictions"]}


def _embeddings(answer: bytes) -> np.ndarray:
    rows = [base64.b64decode(item["embedding"]) for item in json.loads(answer)["data"]]
    return np.array([np.frombuffer(row, dtype=np.float32) for row in rows])
