"""The practical's flow, with the product's own training: generate, take features, train a linear probe, test it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import nn
from torchvision.models import resnet18

from app.training.linear_probe import LinearProbe, fit, predict
from bench.demo_pack.drawings import drawings_of
from bench.demo_pack.generation import Studio, Wish
from bench.demo_pack.loading import Pack
from bench.demo_pack.metrics import Scores
from bench.demo_pack.reading import network_outputs
from bench.demo_pack.table import Figure, Outcome
from bench.demo_pack.words import natural_subject, painting

TRAIN_SEED = 20_000
FRESH_SEED = 30_000


@dataclass(frozen=True)
class Counts:
    """Pictures of each class: generated to train on, freshly generated to test on, and drawings to test on."""

    train: int
    fresh: int
    drawings: int


@dataclass(frozen=True)
class Case:
    """Classes to tell apart, in how many tests, and with which targets (None: without)."""

    class_names: tuple[str, ...]
    counts: Counts
    fresh_target: float | None = None
    drawings_target: float | None = None


def make_cases(counts: Counts) -> list[Case]:
    """List the cases: the practical's, which has targets; two that look alike; five, with fewer tests each."""
    half, fifth = (
        Counts(counts.train, max(1, counts.fresh // part), max(1, counts.drawings // part)) for part in (2, 5)
    )
    return [
        Case(("fox", "dog"), counts, 0.98, 0.95),
        Case(("cat", "rabbit"), half),
        Case(("fox", "dog", "bird", "flower", "car"), fifth),
    ]


def measure_probes(pack: Pack, studio: Studio, workdir: Path, processes: int, counts: Counts) -> Outcome:
    """Train and test a probe for each case."""
    backbone = _backbone(pack)
    figures: list[Figure] = []
    quality: dict[str, object] = {}
    for case in make_cases(counts):
        unseen = drawings_of(workdir, processes, case.class_names, case.counts.drawings)
        fresh, drawn = _accuracies(pack, studio, backbone, case, unseen)
        title = "/".join(case.class_names)
        figures += [
            Figure(f"probe {title}: fresh pictures", fresh, case.fresh_target),
            Figure(f"probe {title}: drawings", drawn, case.drawings_target),
        ]
        quality[title] = {"fresh_pictures": fresh, "drawings": drawn, "trained_on_a_class": case.counts.train}
    return Outcome(figures, quality)


def _accuracies(
    pack: Pack, studio: Studio, backbone: nn.Module, case: Case, unseen: dict[str, list[Image.Image]]
) -> tuple[float, float]:
    """Train on generated pictures with the practical's defaults; test on fresh ones and on drawings."""
    generated, fresh = (
        {name: _pictures(studio, name, seed, count) for name in case.class_names}
        for seed, count in ((TRAIN_SEED, case.counts.train), (FRESH_SEED, case.counts.fresh))
    )
    num_classes = len(case.class_names)
    rows, labels = _features(pack, backbone, case.class_names, generated)
    probe = fit(rows, labels, None, None, num_classes=num_classes).probe
    tests = (_features(pack, backbone, case.class_names, images) for images in (fresh, unseen))
    on_fresh, on_drawings = (round(_accuracy(probe, *test), 4) for test in tests)
    return on_fresh, on_drawings


def _accuracy(probe: LinearProbe, rows: Scores, labels: np.ndarray[tuple[int], np.dtype[np.int64]]) -> float:
    return float((predict(probe, rows).argmax(axis=1) == labels).mean())


def _pictures(studio: Studio, name: str, first_seed: int, count: int) -> list[Image.Image]:
    prompt = painting(natural_subject(name))
    return studio.images(f"probe, {name}", [Wish(prompt, first_seed + row) for row in range(count)])


def _backbone(pack: Pack) -> nn.Module:
    """Build the classifier without its head, as the service does where a pack has no other backbone."""
    backbone: nn.Module = resnet18(weights=None, num_classes=len(pack.classes))
    backbone.load_state_dict(pack.classifier.state_dict())
    backbone.fc = nn.Identity()
    return backbone.eval()


def _features(
    pack: Pack, backbone: nn.Module, class_names: Sequence[str], images: dict[str, list[Image.Image]]
) -> tuple[Scores, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """**Shapes**: (N, 512) float32 features and (N,) int64 labels."""
    pictures = [image for name in class_names for image in images[name]]
    labels = [index for index, name in enumerate(class_names) for _ in images[name]]
    return network_outputs(backbone, pack.preprocess, pictures), np.array(labels, np.int64)
