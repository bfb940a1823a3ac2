"""Heads of the preset: one linear layer on combined features, each part with an effect of its own."""

from dataclasses import replace

import numpy as np
import pytest

from app.training.from_prompts import (
    PromptHead,
    PromptRows,
    PromptSettings,
    combine,
    fit_from_prompts,
    passes_filter,
    predict_classes,
)
from app.training.probe import logits
from app.training.prompt_parts import measure_parts, without_each_part
from app.training.zero_shot import zero_shot_head

WIDTHS = {"resnet18": 6, "photo": 8, "clip": 4}
NUM_CLASSES = 3
TEXTS = np.eye(NUM_CLASSES, 4, dtype=np.float32)
ZERO_SHOT = zero_shot_head([TEXTS[[index]] for index in range(NUM_CLASSES)], 10.0)


def features(labels: np.ndarray, seed: int, noise: float = 0.4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        name: (np.eye(NUM_CLASSES, width)[labels] + noise * rng.normal(size=(len(labels), width))).astype(np.float32)
        for name, width in WIDTHS.items()
    }


def training_rows(num_images: int = 60, seed: int = 0) -> PromptRows:
    """Each image is followed by one view."""
    labels = np.repeat(np.arange(num_images) % NUM_CLASSES, 2)
    is_view = np.arange(len(labels)) % 2 == 1
    return PromptRows(features(labels, seed), labels, is_view, np.ones(len(labels), np.bool_))


ALL_ON = PromptSettings()


def fit(settings: PromptSettings = ALL_ON) -> PromptHead:
    return fit_from_prompts(training_rows(), ZERO_SHOT, settings)


def test_the_joined_head_adds_up_the_heads_of_its_backbones() -> None:
    head = fit()
    test = features(np.arange(30) % NUM_CLASSES, 5)
    parts = sum(logits(head.heads[name], test[name]) for name in head.backbones)
    joined = logits(head.probe, combine(test, head.backbones))
    assert joined == pytest.approx(parts / np.sqrt(3), abs=1e-4)
    assert not head.probe.normalise


def test_it_classifies_pictures_that_it_was_not_trained_on() -> None:
    labels = np.arange(90) % NUM_CLASSES
    assert (predict_classes(fit(), features(labels, 5)) == labels).mean() > 0.9


def test_equal_arguments_give_equal_bytes() -> None:
    assert fit().probe.weight.tobytes() == fit().probe.weight.tobytes()


def test_rejected_images_and_views_are_left_out_where_their_part_says_so() -> None:
    rows = training_rows()
    rows = PromptRows(rows.features, rows.labels, rows.is_view, np.arange(120) >= 24)
    counts = {
        (filters, views): fit_from_prompts(rows, ZERO_SHOT, PromptSettings(filters=filters, uses_views=views)).num_rows
        for filters in (True, False)
        for views in (True, False)
    }
    assert counts == {(True, True): 96, (True, False): 48, (False, True): 120, (False, False): 60}


def test_soft_labels_reach_the_head_on_clip_alone() -> None:
    soft, hard = fit(), fit(PromptSettings(soft_share=0.0))
    assert (soft.heads["photo"].weight == hard.heads["photo"].weight).all()
    assert np.abs(soft.heads["clip"].weight - hard.heads["clip"].weight).max() > 0.01


def test_alpha_zero_is_the_zero_shot_head_at_the_temperature_of_the_soft_labels() -> None:
    head = fit(PromptSettings(alpha=0.0)).heads["clip"]
    assert head.weight == pytest.approx(ZERO_SHOT.weight / 2)


def test_every_part_that_is_on_is_switched_off_once_and_changes_the_head() -> None:
    settings = PromptSettings()
    off = without_each_part(settings)
    assert len(off) == 8
    rows = training_rows()
    rows = PromptRows(rows.features, rows.labels, rows.is_view, np.arange(120) >= 24)
    whole = fit_from_prompts(rows, ZERO_SHOT, settings).probe.weight
    for name, reduced in off.items():
        weight = fit_from_prompts(rows, ZERO_SHOT, reduced).probe.weight
        assert weight.shape != whole.shape or np.abs(weight - whole).max() > 1e-4, name
    assert (
        without_each_part(replace(settings, backbones=("photo",), uses_views=False, filters=False, soft_share=0)) == {}
    )


def test_gains_are_paired_differences_on_the_same_pictures() -> None:
    labels = np.arange(60) % NUM_CLASSES
    test = features(labels, 5, noise=0.9)
    base = np.arange(60) % 2 == 0
    whole, *others = measure_parts(training_rows(), ZERO_SHOT, PromptSettings(), test, labels, base)
    assert whole.part == "all on"
    assert whole.gain is None
    assert whole.against_baseline.difference.value == pytest.approx(whole.accuracy.value - 0.5)
    for result in others:
        assert result.gain is not None
        assert result.gain.difference.value == pytest.approx(whole.accuracy.value - result.accuracy.value)


def test_the_filter_keeps_what_clip_finds_likelier_than_chance() -> None:
    seen = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0.1, 0, 0, 1]], np.float32)
    assert passes_filter(ZERO_SHOT, seen, np.array([0, 0, 0])).tolist() == [True, False, True]


def test_a_class_without_a_row_and_no_backbone_are_refused() -> None:
    rows = training_rows()
    with pytest.raises(ValueError, match="class has no training row"):
        fit_from_prompts(rows[rows.labels != 1], ZERO_SHOT, PromptSettings())
    with pytest.raises(ValueError, match="at least one backbone"):
        fit_from_prompts(rows, ZERO_SHOT, PromptSettings(backbones=()))
