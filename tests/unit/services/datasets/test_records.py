"""What the images of a dataset cost on average: rows of all their steps, and rows of a step that runs the model."""

from typing import Any

import pytest

from app.services.datasets.records import mean_row_steps, mean_rows_at_once

DDIM: dict[str, Any] = {
    "guidance_scale": 7.5,
    "num_inference_steps": 20,
    "scheduler": "ddim",
    "width": 64,
    "height": 64,
}


@pytest.mark.parametrize(
    ("changes", "row_steps", "at_once"),
    [
        ({}, 40.0, 2.0),
        ({"guidance_scale": 1.0}, 20.0, 1.0),
        ({"guidance_interval": [0.0, 0.5]}, 30.0, 1.5),
        ({"speed": "balanced"}, 22.0, 2.0),
        ({"guidance_scale": {"min": 0.7, "max": 1.2}}, 40 / 3 * 1 + 20 * 2 / 3, 4 / 3),
    ],
)
def test_steps_without_guidance_have_one_row_and_forecast_ones_none(
    changes: dict[str, Any], row_steps: float, at_once: float
) -> None:
    generation = {**DDIM, **changes}
    assert mean_row_steps(generation, 0.0) == pytest.approx(row_steps)
    assert mean_rows_at_once(generation, 0.0) == pytest.approx(at_once)
