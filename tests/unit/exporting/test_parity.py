import numpy as np
import pytest

from app.exporting.errors import ParityFailed
from app.exporting.parity import compare, draw_pictures

SETTINGS = {"crop": 24, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}


def rows(*values: list[float]) -> np.ndarray:
    return np.array(values, np.float32)


def test_rounding_passes() -> None:
    parity = compare(rows([0.7, 0.3], [0.2, 0.8]), rows([0.70001, 0.29999], [0.2, 0.8]))
    assert parity.num_pictures == 2
    assert parity.max_difference == pytest.approx(1e-5, rel=0.1)


def test_a_difference_is_refused_with_its_size() -> None:
    with pytest.raises(ParityFailed) as failed:
        compare(rows([0.7, 0.3]), rows([0.4, 0.6]))
    assert failed.value.max_difference == pytest.approx(0.3)
    assert failed.value.num_other_classes == 1
    assert "0.3" in failed.value.detail


def test_a_confident_head_hides_no_difference() -> None:
    """Both rows are 1.000 to 0.000, but their logits differ by 0.7."""
    with pytest.raises(ParityFailed):
        compare(rows([0.9999, 0.0001]), rows([0.9998, 0.0002]))


def test_a_tie_may_fall_either_way() -> None:
    assert compare(rows([0.50001, 0.49999]), rows([0.49999, 0.50001])).num_other_classes == 0


@pytest.mark.parametrize("actual", [rows([float("nan"), 0.5]), rows([0.5, 0.25, 0.25])])
def test_numbers_that_are_none_and_other_shapes_are_refused(actual: np.ndarray) -> None:
    with pytest.raises(ParityFailed):
        compare(actual, rows([0.5, 0.5]))


def test_drawn_pictures_are_equal_each_time_and_different_from_each_other() -> None:
    pictures = draw_pictures(4, SETTINGS)
    assert pictures.shape == (4, 3, 24, 24)
    assert pictures.dtype == np.float32
    assert np.abs(pictures).max() <= 1
    np.testing.assert_array_equal(pictures, draw_pictures(4, SETTINGS))
    assert np.abs(pictures[0] - pictures[1]).mean() > 0.1
