"""The metrics of a probe against a case computed by hand."""

import numpy as np
import pytest

from app.training.evaluation import ClassMetrics, evaluate
from app.training.linear_probe import LinearProbe

# Its features are one-hot: row i is predicted as the class that it points at.
PROBE = LinearProbe(np.eye(4, dtype=np.float32), np.zeros(4, np.float32))


def one_hot(predicted: list[int]) -> np.ndarray:
    return np.eye(4, dtype=np.float32)[predicted]


def test_figures_equal_those_worked_out_by_hand() -> None:
    true = np.array([0, 0, 0, 0, 1, 1, 2])
    predicted = [0, 0, 0, 1, 1, 2, 0]
    result = evaluate(PROBE, one_hot(predicted), true, 4)

    assert result.confusion_matrix == [[3, 1, 0, 0], [0, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert result.accuracy == pytest.approx(4 / 7)
    assert result.per_class == (
        ClassMetrics(precision=0.75, recall=0.75, f1=0.75, support=4),
        ClassMetrics(precision=0.5, recall=0.5, f1=0.5, support=2),
        ClassMetrics(precision=0.0, recall=0.0, f1=0.0, support=1),
        ClassMetrics(precision=0.0, recall=0.0, f1=0.0, support=0),
    )
    assert result.macro_f1 == pytest.approx((0.75 + 0.5) / 4)


def test_precision_and_recall_are_not_confused() -> None:
    result = evaluate(PROBE, one_hot([0, 0, 0, 1]), np.array([0, 0, 1, 1]), 4)
    assert result.per_class[0].precision == pytest.approx(2 / 3)
    assert result.per_class[0].recall == 1.0
    assert result.per_class[1].precision == 1.0
    assert result.per_class[1].recall == 0.5
    assert result.per_class[1].f1 == pytest.approx(2 / 3)


@pytest.mark.parametrize(("num_rows", "num_labels", "num_classes"), [(2, 3, 4), (0, 0, 4), (2, 2, 3)])
def test_arrays_of_different_sizes_are_rejected(num_rows: int, num_labels: int, num_classes: int) -> None:
    with pytest.raises(ValueError, match="fit together"):
        evaluate(PROBE, np.zeros((num_rows, 4), np.float32), np.zeros(num_labels, np.int64), num_classes)
