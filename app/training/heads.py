"""Every way to train a head: one call for all solvers, which ends in one linear layer on the backbone's features.

Works on arrays: the backbone ran before, once. Runs in the worker, on the CPU, on the thread of its caller; uses no
global random state.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional

from app.training.closed_form import fit_directly
from app.training.gradient import OnEpoch, Splits, descend, first_weights
from app.training.objective import Objective
from app.training.outcome import (
    FEW_VALIDATION_ROWS,
    HeadEpoch,
    HeadWarning,
    data_warnings,
    direct_warnings,
    refuse_diverged,
    training_warnings,
)
from app.training.probe import LinearProbe, Probabilities, logits
from app.training.rows import Rows, Scaling, one_torch_thread
from app.training.settings import HeadSettings
from app.training.sweep import Candidate, Trial, best_candidate, descend_together, settings_grid


@dataclass(frozen=True, slots=True)
class HeadResult:
    """A trained head and how it came about.

    Attributes:
        probe: On the backbone's raw features, or on normalised ones if its flag says so.
        epochs: Of the chosen setting, in order; a solver without epochs reports one.
        chosen: The setting of the head: the request's, or the sweep's choice.
        trials: All settings of a sweep, in the order of its grid; empty without one.
        best_epoch: The epoch whose head was kept by early stopping; None: the last one's, without a choice.
        warnings: What a user should know.
    """

    probe: LinearProbe
    epochs: tuple[HeadEpoch, ...]
    chosen: HeadSettings
    trials: tuple[Trial, ...] = ()
    best_epoch: int | None = None
    warnings: tuple[HeadWarning, ...] = ()


@dataclass(frozen=True, slots=True)
class _Request:
    """The checked and scaled input of a training."""

    splits: Splits
    settings: HeadSettings
    num_classes: int
    seed: int
    soft_labels: Probabilities | None
    initial: LinearProbe | None
    on_epoch: OnEpoch
    between_epochs: Callable[[], None]

    def objective(self) -> Objective:
        """Return the loss of the training rows."""
        return Objective(self.splits.train, self.settings, num_classes=self.num_classes, soft_labels=self.soft_labels)


def fit_head(
    train: Rows,
    validation: Rows | None,
    settings: HeadSettings,
    *,
    num_classes: int,
    seed: int,
    test: Rows | None = None,
    soft_labels: Probabilities | None = None,
    initial: LinearProbe | None = None,
    on_epoch: OnEpoch = lambda _: None,
    between_epochs: Callable[[], None] = lambda: None,
) -> HeadResult:
    """Train a head.

    Equal arguments give equal bytes, for any number of threads.

    Args:
        train: The training rows; each class occurs.
        validation: What a sweep and early stopping choose on; otherwise it is measured alone. None: there is none.
        settings: The solver and its settings.
        num_classes: K, >= 2.
        seed: Determines the initial weights and the order of the rows, 0 ... 2^63 - 1.
        test: Rows that are measured and never chosen on. None: there are none.
        soft_labels: The training rows' class probabilities by another model (sgd, adamw).
        initial: The head to start from, with the same `normalise` as the settings (sgd, adamw).
        on_epoch: Called after each epoch; those of a sweep's choice follow once it is made. An exception from it ends
            the training.
        between_epochs: Called after each epoch of a sweep, before the choice; an exception from it ends the training.

    Shapes:
        soft_labels: (N, K), float32; rows sum to 1.

    Raises:
        ValueError: The rows or settings are invalid, a class has no training row, or the solver needs validation rows
            or takes no soft labels and no initial head.
        Diverged: The loss or the weights are no longer finite, or the last head is worse than one that knows nothing.
    """
    settings.check()
    splits = _checked(Splits(train, validation, test), num_classes, normalise=settings.normalise)
    _refuse_unfit(splits, settings, num_classes, soft_labels, initial)
    scaling = Scaling.of(splits.train.features, settings.scaling_name)
    request = _Request(
        _map(splits, lambda rows: rows.scaled(scaling)),
        settings,
        num_classes,
        seed,
        soft_labels,
        scaling.unfold(initial) if initial else None,
        on_epoch,
        between_epochs,
    )
    return _finished(_solve(request), splits, settings, scaling, num_classes)


def _refuse_unfit(
    splits: Splits,
    settings: HeadSettings,
    num_classes: int,
    soft_labels: Probabilities | None,
    initial: LinearProbe | None,
) -> None:
    """Raise ValueError for a solver that lacks validation rows, or that takes no soft labels or no such first head."""
    if settings.needs_validation and splits.validation is None:
        raise ValueError("A sweep and early stopping need validation rows.")
    if not settings.is_iterative and (soft_labels is not None or initial is not None):
        raise ValueError("Soft labels and an initial head need the solver sgd or adamw.")
    if initial is not None:
        _check_initial(initial, splits.train, settings, num_classes)


def _finished(
    result: HeadResult, splits: Splits, settings: HeadSettings, scaling: Scaling, num_classes: int
) -> HeadResult:
    """Return a result whose head works on unscaled features, with the warnings about the rows."""
    sizes = splits.train.class_sizes(num_classes).tolist()
    warnings = (*result.warnings, *data_warnings(sizes, weighted=settings.class_weights is not None))
    probe = replace(scaling.fold(result.probe), normalise=settings.normalise)
    return replace(result, probe=probe, warnings=warnings + _validation_warnings(settings, splits.validation))


def _solve(request: _Request) -> HeadResult:
    settings = request.settings
    if settings.solver == "sweep":
        return _sweep(request)
    if not settings.is_iterative:
        return _direct(request)
    trained = descend(
        request.splits,
        request.objective(),
        settings,
        seed=request.seed,
        initial=request.initial,
        on_epoch=request.on_epoch,
    )
    return HeadResult(trained.probe, trained.epochs, settings, best_epoch=trained.best_epoch, warnings=trained.warnings)


def _direct(request: _Request) -> HeadResult:
    started_s = time.perf_counter()
    fitted = fit_directly(request.splits.train, request.settings, num_classes=request.num_classes)
    epoch = _single_epoch(fitted.probe, request.splits, started_s)
    request.on_epoch(epoch)
    warnings = (*fitted.warnings, *direct_warnings(loss=epoch.train_loss, num_classes=request.num_classes))
    return HeadResult(fitted.probe, (epoch,), request.settings, warnings=warnings)


def _sweep(request: _Request) -> HeadResult:
    """Train all settings and keep the best one's head, as it was when it was measured.

    It is not trained again on training and validation rows: that costs another fit, its validation metrics would be
    gone, and on photographs it changed the accuracy by -1.2 to +0.7 points (docs/decisions/0042-heads.md).
    """
    started_s = time.perf_counter()
    grid = settings_grid(request.settings)
    if request.settings.is_iterative:
        candidates = descend_together(
            request.splits,
            request.objective(),
            grid,
            seed=request.seed,
            initial=request.initial,
            between_epochs=request.between_epochs,
        )
    else:
        candidates = [_direct_candidate(request, each) for each in grid]
    best = best_candidate(candidates)
    warnings = _sweep_warnings(request, best) if request.settings.is_iterative else []
    epochs = best.epochs or (_single_epoch(best.probe, request.splits, started_s),)
    for epoch in epochs:
        request.on_epoch(epoch)
    trials = tuple(one.trial for one in candidates)
    return HeadResult(best.probe, epochs, best.trial.settings, trials, warnings=tuple(warnings))


def _direct_candidate(request: _Request, settings: HeadSettings) -> Candidate:
    fitted = fit_directly(request.splits.train, settings, num_classes=request.num_classes)
    request.between_epochs()
    assert request.splits.validation is not None  # noqa: S101 - tells mypy what fit_head checked
    return Candidate(Trial(settings, *_measure(fitted.probe, request.splits.validation)), fitted.probe)


def _sweep_warnings(request: _Request, best: Candidate) -> list[HeadWarning]:
    """Compare the choice with the head that all settings started from."""
    train, num_classes = request.splits.train, request.num_classes
    first = request.initial
    if first is None:
        weight, bias = first_weights(train.features.shape[1], num_classes, request.seed)
        first = LinearProbe(weight.numpy(), bias.numpy())
    before, after = _measure(first, train)[0], _measure(best.probe, train)[0]
    refuse_diverged(before=before, after=after, num_classes=num_classes)
    return training_warnings(before=before, after=after, num_classes=num_classes)


def _validation_warnings(settings: HeadSettings, validation: Rows | None) -> tuple[HeadWarning, ...]:
    if not settings.needs_validation or validation is None or len(validation) >= FEW_VALIDATION_ROWS:
        return ()
    detail = f"The choice rests on {len(validation)} validation images: another split may choose differently."
    return (HeadWarning("few_validation_images", detail),)


def _single_epoch(probe: LinearProbe, splits: Splits, started_s: float) -> HeadEpoch:
    """Return the metrics of a finished head as those of one epoch."""
    train_loss, train_accuracy = _measure(probe, splits.train)
    test_loss, test_accuracy = _measure(probe, splits.test) if splits.test else (None, None)
    validation_loss, validation_accuracy = _measure(probe, splits.validation) if splits.validation else (None, None)
    return HeadEpoch(
        epoch=1,
        train_loss=train_loss,
        train_accuracy=train_accuracy,
        test_loss=test_loss,
        test_accuracy=test_accuracy,
        lr=0.0,
        elapsed_ms=(time.perf_counter() - started_s) * 1000,
        validation_loss=validation_loss,
        validation_accuracy=validation_accuracy,
    )


def _measure(probe: LinearProbe, rows: Rows) -> tuple[float, float]:
    """Return the mean cross-entropy and the accuracy."""
    with one_torch_thread():
        scores, labels = torch.from_numpy(logits(probe, rows.features)), torch.from_numpy(np.array(rows.labels))
        loss = float(functional.cross_entropy(scores, labels))
    return loss, int((scores.argmax(dim=1) == labels).sum()) / len(labels)


def _checked(splits: Splits, num_classes: int, *, normalise: bool) -> Splits:
    """Return the rows checked, and normalised if asked; an empty split is none."""
    validation, test = (rows if rows is not None and len(rows) else None for rows in (splits.validation, splits.test))
    checked = _map(
        Splits(splits.train.checked_for_training(num_classes), validation, test),
        lambda rows: rows.checked(num_classes),
    )
    if any(rows and rows.features.shape[1] != checked.train.features.shape[1] for rows in (validation, test)):
        raise ValueError("The rows of all splits must have the same number of features.")
    return _map(checked, Rows.normalised) if normalise else checked


def _check_initial(initial: LinearProbe, train: Rows, settings: HeadSettings, num_classes: int) -> None:
    if initial.weight.shape != (num_classes, train.features.shape[1]):
        raise ValueError("The initial head must have one row per class and one column per feature.")
    if initial.normalise != settings.normalise:
        raise ValueError("The initial head and the settings must agree on normalised features.")


def _map(splits: Splits, change: Callable[[Rows], Rows]) -> Splits:
    """Return the splits with every set of rows changed."""
    validation, test = (change(rows) if rows else None for rows in (splits.validation, splits.test))
    return Splits(change(splits.train), validation, test)
