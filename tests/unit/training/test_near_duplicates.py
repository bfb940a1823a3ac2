"""Nearly equal images with different labels."""

import numpy as np

from app.training.near_duplicates import MAX_EXAMINED, num_pairs_across_labels


def random_rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 64)).astype(np.float32) + 5


def test_copies_under_another_label_are_counted_once_each() -> None:
    rows = random_rows(600)
    labels = np.arange(600) % 2
    assert num_pairs_across_labels(rows, labels) == 0
    rows[[7, 590]] = rows[[100, 101]] + 0.001  # 100 and 101 are in both classes
    assert num_pairs_across_labels(rows, labels) == 2
    rows[9] = rows[7]  # the same label as 7, another one than 100
    assert num_pairs_across_labels(rows, labels) == 3


def test_what_cannot_be_examined_has_no_pairs() -> None:
    assert num_pairs_across_labels(random_rows(1), np.zeros(1, np.int64)) == 0
    assert num_pairs_across_labels(np.ones((4, 8), np.float32), np.arange(4)) == 0
    many = np.zeros((MAX_EXAMINED + 1, 1), np.float32)
    assert num_pairs_across_labels(many, np.arange(len(many))) == 0
