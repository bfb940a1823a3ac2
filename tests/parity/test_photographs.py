"""Heads on genuine features of genuine photographs: ants and bees on `photo`, as the issue's figures have them.

Skipped loudly where the photographs are absent. The features are those that the product computes.
"""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.engine.resnet import FeaturePayload
from app.modelpacks.timm_models import TimmComponents
from app.training.heads import fit_head
from app.training.probe import predict
from app.training.rows import Rows
from app.training.settings import HeadSettings, default_settings
from tests.parity.test_backbones import needs_photographs, photo, photo_folder, photographs, run

__all__ = ["photo", "photo_folder"]  # fixtures

BATCH = 16
NUM_DRAWS = 10

pytestmark = needs_photographs


@pytest.fixture(scope="module")
def splits(photo: TimmComponents) -> tuple[Rows, Rows]:
    """The features of the 244 training and 153 validation photographs; label 1 is a bee."""
    return features_of(photo, "train"), features_of(photo, "val")


def features_of(photo: TimmComponents, split: str) -> Rows:
    files = photographs(split)
    rows: list[np.ndarray] = []
    for start in range(0, len(files), BATCH):
        pictures = [Image.open(path).convert("RGB") for path, _ in files[start : start + BATCH]]
        rows += run(photo, [FeaturePayload(photo.preprocess(picture)) for picture in pictures])
    labels = np.array([Path(path).parent.name == "bees" for path, _ in files], np.int64)
    return Rows(np.stack(rows), labels)


def accuracy(train: Rows, test: Rows, settings: HeadSettings, seed: int = 0) -> float:
    probe = fit_head(train, None, settings, num_classes=2, seed=seed).probe
    return float((predict(probe, test.features).argmax(axis=1) == test.labels).mean())


def test_the_practicals_loop_tells_ants_from_bees(splits: tuple[Rows, Rows]) -> None:
    assert np.mean([accuracy(*splits, HeadSettings(), seed) for seed in range(3)]) >= 0.92


def test_logistic_regression_tells_ants_from_bees(splits: tuple[Rows, Rows]) -> None:
    assert accuracy(*splits, HeadSettings(solver="lbfgs")) >= 0.94


def test_five_photographs_of_each_are_enough_for_the_default_of_few_shots(splits: tuple[Rows, Rows]) -> None:
    train, test = splits
    found = []
    for seed in range(NUM_DRAWS):
        random = np.random.default_rng(seed)
        chosen = np.concatenate([random.choice(np.flatnonzero(train.labels == label), 5, False) for label in (0, 1)])
        few = Rows(train.features[chosen], train.labels[chosen])
        found.append(accuracy(few, test, default_settings(5)))
    assert np.mean(found) >= 0.90
