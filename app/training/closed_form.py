"""Heads without epochs: logistic regression by L-BFGS and ridge regression (scikit-learn), and class means.

Works on rows of features. Runs in the worker, on the CPU, on the thread of its caller; limits torch, BLAS and OpenMP to
one thread.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeClassifierCV

from app.training.outcome import HeadWarning
from app.training.probe import LinearProbe
from app.training.rows import Rows, one_thread
from app.training.settings import HeadSettings

Floats = npt.NDArray[np.float64]

MAX_ITERATIONS = 1_000
# CLIP's first temperature and the cap of its logit scale (Radford et al. 2021, section 2.5).
DEFAULT_SCALE, MAX_SCALE = 1 / 0.07, 100.0
# Few rows, each predicted without itself by a model that leans to the other classes, would otherwise give scale 0.
MIN_SCALE = 1.0


@dataclass(frozen=True, slots=True)
class DirectFit:
    """A head, and what a user should know about its fit."""

    probe: LinearProbe
    warnings: tuple[HeadWarning, ...] = ()


def fit_directly(train: Rows, settings: HeadSettings, *, num_classes: int) -> DirectFit:
    """Fit a head of `lbfgs`, `ridge` or `prototypes`; equal arguments give equal bytes for any number of threads.

    Args:
        train: Checked rows, scaled as the solver needs them; each class occurs. A float64 copy needs 8 N D bytes.
        settings: The solver, its strength and its class weights.
        num_classes: K.
    """
    solve: dict[str, Callable[[Floats, Rows, HeadSettings, int], tuple[Floats, Floats, bool]]] = {
        "lbfgs": _logistic_regression,
        "ridge": _ridge,
        "prototypes": _prototypes,
    }
    with one_thread():
        features = train.features.astype(np.float64)
        weight, bias, converged = solve[settings.solver](features, train, settings, num_classes)
    probe = LinearProbe(weight.astype(np.float32), bias.astype(np.float32))
    detail = f"L-BFGS did not converge in {MAX_ITERATIONS} iterations. Use a smaller C."
    return DirectFit(probe, () if converged else (HeadWarning("not_converged", detail),))


def _logistic_regression(
    features: Floats, train: Rows, settings: HeadSettings, num_classes: int
) -> tuple[Floats, Floats, bool]:
    """Fit scikit-learn's LogisticRegression; two classes have one row of weights there, and K here."""
    model = LogisticRegression(C=settings.c, class_weight=settings.class_weights, max_iter=MAX_ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # reported by the number of iterations
        model.fit(features, train.labels)
    weight, bias = _one_row_per_class(model.coef_, model.intercept_, num_classes)
    return weight, bias, int(np.max(model.n_iter_)) < MAX_ITERATIONS


def _ridge(features: Floats, train: Rows, settings: HeadSettings, num_classes: int) -> tuple[Floats, Floats, bool]:
    """Fit scikit-learn's ridge classifier; the temperature of its scores comes from leave-one-out predictions.

    These need no further fit (generalised cross-validation, Golub et al. 1979), and no validation rows.
    """
    model = RidgeClassifierCV(
        [settings.alpha], class_weight=settings.class_weights, scoring="accuracy", store_cv_results=True
    ).fit(features, train.labels)
    left_out = model.cv_results_[:, :, 0]
    if num_classes == 2:
        left_out = np.concatenate([-left_out, left_out], axis=1) / 2
    scale = _calibrated_scale(left_out, train.labels)
    weight, bias = _one_row_per_class(model.coef_, model.intercept_, num_classes)
    return scale * weight, scale * bias, True


def _prototypes(features: Floats, train: Rows, _: HeadSettings, num_classes: int) -> tuple[Floats, Floats, bool]:
    """Use the directions of the classes' means of normalised features as weights: nearest class mean by cosine.

    The features themselves are not normalised, so that the head is linear: with the scaling `norm` their norm is 1 on
    average, and a row's norm changes its confidence, not its class. The scale of the weights comes from the training
    rows, each against its class's mean without it; with one row a class it is CLIP's first scale.

    Source:
        Snell et al. 2017 (prototypical networks), with cosine as in Chen et al. 2019 (a closer look at few-shot).
    """
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    directions = features / np.where(norms > 0, norms, 1.0)
    sums = np.zeros((num_classes, features.shape[1]))
    np.add.at(sums, train.labels, directions)
    prototypes = _unit(sums)
    scores = features @ prototypes.T
    others = sums[train.labels] - directions
    has_others = train.class_sizes(num_classes)[train.labels] > 1
    own = (features * _unit(others)).sum(axis=1)
    scores[np.arange(len(train)), train.labels] = own
    scale = _calibrated_scale(scores[has_others], train.labels[has_others])
    return scale * prototypes, np.zeros(num_classes), True


def _unit(rows: Floats) -> Floats:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Floats = rows / np.where(norms > 0, norms, 1.0)
    return unit


def _one_row_per_class(weight: Floats, bias: Floats, num_classes: int) -> tuple[Floats, Floats]:
    """Write the single score z of two classes as the scores -z/2 and z/2: their softmax is the sigmoid of z."""
    if num_classes > 2:
        return weight, bias
    row, value = np.reshape(weight, (1, -1)), np.reshape(bias, 1)
    return np.concatenate([-row, row]) / 2, np.concatenate([-value, value]) / 2


def _calibrated_scale(scores: Floats, labels: npt.NDArray[np.int64]) -> float:
    """Return by what out-of-sample scores are multiplied so that their softmax has the lowest cross-entropy.

    In 1 ... 100: scores without a mistake would make it infinite.

    Shapes:
        scores: (N, K).
        labels: (N,).

    Source:
        Guo et al. 2017, temperature scaling.
    """
    if len(labels) == 0:
        return DEFAULT_SCALE

    def loss(log_scale: float) -> float:
        return float(-log_softmax(np.exp(log_scale) * scores, axis=1)[np.arange(len(labels)), labels].mean())

    found = minimize_scalar(
        loss, bounds=(np.log(MIN_SCALE), np.log(MAX_SCALE)), method="bounded", options={"xatol": 1e-3}
    )
    return float(np.exp(found.x))
