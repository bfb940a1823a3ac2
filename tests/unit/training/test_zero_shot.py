"""A zero-shot head is CLIP's classifier, and a blend lies between it and a trained head."""

import numpy as np
import pytest

from app.training.heads import fit_head
from app.training.probe import LinearProbe, logits, predict
from app.training.rows import Rows
from app.training.settings import HeadSettings
from app.training.zero_shot import blend, choose_alpha, soft_labels, zero_shot_head

RANDOM = np.random.default_rng(0)
TEXTS = [RANDOM.normal(size=(count, 8)).astype(np.float32) * 5 for count in (1, 3, 2)]
IMAGES = RANDOM.normal(size=(20, 8)).astype(np.float32) * 3


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_the_scores_are_scaled_cosines_with_the_mean_prompt() -> None:
    prototypes = np.stack([unit(unit(rows).mean(axis=0)) for rows in TEXTS])
    expected = 100 * unit(IMAGES) @ prototypes.T
    np.testing.assert_allclose(logits(zero_shot_head(TEXTS, 100.0), IMAGES), expected, atol=1e-4)


def test_soft_labels_are_the_probabilities_at_a_temperature() -> None:
    head = zero_shot_head(TEXTS, 10.0)
    np.testing.assert_allclose(soft_labels(head, IMAGES, temperature=1.0), predict(head, IMAGES), atol=1e-6)
    softer = soft_labels(head, IMAGES)
    assert (softer.argmax(axis=1) == predict(head, IMAGES).argmax(axis=1)).all()
    assert (softer.max(axis=1) < predict(head, IMAGES).max(axis=1)).all()
    np.testing.assert_allclose(softer.sum(axis=1), 1, atol=1e-6)


def test_a_blend_has_the_mean_of_the_logits() -> None:
    one = zero_shot_head(TEXTS, 10.0)
    labels = np.arange(20) % 3
    settings = HeadSettings(epochs=5, lr=0.5, normalise=True)
    trained = fit_head(
        Rows(IMAGES, labels), None, settings, num_classes=3, seed=0,
        initial=one, soft_labels=soft_labels(one, IMAGES),
    ).probe  # fmt: skip
    mixed = blend(one, trained, 0.25)
    assert mixed.normalise
    np.testing.assert_allclose(
        logits(mixed, IMAGES), 0.75 * logits(one, IMAGES) + 0.25 * logits(trained, IMAGES), atol=1e-5
    )
    assert np.array_equal(blend(one, trained, 0.0).weight, one.weight)
    assert np.array_equal(blend(one, trained, 1.0).weight, trained.weight)


def test_alpha_goes_to_the_head_that_is_right_on_validation_images() -> None:
    good = zero_shot_head(TEXTS, 20.0)
    bad = LinearProbe(-good.weight, good.bias, normalise=True)
    rows = Rows(IMAGES, predict(good, IMAGES).argmax(axis=1))
    assert choose_alpha(good, bad, rows) == 0.0
    assert choose_alpha(bad, good, rows) == 1.0


def test_equal_accuracies_are_decided_by_the_loss() -> None:
    sure = zero_shot_head(TEXTS, 30.0)
    surer = LinearProbe(sure.weight * 10, sure.bias, normalise=True)
    labels = predict(sure, IMAGES).argmax(axis=1)
    labels[:5] = (labels[:5] + 1) % 3  # what is sure of mistakes loses more
    assert choose_alpha(sure, surer, Rows(IMAGES, labels)) == 0.0


def test_without_validation_images_alpha_is_a_half() -> None:
    head = zero_shot_head(TEXTS, 10.0)
    assert choose_alpha(head, head, None) == 0.5
    assert choose_alpha(head, head, Rows(IMAGES[:0], np.zeros(0, np.int64))) == 0.5


def test_heads_that_do_not_fit_together_are_not_blended() -> None:
    head = zero_shot_head(TEXTS, 10.0)
    with pytest.raises(ValueError, match="normalised"):
        blend(head, LinearProbe(head.weight, head.bias), 0.5)
    with pytest.raises(ValueError, match="shapes"):
        blend(head, zero_shot_head(TEXTS[:2], 10.0), 0.5)
    with pytest.raises(ValueError, match="Alpha"):
        blend(head, head, 1.1)


@pytest.mark.parametrize(
    "texts",
    [TEXTS[:1], [TEXTS[0], TEXTS[1][:0]], [TEXTS[0], np.full((1, 8), np.nan, np.float32)]],
    ids=["one class", "no prompt", "not a number"],
)
def test_invalid_embeddings_are_refused(texts: list) -> None:
    with pytest.raises(ValueError, match=r"text embeddings|at least two classes"):
        zero_shot_head(texts, 10.0)
