"""A sweep trains each setting as it would be trained alone, and chooses on the validation rows."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from app.training.gradient import Splits, descend
from app.training.heads import fit_head
from app.training.objective import Objective
from app.training.rows import Rows
from app.training.settings import HeadSettings
from app.training.sweep import Candidate, descend_together, settings_grid

NUM_CLASSES = 3


def noisy(num_rows: int, *, seed: int) -> Rows:
    random = np.random.default_rng(seed)
    labels = np.arange(num_rows) % NUM_CLASSES
    return Rows((random.normal(size=(num_rows, 8)) + np.eye(3, 8)[labels] * 2).astype(np.float32), labels)


SPLITS = Splits(noisy(50, seed=0), noisy(30, seed=1), noisy(20, seed=2))
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "schedule": {"schedule": "cosine", "warmup_epochs": 1},
    "weights": {"class_weights": "balanced"},
    "smoothing": {"label_smoothing": 0.2},
}


def sweep(settings: HeadSettings, **options: Any) -> list[Candidate]:
    objective = Objective(SPLITS.train, settings, num_classes=NUM_CLASSES, soft_labels=None)
    return descend_together(SPLITS, objective, settings_grid(settings), seed=5, **options)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("solver", ["sgd", "adamw"])
def test_each_setting_gives_the_head_and_metrics_that_it_gives_alone(solver: Any, variant: dict[str, Any]) -> None:
    settings = HeadSettings(solver="sweep", sweep_solver=solver, epochs=4, batch_size=7, **variant)
    candidates = sweep(settings)
    assert len(candidates) == 24
    for candidate in candidates:
        alone = candidate.trial.settings
        objective = Objective(SPLITS.train, alone, num_classes=NUM_CLASSES, soft_labels=None)
        expected = descend(SPLITS, objective, alone, seed=5)
        np.testing.assert_allclose(candidate.probe.weight, expected.probe.weight, atol=1e-5)
        np.testing.assert_allclose(candidate.probe.bias, expected.probe.bias, atol=1e-5)
        for ours, theirs in zip(candidate.epochs, expected.epochs, strict=True):
            assert ours.lr == theirs.lr
            for name in ("train_loss", "train_accuracy", "validation_loss", "test_loss", "test_accuracy"):
                assert getattr(ours, name) == pytest.approx(getattr(theirs, name), abs=1e-5)


def test_the_choice_has_the_lowest_validation_loss() -> None:
    settings = HeadSettings(solver="sweep", epochs=5)
    result = fit_head(SPLITS.train, SPLITS.validation, settings, num_classes=NUM_CLASSES, seed=5)
    losses = [trial.validation_loss or np.inf for trial in result.trials]
    best = result.trials[int(np.argmin(losses))]
    assert result.chosen == best.settings
    assert result.epochs[-1].validation_loss == best.validation_loss
    assert len({(trial.settings.lr, trial.settings.weight_decay) for trial in result.trials}) == 24


def test_another_validation_split_may_choose_another_setting_and_nothing_else_changes() -> None:
    settings = HeadSettings(solver="sweep", epochs=5)
    wrong = Rows(noisy(30, seed=1).features, (noisy(30, seed=1).labels + 1) % 3)
    right, misled = (
        fit_head(SPLITS.train, rows, settings, num_classes=NUM_CLASSES, seed=5) for rows in (SPLITS.validation, wrong)
    )
    assert misled.chosen.lr < right.chosen.lr  # wrong labels favour the least trained head


def test_settings_that_overflow_are_passed_over() -> None:
    settings = HeadSettings(solver="sweep", epochs=10, lr=1e36)
    rows = Rows(SPLITS.train.features * np.float32(100), SPLITS.train.labels)
    objective = Objective(rows, settings, num_classes=NUM_CLASSES, soft_labels=None)
    grid = [*settings_grid(replace(settings, lr=1e-5))[:2], *settings_grid(settings)[-2:]]
    trials = [one.trial for one in descend_together(Splits(rows, rows), objective, grid, seed=0)]
    assert [trial.validation_loss is None for trial in trials] == [False, False, True, True]


def test_heads_too_large_for_one_pass_take_several_with_the_same_result() -> None:
    settings = HeadSettings(solver="sweep", epochs=2)
    together = sweep(settings)
    apart = sweep(settings, max_weights=5 * NUM_CLASSES * 9)
    for one, other in zip(together, apart, strict=True):
        np.testing.assert_allclose(one.probe.weight, other.probe.weight, atol=1e-6)


def test_a_sweep_can_be_cancelled_between_its_epochs() -> None:
    epochs: list[int] = []

    def cancel() -> None:
        epochs.append(1)
        if len(epochs) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(HeadSettings(solver="sweep", epochs=100), between_epochs=cancel)
    assert len(epochs) == 3


def test_a_sweep_of_logistic_regression_varies_c() -> None:
    settings = HeadSettings(solver="sweep", sweep_solver="lbfgs")
    result = fit_head(SPLITS.train, SPLITS.validation, settings, num_classes=NUM_CLASSES, seed=0)
    assert len({trial.settings.c for trial in result.trials}) == 6
    assert result.chosen.solver == "lbfgs"
