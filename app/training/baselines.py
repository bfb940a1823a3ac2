"""Classifiers that need no training, for a trained one to be compared with on the same images.

Works on arrays; imports no models and no storage. Runs in the worker, on the thread of its caller.
"""

import numpy as np

from app.training.intervals import Floats
from app.training.predictions import Integers, Ints

Features = np.ndarray[tuple[int, int], np.dtype[np.floating]]
# Rows at a time: distances of 4,096 images to 1,000 classes take 32 MB.
_BLOCK = 4096


def majority_class(train_labels: Integers, num_classes: int) -> int:
    """Return the most frequent class of the training images, the first of equals.

    Raises:
        ValueError: There is no training image.
    """
    if len(train_labels) == 0:
        raise ValueError("There is no training image.")
    return int(np.bincount(train_labels, minlength=num_classes).argmax())


def nearest_centroid(
    train_features: Features, train_labels: Integers, test_features: Features, num_classes: int
) -> Ints:
    """Return, for each test image, the class whose mean training feature is nearest.

    Features are scaled to length 1 first; the distance is Euclidean. A class without training images is never
    returned. No setting is fitted, so whatever a trained head gains over this it gains by training.

    Shapes:
        train_features: (M, D), M >= 1; test_features: (N, D).
        train_labels: (M,), in 0 .. `num_classes` - 1.

    Returns:
        (N,), int64.

    Raises:
        ValueError: There is no training image, or a feature is not finite.

    Source: Wang et al., "SimpleShot", arXiv 1911.04623 ("L2N"); as `sklearn.neighbors.NearestCentroid`.
    """
    if len(train_features) == 0:
        raise ValueError("There is no training image.")
    if not (np.isfinite(train_features).all() and np.isfinite(test_features).all()):
        raise ValueError("A feature is not finite.")
    counts = np.bincount(train_labels, minlength=num_classes)
    sums = np.zeros((num_classes, train_features.shape[1]))
    for start in range(0, len(train_features), _BLOCK):
        np.add.at(sums, train_labels[start : start + _BLOCK], _unit(train_features[start : start + _BLOCK]))
    centroids = sums / np.maximum(counts, 1)[:, None]
    lengths = np.where(counts > 0, (centroids**2).sum(axis=1), np.inf)
    nearest = [
        (lengths - 2 * _unit(test_features[start : start + _BLOCK]) @ centroids.T).argmin(axis=1)
        for start in range(0, len(test_features), _BLOCK)
    ]
    return np.concatenate(nearest) if nearest else np.zeros(0, np.int64)


def _unit(features: Features) -> Floats:
    wide: Floats = features.astype(np.float64)
    lengths: Floats = np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    return wide / lengths
