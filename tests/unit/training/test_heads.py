"""Every solver ends in one linear head, chooses on validation alone, and repeats to the byte."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from app.training.heads import HeadResult, fit_head
from app.training.outcome import Diverged, HeadEpoch
from app.training.probe import LinearProbe, predict
from app.training.rows import Rows
from app.training.settings import HeadSettings, default_settings

NUM_CLASSES, NUM_FEATURES = 3, 16
SETTINGS = {
    "sgd": HeadSettings(epochs=20, lr=0.01),
    "adamw": HeadSettings(solver="adamw", epochs=20, lr=0.01),
    "lbfgs": HeadSettings(solver="lbfgs"),
    "ridge": HeadSettings(solver="ridge"),
    "prototypes": HeadSettings(solver="prototypes"),
    "sweep of sgd": HeadSettings(solver="sweep"),
    "sweep of adamw": HeadSettings(solver="sweep", sweep_solver="adamw"),
    "sweep of lbfgs": HeadSettings(solver="sweep", sweep_solver="lbfgs"),
}
every_solver = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)


def clusters(num_rows: int, *, seed: int, num_classes: int = NUM_CLASSES, spread: float = 1.0) -> Rows:
    """Rows around one centre per class."""
    random = np.random.default_rng(seed)
    labels = np.arange(num_rows) % num_classes
    centres = np.eye(num_classes, NUM_FEATURES) * 8 + 2
    noise = random.normal(size=(num_rows, NUM_FEATURES)) * spread
    return Rows((centres[labels] + noise).astype(np.float32), labels.astype(np.int64))


TRAIN, VALIDATION, TEST = clusters(60, seed=0), clusters(30, seed=1), clusters(30, seed=2)


def train(settings: HeadSettings, **changes: Any) -> HeadResult:
    options: dict[str, Any] = {"num_classes": NUM_CLASSES, "seed": 1, "test": TEST, **changes}
    return fit_head(options.pop("train", TRAIN), options.pop("validation", VALIDATION), settings, **options)


def accuracy(probe: LinearProbe, rows: Rows) -> float:
    return float((predict(probe, rows.features).argmax(axis=1) == rows.labels).mean())


@every_solver
def test_separable_classes_are_learned(settings: HeadSettings) -> None:
    result = train(settings)
    assert accuracy(result.probe, TEST) == 1.0
    assert result.probe.weight.shape == (NUM_CLASSES, NUM_FEATURES)
    assert {result.probe.weight.dtype, result.probe.bias.dtype} == {np.dtype(np.float32)}


@every_solver
@pytest.mark.parametrize("scaling", ["none", "norm", "standard"])
def test_the_head_on_raw_features_gives_the_metrics_of_the_scaled_one(settings: HeadSettings, scaling: Any) -> None:
    result = train(replace(settings, scaling=scaling))
    likely = predict(result.probe, TEST.features)[np.arange(30), TEST.labels]
    assert result.epochs[-1].test_loss == pytest.approx(-np.log(likely).mean(), abs=1e-4)
    assert result.epochs[-1].test_accuracy == accuracy(result.probe, TEST)


@every_solver
def test_normalised_features_are_the_heads_flag(settings: HeadSettings) -> None:
    probe = train(replace(settings, normalise=True)).probe
    assert probe.normalise
    longer = Rows(TEST.features * np.float32(7), TEST.labels)
    np.testing.assert_allclose(predict(probe, longer.features), predict(probe, TEST.features), atol=1e-5)


@every_solver
def test_equal_arguments_give_equal_bytes_for_any_number_of_threads(settings: HeadSettings) -> None:
    random = np.random.default_rng(0)  # large enough that two threads would sum in another order
    rows = Rows(random.normal(size=(300, 1024)).astype(np.float32), np.arange(300) % 4)
    before = torch.get_num_threads()
    heads = []
    for num_threads in (1, 2):
        torch.set_num_threads(num_threads)
        shorter = replace(settings, epochs=2, batch_size=100)
        heads.append(fit_head(rows, rows, shorter, num_classes=4, seed=3).probe)
        assert torch.get_num_threads() == num_threads
    torch.set_num_threads(before)
    assert heads[0].weight.tobytes() == heads[1].weight.tobytes()
    assert heads[0].bias.tobytes() == heads[1].bias.tobytes()


@every_solver
def test_every_epoch_is_reported_with_the_metrics_of_all_splits(settings: HeadSettings) -> None:
    reported: list[HeadEpoch] = []
    result = train(settings, on_epoch=reported.append)
    assert tuple(reported) == result.epochs
    assert [metrics.epoch for metrics in reported] == list(range(1, len(reported) + 1))
    assert all(None not in (each.validation_loss, each.validation_accuracy, each.test_loss) for each in reported)


@every_solver
def test_no_solver_looks_at_the_test_rows(settings: HeadSettings) -> None:
    assert np.array_equal(train(settings, test=None).probe.weight, train(settings).probe.weight)


@every_solver
def test_a_class_without_rows_is_refused(settings: HeadSettings) -> None:
    with pytest.raises(ValueError, match="no training row"):
        train(settings, num_classes=NUM_CLASSES + 1)


@every_solver
def test_two_classes_are_a_head_of_two_rows(settings: HeadSettings) -> None:
    rows, other = clusters(40, seed=0, num_classes=2), clusters(20, seed=1, num_classes=2)
    probe = fit_head(rows, other, settings, num_classes=2, seed=0).probe
    assert probe.weight.shape == (2, NUM_FEATURES)
    assert accuracy(probe, other) == 1.0


@pytest.mark.parametrize("solver", ["sgd", "adamw", "lbfgs", "ridge", "prototypes"])
def test_one_row_a_class_trains_with_a_warning(solver: Any) -> None:
    rows = Rows(np.eye(3, NUM_FEATURES, dtype=np.float32) * 5 + 1, np.arange(3))
    result = fit_head(rows, None, HeadSettings(solver=solver, epochs=50, lr=0.01), num_classes=3, seed=0)
    assert accuracy(result.probe, rows) == 1.0
    assert "few_training_images" in [warning.code for warning in result.warnings]


def test_early_stopping_keeps_the_epoch_with_the_lowest_validation_loss() -> None:
    noisy, other = clusters(12, seed=0, spread=8), clusters(60, seed=1, spread=8)
    result = train(HeadSettings(epochs=200, lr=0.05, patience=4), train=noisy, validation=other)
    losses = [metrics.validation_loss or np.inf for metrics in result.epochs]
    assert result.best_epoch == int(np.argmin(losses)) + 1
    assert len(losses) == result.best_epoch + 4
    likely = predict(result.probe, other.features)[np.arange(60), other.labels]
    assert -np.log(likely).mean() == pytest.approx(min(losses), rel=1e-4)


def test_without_patience_the_last_epoch_is_kept() -> None:
    result = train(HeadSettings(epochs=3))
    assert result.best_epoch is None
    assert len(result.epochs) == 3


def test_balanced_weights_raise_the_recall_of_a_rare_class() -> None:
    random = np.random.default_rng(0)
    labels = np.array([0] * 100 + [1] * 4)
    rows = Rows((random.normal(size=(104, 4)) + labels[:, None] * 1.2).astype(np.float32), labels)
    rare = Rows(rows.features[labels == 1], labels[labels == 1])
    for solver in ("sgd", "lbfgs", "ridge"):
        settings = HeadSettings(solver=solver, epochs=50, lr=0.01)
        plain = fit_head(rows, None, settings, num_classes=2, seed=0)
        balanced = fit_head(rows, None, replace(settings, class_weights="balanced"), num_classes=2, seed=0)
        assert accuracy(balanced.probe, rare) > accuracy(plain.probe, rare)
        assert "imbalanced" in [warning.code for warning in plain.warnings]
        assert "imbalanced" not in [warning.code for warning in balanced.warnings]


@pytest.mark.parametrize("solver", ["sgd", "adamw"])
def test_label_smoothing_makes_the_head_less_sure(solver: Any) -> None:
    settings = HeadSettings(solver=solver, epochs=60, lr=0.01)
    smooth = replace(settings, label_smoothing=0.3)
    sure, unsure = (predict(train(each).probe, TRAIN.features).max(axis=1).mean() for each in (settings, smooth))
    assert unsure < sure - 0.1
    assert unsure == pytest.approx(0.8, abs=0.05)  # 1 - 0.3 + 0.3 / 3


def test_soft_labels_alone_are_reproduced_by_the_head() -> None:
    soft = np.full((60, NUM_CLASSES), 0.2, np.float32)
    soft[np.arange(60), (TRAIN.labels + 1) % NUM_CLASSES] = 0.6
    settings = HeadSettings(epochs=300, lr=0.01, soft_share=1.0)
    np.testing.assert_allclose(predict(train(settings, soft_labels=soft).probe, TRAIN.features), soft, atol=0.15)
    mixed = train(replace(settings, soft_share=0.25), soft_labels=soft).probe
    assert accuracy(mixed, TRAIN) == 1.0


@pytest.mark.parametrize("scaling", ["none", "norm", "standard"])
@pytest.mark.parametrize("solver", ["sgd", "adamw", "sweep"])
def test_training_starts_from_the_given_head(solver: Any, scaling: Any) -> None:
    random = np.random.default_rng(4)
    initial = LinearProbe(
        random.normal(size=(NUM_CLASSES, NUM_FEATURES)).astype(np.float32), np.arange(3, dtype=np.float32)
    )
    settings = HeadSettings(solver=solver, epochs=1, lr=0.0, scaling=scaling)
    np.testing.assert_allclose(train(settings, initial=initial).probe.weight, initial.weight, atol=1e-5)
    np.testing.assert_allclose(train(settings, initial=initial).probe.bias, initial.bias, atol=1e-4)


def test_the_schedules_reach_the_reported_learning_rates() -> None:
    step = train(HeadSettings(epochs=15, lr=1e-3, schedule="step")).epochs
    assert [metrics.lr for metrics in step] == pytest.approx([1e-3] * 7 + [1e-4] * 7 + [1e-5])
    cosine = train(HeadSettings(epochs=6, lr=1e-3, schedule="cosine", warmup_epochs=2)).epochs
    assert [metrics.lr for metrics in cosine] == pytest.approx(
        [1e-3 / 3, 2e-3 / 3, 1e-3, 1e-3 * (2 + 2**0.5) / 4, 5e-4, 1e-3 * (2 - 2**0.5) / 4]
    )


@pytest.mark.parametrize("solver", ["sgd", "adamw", "sweep"])
def test_a_loss_far_above_that_of_an_untrained_head_is_no_success(solver: Any) -> None:
    noise = Rows(np.random.default_rng(0).normal(size=(60, NUM_FEATURES)).astype(np.float32), np.arange(60) % 3)
    with pytest.raises(Diverged):
        train(HeadSettings(solver=solver, lr=1000.0), train=noise)


def test_a_loss_somewhat_above_that_of_an_untrained_head_is_a_warning() -> None:
    noise = Rows(np.random.default_rng(0).normal(size=(60, NUM_FEATURES)).astype(np.float32), np.arange(60) % 3)
    result = train(HeadSettings(lr=2.0), train=noise)
    assert [warning.code for warning in result.warnings] == ["high_training_loss"]


@pytest.mark.parametrize("solver", ["sgd", "adamw", "sweep"])
def test_an_untrained_head_is_a_warning(solver: Any) -> None:
    assert "not_trained" in [warning.code for warning in train(HeadSettings(solver=solver, lr=1e-12)).warnings]
    assert "not_trained" not in [warning.code for warning in train(HeadSettings(solver=solver)).warnings]


def test_a_head_that_was_good_before_is_not_called_untrained() -> None:
    good = train(HeadSettings(solver="lbfgs")).probe
    assert train(HeadSettings(lr=1e-12), initial=good).warnings == ()


def test_few_validation_images_are_a_warning_where_they_choose() -> None:
    few = Rows(VALIDATION.features[:9], VALIDATION.labels[:9])
    assert [warning.code for warning in train(HeadSettings(solver="sweep"), validation=few).warnings] == [
        "few_validation_images"
    ]
    assert train(HeadSettings(), validation=few).warnings == ()


def test_sound_training_has_no_warning() -> None:
    assert all(train(settings).warnings == () for settings in SETTINGS.values())


INVALID: dict[str, dict[str, Any]] = {
    "a sweep without validation": {"settings": HeadSettings(solver="sweep"), "validation": None},
    "early stopping on no rows": {
        "settings": HeadSettings(patience=3),
        "validation": Rows(np.zeros((0, NUM_FEATURES), np.float32), np.zeros(0, np.int64)),
    },
    "soft labels without a loss": {
        "settings": HeadSettings(solver="ridge"),
        "soft_labels": np.full((60, 3), 1 / 3, np.float32),
    },
    "a first head without steps": {
        "settings": HeadSettings(solver="lbfgs"),
        "initial": LinearProbe(np.zeros((3, NUM_FEATURES), np.float32), np.zeros(3, np.float32)),
    },
    "a first head of other classes": {"initial": LinearProbe(np.zeros((2, 16), np.float32), np.zeros(2, np.float32))},
    "a first head on other features": {
        "initial": LinearProbe(np.zeros((3, 16), np.float32), np.zeros(3, np.float32), normalise=True)
    },
    "soft labels of other rows": {"soft_labels": np.full((59, 3), 1 / 3, np.float32)},
    "soft labels that are no probabilities": {"soft_labels": np.full((60, 3), 1, np.float32)},
    "validation rows of another backbone": {"validation": Rows(np.zeros((1, 4), np.float32), np.zeros(1, np.int64))},
    "a sweep that stops early": {"settings": HeadSettings(solver="sweep", patience=1)},
    "no epoch": {"settings": HeadSettings(epochs=0)},
    "nothing but warm-up": {"settings": HeadSettings(epochs=2, warmup_epochs=2)},
    "all mass smoothed": {"settings": HeadSettings(label_smoothing=1.0)},
    "no penalty": {"settings": HeadSettings(solver="ridge", alpha=0.0)},
    "negative rate": {"settings": HeadSettings(lr=-1.0)},
}


@pytest.mark.parametrize("changes", INVALID.values(), ids=INVALID)
def test_invalid_requests_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        train(**{"settings": HeadSettings(), **changes})


def test_the_default_head_follows_the_images_a_class_and_the_backbone() -> None:
    assert default_settings(1).solver == default_settings(16).solver == "prototypes"
    assert default_settings(17) == default_settings(5, neutral_backbone=False) == HeadSettings()
