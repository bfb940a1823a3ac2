"""Out-of-sample class probabilities of every row, by cross-validation on kept features.

Works on arrays. Runs in the worker, on the CPU, on the thread of its caller.
"""

import numpy as np
import numpy.typing as npt

from app.training.heads import fit_head
from app.training.probe import Features, Labels, Probabilities, predict
from app.training.rows import Rows
from app.training.settings import HeadSettings

# A weak penalty: the row of a class of one must be fitted, so that it is never suspected.
LOGISTIC_REGRESSION = HeadSettings(solver="lbfgs", c=30.0)


def cross_validated_probabilities(
    features: Features,
    labels: Labels,
    num_classes: int,
    seed: int,
    *,
    settings: HeadSettings = LOGISTIC_REGRESSION,
    num_folds: int = 5,
) -> Probabilities:
    """Predict each row by a head that was trained on the other folds.

    The folds are stratified. A class of n < `num_folds` rows is in n of them. A class of one row is always trained on,
    so its row's prediction is not out of sample: it cannot be suspected of a wrong label. A class without rows has
    probability 0.

    Args:
        features: One row an image: views of one image in two folds would be no out-of-sample prediction.
        labels: In 0 .. K - 1; at least two classes occur.
        num_classes: K.
        seed: Determines the folds.
        settings: Of a solver that chooses nothing on validation rows; `ridge` for many rows and classes.
        num_folds: >= 2.

    Shapes:
        features: (N, D), float32.
        labels: (N,), int64.
        returns: (N, K), float32; rows sum to 1.

    Raises:
        ValueError: The arrays are invalid, one class occurs alone, or there are fewer than two folds.
    """
    if num_folds < 2:
        raise ValueError("Cross-validation needs at least two folds.")
    rows = Rows(features, labels).checked(num_classes)
    present, own = np.unique(rows.labels, return_inverse=True)
    folds = _folds(own, seed, num_folds)
    probabilities = np.zeros((len(rows), num_classes), np.float32)
    for fold in np.unique(folds):
        held_out = folds == fold
        trained = ~held_out if fold >= 0 else np.ones_like(held_out)
        train = Rows(rows.features[trained], own[trained].astype(np.int64))
        probe = fit_head(train, None, settings, num_classes=len(present), seed=seed).probe
        probabilities[np.ix_(held_out, present)] = predict(probe, rows.features[held_out])
    return probabilities


def _folds(labels: npt.NDArray[np.intp], seed: int, num_folds: int) -> npt.NDArray[np.int64]:
    """Return each row's fold, -1 for the row of a class that has no other; sizes differ by one at most, per class."""
    random = np.random.default_rng(seed)
    folds = np.full(len(labels), -1, np.int64)
    start = 0
    for label in range(labels.max() + 1):
        rows = random.permutation(np.flatnonzero(labels == label))
        if len(rows) > 1:
            folds[rows] = (start + np.arange(len(rows))) % num_folds
            start += len(rows)
    return folds
